"""Measured vLLM servers, request by request: ``vllm_runs/<name>/`` replayed.

A run is a folder with ``meta.json`` (model, version, engine arguments), ``workload.jsonl`` (what was sent),
``requests.jsonl`` (what came back, on the engine's clock), ``timeseries.csv`` (tokens of every second) and, where
there is one, ``peer_summary.txt`` (what LLMServingSim 2.0 predicted). The folder's name begins with the accelerator.

TTFT and E2E count from ``queued_ts`` on both sides: when the engine took the request into its queue. Nothing is fitted
to these runs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hardware_profiles import Accelerator
from simulator.engines import load_engine
from simulator.errors import InputError
from simulator.models import ModelSpec
from simulator.models.dtypes import canonical_dtype
from simulator.result import RunResult
from simulator.runner import run
from simulator.validation.cases import Case
from simulator.validation.kernel_tables import collectives_of, system_of, table_of
from simulator.validation.rows import Floats, Row, compared, cost_text, latencies, latencies_of, latency_rows
from simulator.validation.subjects import accelerator_for, engine_for, model_for, same_shapes

DATASET = "vllm_runs"

CALIBRATED_ON = {"vllm@0.19": "rtxpro6000_llama-3.1-8b"}
"""The one run, by engine, on which its host overhead a step was estimated (`simulator.engines.vllm_0_19`): labelled,
and no proof of anything; the same constant must hold on every other run."""

_STAMPS = ("queued_ts", "first_token_ts", "last_token_ts", "output_toks")
_PEER_METRICS = {"TTFT": "ttft", "TPOT": "tpot", "Latency": "e2e"}
_PEER_STATISTICS = {"Mean": "mean", "Median": "p50", "P90": "p90", "P95": "p95", "P99": "p99"}
_NO_OP = ("model", "seed")
"""Engine arguments that say nothing of how long steps take; sampling is by lengths that are known."""


def cases(data: Path, kernel_tables: Path | None = None) -> list[Case]:
    """Return a case for every run below ``data/vllm_runs``; layer profiles are looked for beside it.

    Parameters
    ----------
    kernel_tables
        Folder with ``<system>_vllm.parquet``, for runs without a layer profile; left out: the installed package's.
    """
    folders = sorted(path.parent for path in (data / DATASET).glob("*/meta.json"))
    return [
        Case(DATASET, folder.name, partial(compare, folder, data / "layer_profiles", kernel_tables), _size(folder))
        for folder in folders
    ]


def _size(folder: Path) -> float:
    path = folder / "requests.jsonl"
    return float(path.stat().st_size) if path.is_file() else 0.0


def compare(folder: Path, layer_profiles: Path, kernel_tables: Path | None = None) -> list[Row]:
    """Replay one run, and return its rows.

    Raises
    ------
    InputError
        If a file is missing or malformed, or the run asks for what the simulator can't do.
    """
    meta = read_json(folder / "meta.json")
    setup = set_up(folder, meta, layer_profiles, kernel_tables)
    measured = _requests(folder / "requests.jsonl")
    result, refused = _run(setup)
    queued, first, last, lengths = (measured[name].to_numpy(dtype=np.float64) for name in _STAMPS)
    requests = result.requests
    said = [*refused, *setup.notes, *_counts(measured, requests)]
    costs = cost_text([*_cost_lines(result), _as_run(result, meta), *said])
    rows = latency_rows(
        DATASET,
        folder.name,
        latencies_of(queued, first, last, lengths),
        latencies(requests, "queued_s"),
        costs,
        _peer_errors(folder / "peer_summary.txt"),
    )
    done = requests[requests["outcome"] == "finished"]
    spans = float(last.max() - queued.min()), float(done["last_token_s"].max() - done["arrival_s"].min())
    rows.append(compared(DATASET, folder.name, "duration_s", *spans, costs))
    if (folder / "timeseries.csv").is_file():
        rows += _throughput(folder, result, costs)
    return rows


# ------------------------------------------------------------------------------------------------------- set-up


@dataclass(frozen=True)
class Setup:
    """A run as scenarios.

    Attributes
    ----------
    scenario
        Plain data, with the default costs.
    measurements
        What costs can be made of, the best first: the layer profile of the same machine, model and datatype, with the
        machine's collectives where there are several ranks; without a profile the machine's kernel tables.
    notes
        What differs from the run.
    """

    scenario: Mapping[str, Any]
    measurements: Sequence[Sequence[str]]
    notes: Sequence[str]


def set_up(folder: Path, meta: Mapping[str, Any], layer_profiles: Path, kernel_tables: Path | None = None) -> Setup:
    """Return the scenario that a run's ``meta.json`` describes.

    Raises
    ------
    InputError
        If it names an accelerator or model that there is not, or a layout that can't be simulated.
    """
    where = folder / "meta.json"
    given = meta.get("engine_kwargs")
    if not isinstance(given, Mapping):
        raise InputError(f"{where}: needs the key 'engine_kwargs', a mapping of vLLM's engine arguments")
    model = model_for(_text(meta.get("model") or given.get("model"), where, "model"))
    accelerator = accelerator_for(folder.name)
    version = meta.get("vllm_version")
    engine, said = engine_for("vllm", None if version is None else str(version))
    args, dtypes, notes = _translated(given, engine, model)
    engines = _engines(given)
    replicas = 1 if model.is_moe else engines
    if model.is_moe and engines > 1:
        args["data-parallel-size"] = engines
    if replicas > 1:
        notes.append(
            f"{replicas} data-parallel engines as replicas behind the router least-outstanding (an assumption)"
        )
    pool = {
        "accelerator": accelerator.name,
        "replicas": replicas,
        "engine": {"name": engine, "args": args},
        "dtypes": dtypes,
    }
    scenario = {
        "workload": {"trace": str(folder / "workload.jsonl")},
        "model": model.name,
        "cluster": {"pools": [pool]},
        "measure": {"sample_interval_s": float(meta.get("tick_seconds") or 1.0)},
        **({"router": "least-outstanding"} if replicas > 1 else {}),
    }
    dtype = dtypes.get("activations") or model.base_dtype
    profile = profile_for(layer_profiles, accelerator, model, dtype)
    if profile is None:
        notes.append("no layer profile of this machine, model and datatype")
    if engine in CALIBRATED_ON:
        notes.append(f"host overhead of {engine} calibrated on {CALIBRATED_ON[engine]}")
    ranks = int(given.get("tensor_parallel_size") or 1) * (engines if model.is_moe else 1)
    made_of = _measurements(profile, kernel_tables, accelerator, None if version is None else str(version), ranks)
    return Setup(scenario, made_of, (said, *notes))


def _translated(
    given: Mapping[str, Any], engine: str, model: ModelSpec
) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    """Return engine flags, datatypes, and notes on what is left out, for a run's engine arguments."""
    preset = load_engine(engine)
    args: dict[str, Any] = {}
    dtypes: dict[str, str] = {}
    ignored = []
    for name, value in given.items():
        if value is None or name in _NO_OP or name == "data_parallel_size":
            continue
        if name == "dtype":
            dtype = model.base_dtype if value == "auto" else canonical_dtype(str(value), "dtype")
            if dtype != model.base_dtype:
                dtypes["activations"] = dtype
            continue
        flag = preset.find(f"--{name}")
        if flag is None:
            if value is not False and not (name.endswith("_size") and value == 1):
                ignored.append(f"{name}={value}")
            continue
        try:
            flag.parse(value)
        except InputError:
            ignored.append(f"{name}={value}")
            continue
        args[name.replace("_", "-")] = value
    return args, dtypes, [f"ignored: {', '.join(ignored)}"] if ignored else []


def _engines(given: Mapping[str, Any]) -> int:
    """Return how many data-parallel engines share the requests: without routed experts they have no more in common."""
    count = given.get("data_parallel_size") or 1
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise InputError(f"meta.json: data_parallel_size must be a whole number of at least 1, got {count!r}")
    return count


def profile_for(root: Path, accelerator: Accelerator, model: ModelSpec, dtype: str) -> Path | None:
    """Return the layer profile ``<gpu>/<model>/<dtype>`` of an accelerator and model, or of a model with its shapes."""
    alike = None
    for meta in sorted(root.glob("*/**/meta.yaml")):
        gpu, *name, kind = meta.parent.relative_to(root).parts
        try:
            fits = accelerator_for(gpu).name == accelerator.name and canonical_dtype(kind, str(meta)) == dtype
            other = model_for("/".join(name))
        except ValueError:
            continue  # of a machine or model that the catalogue lacks
        if fits and other.name == model.name:
            return meta.parent
        if fits and same_shapes(other, model):
            alike = meta.parent
    return alike


def _measurements(
    profile: Path | None, folder: Path | None, accelerator: Accelerator, version: str | None, ranks: int
) -> list[list[str]]:
    """Return what costs can be made of, the best first (see `Setup`)."""
    system = system_of(accelerator, "vllm", folder)
    if profile is None:
        table = None if system is None else table_of(system, "vllm", folder)
        return [] if table is None else [[table]]
    collectives = None if system is None or ranks == 1 else collectives_of(system, "vllm", version)
    return [[str(profile), collectives], [str(profile)]] if collectives else [[str(profile)]]


def _run(setup: Setup) -> tuple[RunResult, list[str]]:
    """Run with the best measured costs that can be had, else with the default ones, saying why."""
    refused: list[str] = []
    for names in setup.measurements:
        pool = {**setup.scenario["cluster"]["pools"][0], "cost": {"kind": "measured", "profile": list(names)}}
        try:
            return run({**setup.scenario, "cluster": {"pools": [pool]}}), refused
        except InputError as error:
            refused.append(f"measured costs refused: {error}")
    return run(setup.scenario), refused


# --------------------------------------------------------------------------------------------------------- notes


def _cost_lines(result: RunResult) -> list[str]:
    return list(dict.fromkeys(line for pool in result.data.pools for line in pool.cost_sources))


def _as_run(result: RunResult, meta: Mapping[str, Any]) -> str:
    """Say how asynchronous scheduling, CUDA graphs and prefix caching were set."""
    engine = result.scenario["cluster"]["pools"][0]["engine"]
    given = meta["engine_kwargs"]
    eager = given.get("enforce_eager")
    sizes = engine.get("cuda_graph_sizes") or ()
    graphs = f"{len(sizes)} sizes up to {max(sizes)}, {engine.get('cuda_graph_steps')} steps" if sizes else "none"
    return (
        f"as run: async scheduling {_switch(engine.get('async_scheduling'))}"
        f" ({'given' if given.get('async_scheduling') is not None else 'by default'}),"
        f" prefix caching {_switch(engine.get('prefix_caching'))}"
        f" ({'given' if given.get('enable_prefix_caching') is not None else 'by default'}),"
        f" CUDA graphs {'off (enforce_eager)' if eager else 'on by default'} on the server,"
        f" {graphs} in the simulation"
    )


def _switch(value: Any) -> str:
    return "on" if value else "off"


def _counts(measured: pd.DataFrame, requests: pd.DataFrame) -> list[str]:
    notes = []
    if lost := int(measured.attrs["incomplete"]):
        notes.append(f"{lost} measured requests without all their times left out")
    if unfinished := int((requests["outcome"] != "finished").sum()):
        notes.append(f"{unfinished} simulated requests did not finish and are left out")
    if len(measured) != len(requests):
        notes.append(f"{len(measured)} requests measured, {len(requests)} simulated")
    elif measured["output_toks"].sum() != requests["output_tokens"].sum():
        notes.append("output lengths of requests.jsonl and workload.jsonl differ")
    return notes


# ---------------------------------------------------------------------------------------------------- throughput


def _throughput(folder: Path, result: RunResult, costs: str) -> list[Row]:
    """Return rows on output tokens of each second: their mean over the longer of both runs, and their distance.

    Second 0 of both is the zero of ``workload.jsonl``. The KV column of the measured series is not used: on RTX PRO
    6000 it is always 0.
    """
    path = folder / "timeseries.csv"
    try:
        series = pd.read_csv(path)
        seconds, rates = (series[name].to_numpy(dtype=np.float64) for name in ("t", "gen_throughput"))
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: needs the columns t and gen_throughput, numbers ({error})") from None
    if len(seconds) < 2:
        return []
    tick = float(np.median(np.diff(seconds)))
    simulated = output_rate(result, tick)
    bins = max(len(rates), len(simulated))
    pair = np.zeros((2, bins))
    pair[0, : len(rates)], pair[1, : len(simulated)] = rates, simulated
    means = float(pair[0].mean()), float(pair[1].mean())
    # What counts over the whole run is when tokens came, so the totals (equal by construction) say nothing.
    distance = float(np.abs(pair[1] - pair[0]).mean())
    return [
        compared(DATASET, folder.name, "output_tokens_per_s_peak", float(rates.max()), float(simulated.max()), costs),
        Row(
            DATASET,
            folder.name,
            "output_tokens_per_s_mae",
            means[0],
            means[1],
            distance / means[0] if means[0] else None,
            None,
            costs,
        ),
    ]


def output_rate(result: RunResult, tick_s: float) -> Floats:
    """Return output tokens a second in bins of ``tick_s`` from time 0: first tokens and those of decodes.

    What came after the last sample of the run is put in the bin of the last token.
    """
    series, requests = result.timeseries, result.requests
    sampled = np.rint(series["t_s"].to_numpy(dtype=np.float64) / tick_s).astype(np.int64)
    first = requests["first_token_s"].dropna().to_numpy(dtype=np.float64)
    end_s = float(requests["last_token_s"].max()) if len(first) else 0.0
    tokens = np.zeros(max(int(end_s // tick_s) + 1, int(sampled.max(initial=1))))
    np.add.at(tokens, np.maximum(sampled, 1) - 1, series["decode_tokens_per_s"].fillna(0.0).to_numpy() * tick_s)
    np.add.at(tokens, (first // tick_s).astype(np.int64), 1.0)
    tokens[int(end_s // tick_s)] += max(0.0, float(requests["output_tokens"].sum()) - float(tokens.sum()))
    return np.asarray(tokens / tick_s, dtype=np.float64)


# --------------------------------------------------------------------------------------------------------- files


def read_json(path: Path) -> dict[str, Any]:
    """Return the mapping in a JSON file.

    Raises
    ------
    InputError
        If it can't be read, or holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: can't be read ({error})") from None
    except ValueError as error:
        raise InputError(f"{path}: not a JSON file ({error})") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: must hold a mapping, got {type(found).__name__}")
    return found


def _requests(path: Path) -> pd.DataFrame:
    """Return the measured requests that have all their times; ``attrs['incomplete']`` counts the others."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: can't be read ({error})") from None
    records = [_stamps(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]
    try:
        table = pd.DataFrame(records, columns=list(_STAMPS)).astype("float64")
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: {', '.join(_STAMPS)} must be numbers ({error})") from None
    whole = table.dropna()
    if not len(whole):
        raise InputError(f"{path}: no request has all of {', '.join(_STAMPS)}")
    whole.attrs["incomplete"] = len(table) - len(whole)
    return whole


def _stamps(line: str, where: str) -> list[Any]:
    try:
        record = json.loads(line)
        return [record[name] for name in _STAMPS]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{where}: needs the keys {', '.join(_STAMPS)} ({error})") from None


def _peer_errors(path: Path) -> dict[str, float]:
    """Return the peer's signed errors by metric, from its predictions and measured times (milliseconds)."""
    if not path.is_file():
        return {}
    found = {}
    pattern = re.compile(r"^(TTFT|TPOT|Latency)\s+(Mean|Median|P90|P95|P99)\s+([\d.]+)\s+([\d.]+)\s")
    for line in path.read_text(encoding="utf-8").splitlines():
        if (match := pattern.match(line)) and float(match[3]) > 0:
            metric = f"{_PEER_METRICS[match[1]]}_{_PEER_STATISTICS[match[2]]}"
            found[metric] = float(match[4]) / float(match[3]) - 1.0
    return found


def _text(value: Any, where: Path, key: str) -> str:
    if not isinstance(value, str) or not value:
        raise InputError(f"{where}: needs the key {key!r}, a text; got {value!r}")
    return value

"""Measured serving points: TTFT and TPOT at a fixed concurrency, ``silicon/serving_measurements.csv``.

What the load generator did is not recorded but for the concurrency and the lengths; `Assumptions` is what is taken in
its place. Each backend runs with its own defaults. What can't be judged is a row that says why: layouts that contradict
their id or that no server can have, and disaggregated points of machines that are not set up
(`simulator.validation.silicon_disagg`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
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
from simulator.parallel import ParallelPlan
from simulator.result import RunResult
from simulator.rng import stream
from simulator.runner import run
from simulator.validation.cases import Case
from simulator.validation.inferencemax import LENGTHS, Server, most_tokens, server_of, speculative
from simulator.validation.kernel_tables import table_of
from simulator.validation.rows import Row, compared, cost_text, latencies, not_judged, not_run
from simulator.validation.silicon_disagg import (
    PHASES,
    Workers,
    backend_of,
    disaggregated,
    is_disaggregated,
    left_out_disagg,
    workers_of,
)
from simulator.validation.subjects import accelerator_for, engine_for, model_for
from workloads import Trace

DATASET = "silicon"
FILE = Path(DATASET) / "serving_measurements.csv"

_COLUMNS = ("id", "silicon_data_source", "backend", "model_path", "system", "mode", "isl", "osl")
_NUMBERS = ("isl", "osl", "silicon_ttft_ms", "silicon_tpot_ms")
_LAYOUT = ("tp_size", "pp_size", "attention_dp_size", "moe_tp_size", "moe_ep_size")
_BACKENDS = ("vllm", "sglang", "trtllm")

_SCALE_UP_GPUS = {"gb200": 72, "gb300": 72}
"""GPUs that NVLink joins, by system (NVIDIA GB200 and GB300 NVL72); the others are servers of 8 (HGX, DGX)."""
_SERVER_GPUS = 8

_WEIGHTS = {
    "fp8": "fp8",
    "fp8_block": "fp8_block",
    "nvfp4": "fp4",
    "mxfp4": "fp4",
    "int8_wo": "int8",
    "int4_wo": "int4",
}
"""Format of the weights by the file's ``gemm_quant_mode``; without one they are as published."""

_IN_BLOCKS = re.compile(r"Qwen/.*-FP8")
"""Checkpoints in blocks of fp8 whatever the mode says: Qwen publishes them so (``weight_block_size`` [128, 128])."""

_INFERENCEMAX_BALANCE = {"timeout_steps": 60, "batching_wait_steps": 0}
"""``attention_dp_config`` of InferenceMAX's trtllm-serve with attention data parallelism: ``enable_balance: true``,
``timeout_iters: 60``, ``batching_wait_iters: 0`` (benchmarks/dsr1_fp8_*_trt.sh)."""


@dataclass(frozen=True)
class Assumptions:
    """What the load generator and the servers of the serving points are taken to have done; none of it is recorded.

    Attributes
    ----------
    requests_per_client
        Requests sent, over the concurrency.
    stagger_s
        Client i starts at i times this many seconds; 0: all at once.
    shortest
        Lengths are uniform between this share of the recorded ones and those; 1: fixed.
    answers_within
        Answers are uniform within this share around the recorded length; 0: that long. Clients with answers of one
        length that start together stay together for ever, which no server's clients do.
    fitting_batches
        Servers were started for their load: TensorRT-LLM with a ``max_num_tokens`` that a prompt fits into beside
        everybody's decode, and all as public scripts start them, where those are known
        (`simulator.validation.inferencemax`). Else with their defaults; TensorRT-LLM's are 8192 tokens, into which a
        prompt of 8192 fits only while nobody decodes.
    """

    requests_per_client: int = 10
    stagger_s: float = 0.0
    shortest: float = 1.0
    answers_within: float = 0.0
    fitting_batches: bool = False

    def __post_init__(self) -> None:
        if self.requests_per_client < 1:
            raise InputError(f"requests_per_client must be at least 1, got {self.requests_per_client}")
        if not 0 <= self.stagger_s < math.inf:
            raise InputError(f"stagger_s must be at least 0, got {self.stagger_s}")
        if not 0 < self.shortest <= 1:
            raise InputError(f"shortest must be above 0 and at most 1, got {self.shortest}")
        if not 0 <= self.answers_within < 1:
            raise InputError(f"answers_within must be at least 0 and below 1, got {self.answers_within}")

    @property
    def text(self) -> str:
        """What is assumed, in a line."""
        start = "all clients start at 0" if not self.stagger_s else f"client i starts at i x {self.stagger_s:g} s"
        lengths = "fixed lengths" if self.shortest == 1 else f"lengths uniform from {self.shortest:g} of those recorded"
        if self.answers_within:
            lengths += f", answers within {self.answers_within:.0%} of theirs"
        limits = "servers started for their load" if self.fitting_batches else "servers' default limits"
        return (
            f"assumed: closed loop, {self.requests_per_client} requests a client, {lengths}, {start}, no shared "
            f"prefixes, {limits}"
        )


FIXED = Assumptions()

INFERENCEMAX = Assumptions(shortest=0.8, fitting_batches=True)
"""What the scripts of InferenceMAX do, whose lengths and concurrencies most of the points have: ``RANDOM_RANGE_RATIO``
0.8, ``--num-prompts`` 10 x the concurrency, ``--request-rate inf`` (its README, benchmark client configuration), and
``MAX_NUM_TOKENS=$(( ($CONC+$ISL+64+63)/64*64 ))``, at least 8192, for trtllm-serve (benchmarks/dsr1_fp8_b200_trt.sh).
"""

AS_RECORDED = Assumptions(fitting_batches=True)
"""What is taken of the other points, whose load generator nobody named: lengths as recorded, and servers that were
started so that they can serve them."""

STEADY = Assumptions(answers_within=0.1, fitting_batches=True)
"""The same, with clients that fall out of step."""

ASSUMPTIONS: Mapping[str, Assumptions | None] = {
    "published": None,
    "fixed": FIXED,
    "inferencemax": INFERENCEMAX,
    "steady": STEADY,
}
"""By the name that the command line takes; ``published``: InferenceMAX's for points of its lengths, else
`AS_RECORDED`."""

_LENGTHS = "validation.lengths"


@dataclass(frozen=True)
class Layout:
    """How a point's server was split: ``attention_dp`` ranks of ``tp`` GPUs, whose experts are over all of them."""

    tp: int
    pp: int
    attention_dp: int
    moe_tp: int
    moe_ep: int


def cases(data: Path, kernel_tables: Path | None, assumptions: Assumptions | None = None) -> list[Case]:
    """Return a case for every row of ``silicon/serving_measurements.csv``; none without that file."""
    path = data / FILE
    if not path.is_file():
        return []
    found = []
    for point in read_points(path):
        clients = concurrency(point) or 1
        size = clients * (float(point["osl"]) + float(point["isl"]) / 64)
        work = partial(compare, point, kernel_tables, assumptions)
        table = (costs_for(point, kernel_tables) or {}).get("profile", "") if left_out(point) is None else ""
        found.append(Case(DATASET, case_name(point), work, size, table))
    return found


def read_points(path: Path) -> list[dict[str, Any]]:
    """Return the rows of the file, an empty field as None.

    Raises
    ------
    InputError
        If it lacks columns, or a number is none.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: can't be read as CSV ({error})") from None
    missing = [name for name in (*_COLUMNS, *_NUMBERS, *_LAYOUT) if name not in table]
    if missing:
        raise InputError(f"{path}: lacks the columns {', '.join(missing)}")
    points = []
    for line, texts in enumerate(table.to_dict("records"), 2):
        point: dict[str, Any] = {str(name): text or None for name, text in texts.items()}
        for name in (*_NUMBERS, *_LAYOUT):
            point[name] = _number(point[name], name, f"{path}, line {line}")
        points.append(point)
    return points


def case_name(point: Mapping[str, Any]) -> str:
    """Return ``system/backend/model/id``; the first three are the group that a point is judged in."""
    return f"{point['system']}/{backend_of(point)}/{str(point['model_path']).rsplit('/', 1)[-1]}/{point['id']}"


def concurrency(point: Mapping[str, Any]) -> int | None:
    """Return the requests in flight; ``batch_size`` is not it, but that of one attention rank."""
    match = re.search(r"silicon_concurrency=(\d+)", str(point["silicon_data_source"]))
    return int(match[1]) if match else None


# ------------------------------------------------------------------------------------------------------- a point


def load_of(point: Mapping[str, Any]) -> Assumptions:
    """Return what is assumed of a point: what InferenceMAX's scripts do where its lengths are theirs."""
    lengths = {int(point["isl"]), int(point["osl"])}
    return INFERENCEMAX if lengths <= set(LENGTHS) else AS_RECORDED


def compare(point: Mapping[str, Any], kernel_tables: Path | None, assumptions: Assumptions | None = None) -> list[Row]:
    """Simulate one serving point, and return its rows.

    Parameters
    ----------
    kernel_tables
        Folder of tables that go before the installed package's.
    assumptions
        Of the load; None: `load_of` the point.
    """
    case = case_name(point)
    if reason := left_out(point):
        return [not_judged(DATASET, case, reason)]
    model, accelerator = model_for(point["model_path"]), accelerator_for(point["system"])
    assumptions = assumptions or load_of(point)
    if is_disaggregated(point):
        workers = {phase: workers_of(point, phase, _field) for phase in PHASES}
        for phase in PHASES:
            # An id says the layout of one phase, or of both, so it is not compared.
            if reason := impossible({**point, "id": ""}, model, _layout(workers[phase].columns)):
                return [not_judged(DATASET, case, f"{phase}: {reason}")]
        scenario, notes = disaggregated_scenario(point, model, accelerator, workers, assumptions)
    else:
        layout = _layout(point)
        if reason := impossible(point, model, layout):
            return [not_judged(DATASET, case, reason)]
        scenario, notes = scenario_for(point, model, accelerator, layout, assumptions)
    result, refused = _run(scenario, _trace(point, assumptions), costs_for(point, kernel_tables))
    requests = result.requests
    ended = int((requests["outcome"] == "finished").sum())
    if ended < len(requests):
        reasons = requests["reason"].dropna()
        reason = reasons.iloc[0] if len(reasons) else "no reason given"
        return [not_run(DATASET, case, f"{len(requests) - ended} of {len(requests)} requests did not finish: {reason}")]
    simulated = latencies(requests, "arrival_s")
    costs = cost_text([*result.data.pools[0].cost_sources, *refused, *notes, *_kept(result), assumptions.text])
    found = []
    for name in ("ttft", "tpot"):
        measured_ms = point[f"silicon_{name}_ms"]
        if measured_ms is not None and len(simulated[name]):
            mean_s = float(np.mean(simulated[name]))
            found.append(compared(DATASET, case, f"{name}_mean", measured_ms * 1e-3, mean_s, costs))
    return found


def left_out(point: Mapping[str, Any]) -> str | None:
    """Return why a point is not simulated, by what its row says of itself; None: it can be."""
    if is_disaggregated(point):
        if reason := left_out_disagg(point, concurrency(point)):
            return reason
    elif point["mode"] != "agg":
        return f"mode {point['mode']!r} is not known; known: agg, disagg"
    if point["backend"] not in _BACKENDS:
        return f"backend {point['backend']!r} is not modelled; modelled: {', '.join(_BACKENDS)}"
    if not concurrency(point):
        return "its source names no silicon_concurrency"
    if not point["isl"] or not point["osl"]:
        return "its row names no lengths"
    return speculative(point)


def impossible(point: Mapping[str, Any], model: ModelSpec, layout: Layout) -> str | None:
    """Return what is wrong with a layout: its id says otherwise, or no server can be split so."""
    match = re.search(r"_tp(\d+)(?:_0)?_ep(none|\d+)(?:_0)?(?:_|$)", str(point["id"]))
    if match and int(match[1]) not in (layout.tp, layout.tp * layout.attention_dp):
        return f"tp_size is {layout.tp}, attention_dp_size {layout.attention_dp}, and the id says tp{match[1]}"
    if match and match[2] != "none" and int(match[2]) != layout.moe_ep and model.is_moe:
        return f"moe_ep_size is {layout.moe_ep}, and the id says ep{match[2]}"
    width = layout.tp * layout.attention_dp
    gpus = _SCALE_UP_GPUS.get(str(point["system"]), _SERVER_GPUS)
    if width * layout.pp > gpus:
        return (
            f"tp_size {layout.tp} x attention_dp_size {layout.attention_dp} x pp_size {layout.pp} is more than the "
            f"{gpus} GPUs that NVLink joins in {point['system']}"
        )
    if model.is_moe and width != layout.moe_tp * layout.moe_ep:
        return (
            f"experts over {layout.moe_tp} x {layout.moe_ep} ranks (moe_tp_size x moe_ep_size), attention over {width} "
            "(tp_size x attention_dp_size)"
        )
    try:
        ep = layout.moe_ep if model.is_moe else 1
        ParallelPlan(layout.tp, layout.pp, ep, dp=layout.attention_dp).check(model)
    except InputError as error:
        return str(error)
    return None


def _layout(point: Mapping[str, Any]) -> Layout:
    """Return the layout of the columns; an empty one is 1."""
    tp, pp, attention_dp, moe_tp, moe_ep = (int(point[name] or 1) for name in _LAYOUT)
    return Layout(tp, pp, attention_dp, moe_tp, moe_ep)


def scenario_for(
    point: Mapping[str, Any], model: ModelSpec, accelerator: Accelerator, layout: Layout, assumptions: Assumptions
) -> tuple[dict[str, Any], list[str]]:
    """Return a point as a scenario without costs, and notes."""
    version = point.get("backend_version")
    engine, said = engine_for(str(point["backend"]), None if version is None else str(version))
    parallel: dict[str, Any] = {"tp": layout.tp, "pp": layout.pp}
    if layout.attention_dp > 1:
        parallel["dp"] = layout.attention_dp
    notes = [said]
    if layout.moe_ep > 1 and model.is_moe:
        parallel["ep"] = layout.moe_ep
    weights = _weights(point, model, notes)
    server = server_of(point) if assumptions.fitting_batches else Server()
    kv = _kv(point, model, notes) if server.kv is None else {"kv": server.kv}
    pool: dict[str, Any] = {
        "accelerator": accelerator.name,
        "parallel": parallel,
        "engine": {"name": engine, **_limits(point, assumptions), **server.limits},
        "dtypes": {**({} if weights is None else {"weights": weights}), **kv},
    }
    if server.batching:
        pool["batching"] = {"name": load_engine(engine).policy, "params": dict(server.batching)}
    if server.note:
        notes.append(server.note)
    if layout.attention_dp > 1 and point["backend"] == "trtllm" and assumptions.fitting_batches:
        parallel["prefill_balance"] = dict(_INFERENCEMAX_BALANCE)
        notes.append("prompts begin when all ranks have one, or after 60 steps, as InferenceMAX's servers were started")
    loop = {"clients": concurrency(point), "stagger_s": assumptions.stagger_s}
    return {"workload": {"loop": loop}, "model": model.name, "cluster": {"pools": [pool]}}, notes


def disaggregated_scenario(
    point: Mapping[str, Any],
    model: ModelSpec,
    accelerator: Accelerator,
    workers: Mapping[str, Workers],
    assumptions: Assumptions,
) -> tuple[dict[str, Any], list[str]]:
    """Return a disaggregated point as a scenario without costs, and notes."""
    notes: dict[str, None] = {}
    pools: dict[str, Any] = {}
    scenario: dict[str, Any] = {}
    for phase in PHASES:
        scenario, said = scenario_for(point, model, accelerator, _layout(workers[phase].columns), assumptions)
        (pools[phase],) = scenario["cluster"]["pools"]
        notes |= dict.fromkeys(said)
    more: list[str] = []
    parts = disaggregated(pools, workers, more)
    return {**scenario, **parts}, [*notes, *more]


def _field(text: Any, name: str) -> float | None:
    return _number(text, name, FILE.name)


def _limits(point: Mapping[str, Any], assumptions: Assumptions) -> dict[str, int]:
    """Return the limits that a server was started with, where they are not its defaults."""
    if point["backend"] != "trtllm" or not assumptions.fitting_batches:
        return {}
    return {"max_num_batched_tokens": most_tokens(point, concurrency(point) or 1)}


def _weights(point: Mapping[str, Any], model: ModelSpec, notes: list[str]) -> str | None:
    """Return the format of the weights; None: as published."""
    mode = point.get("gemm_quant_mode")
    if mode is None:
        return None
    if model.quantization is not None and model.quantization.weight_format == "mxfp4":
        notes.append(f"weights as published (mxfp4); the row says {mode}")
        return None
    if mode == "fp8" and _IN_BLOCKS.fullmatch(str(point["model_path"])):
        return "fp8_block"
    if mode not in _WEIGHTS:
        raise InputError(f"gemm_quant_mode {mode!r} is not known; known: {', '.join(sorted(_WEIGHTS))}")
    return _WEIGHTS[mode]


def _kv(point: Mapping[str, Any], model: ModelSpec, notes: list[str]) -> dict[str, str]:
    """Return the datatype of the cache, where it is not 16 bits.

    A model that its maker publishes in 16 bits was served in fp8 per tensor or NVFP4 from NVIDIA's checkpoint of it
    (ModelOpt), whose ``hf_quant_config.json`` says ``kv_cache_quant_algo: FP8``, which engines follow.
    """
    if point.get("gemm_quant_mode") not in ("fp8", "nvfp4") or model.quantization is not None:
        return {}
    if model.default_dtype != model.base_dtype or _IN_BLOCKS.fullmatch(str(point["model_path"])):
        return {}
    notes.append("KV in fp8, as NVIDIA's quantised checkpoints say")
    return {"kv": "fp8"}


def _trace(point: Mapping[str, Any], assumptions: Assumptions) -> Trace:
    clients = concurrency(point)
    assert clients is not None
    count = clients * assumptions.requests_per_client
    rng = stream(0, _LENGTHS)
    lengths = []
    for name, within in (("isl", 0.0), ("osl", assumptions.answers_within)):
        recorded = int(point[name])
        shortest = max(1, int(recorded * min(assumptions.shortest, 1.0 - within)))
        longest = round(recorded * (1.0 + within))
        lengths.append(rng.integers(shortest, longest + 1, count, dtype=np.int64))
    return Trace(
        arrival_s=np.zeros(count),
        prompt_tokens=lengths[0],
        output_tokens=lengths[1],
        source=f"{count} requests of {point['isl']:g} and {point['osl']:g} tokens",
    )


# --------------------------------------------------------------------------------------------------------- costs


def costs_for(point: Mapping[str, Any], folder: Path | None) -> dict[str, Any] | None:
    """Return the scenario's ``cost`` for a point: the table of its system and backend; None: the default costs.

    No table is fitted to serving points.
    """
    table = table_of(str(point["system"]), str(point["backend"]), folder)
    return None if table is None else {"kind": "measured", "profile": table}


def _run(scenario: dict[str, Any], trace: Trace, cost: dict[str, Any] | None) -> tuple[RunResult, list[str]]:
    """Run with measured costs; where they can't be had, with the default ones, saying why."""
    if cost is None:
        return run(scenario, trace=trace), []
    pools = [{**pool, "cost": cost} for pool in scenario["cluster"]["pools"]]
    try:
        return run({**scenario, "cluster": {"pools": pools}}, trace=trace), []
    except InputError as error:
        return run(scenario, trace=trace), [f"measured costs refused: {error}"]


def _kept(result: RunResult) -> list[str]:
    return [note for note in result.data.notes if note.startswith("step times beyond what was measured")]


def _number(text: str | None, name: str, where: str) -> float | None:
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        raise InputError(f"{where}: {name} must be a number, got {text!r}") from None
    if not math.isfinite(value) or value < 0:
        raise InputError(f"{where}: {name} must be a number of at least 0, got {text!r}")
    return value

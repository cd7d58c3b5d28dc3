"""The user's own server: what ``vllm bench serve --save-result`` wrote, beside a simulated run of the same requests.

The file's keys are those of ``vllm/benchmarks/serve.py`` (``benchmark`` and ``main_async``), as of vLLM 0.6 to 0.19.
With ``--save-detailed`` it holds every request; without, only sums and statistics, and the workload is rebuilt of
requests that are all alike. Latencies count from the moment the client sent the request, on both sides.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from simulator.errors import InputError
from simulator.rng import stream
from simulator.runner import run
from simulator.scenario import Scenario
from simulator.validation.cases import Case
from simulator.validation.rows import (
    STATISTICS,
    Floats,
    Row,
    compared,
    cost_text,
    latencies,
    latencies_of,
    latency_rows,
    statistic,
)
from workloads import Trace

DATASET = "measured"

_ARRIVALS = "validation.arrivals"
_LISTS = ("input_lens", "output_lens", "ttfts", "itls")
_STATISTIC_KEYS = {
    "mean": "mean_{}_ms",
    "p50": "median_{}_ms",
    "p90": "p90_{}_ms",
    "p95": "p95_{}_ms",
    "p99": "p99_{}_ms",
}
_METRIC_KEYS = {"ttft": "ttft", "tpot": "tpot", "e2e": "e2el"}


@dataclass(frozen=True)
class Benchmark:
    """What a benchmark's file says.

    Attributes
    ----------
    prompt_tokens, output_tokens
        Of each request that succeeded; all alike where the file has no details.
    start_s
        When each was sent, seconds from the first; None: not recorded.
    latencies
        ``ttft``, ``tpot`` and ``e2e`` of each, seconds; empty without details.
    statistics
        Statistics of latencies that the file holds, by metric, seconds.
    duration_s, request_rate, burstiness, max_concurrency
        Of the run; the rate infinite where all are sent at once, the concurrency None where it has no bound.
    notes
        What was assumed or left out.
    """

    prompt_tokens: Floats
    output_tokens: Floats
    start_s: Floats | None
    latencies: Mapping[str, Floats]
    statistics: Mapping[str, float]
    duration_s: float
    request_rate: float
    burstiness: float
    max_concurrency: int | None
    notes: tuple[str, ...]


def cases(measured: Path, scenario: Path) -> list[Case]:
    """Return the case of one measured file.

    Raises
    ------
    InputError
        If either file is missing or malformed: that is what the user asked for, so it is no row.
    """
    benchmark = read_benchmark(measured)
    pools = Scenario.from_yaml(scenario)
    return [Case(DATASET, measured.stem, partial(compare, measured.stem, benchmark, pools), math.inf)]


def compare(name: str, benchmark: Benchmark, scenario: Scenario) -> list[Row]:
    """Simulate the requests of a benchmark on a scenario's cluster, and return the rows."""
    trace, loop, said = workload_of(benchmark, scenario.seed)
    data = {**scenario.to_mapping(), "workload": {"loop": loop}}
    result = run(Scenario.from_mapping(data), trace=trace)
    requests = result.requests
    simulated = latencies(requests, "arrival_s")
    lines = dict.fromkeys(line for pool in result.data.pools for line in pool.cost_sources)
    notes = [note for note in result.data.notes if note.startswith("step times beyond what was measured")]
    if unfinished := int((requests["outcome"] != "finished").sum()):
        notes.append(f"{unfinished} simulated requests did not finish and are left out")
    costs = cost_text([*lines, said, *benchmark.notes, *notes])
    if benchmark.latencies:
        rows = latency_rows(DATASET, name, benchmark.latencies, simulated, costs)
    else:
        rows = []
        for metric, value in benchmark.statistics.items():
            which, _, statistic_name = metric.rpartition("_")
            if len(simulated[which]):
                rows.append(compared(DATASET, name, metric, value, statistic(simulated[which], statistic_name), costs))
    done = requests[requests["outcome"] == "finished"]
    if len(done):
        span_s = float(done["last_token_s"].max() - done["arrival_s"].min())
        rate = float(benchmark.output_tokens.sum()) / benchmark.duration_s
        rows.append(compared(DATASET, name, "duration_s", benchmark.duration_s, span_s, costs))
        own = float(done["output_tokens"].sum()) / span_s
        rows.append(compared(DATASET, name, "output_tokens_per_s", rate, own, costs))
    return rows


def workload_of(benchmark: Benchmark, seed: int) -> tuple[Trace, dict[str, Any], str]:
    """Return the requests, the scenario's ``workload.loop``, and the sentence that says how they are sent."""
    count = len(benchmark.prompt_tokens)
    order = np.arange(count)
    arrival = np.zeros(count)
    loop: dict[str, Any] = {"kind": "open"}
    clients, rate = benchmark.max_concurrency, benchmark.request_rate
    if benchmark.start_s is not None:
        order = np.argsort(benchmark.start_s, kind="stable")
        arrival = benchmark.start_s[order]
        said = "requests sent at the recorded start times"
    elif math.isfinite(rate):
        arrival = _arrivals(count, rate, benchmark.burstiness, seed)
        said = f"no start times in the file: arrivals drawn at {rate:g} requests/s, burstiness {benchmark.burstiness:g}"
        if clients is not None:
            said += f"; the bound of {clients} requests in flight is not applied"
    elif clients is not None:
        loop = {"kind": "closed", "clients": clients}
        said = f"no start times in the file: closed loop of {clients} clients, all starting at 0"
    else:
        said = "no start times in the file: all requests sent at 0, as the rate is infinite"
    trace = Trace(
        arrival_s=arrival,
        prompt_tokens=benchmark.prompt_tokens[order].astype(np.int64),
        output_tokens=benchmark.output_tokens[order].astype(np.int64),
        source="a benchmark of vLLM",
    )
    return trace, loop, said


def _arrivals(count: int, rate: float, burstiness: float, seed: int) -> Floats:
    """Return arrivals as vLLM's benchmark draws them: Gamma gaps, stretched to end at count / rate; the first at 0."""
    gaps = stream(seed, _ARRIVALS).gamma(burstiness, 1.0 / (burstiness * rate), count)
    times = np.cumsum(gaps)
    times *= (count / rate) / times[-1]
    return np.asarray(times - times[0], dtype=np.float64)


# --------------------------------------------------------------------------------------------------------- files


def read_benchmark(path: Path) -> Benchmark:
    """Read what ``vllm bench serve --save-result`` (with or without ``--save-detailed``) wrote.

    Of a file with several results (``--append-result``) the last one counts.

    Raises
    ------
    InputError
        If it is no such file.
    """
    found, several = _last_result(path)
    notes = [f"the last of {several} results in the file"] if several > 1 else []
    duration = _positive(found, "duration", path)
    rate = found.get("request_rate", "inf")
    shared: dict[str, Any] = {
        "duration_s": duration,
        "request_rate": math.inf if rate in (None, "inf") else _positive(found, "request_rate", path),
        "burstiness": _positive({"burstiness": 1.0, **found}, "burstiness", path),
        "max_concurrency": None
        if found.get("max_concurrency") is None
        else int(_positive(found, "max_concurrency", path)),
    }
    statistics = {
        f"{metric}_{which}": value * 1e-3
        for metric, key in _METRIC_KEYS.items()
        for which in STATISTICS
        if isinstance(value := found.get(_STATISTIC_KEYS[which].format(key)), int | float) and value > 0
    }
    if all(name in found for name in _LISTS):
        return _detailed(found, path, notes, statistics, shared)
    count = int(_positive(found, "completed", path))
    prompt = _positive(found, "total_input_tokens", path) / count
    output = _positive(found, "total_output_tokens", path) / count
    notes.append(
        f"no details in the file (--save-detailed): {count} requests of {max(1, round(prompt))} prompt and "
        f"{max(1, round(output))} output tokens, the means"
    )
    return Benchmark(
        np.full(count, max(1.0, round(prompt))),
        np.full(count, max(1.0, round(output))),
        None,
        {},
        statistics,
        notes=tuple(notes),
        **shared,
    )


def _detailed(
    found: Mapping[str, Any], path: Path, notes: list[str], statistics: Mapping[str, float], shared: Mapping[str, Any]
) -> Benchmark:
    prompt, output, ttft = (_floats(found, name, path) for name in ("input_lens", "output_lens", "ttfts"))
    gaps = found["itls"]
    if not isinstance(gaps, list) or not len(prompt) == len(output) == len(ttft) == len(gaps):
        raise InputError(f"{path}: the lists {', '.join(_LISTS)} must be of equal length")
    try:
        decode = np.array([math.fsum(each) for each in gaps], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: 'itls' must be lists of seconds ({error})") from None
    errors = found.get("errors") or [""] * len(prompt)
    good = (output >= 1) & (prompt >= 1) & (ttft > 0) & np.array([not error for error in errors], dtype=bool)
    if not good.any():
        raise InputError(f"{path}: no request succeeded")
    if not good.all():
        notes.append(f"{int((~good).sum())} failed requests left out")
    start = None
    if found.get("start_times") is not None:
        start = _floats(found, "start_times", path)
        if len(start) != len(prompt):
            raise InputError(f"{path}: 'start_times' must be as long as 'input_lens'")
        start = start[good] - start[good].min()
    begin = np.zeros(int(good.sum()))
    measured = latencies_of(begin, ttft[good], ttft[good] + decode[good], output[good])
    return Benchmark(prompt[good], output[good], start, measured, statistics, notes=tuple(notes), **shared)


def _last_result(path: Path) -> tuple[dict[str, Any], int]:
    """Return the last result of a file, and how many there are: one mapping, or one a line."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: can't be read ({error})") from None
    try:
        results = [json.loads(text)]
    except ValueError:
        try:
            results = [json.loads(line) for line in text.splitlines() if line.strip()]
        except ValueError as error:
            raise InputError(f"{path}: not a result of vllm bench serve --save-result ({error})") from None
    if not results or not isinstance(results[-1], dict):
        raise InputError(f"{path}: must hold the mapping that vllm bench serve --save-result writes")
    return results[-1], len(results)


def _floats(found: Mapping[str, Any], name: str, path: Path) -> Floats:
    try:
        values = np.array(found[name], dtype=np.float64)
    except (TypeError, ValueError):
        values = np.full(1, math.nan)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise InputError(f"{path}: {name!r} must be a list of numbers")
    return values


def _positive(found: Mapping[str, Any], name: str, path: Path) -> float:
    value = found.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise InputError(f"{path}: needs the key {name!r}, a number above 0, got {value!r}")
    return float(value)

"""Whether objectives can be met at all: by one request at a time, on an otherwise empty cluster.

If not, no load is low enough; then the sentence says which objective, what is reached without any load, and what would
do: more GPUs a replica, another GPU, or a looser objective.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.errors import InputError
from simulator.metrics import Rows
from simulator.runner import run
from simulator.scenario import Scenario

if TYPE_CHECKING:
    from simulator.result import RunResult
    from workloads import Trace

REQUESTS = 200
"""Requests of the sample that is sent one at a time, a choice."""
_POOL = "cluster.pools.0"
_MOST_TP = 8


def infeasible_at_no_load(base: Scenario, trace: Trace | None, requests: int, share: float) -> str:
    """Say why objectives can't be met with one request at a time; empty if they can.

    Parameters
    ----------
    base
        The scenario, with objectives.
    trace
        Requests in place of the scenario's.
    requests
        How many there are.
    share
        Of the requests, that must be within the objectives.
    """
    alone = base.updated(
        {
            "workload.loop": {"kind": "closed", "clients": 1},
            "workload.resample": None,
            "workload.sample": min(1.0, REQUESTS / max(1, requests)) * base.workload.sample,
        }
    )
    result = run(alone, trace=trace)
    if _is_met(result, share):
        return ""
    name, limit_s, reached_s = _worst(result, share)
    share_said = f"{100 * share:.4g} % of the requests"
    said = "the objectives can't be met at any load: with one request at a time "
    if math.isfinite(reached_s):
        said += f"{share_said} have a {name} of at most {reached_s:.3g} s, and the objective is {limit_s:g} s"
    else:
        said += f"fewer than {share_said} are served at all"
    choice = next(_choices(alone, trace, share), None)
    if choice is not None:
        said += f"; {choice} would do"
    elif math.isfinite(reached_s):
        said += f"; nearest is a {name} objective of {_rounded_up(reached_s):g} s"
    return said


def _is_met(result: RunResult, share: float) -> bool:
    attainment = result.summary["objectives"]["attainment"]
    return attainment is None or attainment >= share


def _worst(result: RunResult, share: float) -> tuple[str, float, float]:
    """Return the objective that fewest requests meet: its name, its limit, and what the share of them has, seconds."""
    given = result.summary["objectives"]["given"]
    concerned = [name for name in given if given[name]["attainment"] is not None]
    name = min(concerned, key=lambda each: given[each]["attainment"])
    limit = given[name]["limit"]
    values = np.sort(_latencies_s(result.rows, name))
    place = math.ceil(share * len(result.rows)) - 1
    reached = float(values[place]) if place < len(values) else math.inf
    return name.removesuffix("_s").upper(), min(limit) if isinstance(limit, list) else limit, reached


def _latencies_s(rows: Rows, name: str) -> Any:
    """Return the latency that an objective bounds, of finished requests, seconds."""
    done = rows.take(rows.finished)
    if name == "ttft_s":
        return (done.first - done.arrival) / 1e9
    if name == "tpot_s":
        return (done.last - done.first) / np.maximum(done.output.astype(np.int64) - 1, 1) / 1e9
    if name == "itl_s":
        return np.maximum(done.itl_max, 0) / 1e9
    return (done.last - done.arrival) / 1e9


def _choices(alone: Scenario, trace: Trace | None, share: float) -> Iterator[str]:
    """Yield what would do in its place, nearest first: more tensor parallel ranks, another GPU, then both."""
    from hardware_profiles import list_accelerators, load_accelerator

    if len(alone.cluster.pools) != 1:
        return
    pool = alone.cluster.pools[0]
    tps = [tp for tp in (1, 2, 4, 8) if pool.parallel.tp < tp <= _MOST_TP]
    for tp in tps:
        if _would_do(alone, {f"{_POOL}.parallel.tp": tp}, trace, share):
            yield f"tensor parallelism over {tp} GPUs (tp={tp})"
    if pool.node is not None:
        return
    ranked = sorted(map(load_accelerator, list_accelerators()), key=lambda each: each.memory_bandwidth)
    for more in (0, *tps):
        for each in ranked:
            changes: dict[str, Any] = {f"{_POOL}.accelerator": each.name}
            if more:
                changes[f"{_POOL}.parallel.tp"] = more
            if _would_do(alone, changes, trace, share):
                yield f"the GPU {each.name}" + (f" with tp={more}" if more else "")


def _would_do(alone: Scenario, changes: dict[str, Any], trace: Trace | None, share: float) -> bool:
    try:
        return _is_met(run(alone.updated(changes), trace=trace), share)
    except (InputError, ValueError):  # it can't run so: no choice
        return False


def _rounded_up(value: float) -> float:
    """Return a value rounded up to two significant digits."""
    step: float = 10.0 ** (math.floor(math.log10(value)) - 1) if value > 0 else 1.0
    return float(f"{math.ceil(value / step) * step:.2g}")


__all__ = ["infeasible_at_no_load"]

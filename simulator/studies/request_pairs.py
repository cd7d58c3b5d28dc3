"""The same request under two scenarios: how much sooner or later, request by request.

Figures of a whole run hide who gains and who loses: a policy may lower the 99th percentile by serving nine requests in
ten a little later.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from simulator.engine.clock import NS_PER_S
from simulator.errors import InputError
from simulator.studies.identity import trace_digest
from simulator.studies.points import Outcome, Task, evaluate_and_read
from simulator.studies.points import died as died_of

if TYPE_CHECKING:
    from simulator.result import RunResult
    from simulator.studies.store import Store

Floats = npt.NDArray[np.float64]

REQUEST_LATENCIES = ("ttft", "tpot", "e2e")
BEYOND = 0.01
"""A request counts as sooner or later if its latency differs by more than this share: a choice."""
_POINTS = 400


@dataclass(frozen=True)
class Latencies:
    """Latencies of the requests that a run's figures are of.

    Attributes
    ----------
    trace
        Digest of the requests.
    seconds
        By name of `REQUEST_LATENCIES`; shape (rows of the trace,), NaN where a request has none.
    """

    trace: str
    seconds: Mapping[str, Floats]


@dataclass(frozen=True)
class RequestPairs:
    """One latency of the requests that have it on both sides.

    Attributes
    ----------
    n
        Requests.
    sooner, later
        Shares of them whose latency is lower or higher than the baseline's by more than `BEYOND`.
    difference_s
        Other minus baseline at its 10th, 50th and 90th percentile, seconds.
    median_ratio
        Median of other over baseline; None where a baseline is zero.
    """

    metric: str
    n: int
    sooner: float
    later: float
    difference_s: tuple[float, float, float]
    median_ratio: float | None


def measure(task: Task) -> tuple[Outcome, Latencies | None]:
    """Simulate one task and return its requests' latencies too; never raises but for Ctrl-C."""
    return evaluate_and_read(task, latencies_of)


def died(task: Task) -> tuple[Outcome, Latencies | None]:
    """Return what `measure` would have of a task whose process ended without a result."""
    return died_of(task), None


def latencies_of(result: RunResult) -> Latencies:
    """Return the latencies of a run's requests, in the window that its figures are of."""
    data, rows = result.data, result.rows
    within = rows.arrival >= data.warmup_ns
    if data.until_ns is not None:
        within &= rows.arrival < data.until_ns
    done = within & rows.finished
    several = done & (rows.output > 1)
    size = len(data.trace)

    def column(which: npt.NDArray[np.bool_], values: npt.NDArray[Any]) -> Floats:
        found = np.full(size, np.nan)
        found[rows.row[which]] = values[which] / NS_PER_S
        return found

    spans = (rows.last - rows.first) / np.maximum(rows.output - 1, 1)
    return Latencies(
        trace_digest(data.trace),
        {
            "ttft": column(within & (rows.first >= 0), rows.first - rows.arrival),
            "tpot": column(several, spans),
            "e2e": column(done, rows.last - rows.arrival),
        },
    )


def pair_requests(baseline: Latencies, other: Latencies) -> list[RequestPairs]:
    """Compare the requests of two runs of the same trace; latencies that no request has on both sides are left out.

    Raises
    ------
    InputError
        If the requests are not the same.
    """
    if baseline.trace != other.trace:
        raise InputError("the sides were not given the same requests; compare needs one trace for all")
    found = []
    for name in REQUEST_LATENCIES:
        first, second = baseline.seconds[name], other.seconds[name]
        both = ~(np.isnan(first) | np.isnan(second))
        if not both.any():
            continue
        first, second = first[both], second[both]
        difference = second - first
        margin = BEYOND * first
        low, middle, high = np.quantile(difference, [0.1, 0.5, 0.9]).tolist()
        found.append(
            RequestPairs(
                name,
                int(both.sum()),
                float((difference < -margin).mean()),
                float((difference > margin).mean()),
                (low, middle, high),
                float(np.median(second / first)) if (first > 0).all() else None,
            )
        )
    return found


def distribution(latencies: Latencies) -> dict[str, list[float]]:
    """Return each latency that a request has at equally spaced shares of the requests, from 0 to 1, seconds."""
    shares = np.linspace(0, 1, _POINTS)
    found = {}
    for name, seconds in latencies.seconds.items():
        known = seconds[~np.isnan(seconds)]
        if len(known):
            found[name] = np.quantile(known, shares).tolist()
    return found


# ----------------------------------------------------------------------------------------------------------- kept


def keep(store: Store, digest: str, latencies: Latencies) -> None:
    """Write the latencies of a run beside its result.

    Raises
    ------
    InputError
        If they can't be written.
    """
    buffer = io.BytesIO()
    np.savez_compressed(buffer, trace=np.array(latencies.trace), **latencies.seconds)  # type: ignore[arg-type]
    store.write(_path(store, digest), buffer.getvalue())


def kept(store: Store, digest: str) -> Latencies | None:
    """Return what was kept; None where there is none, or none that can be read."""
    try:
        with np.load(_path(store, digest), allow_pickle=False) as file:
            return Latencies(str(file["trace"]), {name: file[name] for name in REQUEST_LATENCIES})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _path(store: Store, digest: str) -> Path:
    return store.path(digest).with_suffix(".requests.npz")


__all__ = [
    "BEYOND",
    "REQUEST_LATENCIES",
    "Latencies",
    "RequestPairs",
    "died",
    "distribution",
    "keep",
    "kept",
    "latencies_of",
    "measure",
    "pair_requests",
]

"""What the figures of a run mean: latencies, objectives, outcomes, each a small function of rows.

Terms are the field's. With times in ns inside and seconds in what is returned:

- TTFT: first token minus arrival (waiting included), of every request that got a first token;
- TPOT: (last - first token) / (output tokens - 1), of finished requests; none for one-token outputs;
- ITL: every gap between two output tokens, from histograms with bins of at most 0.5 % relative width;
- E2E: last token minus arrival, of finished requests;
- queue: first scheduling minus arrival, of every request that was scheduled.

Percentiles are by linear interpolation between order statistics (NumPy's default); those of ITL are the middle of the
bin that holds the order statistic. Means are exact sums, the same on every processor.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from simulator.engine.clock import NS_PER_S, to_ns
from simulator.engine.histogram import DurationHistogram
from simulator.engine.recorder import Outcome

if TYPE_CHECKING:
    from simulator.engine.cluster import Cluster
    from simulator.run_data import Objectives

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

QUANTILES = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99}
LATENCIES = ("ttft_s", "tpot_s", "itl_s", "e2e_s", "queue_s")
OUTCOMES = {outcome: outcome.name.lower() for outcome in Outcome}


class ConservationError(RuntimeError):
    """A request was lost or counted twice: a defect of the simulator, not of its input."""


@dataclass(frozen=True)
class Rows:
    """Requests that arrived, one element a request; times in ns, -1 where it never happened.

    ``row`` is the request's row in the trace, ``code`` its class.
    """

    row: Ints
    arrival: Ints
    queued: Ints
    scheduled: Ints
    first: Ints
    last: Ints
    ended: Ints
    itl_max: Ints
    prompt: Ints
    output: npt.NDArray[np.int32]
    cached: npt.NDArray[np.int32]
    preemptions: npt.NDArray[np.int32]
    replica: npt.NDArray[np.int32]
    outcome: npt.NDArray[np.int8]
    code: Ints
    attempts: npt.NDArray[np.int16]
    migrations: npt.NDArray[np.int16]
    prefill_replica: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.row)

    def take(self, which: Mask | Ints | slice) -> Rows:
        """Return some of the rows, by mask, indices or slice."""
        return Rows(**{f.name: getattr(self, f.name)[which] for f in fields(self)})

    @property
    def finished(self) -> Mask:
        """Which requests finished."""
        mask: Mask = self.outcome == Outcome.FINISHED
        return mask


def arrived_rows(cluster: Cluster) -> Rows:
    """Return the rows of all requests that arrived, in the order of the trace."""
    columns: Mapping[str, npt.NDArray[Any]] = cluster.recorder.columns
    workload = cluster.workload
    row = np.flatnonzero(columns["arrival_ns"] >= 0).astype(np.int64)
    everything = len(row) == len(columns["arrival_ns"])

    def pick(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return values if everything else values[row]

    return Rows(
        row=row,
        arrival=pick(columns["arrival_ns"]),
        queued=pick(columns["queued_ns"]),
        scheduled=pick(columns["scheduled_ns"]),
        first=pick(columns["first_token_ns"]),
        last=pick(columns["last_token_ns"]),
        ended=pick(columns["ended_ns"]),
        itl_max=pick(columns["itl_max_ns"]),
        prompt=pick(np.asarray(workload.prompt_tokens, dtype=np.int64)),
        output=pick(columns["output_tokens"]),
        cached=pick(columns["cached_tokens"]),
        preemptions=pick(columns["preemptions"]),
        replica=pick(columns["replica"]),
        outcome=pick(columns["outcome"]),
        code=pick(np.asarray(workload.class_codes, dtype=np.int64)),
        attempts=pick(columns["attempts"]),
        migrations=pick(columns["migrations"]),
        prefill_replica=pick(columns["prefill_replica"]),
    )


def count_outcomes(rows: Rows) -> dict[str, int]:
    """Return how many requests there are by outcome, every outcome named."""
    counts = np.bincount(rows.outcome.astype(np.int64), minlength=len(OUTCOMES))
    return {name: int(counts[outcome]) for outcome, name in OUTCOMES.items()}


def check_conservation(rows: Rows, num_arrived: int, num_ended: int) -> None:
    """Raise `ConservationError` unless every request that arrived has exactly one end or is unfinished."""
    unfinished = int((rows.outcome == Outcome.UNFINISHED).sum())
    ended = int((rows.ended >= 0).sum())
    outcomes = sum(count_outcomes(rows).values())
    if not (num_arrived == len(rows) == outcomes and num_ended == ended == len(rows) - unfinished):
        raise ConservationError(
            f"requests were lost or counted twice: {num_arrived} arrived and {num_ended} ended by the cluster's count, "
            f"{len(rows)} arrived and {ended} ended by their times, {outcomes} have an outcome of which {unfinished} "
            "are unfinished; please report this as a defect of the simulator"
        )


# ------------------------------------------------------------------------------------------------------ latencies


def ttft_ns(rows: Rows) -> Ints:
    """Time to first token of the requests that got one, ns."""
    got = rows.first >= 0
    return rows.first[got] - rows.arrival[got]


def e2e_ns(rows: Rows) -> Ints:
    """Last token minus arrival of the finished requests, ns."""
    done = rows.finished
    return rows.last[done] - rows.arrival[done]


def queue_ns(rows: Rows) -> Ints:
    """First scheduling minus arrival of the requests that were scheduled, ns."""
    started = rows.scheduled >= 0
    return rows.scheduled[started] - rows.arrival[started]


def tpot_ns(rows: Rows) -> npt.NDArray[np.float64]:
    """Time per output token after the first, of finished requests with at least two, ns."""
    several = rows.finished & (rows.output > 1)
    spans = rows.last[several] - rows.first[several]
    return np.asarray(spans / (rows.output[several] - 1), dtype=np.float64)


def exact_sum(values: Ints) -> int:
    """Return the sum of non-negative whole numbers, in two halves so that it can't overflow 64 bits."""
    return (int((values >> 20).sum()) << 20) + int((values & ((1 << 20) - 1)).sum())


def describe(durations_ns: npt.NDArray[np.int64] | npt.NDArray[np.float64]) -> dict[str, float | int | None]:
    """Return count, mean, percentiles and maximum of durations, in seconds; None where there are none."""
    count = len(durations_ns)
    if not count:
        return {"count": 0, "mean": None, **dict.fromkeys(QUANTILES), "max": None}
    if durations_ns.dtype == np.int64:
        total: float = exact_sum(durations_ns.astype(np.int64, copy=False))
    else:
        total = math.fsum(durations_ns.tolist())
    quantiles = np.quantile(durations_ns, list(QUANTILES.values())) / NS_PER_S
    return {
        "count": count,
        "mean": total / count / NS_PER_S,
        **dict(zip(QUANTILES, quantiles.tolist(), strict=True)),
        "max": float(durations_ns.max()) / NS_PER_S,
    }


def describe_histogram(histogram: DurationHistogram) -> dict[str, float | int | None]:
    """Return the same of a histogram: mean and maximum exact, percentiles to within one bin (0.5 %)."""
    return {
        "count": histogram.total,
        "mean": histogram.mean_s(),
        **{name: histogram.quantile_s(q) for name, q in QUANTILES.items()},
        "max": histogram.max_ns / NS_PER_S if histogram.total else None,
    }


def merged(histograms: Iterable[DurationHistogram]) -> DurationHistogram:
    """Return a new histogram with the counts of all; they stay as they are."""
    total = DurationHistogram()
    for histogram in histograms:
        total.merge(histogram)
    return total


def describe_latencies(rows: Rows, itl: DurationHistogram) -> dict[str, dict[str, float | int | None]]:
    """Return each of `LATENCIES` described."""
    return {
        "ttft_s": describe(ttft_ns(rows)),
        "tpot_s": describe(tpot_ns(rows)),
        "itl_s": describe_histogram(itl),
        "e2e_s": describe(e2e_ns(rows)),
        "queue_s": describe(queue_ns(rows)),
    }


# ----------------------------------------------------------------------------------------------------- objectives


def given_objectives(objectives: Objectives) -> dict[str, float]:
    """Return the objectives that were given, seconds, by name."""
    return {f.name: value for f in fields(objectives) if (value := getattr(objectives, f.name)) is not None}


def meets(rows: Rows, objective: str, limit_s: float) -> Mask:
    """Return which requests meet one objective (at most ``limit_s``); only finished ones do.

    Parameters
    ----------
    objective
        ``"ttft_s"``, ``"tpot_s"`` (vacuous for one-token outputs), ``"itl_s"`` (the largest gap) or ``"e2e_s"``.
    """
    limit = to_ns(limit_s)
    done = rows.finished
    if objective == "ttft_s":
        return done & (rows.first - rows.arrival <= limit)
    if objective == "tpot_s":
        gaps = np.maximum(rows.output.astype(np.int64) - 1, 1)
        return done & ((rows.output <= 1) | ((rows.last - rows.first) / gaps <= limit))
    if objective == "itl_s":
        return done & ((rows.output <= 1) | (rows.itl_max <= limit))
    return done & (rows.last - rows.arrival <= limit)


def meets_all(rows: Rows, objectives: Objectives) -> Mask:
    """Return which requests finished and meet every objective given."""
    met = rows.finished
    for name, limit_s in given_objectives(objectives).items():
        met = met & meets(rows, name, limit_s)
    return met


# -------------------------------------------------------------------------------------------------------- classes


def split_by_class(rows: Rows, num_classes: int) -> list[Rows]:
    """Return the rows of each class code, in their order."""
    if num_classes == 1:
        return [rows]
    order = np.argsort(rows.code.astype(np.int32), kind="stable")
    ends = np.cumsum(np.bincount(rows.code, minlength=num_classes))
    starts = [0, *ends[:-1].tolist()]
    return [rows.take(order[start:end]) for start, end in zip(starts, ends.tolist(), strict=True)]


def per_second(amount: float, duration_ns: int) -> float | None:
    """Return a rate; None over no time."""
    return amount * NS_PER_S / duration_ns if duration_ns > 0 else None


def class_labels(names: Sequence[str]) -> list[str]:
    """Return a name for each class code as the summary shows it: ``"unclassified"`` for an empty one."""
    return [name or "unclassified" for name in names]

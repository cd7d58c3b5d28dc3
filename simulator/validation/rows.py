"""The one table of a validation: a row a metric of a case."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields

import numpy as np
import numpy.typing as npt
import pandas as pd

Floats = npt.NDArray[np.float64]
Latencies = Mapping[str, Floats]
"""``ttft``, ``tpot`` and ``e2e`` of every request, seconds."""

STATISTICS = ("mean", "p50", "p90", "p95", "p99")
"""What is compared of a latency's distribution."""

NOT_RUN = "not_run"
"""Metric of a case that could not be simulated; ``costs`` says why."""

NOT_JUDGED = "not_judged"
"""Metric of a case that is left out on purpose; ``costs`` says why."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of ``validation.csv``.

    Attributes
    ----------
    dataset
        ``vllm_runs``, ``silicon``, ``kernels`` or ``measured``.
    case
        The run, serving point or table within it.
    metric
        What is compared: ``ttft_mean`` (latencies in seconds), ``output_tokens_per_s`` ...
    measured, simulated
        In the metric's unit; None where only the error is known.
    error
        Signed fraction, ``simulated / measured - 1``; of a distribution's distance, not below 0.
    peer_error
        The same of the peer's prediction; None where there is none.
    costs
        Where the step times come from, how the run was set up, and notes.
    """

    dataset: str
    case: str
    metric: str
    measured: float | None
    simulated: float | None
    error: float | None
    peer_error: float | None
    costs: str


COLUMNS = tuple(field.name for field in fields(Row))


def compared(
    dataset: str,
    case: str,
    metric: str,
    measured: float,
    simulated: float,
    costs: str,
    peer_error: float | None = None,
) -> Row:
    """Return the row of a metric that was measured and simulated."""
    error = simulated / measured - 1.0 if measured else math.nan
    return Row(dataset, case, metric, measured, simulated, _known(error), peer_error, costs)


def not_run(dataset: str, case: str, reason: str) -> Row:
    """Return the row of a case that could not be simulated."""
    return Row(dataset, case, NOT_RUN, None, None, None, None, _one_line(reason))


def not_judged(dataset: str, case: str, reason: str) -> Row:
    """Return the row of a case that is left out on purpose."""
    return Row(dataset, case, NOT_JUDGED, None, None, None, None, _one_line(reason))


def latency_rows(
    dataset: str,
    case: str,
    measured: Latencies,
    simulated: Latencies,
    costs: str,
    peers: Mapping[str, float] | None = None,
) -> list[Row]:
    """Return a row for each statistic of each latency that both sides have.

    Parameters
    ----------
    peers
        The peer's signed error by metric.
    """
    found = []
    for name in measured:
        if name not in simulated or not len(measured[name]) or not len(simulated[name]):
            continue
        for which in STATISTICS:
            metric = f"{name}_{which}"
            pair = statistic(measured[name], which), statistic(simulated[name], which)
            found.append(compared(dataset, case, metric, *pair, costs, (peers or {}).get(metric)))
    return found


def statistic(values: Floats, which: str) -> float:
    """Return the mean, or a percentile (linear between ranks, as NumPy and vLLM's benchmark do)."""
    return float(np.mean(values) if which == "mean" else np.percentile(values, float(which[1:])))


def latencies(requests: pd.DataFrame, since: str) -> dict[str, Floats]:
    """Return the latencies of a result's finished requests.

    Parameters
    ----------
    requests
        `RunResult.requests`.
    since
        Column that TTFT and E2E count from: ``queued_s`` (the engine's clock) or ``arrival_s`` (the client's).
    """
    done = requests[requests["outcome"] == "finished"]
    begin, first, last = (done[name].to_numpy(dtype=np.float64) for name in (since, "first_token_s", "last_token_s"))
    return latencies_of(begin, first, last, done["output_tokens"].to_numpy(dtype=np.float64))


def latencies_of(begin: Floats, first: Floats, last: Floats, output_tokens: Floats) -> dict[str, Floats]:
    """Return TTFT, TPOT and E2E, seconds, of requests by their times; TPOT leaves out one-token outputs."""
    several = output_tokens > 1
    tpot = (last - first)[several] / (output_tokens[several] - 1.0)
    return {"ttft": first - begin, "tpot": tpot, "e2e": last - begin}


def to_frame(rows: Iterable[Row]) -> pd.DataFrame:
    """Return rows as the table that ``validation.csv`` holds."""
    frame = pd.DataFrame([astuple(row) for row in rows], columns=list(COLUMNS))
    for name in ("measured", "simulated", "error", "peer_error"):
        frame[name] = frame[name].astype("float64")
    return frame


def cost_text(parts: Sequence[str]) -> str:
    """Return what stands in ``costs``: one line, parts apart by a bar."""
    return " | ".join(_one_line(part) for part in parts if part)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None

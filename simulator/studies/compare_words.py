"""A comparison in words: figures with their units, changes with their intervals, and a sentence for each side.

All take rows of `simulator.studies.compare_files.table`, so that a terminal and a report of what is on disk agree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from simulator.studies.compare_metrics import METRICS
from simulator.studies.intervals import CONFIDENCE
from simulator.terminal import duration, number, percent

Row = Mapping[str, Any]

SHOWN = (
    "ttft_mean",
    "ttft_p99",
    "tpot_mean",
    "tpot_p99",
    "itl_p99",
    "e2e_mean",
    "e2e_p99",
    "goodput",
    "attainment",
    "throughput",
    "cost",
    "energy",
)
"""Metrics of the table unless all are wanted."""
TOLD = ("ttft_p99", "itl_p99", "tpot_mean", "e2e_mean", "goodput", "attainment", "throughput", "cost", "energy")
"""Metrics of the sentence."""
_TIMES = 2.0
"""Ratios from here on are told as such, and not in %."""


def unit_of(rows: Sequence[Row]) -> tuple[str, float]:
    """Return the unit that a metric is shown in, and what its figures are multiplied by; rows are of one metric."""
    metric = METRICS[rows[0]["metric"]]
    if metric.is_share:
        return "%", 100.0
    if metric.unit != "s":
        return metric.unit, 1.0
    return ("s", 1.0) if max(row["mean"] or 0.0 for row in rows) >= 1 else ("ms", 1e3)


def own(row: Row, scale: float) -> str:
    """Return a side's mean and half of its interval, without the unit."""
    if row["mean"] is None:
        return "-"
    mean = f"{row['mean'] * scale:.2f}" if METRICS[row["metric"]].is_share else number(row["mean"] * scale)
    if row["high"] is None:
        return mean
    half = (row["high"] - row["mean"]) * scale
    rounded = f"{half:,.{len(mean.partition('.')[2])}f}"
    return f"{mean} ± {rounded if float(rounded.replace(',', '')) else _short(half)}"


def change(row: Row) -> str:
    """Return how a side stands to the baseline: ``-35.1 % (-38.9 to -31.2)``; empty without pairs."""
    if not row["pairs"]:
        return ""
    if row["ratio"] is None:
        return _difference(row)
    values = [row["ratio"], row["ratio_low"], row["ratio_high"]]
    if row["ratio"] >= _TIMES:
        said = [number(value) for value in values if value is not None]
        return f"x {said[0]}" + (f" ({said[1]} to {said[2]})" if len(said) > 1 else "")
    said = [_percents(value - 1) for value in values if value is not None]
    return f"{said[0]} %" + (f" ({said[1]} to {said[2]})" if len(said) > 1 else "")


def _percents(share: float) -> str:
    text = f"{100 * share:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def _difference(row: Row) -> str:
    metric = METRICS[row["metric"]]
    values = [row["difference"], row["difference_low"], row["difference_high"]]
    if metric.is_share:
        said, unit = [_points(value) for value in values if value is not None], "points"
    else:
        said, unit = [_signed(value) for value in values if value is not None], metric.unit
    return f"{said[0]} {unit}" + (f" ({said[1]} to {said[2]})" if len(said) > 1 else "")


def _points(share: float) -> str:
    text = f"{100 * share:+.2f}" if abs(share) < 0.01 else f"{100 * share:+.1f}"
    return "0" if share == 0 else text


def _signed(value: float) -> str:
    return "0" if value == 0 else f"{'-' if value < 0 else '+'}{_short(abs(value))}"


def _short(value: float) -> str:
    """Return a number with two significant digits or so."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def judged(row: Row) -> str:
    """Return the verdict in a word or two; in brackets where the interval says so but the correction doesn't."""
    verdict = row["verdict"]
    if verdict != "unclear":
        return verdict or ""
    if row["p_value"] > 1 - CONFIDENCE:
        return "not shown"
    up = row["ratio"] > 1 if row["ratio"] is not None else row["difference"] > 0
    return "(better)" if up == METRICS[row["metric"]].higher_is_better else "(worse)"


def sentence(rows: Sequence[Row], side: str, seeds: int, by: str, told: Sequence[str] = TOLD) -> str:
    """Return what a comparison says of one side.

    Parameters
    ----------
    rows
        Of all sides.
    seeds
        Number of replications.
    by
        Name of the metric that comes first.
    told
        Names of the others that it is about, as far as there are such figures.
    """
    mine = {row["metric"]: row for row in rows if row["side"] == side and row["pairs"]}
    told_rows = [mine[name] for name in dict.fromkeys([by, *told]) if name in mine]
    if not told_rows:
        return f"{side}: there is nothing to compare."
    start = f"{side} against {told_rows[0]['baseline']}: "
    if all(row["verdict"] is None for row in told_rows):
        listed = ", ".join(f"{_label(row)} {change(row)}" for row in told_rows)
        return f"{start}{listed}; of one replication, so no more than that run's differences."
    starts = {
        "same": "the same in",
        "unclear": f"no difference that {seeds} seeds show in",
        None: "of one pair of runs",
    }
    parts = []
    for word in dict.fromkeys(row["verdict"] for row in told_rows):  # that of the metric told first comes first
        those = [_told(row) for row in told_rows if row["verdict"] == word]
        parts.append(f"{starts.get(word, f'{word} in')} {_listed(those)}")
    return f"{start}{'; '.join(parts)}."


def _told(row: Row) -> str:
    """Return a metric, with what changed unless nothing did."""
    if row["verdict"] in ("same", "unclear"):
        return _label(row)
    return f"{_label(row)} ({_brief(row) if row['verdict'] else change(row)})"


def _brief(row: Row) -> str:
    """Return a change with its interval in few words: ``35.1 % lower, 31.2 to 38.9``."""
    if row["ratio"] is None or row["ratio"] >= _TIMES:
        return change(row).replace(" (", ", ").rstrip(")")
    lower = row["ratio"] < 1
    sizes = sorted(abs(100 * (row[name] - 1)) for name in ("ratio_low", "ratio_high"))
    return f"{abs(100 * (row['ratio'] - 1)):.1f} % {'lower' if lower else 'higher'}, {sizes[0]:.1f} to {sizes[1]:.1f}"


def _label(row: Row) -> str:
    return METRICS[row["metric"]].label


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def request_line(pairs: Sequence[Mapping[str, Any]]) -> str:
    """Return how one side's requests fared against the baseline's, one by one.

    Parameters
    ----------
    pairs
        Attributes of `simulator.studies.request_pairs.RequestPairs`.
    """
    said = []
    for pair in pairs:
        middle = pair["difference_s"][1]
        median = "0" if middle == 0 else f"{'-' if middle < 0 else '+'}{duration(abs(middle))}"
        said.append(
            f"{pair['metric'].upper()} sooner for {percent(pair['sooner'])} and later for {percent(pair['later'])} of "
            f"{pair['n']:,} requests, median {median}"
        )
    return "; ".join(said)


def verdict_notes(rows: Sequence[Row]) -> list[str]:
    """Return what the words of `judged` mean, as far as the rows have them."""
    words = {judged(row) for row in rows}
    others = len({row["side"] for row in rows}) - 1
    found = []
    if words & {"better", "worse", "not shown"}:
        found.append(
            "better, worse: Student's 95 % interval over paired seeds leaves no difference out"
            + (f", corrected for {others} sides a metric (Holm)" if others > 1 else "")
            + "; not shown: it doesn't; same: all of it lies within 1 % (shares: 0.1 points)"
        )
        found.append("metrics are not corrected for their number: of twenty without a difference, one may be marked")
    if words & {"(better)", "(worse)"}:
        found.append(f"(better), (worse): by this interval alone, and no more after the correction for {others} sides")
    return found


__all__ = ["SHOWN", "TOLD", "change", "judged", "own", "request_line", "sentence", "unit_of", "verdict_notes"]

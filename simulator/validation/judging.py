"""Verdicts on the table of a validation: which bars are met, by run, by group of serving points, by table.

The bars are those that the project set itself before it saw a result (`docs/validation.md`). Rows that the project
was developed with can't prove it right on others: a bar is met for good only on rows that nobody has looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from simulator.validation.kernels import DECODE_METRIC, PREFILL_METRIC
from simulator.validation.rows import NOT_JUDGED, NOT_RUN

RUN_BARS = {"ttft": 0.02, "tpot": 0.01, "e2e": 0.01}
"""Largest absolute error of mean and p99 of a vLLM run, as a fraction."""

SERVING_BARS = {"ttft_mean": 0.20, "tpot_mean": 0.08}
"""Largest median absolute error of a group of serving points."""

FITTED_TPOT_BAR = 0.12
"""The same for TPOT where the costs are fitted profiles."""

LEAST_ROWS = 5
"""Groups of fewer rows are listed, not judged."""

FIT_BARS = {"median": 0.05, "p90": 0.15}
"""Largest error of a table at points held out of it."""

DECODE_BAR = 0.5
"""How far above its bound a measured decode step may lie, below `DECODE_BAR_BANDWIDTH`."""

DECODE_BAR_BANDWIDTH = 4.0
"""TB/s."""

Word = Literal["pass", "fail", "not judged"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One bar, and whether it is met.

    Attributes
    ----------
    subject
        Run, group, table or accelerator.
    value
        What is judged, a fraction; None where there is nothing.
    bar
        What it may be at most; None: it is not judged.
    rows
        Rows that the value is made of.
    costs
        Kind of the costs: ``measured``, ``fitted``, ``estimate`` ...
    why
        Reason of the word, where it needs one.
    """

    subject: str
    metric: str
    value: float | None
    bar: float | None
    rows: int
    word: Word
    costs: str
    why: str = ""

    @property
    def excess(self) -> float:
        """How many times the bar the value is; for sorting, the worst first."""
        return abs(self.value) / self.bar if self.value is not None and self.bar else 0.0


def run_verdicts(frame: pd.DataFrame) -> list[Verdict]:
    """Return a verdict on mean and p99 of every latency of every vLLM run, worst first.

    An error passes that is within its bar and not above the peer's on the same row. Runs that a constant of the
    costs was calibrated on are not judged.
    """
    found = []
    for row in _rows(frame, "vllm_runs"):
        name, _, which = row.metric.rpartition("_")
        if name not in RUN_BARS or which not in ("mean", "p99"):
            continue
        error, bar, why = abs(row.error), RUN_BARS[name], ""
        word: Word = "pass" if error <= bar else "fail"
        if pd.notna(row.peer_error) and error > abs(row.peer_error):
            word, why = "fail", f"above the peer's {row.peer_error:+.1%}"
        if any(part.endswith(f"calibrated on {row.case}") for part in row.costs.split(" | ")):
            word, why = "not judged", "a constant of the costs was calibrated on this run"
        found.append(Verdict(row.case, row.metric, row.error, bar, 1, word, cost_kind(row.costs), why))
    return _worst_first(found)


def serving_verdicts(frame: pd.DataFrame) -> list[Verdict]:
    """Return a verdict on the median absolute error of every (system, backend, model) and metric, worst first."""
    rows = frame[(frame["dataset"] == "silicon") & frame["metric"].isin(list(SERVING_BARS)) & frame["error"].notna()]
    groups = rows.assign(group=rows["case"].map(group_of), kind=rows["costs"].map(cost_kind))
    found = []
    for (group, metric), part in groups.groupby(["group", "metric"], sort=True):
        kinds = sorted(set(part["kind"]))
        bar = FITTED_TPOT_BAR if metric == "tpot_mean" and kinds == ["fitted"] else SERVING_BARS[str(metric)]
        value = float(part["error"].abs().median())
        few = len(part) < LEAST_ROWS
        word: Word = "not judged" if few else "pass" if value <= bar else "fail"
        why = f"fewer than {LEAST_ROWS} rows" if few else f"median signed error {part['error'].median():+.0%}"
        found.append(Verdict(str(group), str(metric), value, bar, len(part), word, ", ".join(kinds), why))
    return _worst_first(found)


def kernel_verdicts(frame: pd.DataFrame) -> list[Verdict]:
    """Return a verdict on every table at held-out points, and on both bounds of every accelerator, worst first."""
    found = []
    for row in _rows(frame, "kernels"):
        kind = cost_kind(row.costs)
        which = row.metric.rpartition("_")[2]
        if row.metric.startswith("kernel_") and which in FIT_BARS:
            word: Word = "pass" if row.error <= FIT_BARS[which] else "fail"
            found.append(Verdict(row.case, row.metric, row.error, FIT_BARS[which], 1, word, kind))
        elif row.metric == DECODE_METRIC:
            within = kind == "measured" and _bandwidth(row.costs) < DECODE_BAR_BANDWIDTH
            word = "pass" if row.error > 0 and (not within or row.error <= DECODE_BAR) else "fail"
            why = "" if row.error > 0 else "below what the memory allows"
            found.append(Verdict(row.case, row.metric, row.error, DECODE_BAR if within else None, 1, word, kind, why))
        elif row.metric == PREFILL_METRIC:
            word = "pass" if row.error < 0 else "fail"
            found.append(
                Verdict(row.case, row.metric, row.error, None, 1, word, kind, "" if row.error < 0 else "above peak")
            )
    return _worst_first(found)


def left_out(frame: pd.DataFrame) -> pd.DataFrame:
    """Return how many cases of each dataset were not run or not judged, by the reason without its numbers."""
    rows = frame[frame["metric"].isin([NOT_RUN, NOT_JUDGED])]
    if not len(rows):
        return pd.DataFrame(columns=["dataset", "metric", "cases", "reason", "example"])
    kinds = rows["costs"].str.replace(r"\d+(\.\d+)?", "0", regex=True)
    grouped = rows.assign(kind=kinds).groupby(["dataset", "metric", "kind"], sort=False)
    found = grouped.agg(cases=("case", "size"), reason=("costs", "first"), example=("case", "first")).reset_index()
    return found.drop(columns="kind").sort_values(["dataset", "cases"], ascending=[True, False], ignore_index=True)


def group_of(case: str) -> str:
    """Return what a serving point is judged in: ``system/backend/model``."""
    return "/".join(case.split("/")[:3])


def cost_kind(costs: str) -> str:
    """Return the kind of costs that a row's text begins with: ``measured``, ``estimate`` ..."""
    return costs.split(":")[0].split(",")[0].split(" ")[0] if costs else ""


def headline(frame: pd.DataFrame) -> str:
    """Return the answer in a sentence."""
    verdicts = [*run_verdicts(frame), *serving_verdicts(frame), *kernel_verdicts(frame)]
    judged = [verdict for verdict in verdicts if verdict.word != "not judged"]
    compared = frame[~frame["metric"].isin([NOT_RUN, NOT_JUDGED])]
    if not judged:
        return f"{len(compared)} metrics compared; no bar applies to them."
    passed = sum(verdict.word == "pass" for verdict in judged)
    said = f"{passed} of {len(judged)} bars are met"
    worst = max(judged, key=lambda verdict: (verdict.word == "fail", verdict.excess))
    if worst.word == "fail" and worst.value is not None:
        said += f"; the worst is {metric_words(worst.metric)} of {worst.subject}, {worst.value:+.1%}"
        said += f" against {worst.bar:.0%}" if worst.bar else ""
    return f"{said}."


def metric_words(metric: str) -> str:
    """Return a metric as people write it: ``TTFT mean``."""
    words = {"ttft": "TTFT", "tpot": "TPOT", "e2e": "E2E", "mae": "mean absolute error"}
    if metric == "duration_s":
        return "duration"
    text = metric.replace("_per_s", "/s").removeprefix("kernel_")
    return " ".join(words.get(word, word) for word in text.split("_"))


def _rows(frame: pd.DataFrame, dataset: str) -> Iterator[Any]:
    rows = frame[(frame["dataset"] == dataset) & frame["error"].notna()]
    return rows.itertuples(index=False)


def _worst_first(verdicts: list[Verdict]) -> list[Verdict]:
    order = {"fail": 0, "pass": 1, "not judged": 2}
    return sorted(verdicts, key=lambda each: (order[each.word], -each.excess, each.subject, each.metric))


def _bandwidth(costs: str) -> float:
    """Return the accelerator's bandwidth, TB/s, that the row of a bound names."""
    _, _, rest = costs.partition("memory ")
    return float(rest.split(" ")[0])

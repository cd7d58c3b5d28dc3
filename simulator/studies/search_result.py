"""What a search for the best plan found: plans with their figures, ranked, and the front of those that none beats."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from simulator.errors import InputError
from simulator.scenario import Scenario
from simulator.studies import search_files
from simulator.studies.pareto import pareto_front
from simulator.studies.plan_space import Budget, Infeasible, Plan
from simulator.studies.targets import Target, order, sustains, target

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Row:
    """A plan that was simulated.

    Attributes
    ----------
    figures
        `figures_of` its run, and those of `per_gpu`; empty where it failed.
    failure
        Why it has none.
    screened_only
        Whether the figures are of the prefix that plans were screened on.
    kv_tokens
        Tokens of KV that one replica holds.
    """

    plan: Plan
    figures: Mapping[str, Any]
    kv_tokens: int
    failure: str = ""
    is_defect: bool = False
    screened_only: bool = False

    def value(self, by: Target) -> float | None:
        """Return the figure that a target names."""
        value = self.figures.get(by.figure)
        return None if value is None else float(value)


def per_gpu(figures: Mapping[str, Any], gpus: int, price_per_gpu_hour: float | None) -> dict[str, float | None]:
    """Return goodput by what it takes: per GPU, and per unit of price (requests; null without a price)."""
    goodput = figures.get("goodput_requests_per_s")
    return {
        "goodput_per_gpu": None if goodput is None else goodput / gpus,
        "goodput_per_price": goodput * 3600 / (gpus * price_per_gpu_hour)
        if goodput is not None and price_per_gpu_hour
        else None,
    }


def rank(rows: Sequence[Row], by: Target) -> list[Row]:
    """Return the rows, best first; those that failed last.

    Plans simulated on all requests go before those that were only screened. Equal figures: the lower mean end-to-end
    latency, then fewer GPUs, then fewer ranks, so that the order is always the same.
    """
    return sorted(rows, key=lambda row: _key(row, by))


def _key(row: Row, by: Target) -> tuple[Any, ...]:
    latency = row.figures.get("e2e_s_mean")
    return (
        bool(row.failure),
        row.screened_only,
        *order(row.figures, by),
        math.inf if latency is None else latency,
        row.plan.gpus,
        tuple(size for _, size in row.plan.sizes),
    )


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes
    ----------
    rows
        Plans that were simulated, best first.
    baseline
        The plan that engines' guides name, simulated like the others; None: it can't run.
    infeasible
        Plans that can't run, with the reason.
    best_scenario
        The scenario of the best plan with everything decided; None: no plan was simulated to its end.
    stages
        What was simulated, in words: one stage, or screening on a prefix and then finalists.
    notes
        What to know of the ranking.
    pareto_by
        What the front is of that tables mark; empty: none was asked for.
    interrupted
        Whether plans are missing because the search was interrupted.
    took_s
        Wall time, seconds.
    """

    model: str
    budget: Budget
    by: Target
    rows: tuple[Row, ...]
    baseline: Row | None
    infeasible: tuple[Infeasible, ...]
    best_scenario: Scenario | None
    stages: tuple[str, ...]
    notes: tuple[str, ...]
    interrupted: bool
    took_s: float
    pareto_by: tuple[Target, ...] = ()

    @property
    def best(self) -> Row | None:
        """The best plan; None: none was simulated to its end."""
        first = self.rows[0] if self.rows else None
        return None if first is None or first.failure or first.value(self.by) is None else first

    @property
    def gain(self) -> float | None:
        """How many times as good the best plan is as the baseline, above 1 for better; None where one is missing."""
        best = None if self.best is None else self.best.value(self.by)
        base = None if self.baseline is None else self.baseline.value(self.by)
        if not best or not base:
            return None
        return best / base if self.by.higher else base / best

    @property
    def has_defects(self) -> bool:
        """Whether a plan failed by a fault of the simulator."""
        return any(row.is_defect for row in self.rows)

    def pareto(self, *names: str) -> tuple[Row, ...]:
        """Return the plans that no other beats in everything that is named, best by the search's target first.

        Compared are the plans that ran on all requests, sustain the load, serve every request and have every figure:
        what a plan that is too small is good at isn't to be had.

        Parameters
        ----------
        names
            Targets as of `search`: ``ttft_p99``, ``throughput``, ``cost``, ``energy`` ...; none: those of the search.

        Raises
        ------
        InputError
            If one is unknown, or fewer than two are named.
        """
        targets = tuple(map(target, names)) or self.pareto_by
        if len(targets) < 2:
            raise InputError("a Pareto front weighs at least two figures, such as ttft_p99 and cost")
        points = [(row, [row.value(each) for each in targets]) for row in self.rows if _is_weighed(row)]
        known = [
            (row, [value for value in values if value is not None]) for row, values in points if None not in values
        ]
        front = pareto_front([values for _, values in known], lower=[not each.higher for each in targets])
        return tuple(row for (row, _), is_on in zip(known, front, strict=True) if is_on)

    def frame(self) -> pd.DataFrame:
        """Return a row a plan: those simulated, best first, then those that can't run, with ``kind`` and ``reason``."""
        import pandas as pd

        return pd.DataFrame(search_files.table(self))


def _is_weighed(row: Row) -> bool:
    return not (row.failure or row.screened_only or row.figures.get("unserved")) and sustains(row.figures)


__all__ = ["Row", "SearchResult", "per_gpu", "rank"]

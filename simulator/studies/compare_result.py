"""What a comparison found, and how its simulations were made into it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from simulator.errors import InputError, did_you_mean
from simulator.studies import compare_files
from simulator.studies.compare_metrics import Metric, metric
from simulator.studies.compare_sides import Difference
from simulator.studies.intervals import Interval
from simulator.studies.paired import Paired, Verdict
from simulator.studies.request_pairs import RequestPairs
from simulator.studies.store import Done

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class SideResult:
    """One side, simulated.

    Attributes
    ----------
    scenario
        With everything decided; as it was given where that failed.
    differs
        Keys that it differs from the baseline in, without those that it is named for.
    done
        By seed; seeds that an interruption left out are missing.
    failure
        Why it has no figures, or not of every seed; empty otherwise.
    distribution
        Latencies of the first seed's requests at equally spaced shares from 0 to 1, seconds; empty where not known.
    """

    name: str
    scenario: Mapping[str, Any]
    differs: tuple[Difference, ...] = ()
    done: Mapping[int, Done] = field(default_factory=dict)
    failure: str = ""
    is_defect: bool = False
    distribution: Mapping[str, Sequence[float]] = field(default_factory=dict)

    @property
    def cost_sources(self) -> list[str]:
        """Where its step times come from."""
        return next((list(done.outcome.summary["costs"]["sources"]) for done in self.done.values()), [])

    def values(self, of: Metric, seeds: Sequence[int]) -> list[float | None]:
        """Return a figure of each seed; null where there is none."""
        found = [self.done[seed].outcome.figures.get(of.figure) if seed in self.done else None for seed in seeds]
        return [None if value is None else float(value) for value in found]


@dataclass(frozen=True)
class Comparison:
    """One figure of one side, and how it stands to the baseline's.

    Attributes
    ----------
    own
        Over all of the side's seeds.
    pair
        Seed by seed against the baseline; None for the baseline itself.
    corrected
        The pair's p-value after Holm's correction for the number of sides; None where there is none.
    """

    side: str
    metric: Metric
    own: Interval
    pair: Paired | None = None
    corrected: float | None = None
    verdict: Verdict = ""


@dataclass(frozen=True)
class CompareResult:
    """What a comparison found.

    Attributes
    ----------
    sides
        The baseline first, then the others, best by ``by`` first; those without figures last.
    seeds
        That figures are of: all, or the first alone where all are alike.
    seeds_text
        What the seeds stand for.
    comparisons
        A side and metric each: metrics in the order of `METRICS`, sides in the order of ``sides``.
    requests
        By side: the first seed's requests one by one against the baseline's.
    trace
        Digest of the first seed's requests, the same for all sides; empty where they were not compared one by one.
    notes
        What to know of the figures.
    """

    sides: tuple[SideResult, ...]
    baseline: str
    by: Metric
    seeds: tuple[int, ...]
    seeds_text: str
    comparisons: tuple[Comparison, ...]
    requests: Mapping[str, Sequence[RequestPairs]]
    trace: str
    notes: tuple[str, ...]
    simulated: int
    kept: int
    interrupted: bool
    took_s: float

    @property
    def failed(self) -> bool:
        """Whether a simulation failed."""
        return any(side.failure for side in self.sides)

    def of(self, side: str, name: str) -> Comparison:
        """Return a side's comparison by a metric's name."""
        wanted = metric(name)
        for each in self.comparisons:
            if each.side == side and each.metric == wanted:
                return each
        known = [each.name for each in self.sides]
        hint = did_you_mean(side, known) if side not in known else "; it has no such figure"
        raise InputError(f"no comparison of {side!r} by {wanted.name}{hint}")

    def frame(self) -> pd.DataFrame:
        """Return a row a side and metric: means, differences and ratios with intervals, p-values, verdict."""
        import pandas as pd

        return pd.DataFrame(compare_files.table(self))

    def runs(self) -> pd.DataFrame:
        """Return a row a simulation: side, seed, digest, figures, and why it failed."""
        import pandas as pd

        return pd.DataFrame(compare_files.runs(self))


__all__ = ["CompareResult", "Comparison", "SideResult"]

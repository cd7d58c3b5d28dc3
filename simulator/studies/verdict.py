"""Whether a run meets objectives, known as early as it can be: a run that misses too many requests is ended.

A demand says which share of the requests must be within which latency objectives: 0.99 of them with ``ttft_s: 2`` is
"the p99 of TTFT is at most 2 s", of all requests that arrived and not of those that were served alone. A request that
missed stays missed whatever comes, so once more have missed than the share allows the answer is known, and it is the
one that the whole run would have given. That ends a hopeless run after a fraction of its time; a run that meets its
demands is always simulated whole.

`VerdictWatch` listens to the requests' source (`workloads.Source`), so that a watched run is the same to the last bit
as one that is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np

from simulator.build import classes_of, objectives_by_class
from simulator.engine.clock import to_ns
from simulator.engine.recorder import Outcome as Ending
from simulator.errors import InputError
from simulator.metrics import Mask, Rows, arrived_rows, given_objectives, meets_all
from simulator.runner import Watch, run
from simulator.scenario import Slos
from simulator.studies.identity import check_same
from simulator.studies.points import Outcome, Task, died, outcome_of

if TYPE_CHECKING:
    from simulator.resolve import Resolved
    from simulator.run_data import Objectives
    from workloads import Source, Trace

MIN_ATTAINMENT = 0.9
"""Share of requests that must meet the objectives unless a user says otherwise: the 90 % of DistServe (Y. Zhong et al.,
OSDI 2024, section 6.1)."""

_LOOKS = 64
"""How often a run is looked at, a choice: one that is given up went on for 2 % of its requests in vain at most."""


@dataclass(frozen=True)
class Demand:
    """Which share of the requests must be within which objectives.

    Attributes
    ----------
    objectives
        As a scenario's. A class that has none of its own, where none hold for all, is left out.
    share
        Least share of the requests, above 0 and at most 1.
    """

    objectives: Slos
    share: float = MIN_ATTAINMENT

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise InputError(f"the share of requests within the objectives must be above 0 and at most 1: {self.share}")


@dataclass(frozen=True)
class Tally:
    """How a run did by one demand.

    Attributes
    ----------
    met
        Requests that finished within every objective.
    missed
        Requests that didn't, or that no longer could when the run was given up.
    of
        Requests that the demand is about; of a run that was given up, as many as there could have been.
    """

    demand: Demand
    met: int
    missed: int
    of: int

    @property
    def attainment(self) -> float | None:
        """Share within the objectives, at most that where the run was given up; None: no request is concerned."""
        return (self.of - self.missed) / self.of if self.of else None

    @property
    def is_met(self) -> bool:
        """Whether the demand is met; it is where it concerns no request."""
        return self.attainment is None or self.attainment >= self.demand.share


@dataclass(frozen=True)
class Verdict:
    """Whether a run meets demands: the same for a run that was given up as for the whole one.

    Attributes
    ----------
    is_whole
        Whether the run went to its end; else its counts are of what was known when it was given up.
    """

    tallies: tuple[Tally, ...]
    is_whole: bool

    @property
    def is_met(self) -> bool:
        """Whether every demand is met."""
        return all(each.is_met for each in self.tallies)


class VerdictWatch(Watch):
    """Watches one run, and ends it when it can no longer meet its demands: ``run(..., progress=watch)``.

    Parameters
    ----------
    demands
        What the run must meet.
    gives_up
        Whether a run that can't meet them is ended early; without it the run is whole and the verdict the same.

    Attributes
    ----------
    verdict
        The verdict, when the run is over.
    """

    verdict: Verdict

    def __init__(self, demands: Sequence[Demand], *, gives_up: bool = True) -> None:
        if not demands:
            raise InputError("a verdict needs at least one demand")
        self.demands = tuple(demands)
        self.gives_up = gives_up
        self._limits: list[tuple[Objectives, ...]] = []
        self._between = self._countdown = 0

    def resolved(self, resolved: Resolved, trace: Trace) -> None:
        """Work out whom the demands are about.

        Raises
        ------
        InputError
            If a demand names a class that the requests don't have.
        """
        _, names = classes_of(trace)
        self._limits = [objectives_by_class(demand.objectives, names) for demand in self.demands]
        measure = resolved.scenario.measure
        self._warmup_ns = to_ns(measure.warmup_s)
        self._until_ns = None if measure.until_s is None else to_ns(measure.until_s)

    def __enter__(self) -> Self:
        """Listen to the requests' source."""
        cluster = self.cluster
        self._between = self._countdown = max(1, 2 * len(cluster.workload.prompt_tokens) // _LOOKS)
        if self.gives_up:
            cluster.workload = replace(cluster.workload, source=_Heard(cluster.workload.source, self._hear))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the verdict, unless the run broke."""
        if kind is None:
            self.verdict = Verdict(self._tallies(is_over=not self.interrupted), is_whole=not self.interrupted)

    def _hear(self) -> None:
        """Hear that a request came or ended, and look at the run now and then."""
        self._countdown -= 1
        if self._countdown or self.interrupted:
            return
        self._countdown = self._between
        if not all(tally.is_met for tally in self._tallies(is_over=False)):
            self.interrupted = True
            self.cluster.interrupt()

    def _tallies(self, *, is_over: bool) -> tuple[Tally, ...]:
        """Count by demand; while the run goes on: those that missed for good, of as many as there can be.

        Later looks count no fewer misses, of no more requests, so the share that the whole run ends with is no higher
        than the one of now: of the quotients in floating point too, as rounding keeps the order of what it rounds.
        """
        cluster = self.cluster
        rows = arrived_rows(cluster)
        outside = rows.arrival < self._warmup_ns
        if self._until_ns is not None:
            outside |= rows.arrival >= self._until_ns
        found = []
        for demand, limits in zip(self.demands, self._limits, strict=True):
            given = np.array([bool(given_objectives(each)) for each in limits])
            about = given[rows.code] & ~outside
            met = missed = 0
            for code in np.flatnonzero(given).tolist():
                mine = about & (rows.code == code)
                part = rows if mine.all() else rows.take(mine)
                good = meets_all(part, limits[code])
                met += int(good.sum())
                missed += len(part) - int(good.sum()) if is_over else _lost(part, limits[code], good, cluster.env.now)
            still = 0 if is_over else int(given[cluster.workload.class_codes].sum() - given[rows.code].sum())
            found.append(Tally(demand, met, missed, int(about.sum()) + still))
        return tuple(found)


def _lost(rows: Rows, limits: Objectives, met: Mask, now_ns: int) -> int:
    """Return how many requests, of those that have come, can't meet their objectives whatever happens.

    Those that ended without, and those under way that have waited too long for their first token, got it too late, or
    should have ended. A request that begins anew, elsewhere or because its client tries again, keeps its arrival, so
    that its times only grow.
    """
    under_way = rows.outcome == Ending.UNFINISHED
    late = np.zeros(len(rows), dtype=bool)
    waited_ns = now_ns - rows.arrival
    if limits.ttft_s is not None:
        late |= np.where(rows.first >= 0, rows.first - rows.arrival, waited_ns) > to_ns(limits.ttft_s)
    if limits.e2e_s is not None:
        late |= waited_ns > to_ns(limits.e2e_s)
    return int(np.where(under_way, late, ~met).sum())


class _Heard:
    """A source that tells of each request that has come, and of each that has ended."""

    def __init__(self, source: Source, hear: Callable[[], None]) -> None:
        self.trace = source.trace
        self._source = source
        self._hear = hear

    def first(self) -> Iterator[tuple[int, int]]:
        """Yield what the source does."""
        for each in self._source.first():
            yield each
            self._hear()

    def ended(self, row: int, end_ns: int) -> Sequence[tuple[int, int]]:
        """Return what the source does."""
        self._hear()
        return self._source.ended(row, end_ns)


# ------------------------------------------------------------------------------------------------------- of a study


@dataclass(frozen=True)
class Judged:
    """What came of a task that was judged.

    Attributes
    ----------
    verdict
        None where it failed.
    outcome
        As `simulator.studies.points.evaluate` gives it, to the last bit, of a run that went to its end; without figures
        where the run was given up.
    """

    verdict: Verdict | None
    outcome: Outcome


def judge(task: Task, demands: Sequence[Demand]) -> Judged:
    """Simulate one task until its verdict is known; never raises but for Ctrl-C.

    `functools.partial(judge, demands=...)` can be sent to processes (`simulator.studies.workers.run_tasks`).
    """
    try:
        check_same(task)
        watch = VerdictWatch(demands)
        result = run(task.scenario, trace=task.trace, progress=watch)
        whole = outcome_of(result.summary_without_timing) if watch.verdict.is_whole else Outcome()
        return Judged(watch.verdict, whole)
    except ValueError as error:  # InputError, PolicyError, TraceError, ProfileError
        return Judged(None, Outcome(failure=" ".join(str(error).split())))
    except Exception as error:  # one simulation must not take the others with it
        failure = f"a defect of the simulator: {type(error).__name__}: {error}"
        return Judged(None, Outcome(failure=failure, is_defect=True))


def judge_died(task: Task) -> Judged:
    """Return what came of a task whose process ended without a result."""
    return Judged(None, died(task))


__all__ = ["MIN_ATTAINMENT", "Demand", "Judged", "Tally", "Verdict", "VerdictWatch", "judge", "judge_died"]

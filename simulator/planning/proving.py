"""Whether fleets meet the objectives: simulated on all requests, and on replications of them.

A replication is a seed: requests drawn anew from the trace (`workloads.resample_trace`), or from the workload's
generator, and another seed of every random stream.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from simulator.planning.configurations import Configuration
from simulator.planning.fleets import Fleet
from simulator.planning.objectives import Objective, said
from simulator.scenario import Resample, Scenario
from simulator.studies.judging import run_judged
from simulator.studies.points import Task
from simulator.studies.store import Store
from simulator.studies.verdict import Judged

if TYPE_CHECKING:
    from workloads import Trace

NUM_SEEDS = 3
"""Replications that a plan must do on, beside the trace itself."""

Told = Callable[[str], None]
"""Told of each simulation that ended."""


@dataclass(frozen=True)
class Run:
    """One simulation of a fleet.

    Attributes
    ----------
    seed
        None: the requests as they are; else the replication.
    met
        Whether every objective was met.
    misses
        In words, objective by objective.
    is_whole
        Whether it went to its end; else it was ended as soon as an objective could be met no more.
    summary
        Of a whole run.
    failure
        Why there was none.
    """

    seed: int | None
    met: bool
    misses: tuple[str, ...]
    is_whole: bool
    summary: Mapping[str, Any] = field(default_factory=dict, repr=False)
    failure: str = ""
    is_defect: bool = False

    @property
    def where(self) -> str:
        """On which requests, in words."""
        return "the trace" if self.seed is None else f"seed {self.seed}"


@dataclass
class Prover:
    """Simulates fleets on the requests of a scenario, each but once.

    Attributes
    ----------
    base
        The scenario; its cluster is not used, but for what its pool says of engines.
    weights
        Capacity by configuration, for routers.
    seeds
        Of the replications.
    resample
        How they draw the requests anew; None: as the scenario does.
    trace
        Requests in place of the scenario's.
    store
        Where runs are kept; None: nowhere.
    """

    base: Scenario
    objectives: Sequence[Objective]
    weights: Mapping[Configuration, float]
    seeds: tuple[int, ...]
    resample: Resample | None
    trace: Trace | None = None
    store: Store | None = None
    workers: int | None = None
    executor: Executor | None = None
    told: Told = lambda name: None
    runs: dict[tuple[Fleet, int | None], Run] = field(default_factory=dict)

    def task(self, fleet: Fleet, seed: int | None) -> Task:
        """Return the simulation of a fleet."""
        data = fleet.scenario(self.base, self.weights)
        if seed is not None:
            data["seed"] = seed
            if self.resample is not None:
                data["workload"] = {**data.get("workload", {}), "resample": self.resample.model_dump()}
        return Task(data, self.trace)

    def simulate(self, wanted: Sequence[tuple[Fleet, int | None]]) -> None:
        """Simulate fleets on the trace (None) and on seeds; those that were simulated before are not again."""
        left = [pair for pair in dict.fromkeys(wanted) if pair not in self.runs]
        tasks = [self.task(*pair) for pair in left]
        demands = [each.demand for each in self.objectives]
        for place, judged in run_judged(tasks, demands, self.store, workers=self.workers, executor=self.executor):
            fleet, seed = left[place]
            self.runs[left[place]] = self._run(judged, seed)
            self.told(fleet.text)

    def _run(self, judged: Judged, seed: int | None) -> Run:
        verdict, outcome = judged.verdict, judged.outcome
        if verdict is None:
            return Run(seed, False, (outcome.failure,), False, {}, outcome.failure, outcome.is_defect)
        misses = tuple(
            said(objective, tally, outcome.figures, is_whole=verdict.is_whole)
            for objective, tally in zip(self.objectives, verdict.tallies, strict=True)
            if verdict.is_met or not tally.is_met
        )
        return Run(seed, verdict.is_met, misses, verdict.is_whole, outcome.summary)

    def on_trace(self, fleet: Fleet) -> Run:
        """Return the run of a fleet on the requests as they are."""
        self.simulate([(fleet, None)])
        return self.runs[fleet, None]

    def first_that_holds(self, fleets: Sequence[Fleet]) -> Fleet | None:
        """Return the cheapest of some fleets that does on the trace and every seed; all of them are simulated."""
        self.simulate([(fleet, None) for fleet in fleets])
        able = [fleet for fleet in fleets if self.runs[fleet, None].met]
        found = None
        for fleet in sorted(able, key=lambda fleet: fleet.price):
            if self.holds(fleet):
                found = fleet
                break
        return found

    def holds(self, fleet: Fleet) -> bool:
        """Tell whether a fleet does on the trace and on every seed."""
        if not self.on_trace(fleet).met:
            return False
        self.simulate([(fleet, seed) for seed in self.seeds])
        return all(self.runs[fleet, seed].met for seed in self.seeds)

    def of(self, fleet: Fleet) -> list[Run]:
        """Return what is known of a fleet: the trace first."""
        return [self.runs[fleet, seed] for seed in (None, *self.seeds) if (fleet, seed) in self.runs]


__all__ = ["NUM_SEEDS", "Prover", "Run"]

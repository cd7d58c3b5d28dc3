"""Loads that are tried: each with as many replications as it takes to say whether it is sustained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from simulator.errors import InputError
from simulator.scenario import Resample, Scenario
from simulator.studies.bracketing import Answer, Estimate, Replication, estimate
from simulator.studies.intervals import interval
from simulator.studies.judging import run_judged
from simulator.studies.no_load import infeasible_at_no_load
from simulator.studies.points import Task
from simulator.studies.store import Store
from simulator.studies.verdict import Demand, Judged
from simulator.terminal import number, plural

if TYPE_CHECKING:
    from workloads import Trace

FIRST_SEEDS = 3
"""Replications of a load before its interval is looked at: with two, Student's is 13 standard errors wide."""
MORE_SEEDS = 2
"""Replications that are added while the interval contains the threshold: a choice."""
MOST_HALVINGS = 16
"""How often the load is halved at most: a choice."""
BURST_S = 0.1
"""Time within which all requests arrive at the highest load that is tried: hardly longer than a few steps, a choice."""

Progress = Callable[[int, str], None]
"""Told how many simulations have ended, and of which load the last one was."""
FIGURES = ("goodput_requests_per_s", "output_tokens_per_s", "ttft_s_p99", "tpot_s_p99", "itl_s_p99", "e2e_s_p99")
"""Figures of a load that are shown: means over replications."""


@dataclass(frozen=True)
class Probe:
    """A load that was tried.

    Attributes
    ----------
    load
        ``workload.rate_scale``, or clients.
    offered_requests_per_s
        Arrivals; None for a closed loop.
    runs, given_up
        Replications, and how many of them were given up.
    estimate
        The share of requests within the objectives, and whether that sustains the load.
    seeds
        Of the replications.
    resample
        ``workload.resample`` of the runs; None: none.
    figures
        `FIGURES` by name; null where a run was given up, as the others are the better ones, or has none.
    overloaded
        Whether the queue kept growing in most of the whole runs.
    """

    load: float
    offered_requests_per_s: float | None
    runs: int
    given_up: int
    estimate: Estimate
    figures: Mapping[str, float | None]
    overloaded: bool
    seeds: tuple[int, ...]
    resample: Mapping[str, float] | None

    @property
    def answer(self) -> Answer:
        """Whether the load is sustained."""
        return self.estimate.answer

    @property
    def text(self) -> str:
        """The load in words."""
        if self.offered_requests_per_s is None:
            return f"a load of {plural(int(self.load), 'client')}"
        return f"{number(self.offered_requests_per_s)} requests/s (--rate-scale {self.load:.4g})"


@dataclass
class LoadStudy:
    """Asks about loads, one after another, and remembers what came of each.

    Parameters
    ----------
    base
        The scenario, whose load is where the search begins.
    requests
        Its requests, as `simulator.build.load_trace` gives them.
    given
        Requests in place of the scenario's, from which those came; None: none.
    again
        How they are drawn anew for each seed; None: they aren't.
    seeds
        Of the replications of a load, as many as there may be.
    attain
        Share of the requests that must be within the objectives.
    """

    base: Scenario
    requests: Trace
    given: Trace | None
    again: Resample | None
    seeds: Sequence[int]
    attain: float
    store: Store | None
    workers: int | None
    executor: Executor | None
    progress: Progress
    probes: dict[float, Probe] = field(default_factory=dict)
    _done: int = 0
    _is_feasible: bool = False

    @property
    def is_closed(self) -> bool:
        """Whether the load is the number of clients of a closed loop."""
        return self.base.workload.loop.kind == "closed"

    @property
    def key(self) -> str:
        """What the load is, as a key of the scenario."""
        return "workload.loop.clients" if self.is_closed else "workload.rate_scale"

    @property
    def start(self) -> float:
        """The scenario's own load."""
        part = self.base.workload
        return part.loop.clients or 1 if self.is_closed else part.rate_scale

    @property
    def least(self) -> float:
        """The lowest load that may be tried."""
        return 1 if self.is_closed else self.start / 2**MOST_HALVINGS

    @property
    def most(self) -> float:
        """The highest load that may be tried: more clients than requests change nothing."""
        return max(self.start, len(self.requests) if self.is_closed else self.start * self._span_s / BURST_S)

    @property
    def _span_s(self) -> float:
        """Time between the first and the last arrival at the scenario's own load."""
        arrivals = self.requests.arrival_s
        return float(arrivals[-1] - arrivals[0]) if len(arrivals) else 0.0

    @property
    def _hopeless(self) -> Demand:
        """What a run is given up for missing: with twice the misses that are allowed, a whole run says no more."""
        return Demand(self.base.objectives, max(1 - 2 * (1 - self.attain), self.attain / 2))

    def scenario(self, load: float, seed: int, again: Resample | None) -> Scenario:
        """Return the scenario of a load: at every load a seed draws the same blocks of requests."""
        changes: dict[str, Any] = {self.key: int(load) if self.is_closed else load, "seed": seed}
        if again is not None:
            changes["workload.resample"] = self._drawn(load, again)
        return self.base.updated(changes)

    def _drawn(self, load: float, again: Resample) -> dict[str, float]:
        faster = 1.0 if self.is_closed else load / self.start
        return {"block_s": again.block_s / faster, "within_s": again.within_s / faster}

    def span_s(self, load: float) -> float | None:
        """Return the time between the first and the last arrival; None for a closed loop."""
        return None if self.is_closed else self._span_s * self.start / load

    def ask(self, load: float) -> Answer:
        """Say whether a load is sustained, with as many replications as that takes."""
        seen: list[Judged] = []
        while True:
            wanted = min(len(self.seeds), len(seen) + MORE_SEEDS if seen else FIRST_SEEDS)
            seen += self._runs(load, self.seeds[len(seen) : wanted])
            probe = self.probes[load] = self._probe(load, seen)
            if probe.answer != "undecided" or len(seen) == len(self.seeds):
                break
        if probe.answer != "sustained" and not any(each.answer == "sustained" for each in self.probes.values()):
            self._check_feasible()
        return probe.answer

    def _runs(self, load: float, seeds: Sequence[int]) -> list[Judged]:
        tasks = [Task(self.scenario(load, seed, self.again).to_mapping(everything=True), self.given) for seed in seeds]
        found: dict[int, Judged] = {}
        for place, judged in run_judged(
            tasks, [self._hopeless], self.store, workers=self.workers, executor=self.executor
        ):
            found[place] = judged
            self._done += 1
            self.progress(self._done, f"{'clients' if self.is_closed else 'rate x'} {load:.4g}")
        for place, judged in sorted(found.items()):
            if judged.outcome.failure:
                text = f"the run at {self.key}={load:g}, seed {seeds[place]}, failed: {judged.outcome.failure}"
                raise RuntimeError(text) if judged.outcome.is_defect else InputError(text)
        return [judged for _, judged in sorted(found.items())]

    def _probe(self, load: float, seen: Sequence[Judged]) -> Probe:
        shares = []
        for judged in seen:
            assert judged.verdict is not None
            (tally,) = judged.verdict.tallies
            if tally.attainment is None:
                raise InputError("no request of a class with objectives arrives in the window: nothing can be missed")
            shares.append(Replication(tally.attainment, tally.of, judged.verdict.is_whole))
        whole = [judged.outcome.figures for judged in seen if judged.verdict and judged.verdict.is_whole]
        span = self.span_s(load)
        return Probe(
            load=load,
            offered_requests_per_s=(len(self.requests) - 1) / span if span else None,
            runs=len(seen),
            given_up=len(seen) - len(whole),
            estimate=estimate(shares, self.attain),
            figures={
                name: interval(each[name] for each in whole).mean if len(whole) == len(seen) else None
                for name in FIGURES
            },
            overloaded=2 * sum(bool(each["overloaded"]) for each in whole) > len(whole),
            seeds=tuple(self.seeds[: len(seen)]),
            resample=None if self.again is None else self._drawn(load, self.again),
        )

    def _check_feasible(self) -> None:
        """Refuse objectives that can't be met with one request at a time, once, before lower loads are tried."""
        if self._is_feasible:
            return
        said = infeasible_at_no_load(self.base, self.given, len(self.requests), self.attain)
        if said:
            raise InputError(said)
        self._is_feasible = True


__all__ = ["FIRST_SEEDS", "LoadStudy", "Probe", "Progress"]

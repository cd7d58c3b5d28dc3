"""`plan`: the cheapest fleet that serves given requests within given objectives, shown by simulation.

1. Every layout of a replica on every GPU that memory allows is a *configuration*; simulation finds how many of the
   requests one replica of it serves (`capacity`), with a few settings of the engine for the best of them.
2. An integer programme finds the cheapest fleet whose capacities add up (`programme`). It is simulated on all requests,
   iteration by iteration; if it misses an objective the programme is solved again without it and what it contains.
3. Capacities don't quite add up, so that neither proves anything. Every cheaper fleet of the configurations that are
   left is simulated on all requests, too (`enumerating`; where there are too many, those with the most capacity, and
   the result says how many were not): a cheaper one that does becomes the plan, until none is left. A plan does on the
   trace and on replications of it (seeds).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulator.build import load_trace
from simulator.errors import InputError
from simulator.models import load_model
from simulator.planning import disaggregated, files
from simulator.planning.bound import Bound, lower_bound
from simulator.planning.capacity import FEWEST_OF_A_BURST, FEWEST_REQUESTS, Capacity, busiest, question
from simulator.planning.choices import Choice, choices_of
from simulator.planning.configurations import MOST_GPUS, Configuration, configurations
from simulator.planning.enumerating import Enumeration, enumerate_cheaper, try_disaggregated, without_dearer
from simulator.planning.fleets import Fleet, counts_of, fleet_of
from simulator.planning.infeasible import nothing_fits, nothing_meets, too_few
from simulator.planning.keeping import run_capacities
from simulator.planning.objectives import Objective, limits, objectives_of
from simulator.planning.programme import Counts, cheapest
from simulator.planning.proving import NUM_SEEDS, Prover, Run
from simulator.planning.what_ifs import Situation, WhatIf
from simulator.planning.what_ifs import what_ifs as answer_all
from simulator.scenario import Scenario, ScenarioLike, read_scenario
from simulator.studies.plan_space import Infeasible
from simulator.studies.replications import replications
from simulator.studies.store import Store, StoreLike, open_store

if TYPE_CHECKING:
    from workloads import Trace

Progress = Callable[[int, int, str], None]
"""Told how many simulations have ended, of how many that are known of, and what the last one was."""

EVERYBODY = ""
"""The class of a trace without classes."""
TOKENS = (1024, 4096, 8192)
"""Tokens of a step (max_num_batched_tokens) that are tried for the best layouts beside the engine's own: a choice."""
MOST_TUNED = 5
"""Layouts for which they are tried, those with the cheapest capacity: a choice."""
BETTER = 1.15
"""A setting of the engine is taken if it does so many times as much: a choice, above the width of a bracket."""
MOST_ROUNDS = 20
"""How often the programme is solved again at most: a choice."""
RAISE = 1.03
"""What is wanted of the capacities is raised by this each time that a fleet was too small: a choice."""


@dataclass(frozen=True)
class Candidate:
    """A configuration and what it does.

    Attributes
    ----------
    capacities
        By class of request.
    dropped
        Why no fleet of the enumeration has it; empty: some have.
    """

    configuration: Configuration
    capacities: Mapping[str, Capacity]
    dropped: str = ""

    @property
    def shares(self) -> dict[str, float]:
        """Shares of the requests of each class that a replica serves."""
        return {name: capacity.share for name, capacity in self.capacities.items()}

    @property
    def is_open(self) -> bool:
        """Whether it served the most that was tried, and may serve more."""
        return any(capacity.share and capacity.not_share is None for capacity in self.capacities.values())

    @property
    def share(self) -> float:
        """Share of all requests that a replica serves: of every class, in its turn."""
        parts = [capacity.share for capacity in self.capacities.values()]
        return 1 / sum(1 / part for part in parts) if all(parts) else 0.0


@dataclass(frozen=True)
class PlanResult:
    """What a plan came to.

    Attributes
    ----------
    fleet
        The cheapest fleet that was seen to do.
    runs
        It on the trace, then on each seed.
    removals
        The fleet without one replica of each configuration, on the trace and, where it does there, on the seeds.
    enumeration
        Every cheaper fleet, with what became of it.
    candidates
        Configurations, the best for its price first.
    refused
        Layouts that can't run, with the reason.
    rounds
        Fleets that the programme named, in turn, and whether they did.
    scenario
        The fleet as a scenario that `simulator.run` takes.
    what_ifs, bound
        Empty and None where they were not asked for.
    took_s
        Wall time by part, seconds.
    """

    model: str
    requests: int
    rate: float
    peak_rate: float
    objectives: tuple[Objective, ...]
    choices: tuple[Choice, ...]
    fleet: Fleet
    runs: tuple[Run, ...]
    removals: tuple[tuple[Fleet, tuple[Run, ...]], ...]
    enumeration: Enumeration
    candidates: tuple[Candidate, ...]
    refused: tuple[tuple[Choice, Infeasible], ...]
    rounds: tuple[tuple[Fleet, bool], ...]
    scenario: Scenario
    seeds_vary: str
    notes: tuple[str, ...]
    simulations: int
    what_ifs: tuple[WhatIf, ...] = ()
    bound: Bound | None = None
    took_s: Mapping[str, float] = field(default_factory=dict)


def plan(
    scenario: ScenarioLike,
    *,
    objectives: Mapping[str, Any],
    gpus: Sequence[str] | Mapping[str, Mapping[str, Any] | None],
    prices: Mapping[str, float] | None = None,
    at_most: Mapping[str, int] | None = None,
    provider: str | None = None,
    policies: Sequence[str] = (),
    max_gpus: int = MOST_GPUS,
    seeds: int = NUM_SEEDS,
    tune: bool = True,
    disaggregate: bool = True,
    what_ifs: bool = True,
    store: StoreLike = True,
    out: str | PathLike[str] | None = None,
    overwrite: bool = False,
    workers: int | None = None,
    executor: Executor | None = None,
    progress: Progress = lambda done, total, name: None,
    trace: Trace | None = None,
) -> PlanResult:
    """Find the cheapest fleet that serves a scenario's requests within objectives.

    Parameters
    ----------
    scenario
        Requests, model, and one pool that says everything of the engine but GPU, layout and number of replicas.
    objectives
        Latencies at percentiles, seconds: ``{"ttft_p99": 2, "classes": {"chat": {"tpot_p95": 0.05}}}``.
    gpus
        GPUs to choose from: names, or names with ``price``, ``at_most`` (GPUs) and ``node`` each.
    prices, at_most
        By name; they go before the others.
    provider
        Whose list prices are taken where none is given (``hardware_profiles/prices.yaml``).
    policies
        Batching policies to try beside the scenario's.
    max_gpus
        GPUs of a replica at most.
    seeds
        Replications that the plan must do on, beside the requests themselves.
    tune
        Whether a few settings of the engine are tried for the best layouts.
    disaggregate
        Whether fleets are tried whose prompts are computed on replicas of their own.
    what_ifs
        Whether what else might be asked is answered too (`simulator.planning.what_ifs`).
    store
        Where results, verdicts and capacities are kept, as `simulator.studies.store.open_store`.
    out
        Directory for what `simulator.planning.files` writes; None: nothing is written.
    overwrite
        Replace an earlier plan there.
    workers, executor
        As `simulator.studies.workers.run_tasks`; the result doesn't depend on them.
    trace
        Requests in place of the scenario's, filtered as it says.

    Returns
    -------
    PlanResult

    Raises
    ------
    InputError
        For bad input, or if no fleet does: what is in the way, and the nearest that would do.
    """
    clock = _Clock()
    place = None if out is None else files.check_dir(Path(out), overwrite=overwrite)
    kept_in = open_store(store)
    wanted = objectives_of(objectives)
    if not wanted:
        raise InputError("a plan needs objectives: give one, such as --ttft-p99 2 (seconds)")
    base = _base(scenario, wanted)
    choices = choices_of(gpus, prices=prices, at_most=at_most, provider=provider)
    if seeds < 0:
        raise InputError(f"seeds must be 0 or more, got {seeds}")
    if max_gpus < 1:
        raise InputError(f"GPUs of a replica must be at least 1, got {max_gpus}")
    model, loaded = load_model(base.model), load_trace(base, trace)
    if not len(loaded):
        raise InputError("the trace has no requests (after its filters): there is nothing to plan for")
    classes = _classes(wanted, loaded)
    able, refused = configurations(base, model, choices, wanted, loaded, max_gpus)
    if not able:
        raise InputError(nothing_fits(base, model, choices, refused, max_gpus))
    clock.lap("candidates")
    told = _Told(progress)
    measured = _Measured(base, wanted, busiest(loaded), classes, kept_in, workers, executor, told)
    candidates = measured.all(able)
    if not any(each.share for each in candidates):
        candidates = measured.all(able, fewest_requests=FEWEST_OF_A_BURST)
    if tune:
        candidates = _tuned(measured, candidates, policies)
    if not any(each.share for each in candidates):
        raise InputError(
            nothing_meets(base, wanted, [each.configuration for each in candidates], measured.trace, workers)
        )
    candidates = dominated(candidates)
    kept = [each for each in candidates if not each.dropped]
    clock.lap("capacities")
    seeds_are = replications(base, loaded)
    prover = Prover(
        base,
        wanted,
        {each.configuration: each.share for each in kept},
        tuple(base.seed + number for number in range(1, seeds + 1)),
        seeds_are.resample,
        trace,
        kept_in,
        workers,
        executor,
        told.one,
    )
    first, rounds = _first(prover, kept, choices, classes)
    clock.lap("programme and its fleets")
    enumeration = enumerate_cheaper(prover, [each.configuration for each in kept], first, told.expect)
    clock.lap("cheaper fleets")
    if disaggregate:
        price = enumeration.fleet.price
        asked = disaggregated.candidates(base, able, wanted, loaded, _rate(measured.trace), price)
        told.expect(len(asked.fleets))
        prover.weights = {**prover.weights, **{each: rate / _rate(loaded) for each, rate in asked.rates.items()}}
        enumeration = try_disaggregated(prover, enumeration, asked, _rate(measured.trace))
        clock.lap("prefill and decode apart")
    removals = _removals(prover, enumeration.fleet)
    while smaller := [each for each, runs in removals if all(run.met for run in runs)]:
        # Left out of the enumeration by its capacity, and does all the same.
        enumeration = without_dearer(enumeration, min(smaller, key=lambda each: each.price))
        removals = _removals(prover, enumeration.fleet)
    fleet = enumeration.fleet
    clock.lap("one replica fewer")
    answers: tuple[WhatIf, ...] = ()
    bound = None
    if what_ifs:
        shares = {each.configuration: each.shares for each in kept}
        able_now = tuple(each.configuration for each in kept)
        answers = tuple(answer_all(Situation(prover, fleet, able_now, shares, tuple(choices), loaded)))
        clock.lap("what-ifs")
        # In a role a configuration may do that serves nothing alone.
        bounding = able if fleet.is_disaggregated else [each.configuration for each in candidates if each.share]
        bound = lower_bound(base, bounding, loaded)
        clock.lap("lower bound")
    notes = _notes(base, candidates, trace)
    result = PlanResult(
        model=model.name,
        requests=len(loaded),
        rate=_rate(loaded),
        peak_rate=_rate(measured.trace),
        objectives=tuple(wanted),
        choices=tuple(choices),
        fleet=fleet,
        runs=tuple(prover.of(fleet)),
        removals=removals,
        enumeration=enumeration,
        candidates=tuple(candidates),
        refused=tuple(refused),
        rounds=tuple(rounds),
        scenario=Scenario.from_mapping(fleet.scenario(base, prover.weights)),
        seeds_vary=seeds_are.text,
        notes=tuple(notes),
        simulations=told.done,
        what_ifs=answers,
        bound=bound,
        took_s=clock.laps(),
    )
    if place is not None:
        files.write(result, place)
    return result


# ---------------------------------------------------------------------------------------------------------- input


def _base(given: ScenarioLike, objectives: Sequence[Objective]) -> Scenario:
    """Return the scenario with the objectives of the plan, checked for what a plan can't take."""
    base = read_scenario(given)
    pools = base.cluster.pools
    if len(pools) != 1:
        raise InputError(f"a plan makes the pools itself: leave one in cluster.pools, which has {len(pools)}")
    if pools[0].model is not None or base.workload.models:
        raise InputError("a plan is for one model, the scenario's: leave out 'workload.models' and the pool's 'model'")
    for key in ("scaler", "rescheduler", "model_swap"):
        if getattr(base.cluster, key) is not None:
            raise InputError(f"a plan is of fixed fleets, whose requests stay where they are: leave out cluster.{key}")
    for key in ("disaggregation", "faults", "clients", "admission"):
        if getattr(base, key) is not None:
            raise InputError(f"a plan doesn't take {key!r} in its scenario: leave it out")
    if base.workload.loop.kind != "open":
        raise InputError(
            f"a plan is for requests that come when they come (loop 'open'), and the loop is "
            f"{base.workload.loop.kind!r}: slow servers would be sent fewer"
        )
    return base.updated({"objectives": limits(objectives)})


def _classes(objectives: Sequence[Objective], trace: Trace) -> list[str]:
    """Return the classes that have capacities of their own: all of the trace's, if an objective is about one."""
    named = {each.request_class for each in objectives if each.request_class}
    if not named:
        return [EVERYBODY]
    column = trace.request_class
    known = [] if column is None else list(column.names)
    for name in sorted(named):
        if name not in known:
            has = f"it has {', '.join(known)}" if known else "it has no classes"
            raise InputError(f"an objective is for requests of class {name!r}, which the trace has none of: {has}")
    unnamed = sorted(set(known) - named)
    if unnamed and all(each.request_class for each in objectives):
        raise InputError(f"requests of class {unnamed[0]!r} have no objective: give one, or one for all")
    return known


def _rate(trace: Trace) -> float:
    span_s = float(trace.arrival_s[-1] - trace.arrival_s[0]) if len(trace) else 0.0
    return len(trace) / span_s if span_s > 0 else float(len(trace))


def _notes(base: Scenario, candidates: Sequence[Candidate], trace: Trace | None) -> list[str]:
    notes = []
    given = base.cluster.pools[0]
    if given.replicas != 1 or given.accelerator is not None or given.node is not None:
        notes.append("GPU, node and number of replicas that the scenario gives were not used: they are planned")
    failed = [each for each in candidates if any(c.failure for c in each.capacities.values())]
    for each in failed:
        why = next(c.failure for c in each.capacities.values() if c.failure)
        notes.append(f"{each.configuration.text} could not be simulated: {why}")
    if trace is not None:
        notes.append("the requests were given to plan(), not by the scenario: fleet.yaml does not name them")
    return notes


# ----------------------------------------------------------------------------------------------------- capacities


@dataclass
class _Told:
    """Counts simulations for whoever watches."""

    progress: Progress
    done: int = 0
    total: int = 0

    def expect(self, more: int) -> None:
        """Hear that so many more are to come."""
        self.total = max(self.total, self.done) + more

    def one(self, name: str) -> None:
        """Hear that one has ended."""
        self.done += 1
        self.total = max(self.total, self.done)
        self.progress(self.done, self.total, name)


@dataclass
class _Measured:
    """Finds capacities."""

    base: Scenario
    objectives: Sequence[Objective]
    trace: Trace
    classes: Sequence[str]
    store: Store | None
    workers: int | None
    executor: Executor | None
    told: _Told

    def all(
        self,
        wanted: Sequence[Configuration],
        worth: Mapping[Configuration, float] | None = None,
        fewest_requests: int = FEWEST_REQUESTS,
    ) -> list[Candidate]:
        """Return configurations with their capacities, in their order; below what one is ``worth``, 0."""
        pairs = [(each, name) for each in wanted for name in self.classes]
        asked = [
            question(
                self.base, each, self.objectives, self.trace, name or None, (worth or {}).get(each), fewest_requests
            )
            for each, name in pairs
        ]
        found: dict[tuple[Configuration, str], Capacity] = {}
        self.told.expect(len(pairs))
        for place, capacity in run_capacities(asked, self.store, workers=self.workers, executor=self.executor):
            found[pairs[place]] = capacity
            self.told.one(f"capacity of {pairs[place][0].text}")
        return [Candidate(each, {name: found[each, name] for name in self.classes}) for each in wanted]


def _tuned(measured: _Measured, candidates: Sequence[Candidate], policies: Sequence[str]) -> list[Candidate]:
    """Return the candidates, the best layouts with the settings of the engine that make them do clearly more."""
    best = [each for each in dominated(candidates) if not each.dropped][:MOST_TUNED]
    settings: list[tuple[tuple[str, Any], ...]] = [(("engine.max_num_batched_tokens", tokens),) for tokens in TOKENS]
    settings += [(("batching", policy),) for policy in policies]
    variants = {replace(each.configuration, changes=some): each for each in best for some in settings}
    # With several classes what a variant is worth isn't one number: then all of it is found out.
    worth = {variant: BETTER * each.share for variant, each in variants.items()} if len(measured.classes) == 1 else None
    varied = measured.all(list(variants), worth)
    found = []
    for each in candidates:
        own = [other for other in varied if other.configuration.layout == each.configuration.layout]
        own = [other for other in own if other.configuration.choice == each.configuration.choice]
        most = max(own, key=lambda other: other.share, default=each)
        found.append(most if most.share >= BETTER * each.share else each)
    return found


def dominated(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates, cheapest for what they do first, those marked that others make superfluous.

    One is superfluous if some replicas of another, for no more money, do as much of every class as it may do at most
    (brackets of capacities don't overlap), and nothing limits their number. The best of each GPU stays all the same, so
    that every GPU is in the enumeration.
    """
    able = sorted((each for each in candidates if each.share), key=lambda each: (_price(each), each.configuration.text))
    kept: list[Candidate] = []
    found: list[Candidate] = []
    seen: set[str] = set()
    for each in able:
        gpu = each.configuration.choice.gpu
        better = next((other for other in able if other is not each and _beats(other, each)), None)
        if better is None or gpu not in seen:
            kept.append(each)
            found.append(replace(each, dropped=""))
        else:
            times = int(each.configuration.price / better.configuration.price + 1e-9)
            found.append(replace(each, dropped=f"{times} x {better.configuration.text} do as much for no more money"))
        seen.add(gpu)
    rest = [replace(each, dropped=_useless(each)) for each in candidates if not each.share]
    return [*found, *rest]


def _useless(each: Candidate) -> str:
    """Say why a configuration serves nothing within the objectives."""
    for capacity in each.capacities.values():
        if capacity.failure:
            return f"could not be simulated: {capacity.failure}"
        if not capacity.share and capacity.probes:
            last = capacity.probes[-1]
            return f"misses {last.why} even with {last.share:.1%} of the requests"
    return "serves no requests within the objectives"


def _price(each: Candidate) -> float:
    """Return what a unit of capacity costs."""
    return each.configuration.price / each.share


def _beats(one: Candidate, other: Candidate) -> bool:
    times = int(one.configuration.price and other.configuration.price / one.configuration.price + 1e-9)
    if times < 1:
        return False
    choice = one.configuration.choice
    if choice.at_most is not None and (
        choice != other.configuration.choice or times * one.configuration.gpus > other.configuration.gpus
    ):
        return False
    return all(times * one.shares[name] >= _most(capacity) for name, capacity in other.capacities.items())


def _most(capacity: Capacity) -> float:
    """Return what a capacity may be at most: the upper end of its bracket."""
    return capacity.share if capacity.not_share is None else capacity.not_share


# ---------------------------------------------------------------------------------------------------------- fleet


def _first(
    prover: Prover, kept: Sequence[Candidate], choices: Sequence[Choice], classes: Sequence[str]
) -> tuple[Fleet, list[tuple[Fleet, bool]]]:
    """Return a fleet that does, by solving the programme until simulation agrees, and what was tried."""
    able = [each.configuration for each in kept]
    limited = {each.gpu: each.at_most for each in choices if each.at_most is not None}
    too_small: list[Counts] = []
    rounds: list[tuple[Fleet, bool]] = []
    wanted = 1.0
    for _ in range(MOST_ROUNDS):
        counts = cheapest(
            [each.price for each in able],
            [each.shares for each in kept],
            dict.fromkeys(classes, wanted),
            gpus=[each.gpus for each in able],
            types=[each.choice.gpu for each in able],
            at_most=limited,
            beyond=too_small,
        )
        if counts is None:
            break
        fleet = fleet_of(able, counts)
        holds = prover.holds(fleet)
        rounds.append((fleet, holds))
        if holds:
            return fleet, rounds
        failed = next((run for run in prover.of(fleet) if run.is_defect), None)
        if failed is not None:
            raise RuntimeError(failed.failure)
        too_small.append(counts_of(able, fleet))
        wanted *= RAISE
    raise InputError(too_few(kept, choices, classes, prover, rounds))


def _removals(prover: Prover, fleet: Fleet) -> tuple[tuple[Fleet, tuple[Run, ...]], ...]:
    """Return the fleet without one replica of each configuration, simulated on the trace and the seeds."""
    least = 2 if fleet.is_disaggregated else 1  # without its only replica of a role a fleet can't run
    smaller = [fleet.changed(each, -1) for each, n in fleet.parts if fleet.replicas > 1 and (least == 1 or n >= least)]
    prover.simulate([(each, seed) for each in smaller for seed in (None, *prover.seeds)])
    return tuple((each, tuple(prover.of(each))) for each in smaller)


class _Clock:
    """Wall time by part."""

    def __init__(self) -> None:
        self._begun = self._last = time.perf_counter()
        self._laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        """End a part."""
        now = time.perf_counter()
        self._laps[name] = now - self._last
        self._last = now

    def laps(self) -> dict[str, float]:
        """Return the parts and the whole."""
        return {**self._laps, "all": time.perf_counter() - self._begun}


__all__ = ["Candidate", "PlanResult", "dominated", "plan"]

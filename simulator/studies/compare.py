"""`compare`: policies, GPUs or scenarios on the same requests and seeds, with paired differences.

Every side is simulated on the same requests with the same random streams, once a seed, and compared with one of them,
the baseline, seed by seed (`simulator.studies.paired`): what a busy or a quiet day does to all sides drops out. The
requests of the first seed are compared one by one too (`simulator.studies.request_pairs`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulator.build import load_trace
from simulator.errors import InputError, did_you_mean
from simulator.resolve import Resolved, resolve
from simulator.scenario import ScenarioLike, read_scenario
from simulator.studies import compare_files, request_pairs
from simulator.studies.compare_metrics import METRICS, Metric, metric
from simulator.studies.compare_result import CompareResult, Comparison, SideResult
from simulator.studies.compare_runs import Batch, Progress
from simulator.studies.compare_sides import (
    BASE,
    Difference,
    Side,
    check_sides,
    differences,
    sides_of_keys,
)
from simulator.studies.intervals import interval
from simulator.studies.paired import holm, paired, verdict
from simulator.studies.points import Outcome, Task
from simulator.studies.replications import list_seeds, replications
from simulator.studies.request_pairs import Latencies
from simulator.studies.store import Done, StoreLike, open_store

if TYPE_CHECKING:
    from simulator.scenario import Scenario
    from workloads import Trace

SEEDS = 5
"""Replications unless the caller says otherwise: a choice, the fewest with which an interval is of some use."""


# -------------------------------------------------------------------------------------------------------- compare


def compare(
    scenario: ScenarioLike | None = None,
    *,
    policies: Sequence[str] = (),
    gpus: Sequence[str] = (),
    routers: Sequence[str] = (),
    variants: Mapping[str, Mapping[str, Any]] | None = None,
    scenarios: Mapping[str, ScenarioLike] | None = None,
    baseline: str | None = None,
    seeds: int | Sequence[int] = SEEDS,
    resample: bool | None = None,
    by: str = "ttft_p99",
    requests: bool = True,
    workers: int | None = None,
    executor: Executor | None = None,
    store: StoreLike = True,
    out: str | PathLike[str] | None = None,
    overwrite: bool = False,
    progress: Progress = lambda done, total, name: None,
    trace: Trace | None = None,
) -> CompareResult:
    """Compare scenarios on the same requests and seeds.

    Parameters
    ----------
    scenario
        What ``policies``, ``gpus``, ``routers`` and ``variants`` are changes of; it is a side itself (``base``) where
        there is only one other, or ``baseline`` says so.
    policies, gpus, routers
        Batching policies, accelerators (both of every pool) and routers: a side each.
    variants
        Sides by name: the values of dotted keys in which they differ.
    scenarios
        Sides by name: scenarios of their own, which must ask the same (requests, objectives, measured window).
    baseline
        The side that others are compared with; None: the first named.
    seeds
        How many, counted up from the scenario's own, or which.
    resample
        Whether a replayed trace is drawn anew for each seed; None: if there are several seeds and it can be.
    by
        A name of `METRICS`; sides are ordered by it.
    requests
        Compare the first seed's requests one by one too.
    workers, executor
        As `simulator.studies.workers.run_tasks`; the result doesn't depend on them.
    store
        Where results are kept, as `simulator.studies.store.open_store`.
    out
        Directory for what `compare_files.write` writes; None: nothing is written.
    overwrite
        Replace an earlier comparison there.
    progress
        Told of each simulation that ended.
    trace
        Requests in place of the scenarios', filtered as they say.

    Returns
    -------
    CompareResult
        Also after Ctrl-C, with what was done until then.

    Raises
    ------
    InputError, workloads.TraceError
        For bad input, or if fewer than two sides can run.
    """
    begun = time.perf_counter()
    order = metric(by)
    place = None if out is None else compare_files.check_dir(Path(out), overwrite=overwrite)
    sides = _sides(scenario, policies, gpus, routers, variants, scenarios, baseline)
    check_sides(sides)
    _check_by(order, sides)
    wished = _baseline(sides, baseline)
    numbers = list_seeds(seeds, first=sides[0].scenario.seed)
    drawn, seeds_text = _replications(sides[0].scenario, trace, numbers, resample)
    changes = {"seed": numbers[0], "workload.resample": drawn}
    sides = [replace(side, scenario=side.scenario.updated(changes)) for side in sides]
    resolved, failures = _resolved(sides)
    ready = [side for side in sides if side.name in resolved]
    tasks = {(side.name, seed): _task(side, seed, trace) for seed in numbers for side in ready}
    batch = Batch(tasks, open_store(store), workers, executor, progress)
    latencies, interrupted = batch.run(numbers[0] if requests else None)
    base = _with_figures(wished, sides, batch.done)
    results = [_result(side, base, resolved, failures, batch.done, numbers, latencies.get(side.name)) for side in sides]
    _check_results(results, interrupted)
    notes = [] if base == wished else [f"the baseline {wished} has no figures: sides are compared with {base}"]
    used, alike = _without_alike(results, numbers, sides[0].scenario, resample)
    notes += alike
    comparisons = _compare(results, base, used)
    ranked = _ranked(results, base, order, comparisons)
    result = CompareResult(
        sides=tuple(ranked),
        baseline=base,
        by=order,
        seeds=tuple(used),
        seeds_text=seeds_text,
        comparisons=tuple(_in_order(comparisons, ranked)),
        requests={
            side.name: request_pairs.pair_requests(latencies[base], latencies[side.name])
            for side in ranked
            if side.name != base and base in latencies and side.name in latencies
        },
        trace=next((each.trace for each in latencies.values()), ""),
        notes=(*notes, *_notes(ranked, used)),
        simulated=sum(not each.was_kept for each in batch.done.values()),
        kept=sum(each.was_kept for each in batch.done.values()),
        interrupted=interrupted,
        took_s=time.perf_counter() - begun,
    )
    if place is not None:
        compare_files.write(result, place)
    return result


def _sides(
    scenario: ScenarioLike | None,
    policies: Sequence[str],
    gpus: Sequence[str],
    routers: Sequence[str],
    variants: Mapping[str, Mapping[str, Any]] | None,
    scenarios: Mapping[str, ScenarioLike] | None,
    baseline: str | None,
) -> list[Side]:
    """Return all sides in the order in which they were named."""
    for name, given in (("policies", policies), ("gpus", gpus), ("routers", routers)):
        if isinstance(given, str):
            raise InputError(f"{name} takes a list of names, got {given!r}; write [{given!r}]")
    found = []
    if scenario is not None:
        base = read_scenario(scenario)
        found = sides_of_keys(base, policies=policies, gpus=gpus, routers=routers, variants=variants)
        if len(found) + len(scenarios or {}) == 1 or baseline == BASE:
            found.insert(0, Side(BASE, base))
    elif policies or gpus or routers or variants:
        raise InputError("policies, GPUs, routers and variants are changes of a scenario: give that too")
    return [*found, *(Side(name, read_scenario(each)) for name, each in (scenarios or {}).items())]


def _check_by(by: Metric, sides: Sequence[Side]) -> None:
    """Refuse an order by a figure that no run would have."""
    slos = sides[0].scenario.objectives
    if by.name in ("goodput", "attainment") and not slos.classes and not any(slos.model_dump().values()):
        raise InputError(
            f"{by.name} needs objectives: give one of --ttft, --tpot, --itl, --e2e (objectives.ttft_s ...), or order "
            "by another metric (--by)"
        )
    if by.name == "cost":
        free = [s.name for s in sides if any(pool.price_per_gpu_hour is None for pool in s.scenario.cluster.pools)]
        if free:
            have = f"{' and '.join(free)} {'has' if len(free) == 1 else 'have'} none"
            raise InputError(
                f"cost needs prices, and {have}: give --price, or a variant with a price for each "
                "GPU (--variant h100 gpu=h100-sxm price=2.9)"
            )


def _baseline(sides: Sequence[Side], wanted: str | None) -> str:
    names = [side.name for side in sides]
    if wanted is None:
        return names[0]
    if wanted not in names:
        raise InputError(f"no side is called {wanted!r}, which is to be the baseline{did_you_mean(wanted, names)}")
    return wanted


def _resolved(sides: Sequence[Side]) -> tuple[dict[str, Resolved], dict[str, str]]:
    """Return the sides that can run, and why others can't.

    Raises
    ------
    InputError
        If fewer than two can.
    """
    resolved, failures = {}, {}
    for side in sides:
        try:
            resolved[side.name] = resolve(side.scenario)
        except ValueError as error:  # InputError, PolicyError, ProfileError
            failures[side.name] = " ".join(str(error).split())
    if len(resolved) < 2:
        some = f"only {next(iter(resolved))} can run" if resolved else "none of the sides can run"
        raise InputError(f"{some}: " + "; ".join(f"{name}: {why}" for name, why in failures.items()))
    return resolved, failures


def _replications(
    scenario: Scenario, trace: Trace | None, seeds: Sequence[int], wanted: bool | None
) -> tuple[Mapping[str, Any] | None, str]:
    """Return how the trace is drawn anew (`workload.resample`), and what the seeds stand for, in words."""
    recorded = load_trace(scenario.updated({"workload.resample": None, "seed": seeds[0]}), trace)
    found = replications(scenario, recorded, wanted=wanted if len(seeds) > 1 else bool(wanted))
    drawn = None if found.resample is None else found.resample.model_dump(mode="json")
    if len(seeds) == 1:
        return drawn, f"one seed ({seeds[0]}): differences have no intervals"
    in_order = list(seeds) == list(range(seeds[0], seeds[-1] + 1))
    listed = f"{seeds[0]} to {seeds[-1]}" if in_order else ", ".join(map(str, seeds))
    return drawn, f"{len(seeds)} ({listed}): {found.text}"


def _task(side: Side, seed: int, trace: Trace | None) -> Task:
    return Task({**side.scenario.to_mapping(everything=True), "seed": seed}, trace)


# -------------------------------------------------------------------------------------------------------- figures


def _with_figures(wished: str, sides: Sequence[Side], done: Mapping[tuple[str, int], Done]) -> str:
    """Return the baseline, or the first side that has figures in its place."""
    served = {name for (name, _), each in done.items() if not each.outcome.failure}
    return wished if wished in served or not served else next(side.name for side in sides if side.name in served)


def _result(
    side: Side,
    base: str,
    resolved: Mapping[str, Resolved],
    failures: Mapping[str, str],
    done: Mapping[tuple[str, int], Done],
    seeds: Sequence[int],
    latencies: Latencies | None,
) -> SideResult:
    """Put together what is known of a side."""
    if side.name in failures:
        return SideResult(side.name, side.scenario.to_mapping(everything=True), failure=failures[side.name])
    whole = resolved[side.name].scenario.to_mapping(everything=True)
    by_seed = {seed: done[side.name, seed] for seed in seeds if (side.name, seed) in done}
    failed: dict[int, Outcome] = {seed: each.outcome for seed, each in by_seed.items() if each.outcome.failure}
    failure = ""
    if failed:
        reason = next(iter(failed.values())).failure
        failure = reason if len(failed) == len(by_seed) else f"seed {', '.join(map(str, failed))}: {reason}"
    differs: tuple[Difference, ...] = ()
    if side.name != base and base in resolved:
        differs = differences(resolved[base].scenario.to_mapping(everything=True), whole, side.named)
    return SideResult(
        side.name,
        whole,
        differs,
        {seed: each for seed, each in by_seed.items() if not each.outcome.failure},
        failure,
        any(each.is_defect for each in failed.values()),
        {} if latencies is None else request_pairs.distribution(latencies),
    )


def _check_results(results: Sequence[SideResult], interrupted: bool) -> None:
    """Refuse a comparison of which nothing could be simulated."""
    if interrupted or any(each.done or each.is_defect for each in results):
        return
    reasons = dict.fromkeys(f"{each.name}: {each.failure}" for each in results)
    raise InputError(f"none of the sides could be simulated: {'; '.join(reasons)}")


def _without_alike(
    results: Sequence[SideResult], seeds: Sequence[int], scenario: Scenario, resample: bool | None
) -> tuple[list[int], list[str]]:
    """Return the seeds that say something: the first alone where the figures of all are the same, with a note."""
    with_figures = [each for each in results if len(each.done) > 1]
    if not with_figures:
        return list(seeds), []
    for each in with_figures:
        first, *others = (done.outcome.figures for done in each.done.values())
        if any(other != first for other in others):
            return list(seeds), []
    part = scenario.workload
    remedy = ""
    if part.generator is not None and "seed" in part.generator.params:
        remedy = "; the generator's own seed is fixed: leave it out of workload.generator.params"
    elif part.resample is not None:
        remedy = "; its blocks are too long for this trace: shorten workload.resample.block_s"
    elif part.generator is None and resample is False:
        remedy = "; with workload.resample (no --no-resample) they are other days like the trace"
    text = (
        f"all {len(seeds)} seeds gave the same figures, as nothing in these scenarios is random: there is one "
        f"replication, and differences have no intervals{remedy}"
    )
    return [seeds[0]], [text]


def _compare(results: Sequence[SideResult], base: str, seeds: Sequence[int]) -> list[Comparison]:
    """Compare every side with the baseline by every metric that somebody has."""
    first = next(each for each in results if each.name == base)
    found: list[Comparison] = []
    for each in METRICS.values():
        values = {side.name: side.values(each, seeds) for side in results}
        if all(value is None for column in values.values() for value in column):
            continue
        others = [side.name for side in results if side.name != base and side.done]
        pairs = [paired(values[base], values[name], is_share=each.is_share) for name in others]
        found.append(Comparison(base, each, interval(values[first.name])))
        for name, pair, corrected in zip(others, pairs, holm([pair.p_value for pair in pairs]), strict=True):
            said = verdict(pair, corrected, higher_is_better=each.higher_is_better, is_share=each.is_share)
            found.append(Comparison(name, each, interval(values[name]), pair, corrected, said))
    return found


def _ranked(
    results: Sequence[SideResult], base: str, by: Metric, comparisons: Sequence[Comparison]
) -> list[SideResult]:
    """Return the baseline, then the others, best first; equals in the order in which they were named."""
    means = {each.side: each.own.mean for each in comparisons if each.metric == by}

    def key(side: SideResult) -> tuple[bool, bool, float]:
        mean = means.get(side.name)
        return side.name != base, mean is None, 0.0 if mean is None else -mean if by.higher_is_better else mean

    return sorted(results, key=key)


def _in_order(comparisons: Sequence[Comparison], sides: Sequence[SideResult]) -> list[Comparison]:
    places = {side.name: place for place, side in enumerate(sides)}
    metrics = list(METRICS.values())
    return sorted(comparisons, key=lambda each: (metrics.index(each.metric), places[each.side]))


def _notes(sides: Sequence[SideResult], seeds: Sequence[int]) -> Iterator[str]:
    """Yield what to know of the figures before believing them."""
    unserved = {side.name: _mean(side, "unserved", seeds) for side in sides if side.done}
    if any(unserved.values()):
        listed = ", ".join(f"{name} {count:,.10g}" for name, count in unserved.items())
        yield f"latencies are of the requests that were served; not served, on average of the seeds: {listed}"
    overloaded = [side.name for side in sides if _mean(side, "overloaded", seeds)]
    if overloaded:
        yield (
            f"overloaded, by some seeds at least: {', '.join(overloaded)}; their latencies grow as long as the trace "
            "goes on, and differences in them are as much of its length as of the sides"
        )


def _mean(side: SideResult, figure: str, seeds: Sequence[int]) -> float:
    values = [float(side.done[seed].outcome.figures.get(figure) or 0) for seed in seeds if seed in side.done]
    return sum(values) / len(values) if values else 0.0


__all__ = ["SEEDS", "CompareResult", "Comparison", "SideResult", "compare"]

"""`search`: the best parallel plan of a model on given nodes for given requests, by simulation.

Every plan of the space (`simulator.studies.plan_space`) that fits is simulated iteration by iteration on the
requests, and the plans are ranked by what the user wants. This is what APEX does (Y.-C. Lin et al., *APEX: An
Extensible and Dynamism-Aware Simulator for Automated Parallel Execution in LLM Serving*, arXiv:2411.17651); the plan
that engines' guides name is simulated too and shown beside.

One pool is planned; replicas are chosen by the scenario's router, and everything but layout, number of replicas and
the engine limits that are to be tried is as the scenario says. Not searched: different layouts side by side, several
GPU types.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulator.build import load_trace
from simulator.engine_args import expand_args
from simulator.errors import InputError
from simulator.models import ModelSpec, load_model
from simulator.resolve import DEFAULT_ACCELERATOR, Resolved
from simulator.scenario import Parallel, Scenario, ScenarioLike, read_scenario
from simulator.studies import search_files
from simulator.studies.plan_space import (
    POOL,
    Budget,
    Plan,
    dimensions,
    enumerate_plans,
    heuristic,
    limit_keys,
    prune,
    refusal,
    with_limits,
)
from simulator.studies.search_result import Row, SearchResult, rank
from simulator.studies.stages import Evaluation, Progress, in_stages
from simulator.studies.store import StoreLike, open_store
from simulator.studies.targets import Target, sustains, target
from simulator.studies.verdict import MIN_ATTAINMENT
from simulator.terminal import plural

if TYPE_CHECKING:
    from workloads import Trace


FINALISTS = 6
"""Plans of the screening that are simulated on all requests: a choice."""
MOST_REPLICAS = 100_000
"""Replicas of all plans of a search together, a choice: 128 nodes of 8 GPUs have 7,000 for a dense model and 38,000 for
one with experts. All are simulated, which takes about a second for a thousand with hardly anything to do."""


def search(
    scenario: ScenarioLike,
    *,
    nodes: int = 1,
    gpus: int | None = None,
    by: str = "throughput",
    only: Mapping[str, Sequence[int]] | None = None,
    limits: Mapping[str, Sequence[Any]] | None = None,
    pareto: Sequence[str] = (),
    fewer: bool | None = None,
    screen: int | None = None,
    finalists: int = FINALISTS,
    workers: int | None = None,
    executor: Executor | None = None,
    store: StoreLike = True,
    out: str | PathLike[str] | None = None,
    overwrite: bool = False,
    progress: Progress = lambda done, total, name: None,
    trace: Trace | None = None,
) -> SearchResult:
    """Find the best parallel plan of a scenario's model on given nodes.

    Parameters
    ----------
    scenario
        Everything but the layout: requests, model, one pool with its node type or accelerator, engine, objectives.
    nodes
        Nodes of the pool's type.
    gpus
        GPUs, for a pool that names no node type: they count as one node. With a node type: that many of one node.
    by
        One of `TARGETS`: ``goodput``, ``goodput_per_gpu``, ``goodput_per_price`` (they need objectives),
        ``throughput``, ``cost`` (as the one before needs ``price_per_gpu_hour``), ``energy``, or a latency such as
        ``ttft_p99``.
    only
        Allowed sizes by dimension (``tp``, ``pp`` ...), and ``replicas``.
    limits
        Values to try, every combination with every plan, by key of the pool's engine (``max_num_seqs``) or of the pool
        (``batching.params.token_budget``).
    pareto
        Targets whose Pareto front tables and files mark; none: no front.
    fewer
        Whether a plan may leave GPUs idle; None: for ``cost``, ``energy``, and goodput per GPU or price only.
    screen
        Requests of the prefix on which plans are screened; 0: every plan runs on all requests; None: 0, or
        `simulator.studies.stages.SCREEN_REQUESTS` where the trace has more than `SCREEN_ABOVE`.
    finalists
        Plans of the screening that run on all requests; the baseline always does.
    workers, executor
        As `simulator.studies.workers.run_tasks`; the result doesn't depend on them.
    store
        Where results are kept, as `simulator.studies.store.open_store`.
    out
        Directory for ``plans.csv``, ``search.json`` and ``best.yaml``; None: nothing is written.
    overwrite
        Replace an earlier search there.
    progress
        Told of each simulation that ended.
    trace
        Requests in place of the scenario's, filtered as it says.

    Returns
    -------
    SearchResult
        Also after Ctrl-C, with what was done until then.

    Raises
    ------
    InputError
        For bad input, or if no plan can run: why, and the nearest choice that would do.
    """
    begun = time.perf_counter()
    base = read_scenario(scenario)
    wanted = target(by)
    weighed = tuple(map(target, pareto))
    place = None if out is None else search_files.check_dir(Path(out), overwrite=overwrite)
    _check_given(base, (wanted, *weighed), finalists, screen)
    if len(weighed) == 1:
        raise InputError("a Pareto front weighs at least two figures, such as ttft_p99 and cost")
    base = _with_args(base)
    model, budget = load_model(base.model), budget_of(base, nodes, gpus)
    loaded = load_trace(base, trace)
    wide = wanted.must_sustain if fewer is None else fewer
    plans = with_limits(enumerate_plans(model, budget, only=only, fewer=wide), limit_keys(base, limits or {}))
    _check_size(plans, budget)
    every, refused = prune(base, model, budget, plans, loaded)
    if not every:
        raise InputError(refusal(base, model, budget, refused))
    guide = _baseline(base, model, budget, loaded)
    feasible = dict(every)
    if guide is not None:
        feasible.setdefault(*guide)
    evaluation = Evaluation(feasible, trace, open_store(store), workers, executor, progress)
    rows, stages, interrupted = in_stages(
        evaluation, None if guide is None else guide[0], wanted, len(loaded), screen, finalists
    )
    ranked = rank([row for row in rows if row.plan in dict(every)], wanted)
    base_row = next((row for row in rows if guide is not None and row.plan == guide[0]), None)
    notes = _notes(ranked, wanted)
    given, default = base.cluster.pools[0], Parallel()
    searched = [each.name for each in dimensions()]
    if given.replicas != 1 or any(getattr(given.parallel, name) != getattr(default, name) for name in searched):
        notes.append("the layout and the number of replicas that the scenario gives were not used: they are searched")
    if trace is not None:
        notes.append("the requests were given to search(), not by the scenario: best.yaml does not name them")
    result = SearchResult(
        model=model.name,
        budget=budget,
        by=wanted,
        rows=tuple(ranked),
        baseline=base_row,
        infeasible=tuple(refused),
        best_scenario=None,
        stages=tuple(stages),
        notes=tuple(notes),
        interrupted=interrupted,
        took_s=time.perf_counter() - begun,
        pareto_by=weighed,
    )
    if result.best is not None:
        result = replace(result, best_scenario=feasible[result.best.plan].scenario)
    elif not interrupted and not result.has_defects:
        raise InputError(_no_figure(wanted, ranked))
    if place is not None:
        search_files.write(result, place)
    return result


def _check_size(plans: Sequence[Plan], budget: Budget) -> None:
    """Refuse a search that would hardly come to an end."""
    replicas = sum(plan.replicas for plan in plans)
    if replicas > MOST_REPLICAS:
        raise InputError(
            f"{budget.gpus:,} GPUs can be laid out in {len(plans):,} plans, of {replicas:,} replicas in all, more than "
            f"a search takes ({MOST_REPLICAS:,}): name the sizes to try (--only tp=4,8 --only pp=1), or plan a part of "
            "the GPUs for its share of the requests (--rate-scale)"
        )


def _with_args(base: Scenario) -> Scenario:
    """Write the engine's own flags as the keys that they are names of, so that none sets a layout again."""
    data = base.to_mapping()
    if base.cluster.pools[0].engine.args:
        expand_args(data["cluster"]["pools"][0], 0)
    return Scenario.from_mapping(data)


def _check_given(base: Scenario, targets: Sequence[Target], finalists: int, screen: int | None) -> None:
    pools = base.cluster.pools
    if len(pools) != 1:
        raise InputError(f"search plans one pool, and the scenario has {len(pools)}; leave one in cluster.pools")
    if pools[0].model is not None or base.workload.models:
        raise InputError(
            "search plans one model, the scenario's: set 'model', leave out 'workload.models' and the pool's 'model'"
        )
    if finalists < 1:
        raise InputError(f"finalists must be at least 1, got {finalists}")
    if screen is not None and screen < 0:
        raise InputError(f"screen must be at least 0 requests, got {screen}")
    slos = base.objectives
    has_objectives = slos.classes or any((slos.ttft_s, slos.tpot_s, slos.itl_s, slos.e2e_s))
    for by in targets:
        if by.name in ("cost", "goodput_per_price") and pools[0].price_per_gpu_hour is None:
            raise InputError(f"a search by {by.name} needs a price: give {POOL}.price_per_gpu_hour (--price)")
        if by.name.startswith("goodput") and not has_objectives:
            raise InputError(
                f"a search by {by.name} needs objectives: give one of --ttft, --tpot, --itl, --e2e "
                "(objectives.ttft_s ...)"
            )


def budget_of(base: Scenario, nodes: int, gpus: int | None) -> Budget:
    """Return the GPUs that there are; parameters as `search`.

    Raises
    ------
    InputError
        If they don't go together.
    """
    from hardware_profiles import load_accelerator, load_node

    pool = base.cluster.pools[0]
    for name, value in (("nodes", nodes), ("gpus", gpus)):
        if value is not None and value < 1:
            raise InputError(f"search: {name} must be at least 1, got {value}")
    if pool.node is None:
        name = load_accelerator(pool.accelerator or DEFAULT_ACCELERATOR).name
        if gpus is None:
            raise InputError("on how many GPUs? name a node type with --node (and --nodes), or give --gpus")
        if nodes != 1:
            raise InputError("nodes of which type? name it with --node, or give --gpus alone for one node of that many")
        return Budget(1, gpus, f"node of {gpus} {name}")
    node = load_node(pool.node)
    if gpus is None:
        return Budget(nodes, node.gpus, node.name)
    if nodes != 1 or gpus > node.gpus:
        raise InputError(
            f"--gpus {gpus} with nodes of {node.gpus} GPUs ({node.name}): give --nodes for whole nodes, or at most "
            f"{node.gpus} GPUs of one"
        )
    return Budget(1, gpus, node.name if gpus == node.gpus else f"part of a {node.name} with {gpus} GPUs")


def _baseline(base: Scenario, model: ModelSpec, budget: Budget, trace: Trace) -> tuple[Plan, Resolved] | None:
    """Return the guides' plan of the whole space, resolved; None: it can't run."""
    plain = [
        plan
        for plan in enumerate_plans(model, budget)
        if all(size == 1 for name, size in plan.sizes if name not in ("tp", "pp"))
    ]
    feasible, _ = prune(base, model, budget, plain, trace)
    found = heuristic([plan for plan, _ in feasible])
    return None if found is None else (found, dict(feasible)[found])


def _notes(ranked: Sequence[Row], by: Target) -> list[str]:
    """Return what to know of a ranking."""
    told = [row for row in ranked if not row.failure]
    notes = []
    best = told[0].value(by) if told else None
    alike = sum(row.value(by) == best and not row.screened_only for row in told[1:]) if best is not None else 0
    if alike:
        notes.append(
            f"{plural(alike, 'other plan')} {'has' if alike == 1 else 'have'} the same {by.name}: the best of them is "
            "the one with the lower mean end-to-end latency, then fewer GPUs, then the first that was tried"
        )
    if by.name == "throughput" and told and not any(row.figures["overloaded"] for row in told):
        notes.append(
            "no plan was overloaded: each served what arrived, and throughput tells them apart by the tail of the run "
            "only; scale the load up (--rate-scale), use a closed loop (--clients), or search by goodput or a latency"
        )
    if by.must_sustain and told and not any(sustains(row.figures) for row in told):
        notes.append(
            "no plan sustains the load"
            + (
                f" (objectives met by at least {MIN_ATTAINMENT:.0%} of requests)"
                if told[0].figures["attainment"]
                else ""
            )
            + f": the best by {by.name} is the cheapest that is too small"
        )
    if by.must_serve and told and all(row.figures["unserved"] for row in told):
        notes.append("every plan leaves requests unserved; figures are of those that were served")
    return notes


def _no_figure(by: Target, rows: Sequence[Row]) -> str:
    failures = sorted({row.failure for row in rows if row.failure})
    if failures:
        return f"none of {len(rows)} plans could be simulated: {failures[0]}"
    return (
        f"no plan has a figure for {by.name!r}: "
        + ("the runs report no energy" if by.name == "energy" else "no request was served by any of them")
        + f" ({len(rows)} plans were simulated); search by another target"
    )


__all__ = ["FINALISTS", "budget_of", "search"]

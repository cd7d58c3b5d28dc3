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

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulator.build import load_trace
from simulator.engine_args import expand_args
from simulator.errors import InputError, did_you_mean
from simulator.models import ModelSpec, load_model
from simulator.resolve import DEFAULT_ACCELERATOR, Resolved
from simulator.scenario import Parallel, Scenario, ScenarioLike, read_scenario
from simulator.studies import search_files
from simulator.studies.pareto import pareto_front
from simulator.studies.plan_space import (
    POOL,
    Budget,
    Infeasible,
    Plan,
    dimensions,
    enumerate_plans,
    heuristic,
    limit_keys,
    prune,
    refusal,
    with_limits,
)
from simulator.studies.points import LATENCIES, STATISTICS, Outcome, Task, evaluate
from simulator.studies.store import Store, StoreLike, open_store, run_kept
from simulator.studies.verdict import MIN_ATTAINMENT
from simulator.terminal import plural

if TYPE_CHECKING:
    import pandas as pd

    from workloads import Trace

SCREEN_ABOVE = 10_000
"""Requests above which plans are first screened on a prefix, unless the caller says otherwise: a choice."""
SCREEN_REQUESTS = 2_500
"""Requests of that prefix: a choice."""
FINALISTS = 6
"""Plans of the screening that are simulated on all requests: a choice."""
Progress = Callable[[int, int, str], None]
"""Told how many simulations have ended, of how many, and the last one's plan."""

MOST_REPLICAS = 100_000
"""Replicas of all plans of a search together, a choice: 128 nodes of 8 GPUs have 7,000 for a dense model and 38,000 for
one with experts. All are simulated, which takes about a second for a thousand with hardly anything to do."""


# --------------------------------------------------------------------------------------------------------- target


@dataclass(frozen=True)
class Target:
    """What the best plan is best at.

    Attributes
    ----------
    figure
        Name among a row's figures.
    higher
        Whether more is better.
    unit
        Of the figure.
    must_sustain
        Whether plans that don't sustain the load come after all that do: they are cheap because they are too small.
    must_serve
        Whether plans that leave requests unserved come after all that serve them: their figures are of the others.
    """

    name: str
    figure: str
    higher: bool
    unit: str
    must_sustain: bool = False
    must_serve: bool = False


TARGETS: Mapping[str, Target] = {
    "goodput": Target("goodput", "goodput_requests_per_s", True, "requests/s within the objectives"),
    "goodput_per_gpu": Target(
        "goodput_per_gpu", "goodput_per_gpu", True, "requests/s within the objectives per GPU", True
    ),
    "goodput_per_price": Target(
        "goodput_per_price", "goodput_per_price", True, "requests within the objectives per unit of price", True
    ),
    "throughput": Target("throughput", "output_tokens_per_s", True, "output tokens/s"),
    "cost": Target("cost", "cost_per_million_output_tokens", False, "per million output tokens", True, True),
    "energy": Target("energy", "energy_j_per_output_token", False, "J per output token", True, True),
    **{
        f"{metric}_{statistic}": Target(f"{metric}_{statistic}", f"{metric}_s_{statistic}", False, "s", must_serve=True)
        for metric in LATENCIES
        for statistic in STATISTICS
    },
}
"""What ``by`` may name."""


def target(name: str) -> Target:
    """Return a target by its name; ``ttft_s_p99`` and ``ttft-p99`` are ``ttft_p99``."""
    wanted = name.replace("-", "_").replace("_s_", "_")
    if wanted not in TARGETS:
        short = [
            *(each for each in TARGETS if "_" not in each or "_per_" in each),
            "ttft_p99",
            "tpot_mean",
            "itl_p99",
            "e2e_mean",
        ]
        raise InputError(f"unknown target {name!r}{did_you_mean(wanted, short)}")
    return TARGETS[wanted]


# ----------------------------------------------------------------------------------------------------------- rows


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
    value = row.value(by)
    figures = row.figures
    latency = figures.get("e2e_s_mean")
    return (
        bool(row.failure),
        row.screened_only,
        value is None,
        by.must_serve and bool(figures.get("unserved")),
        by.must_sustain and not sustains(row),
        0.0 if value is None else (-value if by.higher else value),
        math.inf if latency is None else latency,
        row.plan.gpus,
        tuple(size for _, size in row.plan.sizes),
    )


def sustains(row: Row) -> bool:
    """Tell whether a plan sustains the load: within the objectives where there are some, else without overload."""
    attainment = row.figures.get("attainment")
    if attainment is not None:
        return bool(attainment >= MIN_ATTAINMENT)
    return not row.figures.get("overloaded")


# --------------------------------------------------------------------------------------------------------- result


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
    return not (row.failure or row.screened_only or row.figures.get("unserved")) and sustains(row)


# --------------------------------------------------------------------------------------------------------- search


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
        `SCREEN_REQUESTS` where the trace has more than `SCREEN_ABOVE`.
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
    evaluation = _Evaluation(feasible, trace, open_store(store), workers, executor, progress)
    rows, stages, interrupted = _in_stages(
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


# --------------------------------------------------------------------------------------------------------- stages


@dataclass
class _Evaluation:
    """Simulates plans, and remembers how many."""

    feasible: Mapping[Plan, Resolved]
    trace: Trace | None
    store: Store | None
    workers: int | None
    executor: Executor | None
    progress: Progress
    done: int = 0
    total: int = 0

    def rows(self, plans: Sequence[Plan], limit: int | None) -> tuple[list[Row], bool]:
        """Simulate plans on the first requests, or on all; return rows in the plans' order, and whether Ctrl-C came."""
        tasks = [Task(_mapping(self.feasible[plan], limit), self.trace) for plan in plans]
        outcomes: dict[int, Outcome] = {}
        interrupted = False
        try:
            for place, done in run_kept(tasks, self.store, work=evaluate, workers=self.workers, executor=self.executor):
                outcomes[place] = done.outcome
                self.done += 1
                self.progress(self.done, self.total, plans[place].text)
        except KeyboardInterrupt:
            interrupted = True
        rows = []
        for place, outcome in sorted(outcomes.items()):
            plan = plans[place]
            pool = self.feasible[plan].pools[0]
            figures = outcome.figures
            if figures:
                figures = {**figures, **per_gpu(figures, plan.gpus, pool.pool.price_per_gpu_hour)}
            rows.append(
                Row(
                    plan,
                    figures,
                    pool.memory.kv_tokens,
                    outcome.failure,
                    outcome.is_defect,
                    screened_only=limit is not None,
                )
            )
        return rows, interrupted


def _mapping(resolved: Resolved, limit: int | None) -> dict[str, Any]:
    data = resolved.scenario.to_mapping(everything=True)
    if limit is not None:
        data["workload"]["limit"] = limit
    return data


def _in_stages(
    evaluation: _Evaluation, guide: Plan | None, by: Target, requests: int, screen: int | None, finalists: int
) -> tuple[list[Row], list[str], bool]:
    """Simulate all plans on all requests, or on a prefix and the best of them on all."""
    plans = list(evaluation.feasible)
    prefix = (SCREEN_REQUESTS if requests > SCREEN_ABOVE else 0) if screen is None else screen
    kept = finalists + (guide is not None)
    if not prefix or prefix >= requests or len(plans) <= kept:
        evaluation.total = len(plans)
        rows, interrupted = evaluation.rows(plans, None)
        return rows, [f"{len(rows)} of {len(plans)} plans on all {requests:,} requests"], interrupted
    evaluation.total = len(plans) + kept
    screened, interrupted = evaluation.rows(plans, prefix)
    stages = [f"screening: {len(screened)} of {len(plans)} plans on the first {prefix:,} of {requests:,} requests"]
    if interrupted:
        return screened, stages, True
    best = [row.plan for row in rank(screened, by) if not row.failure][:finalists]
    finals = [plan for plan in plans if plan in best or plan == guide]
    evaluation.total = len(plans) + len(finals)
    final, interrupted = evaluation.rows(finals, None)
    stages.append(f"final: {len(final)} of {len(finals)} plans on all {requests:,} requests")
    done = {row.plan for row in final}
    return [*final, *(row for row in screened if row.plan not in done)], stages, interrupted


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
    if by.must_sustain and told and not any(sustains(row) for row in told):
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


__all__ = [
    "TARGETS",
    "Row",
    "SearchResult",
    "Target",
    "budget_of",
    "per_gpu",
    "rank",
    "search",
    "sustains",
    "target",
]

"""The space of parallel plans of a number of GPUs: what is in it, and what of it can't run, with the reason.

A plan says how the GPUs of one replica share the model, and how many replicas there are. The space is the one of APEX
(Y.-C. Lin et al., arXiv:2411.17651; ``apex_plus/search/engine.py``): replicas, stages of a replica and ranks of a stage
are divisors of what there is, so that every GPU is used and no group lies across a node's edge. APEX also splits
attention and the feed-forward of a layer in different ways; here that is what ``dp`` and ``ep`` do, where the engine
has them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any

from simulator.errors import InputError, did_you_mean
from simulator.memory import MemoryTooSmallError
from simulator.parallel import ParallelPlan
from simulator.scenario import Parallel

if TYPE_CHECKING:
    from simulator.models import ModelSpec
    from simulator.resolve import Resolved
    from simulator.scenario import Scenario
    from workloads import Trace

POOL = "cluster.pools.0"
"""The pool that is planned."""
MOST_NODES_TRIED = 64
"""How far `nodes_that_would_do` looks."""


@dataclass(frozen=True)
class Budget:
    """The GPUs that there are.

    Attributes
    ----------
    nodes
        Number of nodes.
    gpus_per_node
        GPUs of each.
    node
        Their type in words, for messages.
    """

    nodes: int
    gpus_per_node: int
    node: str

    @property
    def gpus(self) -> int:
        """GPUs of all nodes."""
        return self.nodes * self.gpus_per_node


@dataclass(frozen=True)
class Dimension:
    """One way to split a model over GPUs.

    Attributes
    ----------
    name
        Field of `ParallelPlan`, and key of ``parallel`` in a scenario.
    about
        What it counts.
    multiplies
        Whether a replica has that many times the GPUs; otherwise it divides work among ranks that are there anyway.
    in_node
        Whether its ranks must be in one node.
    applies
        Whether more than 1 can make sense for a model.
    over
        Of a dimension that multiplies nothing: whose ranks it divides.
    """

    name: str
    about: str
    multiplies: bool
    in_node: bool
    applies: Callable[[ModelSpec], bool]
    over: tuple[str, ...] = ()


def _every_model(model: ModelSpec) -> bool:
    return True


def _with_experts(model: ModelSpec) -> bool:
    return model.moe is not None


DIMENSIONS: tuple[Dimension, ...] = (
    Dimension("tp", "tensor parallel ranks", True, True, _every_model),
    Dimension("cp", "context parallel ranks", True, True, _every_model),
    Dimension("dp", "attention data parallel ranks", True, False, _with_experts),
    Dimension("pp", "pipeline stages", True, False, _every_model),
    Dimension("ep", "ranks that the routed experts are spread over", False, False, _with_experts, ("tp", "dp")),
)
"""Everything that the search knows; those that neither `ParallelPlan` nor the scenario has are left out."""


def dimensions() -> tuple[Dimension, ...]:
    """Return the dimensions that a plan has."""
    having = {field.name for field in fields(ParallelPlan)} & set(Parallel.model_fields)
    return tuple(each for each in DIMENSIONS if each.name in having)


@dataclass(frozen=True)
class Plan:
    """One candidate: sizes by dimension, in the order of `dimensions`, the number of replicas, and engine limits.

    Attributes
    ----------
    limits
        Scenario keys and their values, beside the layout; none: as the scenario has them.
    """

    sizes: tuple[tuple[str, int], ...]
    replicas: int
    limits: tuple[tuple[str, Any], ...] = ()

    @property
    def by_name(self) -> dict[str, int]:
        """Sizes by dimension."""
        return dict(self.sizes)

    @property
    def gpus_per_replica(self) -> int:
        """GPUs of a replica."""
        multiplying = {each.name for each in dimensions() if each.multiplies}
        return prod(size for name, size in self.sizes if name in multiplying)

    @property
    def gpus(self) -> int:
        """GPUs of all replicas."""
        return self.replicas * self.gpus_per_replica

    @property
    def text(self) -> str:
        """The plan as people write it: ``2 x (tp 4, pp 2), max_num_seqs 64``; what is 1 is left out, but tp."""
        sizes = ", ".join(f"{name} {size}" for name, size in self.sizes if size > 1 or name == "tp")
        limits = "".join(f", {key.rpartition('.')[2]} {value}" for key, value in self.limits)
        return f"{self.replicas} x ({sizes}){limits}"

    def changes(self) -> dict[str, object]:
        """Return the scenario keys that make it; None takes a key back to its default."""
        return {
            f"{POOL}.replicas": self.replicas,
            f"{POOL}.parallel.attention_dp": None,  # another way to write dp
            **{f"{POOL}.parallel.{name}": size for name, size in self.sizes},
            **dict(self.limits),
        }


@dataclass(frozen=True)
class Infeasible:
    """A plan that can't run.

    Attributes
    ----------
    kind
        ``layout`` (the model can't be split so), ``nodes`` (a group would lie across nodes), ``memory`` (it doesn't
        fit, or holds no request), ``engine`` (the engine or policy has no such layout, or a limit can't be kept).
    reason
        In a sentence.
    """

    plan: Plan
    kind: str
    reason: str


# ---------------------------------------------------------------------------------------------------- enumeration


def enumerate_plans(
    model: ModelSpec,
    budget: Budget,
    *,
    only: Mapping[str, Sequence[int]] | None = None,
    fewer: bool = False,
) -> list[Plan]:
    """Return every plan of a number of GPUs, infeasible ones included, in a fixed order.

    Parameters
    ----------
    only
        Allowed sizes by dimension, and ``replicas``; a dimension that is left out has all its sizes.
    fewer
        Whether plans may leave GPUs idle: for each layout every number of replicas, not the largest alone.

    Returns
    -------
    list of Plan
        Replicas of g GPUs, g a divisor of all GPUs. Dimensions that multiply GPUs have the divisors of g; those in a
        node divide a node; the others have the divisors of the ranks that they divide.

    Raises
    ------
    InputError
        If ``only`` names a dimension that no plan has.
    """
    known = dimensions()
    allowed = dict(only or {})
    for name in allowed:
        options = [*(each.name for each in known), "replicas"]
        if name not in options:
            raise InputError(f"plans have no dimension {name!r}{did_you_mean(name, options)}")
    found = []
    for sizes in _layouts(model, budget, known):
        if any(size not in allowed.get(name, (size,)) for name, size in sizes.items()):
            continue
        named = tuple(sizes.items())
        most = budget.gpus // Plan(named, 1).gpus_per_replica
        counts = range(1, most + 1) if fewer or "replicas" in allowed else (most,)
        found += [Plan(named, count) for count in counts if count in allowed.get("replicas", (count,))]
    return found


def _layouts(model: ModelSpec, budget: Budget, known: Sequence[Dimension]) -> Iterator[dict[str, int]]:
    """Yield the sizes of every layout of one replica, by dimension in the order of the table."""
    multiplying = [each for each in known if each.multiplies]
    dividing = [each for each in known if not each.multiplies]
    ranges = [
        divisors(budget.gpus_per_node if each.in_node else budget.gpus) if each.applies(model) else [1]
        for each in multiplying
    ]
    for chosen in product(*ranges):
        sizes = dict(zip((each.name for each in multiplying), chosen, strict=True))
        if budget.gpus % prod(chosen):
            continue
        ranks = [prod(sizes.get(name, 1) for name in each.over) for each in dividing]
        options = [divisors(n) if each.applies(model) else [1] for each, n in zip(dividing, ranks, strict=True)]
        for shared in product(*options):
            spread = dict(zip((each.name for each in dividing), shared, strict=True))
            yield {each.name: {**sizes, **spread}[each.name] for each in known}


def divisors(number: int) -> list[int]:
    """Return the divisors of a number, ascending."""
    return [each for each in range(1, number + 1) if number % each == 0]


def with_limits(plans: Sequence[Plan], limits: Mapping[str, Sequence[Any]]) -> list[Plan]:
    """Return every plan with every combination of limits.

    Parameters
    ----------
    limits
        Values by scenario key, as `limit_keys` gives them; none: the plans as they are.
    """
    combined = [tuple(zip(limits, values, strict=True)) for values in product(*limits.values())]
    return [replace(plan, limits=each) for plan in plans for each in combined]


def limit_keys(base: Scenario, limits: Mapping[str, Sequence[Any]]) -> dict[str, tuple[Any, ...]]:
    """Return limits by their full scenario keys, each value tried.

    Parameters
    ----------
    limits
        Values by name: a key of the pool's engine (``max_num_seqs``, ``max-num-seqs``), or one of the pool
        (``batching.params.token_budget``).

    Raises
    ------
    InputError
        If a key is unknown or part of the layout, a value is none of its values, or there are none.
    """
    found: dict[str, tuple[Any, ...]] = {}
    for name, values in limits.items():
        path = name.strip()
        path = path.removeprefix(f"{POOL}.") if "." in path else f"engine.{path.replace('-', '_')}"
        if path.split(".")[0] in ("parallel", "replicas") or path == "engine.replicas":
            raise InputError(f"limit {name}: the layout is searched anyway; narrow it with 'only' (--only)")
        if not values:
            raise InputError(f"limit {name}: give at least one value")
        key = f"{POOL}.{path}"
        if key in found:
            raise InputError(f"limit {name} is there twice; give all its values at once")
        for value in values:
            if not isinstance(value, str | int | float | None):
                raise InputError(f"limit {name}: values are numbers or words, got {value!r}")
            base.updated({key: value})
        found[key] = tuple(dict.fromkeys(values))
    return found


# -------------------------------------------------------------------------------------------------------- pruning


def prune(
    base: Scenario, model: ModelSpec, budget: Budget, plans: Sequence[Plan], trace: Trace | None = None
) -> tuple[list[tuple[Plan, Resolved]], list[Infeasible]]:
    """Part the plans into those that can run, resolved, and those that can't, with the reason.

    Nothing is pruned for being slow: which of two feasible plans is better depends on the requests, so no plan is
    provably dominated before it is simulated.
    """
    feasible, infeasible = [], []
    for plan in plans:
        found = check(base, model, budget, plan, trace)
        if isinstance(found, Infeasible):
            infeasible.append(found)
        else:
            feasible.append((plan, found))
    return feasible, infeasible


def check(
    base: Scenario, model: ModelSpec, budget: Budget, plan: Plan, trace: Trace | None = None
) -> Resolved | Infeasible:
    """Return the scenario of a plan with everything decided, or why it can't run (with a trace: can't serve it)."""
    from simulator.capacity import check_capacity
    from simulator.resolve import resolve

    try:
        sizes: dict[str, Any] = plan.by_name
        ParallelPlan(**sizes).check(model)
    except InputError as error:
        return Infeasible(plan, "layout", str(error))
    reason = _across_nodes(budget, plan)
    if reason is not None:
        return Infeasible(plan, "nodes", reason)
    try:
        resolved = resolve(base.updated(plan.changes()))
    except MemoryTooSmallError as error:
        return Infeasible(plan, "memory", str(error))
    except InputError as error:
        return Infeasible(plan, "engine", str(error))
    try:
        if trace is not None:
            check_capacity(resolved, trace)
    except InputError as error:
        return Infeasible(plan, "memory", str(error))
    return resolved


def _across_nodes(budget: Budget, plan: Plan) -> str | None:
    """Say which group would lie across a node's edge; None: none does."""
    in_node = [each.name for each in dimensions() if each.in_node]
    group = prod(plan.by_name[name] for name in in_node)
    if budget.gpus_per_node % group:
        sizes = " x ".join(f"{name}={plan.by_name[name]}" for name in in_node)
        return f"{sizes} GPUs that must share a node don't divide the {budget.gpus_per_node} of a {budget.node}"
    size = plan.gpus_per_replica
    if size < budget.gpus_per_node and budget.gpus_per_node % size:
        return (
            f"replicas of {size} GPUs don't divide the {budget.gpus_per_node} of a {budget.node}: some would span two"
        )
    return None


def heuristic(feasible: Sequence[Plan]) -> Plan | None:
    """Return the plan that engines' guides name, of those that can run.

    Tensor parallelism over a whole node, pipeline stages over nodes only as far as the model needs them, and replicas
    over the rest ("set tensor_parallel_size to the number of GPUs per node and pipeline_parallel_size to the number of
    nodes", vLLM's documentation, *Parallelism and Scaling*). Where the model's heads forbid a whole node, the largest
    tp that they allow.
    """
    plain = [plan for plan in feasible if all(size == 1 for name, size in plan.sizes if name not in ("tp", "pp"))]
    return min(plain, key=lambda plan: (-plan.by_name["tp"], plan.by_name.get("pp", 1), -plan.replicas), default=None)


def refusal(base: Scenario, model: ModelSpec, budget: Budget, infeasible: Sequence[Infeasible]) -> str:
    """Say that no plan can run, why, and the nearest choice that would do."""
    counts = ", ".join(f"{count} for {kind}" for kind, count in count_by_kind(infeasible).items())
    gpus = f"{budget.nodes} x {budget.node} ({budget.gpus} GPUs)"
    said = f"no plan of {model.name} can run on {gpus}: {len(infeasible)} tried, refused {counts}"
    if not infeasible:
        return f"no plan of {model.name} on {gpus} is among those that 'only' allows; allow more sizes"
    nearest = max(
        (each for each in infeasible if each.kind == "memory"),
        key=lambda each: (each.plan.gpus_per_replica, each.plan.by_name["tp"]),
        default=infeasible[-1],
    )
    more = nodes_that_would_do(base, model, budget)
    remedy = "" if more is None else f"; {more[0]} x {budget.node} would do ({more[1].text})"
    return f"{said}; nearest: {nearest.plan.text}: {nearest.reason}{remedy}"


def nodes_that_would_do(base: Scenario, model: ModelSpec, budget: Budget) -> tuple[int, Plan] | None:
    """Return the least number of nodes on which some plan can run, one replica of it; None: no number tried does."""
    count = budget.nodes + 1
    while count <= MOST_NODES_TRIED:
        wider = Budget(count, budget.gpus_per_node, budget.node)
        plans = enumerate_plans(model, wider)
        feasible, _ = prune(base, model, wider, [plan for plan in plans if plan.replicas == 1])
        if feasible:
            return count, heuristic([plan for plan, _ in feasible]) or feasible[0][0]
        count += 1 if count < 8 else 4
    return None


def count_by_kind(infeasible: Sequence[Infeasible]) -> dict[str, int]:
    """Return how many plans were refused for which kind of reason, most first."""
    kinds = [each.kind for each in infeasible]
    return {kind: kinds.count(kind) for kind in sorted(set(kinds), key=lambda kind: (-kinds.count(kind), kind))}

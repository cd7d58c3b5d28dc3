"""How a pool's experts are placed, and so how unequal the work of its expert parallel ranks is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies import registry
from policies.protocols import ParallelismPolicy
from simulator.cost.expert_load import DEFAULT_LOAD, ExpertLoad, hottest, popularity
from simulator.errors import InputError
from simulator.rng import EXPERTS, stream
from simulator.scenario_experts import Experts

if TYPE_CHECKING:
    from hardware_profiles import NodeType
    from simulator.models.spec import ModelSpec
    from simulator.parallel import ParallelPlan


def expert_load(part: Experts, model: ModelSpec, plan: ParallelPlan, node: NodeType | None, seed: int) -> ExpertLoad:
    """Return what kernels of routed experts are asked for under a stated routing and placement.

    Raises
    ------
    InputError
        If the model has no experts to place, or the policy places them impossibly.
    """
    routing = part.routing
    if model.moe is None:
        if part != Experts():
            raise InputError(f"experts: {model.name} has no routed experts; leave the key 'experts' out")
        return DEFAULT_LOAD
    if routing.kind == "measured":
        return DEFAULT_LOAD
    count = model.moe.num_experts
    shares = popularity(routing.kind, count, routing.exponent, routing.loads, stream(seed, EXPERTS))
    policy = registry.make("parallelism", part.placement.name, part.placement.params)
    assert isinstance(policy, ParallelismPolicy)
    nodes = 1 if node is None else max(1, plan.tp * plan.dp // node.gpus)
    try:
        busiest = hottest(shares, policy.place(shares.tolist(), plan.ep, min(nodes, plan.ep), part.redundant))
    except InputError as error:
        raise InputError(f"parallelism policy {policy.name!r}: {error}") from None
    how = routing.kind if routing.exponent is None else f"{routing.kind} (exponent {routing.exponent:g})"
    copies = f" and {part.redundant} copies" if part.redundant else ""
    return ExpertLoad(
        "balanced",
        busiest,
        f"experts: routing {how}, {count} experts{copies} placed by {policy.name!r}: the busiest of {plan.ep} ranks "
        f"has {busiest:.2f} times the mean; kernels as measured for balanced tokens, as many rows",
    )

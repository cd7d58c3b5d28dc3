"""The disaggregation of a scenario, made from its parts."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from policies import registry
from policies.protocols import RoutingPolicy
from simulator.disaggregation.feature import DisaggregationFeature
from simulator.models import kv_bytes_per_token
from simulator.network.cluster_network import check_connected
from simulator.rng import DECODE_ROUTER, stream

if TYPE_CHECKING:
    from simulator.resolve import Resolved


def make_disaggregation(resolved: Resolved) -> DisaggregationFeature:
    """Return the feature of a resolved scenario that has one.

    Raises
    ------
    InputError
        If no link joins the pools.
    """
    scenario, part = resolved.scenario, resolved.scenario.disaggregation
    assert part is not None
    taking_part = [each.pool for each in resolved.pools if each.pool.role != "mixed" or part.kind == "splitwise"]
    check_connected(resolved, [pool.name for pool in taking_part], "disaggregation")
    model = next(each.model for each in resolved.pools if each.pool is taking_part[0])
    router = registry.make("routing", part.decode_router.name, part.decode_router.params)
    assert isinstance(router, RoutingPolicy)
    make_chooser = None
    if part.kind == "splitwise":
        from simulator.disaggregation.splitwise import ClusterScheduler

        make_chooser = partial(ClusterScheduler, max_pending_prompt_tokens=part.max_pending_prompt_tokens)
    return DisaggregationFeature(
        part,
        [each.pool.role for each in resolved.pools for _ in range(each.max_replicas * each.plan.dp)],
        decode_router=router,
        rng=stream(scenario.seed, DECODE_ROUTER),
        kv_bytes_per_token=kv_bytes_per_token(model, taking_part[0].dtypes.kv or model.base_dtype),
        num_layers=model.num_layers,
        make_chooser=make_chooser,
    )


__all__ = ["make_disaggregation"]

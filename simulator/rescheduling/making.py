"""The rescheduling of a scenario: what can't be, and the feature made from its parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies import registry
from policies.protocols import BatchingPolicy, ReschedulingPolicy
from simulator.errors import InputError
from simulator.models import kv_bytes_per_token
from simulator.network.cluster_network import check_connected
from simulator.rescheduling.feature import MovingPool, ReschedulingFeature

if TYPE_CHECKING:
    from simulator.resolve import Resolved, ResolvedPool


def make_rescheduling(resolved: Resolved) -> ReschedulingFeature:
    """Return the feature of a resolved scenario that has a rescheduler.

    Raises
    ------
    InputError
        If requests of a pool can't move, or no link joins its replicas.
    """
    cluster = resolved.scenario.cluster
    ref = cluster.rescheduler
    assert ref is not None
    pools, first = [], 0
    for index, each in enumerate(resolved.pools):
        replicas = range(first, first + each.max_replicas * each.plan.dp)
        first = replicas.stop
        if len(replicas) < 2 or each.pool.role == "prefill":
            continue
        _check(each, index)
        check_connected(resolved, [each.pool.name], "rescheduling")
        policy = registry.make("rescheduling", ref.name, ref.params)
        assert isinstance(policy, ReschedulingPolicy)
        kv_bytes = kv_bytes_per_token(each.model, each.pool.dtypes.kv or each.model.base_dtype)
        pools.append(MovingPool(each.pool.name, replicas, policy, kv_bytes))
    if not pools:
        raise InputError(
            "cluster.rescheduler: requests move between the replicas of a pool, and no pool that decodes has two; give "
            "one more 'replicas', or leave the rescheduler out"
        )
    part = cluster.migration
    return ReschedulingFeature(pools, last_stage_max_blocks=part.last_stage_max_blocks, max_stages=part.max_stages)


def _check(each: ResolvedPool, index: int) -> None:
    """Refuse pools whose requests can't go on elsewhere."""
    pool, where = each.pool, f"cluster.pools.{index}"
    assert pool.batching is not None
    policy = registry.resolve("batching", pool.batching.name)
    assert issubclass(policy, BatchingPolicy)
    if not policy.takes_over:
        raise InputError(
            f"{where}.batching: {pool.batching.name!r} plans a request's memory or batch from its admission on, so it "
            "can't take over requests that migrate; choose another policy, or leave cluster.rescheduler out"
        )
    for name, given in (
        (f"pipeline stages (pp={each.plan.pp})", each.plan.pp > 1),
        (f"attention data parallel ranks (dp={each.plan.dp})", each.plan.dp > 1),
        ("a KV budget", pool.kv_budget is not None),
    ):
        if given:
            raise InputError(f"{where}: migration is not modelled with {name}; leave one of them out")


__all__ = ["make_rescheduling"]

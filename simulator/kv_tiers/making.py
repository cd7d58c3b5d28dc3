"""The KV tiers of a scenario, made from its parts; what can't be is refused."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Literal, cast

from policies import registry
from policies.protocols import BatchingPolicy, KVEvictionPolicy
from simulator.errors import InputError
from simulator.kv_tiers.feature import KVTiersFeature
from simulator.kv_tiers.levels import PoolTiers, TierSpec
from simulator.models import kv_bytes_per_token
from simulator.network.cluster_network import pool_nodes
from simulator.network.topology import Topology, host, remote

if TYPE_CHECKING:
    from simulator.resolve import Resolved, ResolvedPool
    from simulator.scenario import Pool
    from simulator.scenario_kv_tiers import KVTier

_GIB = 2**30


def wants_tiers(pool: Pool) -> Literal["evictions"] | bool:
    """Return what `simulator.engine.replica.ReplicaConfig.kv_tiers` is of a pool."""
    if pool.kv_tiers is None:
        return False
    return "evictions" if pool.kv_tiers.tiers[0].write == "on-evict" else True


def make_kv_tiers(resolved: Resolved) -> KVTiersFeature:
    """Return the feature of a resolved scenario that has some pool with tiers.

    Raises
    ------
    InputError
        For what is not modelled together, does not fit, or can't be reached.
    """
    pools, first = [], 0
    for index, each in enumerate(resolved.pools):
        number = each.max_replicas * each.plan.dp
        part = each.pool.kv_tiers
        if part is not None:
            where = f"cluster.pools.{index}.kv_tiers"
            _check(each, where)
            pools.append(
                PoolTiers(
                    pool=each.pool.name,
                    replicas=range(first, first + number),
                    tiers=[_spec(tier) for tier in part.tiers],
                    choice=part.load_or_recompute,
                    kv_bytes_per_token=_token_bytes(resolved, each),
                )
            )
        first += number
    _check_remote(resolved)
    return KVTiersFeature(pools)


def _token_bytes(resolved: Resolved, each: ResolvedPool) -> int:
    return kv_bytes_per_token(each.model, each.pool.dtypes.kv or each.model.base_dtype)


def _spec(tier: KVTier) -> TierSpec:
    make = partial(registry.make, "kv_eviction", tier.eviction.name, tier.eviction.params)
    return TierSpec(
        tier.tier,
        int(tier.capacity_gib * _GIB),
        lambda: cast(KVEvictionPolicy, make()),
        tier.eviction.name,
        tier.write,
        tier.prefetch,
    )


def _check(each: ResolvedPool, where: str) -> None:
    pool = each.pool
    assert pool.batching is not None and pool.kv_tiers is not None
    for name, used in (
        ("offload", each.offload is not None),
        ("kv_budget", each.kv_budget is not None),
        (f"attention data parallel ranks (dp={each.plan.dp})", each.plan.dp > 1),
    ):
        if used:
            raise InputError(f"{where}: not modelled together with {name}; leave out one of the two")
    if not pool.engine.prefix_caching:
        raise InputError(f"{where}: tiers hold what leaves the prefix cache; switch engine.prefix_caching on")
    policy = registry.make("batching", pool.batching.name, pool.batching.params)
    assert isinstance(policy, BatchingPolicy)
    if policy.preempts_for_waiting:
        raise InputError(
            f"{where}: batching policy {policy.name!r} preempts requests to make room for one that waits, and would do "
            "so for one whose KV is being loaded; use another policy"
        )
    if each.node is not None:
        _check_host(each, where)


def _check_host(each: ResolvedPool, where: str) -> None:
    """Refuse host tiers beyond the memory of a node that is full of replicas."""
    assert each.node is not None and each.pool.kv_tiers is not None
    on_node = max(1, each.node.gpus // each.plan.gpus)
    for tier in each.pool.kv_tiers.tiers:
        need = tier.capacity_gib * _GIB * on_node / math.ceil(each.plan.gpus / each.node.gpus)
        if tier.tier == "host" and need > each.node.host_memory_bytes:
            raise InputError(
                f"{where}: {tier.capacity_gib:g} GiB of host memory for each replica are {need / _GIB:g} GiB in a "
                f"{each.node.name}, which has {each.node.host_memory_bytes / _GIB:g} GiB; lower capacity_gib"
            )


def _check_remote(resolved: Resolved) -> None:
    """Refuse remote pools that differ, and those that a replica can't reach."""
    named = [
        (index, each, tier)
        for index, each in enumerate(resolved.pools)
        if each.pool.kv_tiers is not None
        for tier in each.pool.kv_tiers.tiers
        if tier.tier == "remote"
    ]
    if not named:
        return
    at, first, remote_tier = named[0]
    for index, each, tier in named[1:]:
        same = (tier.capacity_gib, tier.eviction) == (remote_tier.capacity_gib, remote_tier.eviction)
        if not same or _token_bytes(resolved, each) != _token_bytes(resolved, first):
            raise InputError(
                f"cluster.pools.{index}.kv_tiers: there is one remote pool for all; give it the capacity, eviction and "
                f"KV datatype that it has in cluster.pools.{at}"
            )
    topology = Topology(pool_nodes(resolved), resolved.scenario.network)
    try:
        for node in range(len(topology.nodes)):
            topology.route(remote(), host(node))
    except InputError as error:
        raise InputError(f"cluster.pools.{at}.kv_tiers: the remote pool can't be reached: {error}") from None


__all__ = ["make_kv_tiers", "wants_tiers"]

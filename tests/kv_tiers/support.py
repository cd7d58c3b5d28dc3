"""Small clusters with tiers behind their prefix caches, and links whose times a reader can work out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

from hardware_profiles import load_accelerator
from policies import registry
from policies.protocols import KVEvictionPolicy
from simulator.engine.clock import Environment
from simulator.engine.cluster import Cluster
from simulator.kv_tiers.feature import KVTiersFeature
from simulator.kv_tiers.levels import PoolTiers, TierSpec
from simulator.network.cluster_network import ClusterNetwork
from simulator.network.placement import PoolNodes
from simulator.network.topology import Topology
from simulator.parallel import ParallelPlan
from simulator.scenario_network import NetworkPart
from tests.engine.support import MS, LinearCost, Request, build, check_invariants

UNIT_BYTES = 1_600_000
"""A unit is a block of 16 tokens, 100,000 bytes each: 1.6 ms over 1 GB/s."""
STEP = LinearCost(10 * MS, token=MS // 5)
"""10 ms, and 0.2 ms for each token and each row of logits."""


def tier(
    where: str, units: float, write: str = "write-through", eviction: str = "lru", prefetch: str = "none"
) -> TierSpec:
    """Return a tier that holds so many units."""
    return TierSpec(
        cast(Any, where),
        int(units * UNIT_BYTES),
        lambda: cast(KVEvictionPolicy, registry.make("kv_eviction", eviction, {})),
        eviction,
        cast(Any, write),
        cast(Any, prefetch),
    )


def network(env: Environment, replicas: int, gb_per_s: float, storage_gb_per_s: float) -> ClusterNetwork:
    """Return the links of replicas of one GPU, each in a node of its own; host memory limits them all."""
    plan = ParallelPlan()
    pools = [PoolNodes(f"pool{i}", None, load_accelerator("a100-80gb"), plan, 1) for i in range(replicas)]
    part = NetworkPart.model_validate(
        {
            "host_memory_gb_per_s": gb_per_s,
            "flash_read_gb_per_s": gb_per_s / 2,
            "flash_write_gb_per_s": gb_per_s / 2,
            "flash_latency_s": 0.0,
            "storage_read_gb_per_s": storage_gb_per_s,
            "storage_write_gb_per_s": storage_gb_per_s,
            "storage_latency_s": 0.0,
            "placement": "separate",
        }
    )
    return ClusterNetwork(env, Topology(pools, part), [plan] * replicas, num_layers=10, num_kv_heads=8)


def make(
    requests: Sequence[Request],
    tiers: Sequence[TierSpec],
    *,
    choice: str = "auto",
    gb_per_s: float = 1.0,
    storage_gb_per_s: float = 1.0,
    replicas: int = 1,
    others: Sequence[Any] = (),
    **options: Any,
) -> tuple[Cluster, KVTiersFeature]:
    """Return a cluster with tiers behind each of its replicas."""
    feature = KVTiersFeature([PoolTiers("default", range(replicas), tiers, cast(Any, choice), UNIT_BYTES // 16)])
    cluster = build(
        requests,
        replicas=replicas,
        features=[*others, feature],
        hash_block_tokens=16,
        kv_tiers="evictions" if tiers[0].write == "on-evict" else True,
        **{"cost": STEP, **options},
    )
    cluster.make_network = partial(network, replicas=replicas, gb_per_s=gb_per_s, storage_gb_per_s=storage_gb_per_s)
    return cluster, feature


def serve(
    requests: Sequence[Request], tiers: Sequence[TierSpec], **options: Any
) -> tuple[Cluster, dict[str, Any], KVTiersFeature]:
    """Serve requests to their end, check what holds for every run, and return the section of the summary."""
    cluster, feature = make(requests, tiers, **options)
    cluster.run()
    cluster.stop()
    check_invariants(cluster, drained=True)
    check_tiers(feature)
    if not others_of(options):
        check_bytes(feature.describe()["pools"]["default"])
    return cluster, feature.describe()["pools"]["default"], feature


def others_of(options: dict[str, Any]) -> Sequence[Any]:
    """Return what else happened to the cluster, such as losses."""
    return options.get("others", ())  # type: ignore[no-any-return]


def check_bytes(told: dict[str, Any]) -> None:
    """Assert that what came to each tier is there or was given up, where no replica was lost."""
    prefetched = sum(each["prefetched_bytes"] for each in told["tiers"])
    for each in told["tiers"]:
        came = each["written_bytes"] + each["kept_in_passing_bytes"] + (prefetched if each["tier"] == "host" else 0)
        assert came == each["held_bytes"] + each["evicted_bytes"]
    assert sum(each["loaded_tokens"] for each in told["tiers"]) == told["loaded_tokens"]


def check_tiers(feature: KVTiersFeature) -> None:
    """Assert that at the end nothing is pinned, and every tier is within its capacity."""
    for _, _, levels in feature._made:
        for level in levels:
            assert level.store.num_pinned == 0
            assert not level.store._coming
            assert len(level.store) <= level.store.peak <= level.store.capacity
            assert all(not unit.references for unit in level.store._units.values())

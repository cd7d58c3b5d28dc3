"""Small clusters whose replicas start and end, joined by one slow interface each to a slow storage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from hardware_profiles import load_accelerator
from policies.protocols import ScalingPolicy, ScalingView, param
from simulator.engine.clock import Environment
from simulator.engine.cluster import Cluster
from simulator.network.cluster_network import ClusterNetwork
from simulator.network.placement import PoolNodes
from simulator.network.topology import Topology
from simulator.parallel import ParallelPlan
from simulator.scaling.feature import ScaledPool, ScalingFeature
from simulator.scenario_network import NetworkPart
from simulator.scenario_scaling import StartUp
from tests.disaggregation.support import LAYERS, LINK
from tests.engine.support import Request, build, check_invariants

WEIGHTS = 50_000_000


@dataclass
class Planned(ScalingPolicy):
    """As many as a function of the time says."""

    name: ClassVar[str] = "planned"
    source: ClassVar[str] = "this test"
    interval_s: float = param(0.1, "time between two decisions")

    def reset(self) -> None:
        self.plan: Callable[[ScalingView], int] = lambda view: 1

    def interval(self) -> float:
        return self.interval_s

    def decide(self, view: ScalingView) -> int:
        return self.plan(view)


def planned(plan: Callable[[ScalingView], int], interval_s: float = 0.1) -> Planned:
    policy = Planned(interval_s=interval_s)
    policy.plan = plan
    return policy


def network(env: Environment, replicas: int) -> ClusterNetwork:
    """Return the links of replicas of one GPU, each in a node of its own; the storage reads 1 GB/s."""
    plan = ParallelPlan()
    pools = [PoolNodes(f"pool{i}", None, load_accelerator("a100-80gb"), plan, 1) for i in range(replicas)]
    part = NetworkPart.model_validate(
        {**LINK, "nic_gbit_per_s": 80.0, "storage_read_gb_per_s": 1.0, "storage_latency_s": 0.0, "pcie_efficiency": 1.0}
    )
    return ClusterNetwork(env, Topology(pools, part), [plan] * replicas, num_layers=LAYERS, num_kv_heads=8)


def serve(
    requests: Sequence[Request],
    scaler: ScalingPolicy,
    *,
    replicas: int = 3,
    initial: int = 1,
    fewest: int = 1,
    start_up: dict[str, Any] | None = None,
    requeues: bool = True,
    others: Sequence[Any] = (),
    **options: Any,
) -> tuple[Cluster, ScalingFeature]:
    """Serve requests to their end, and check what holds for every run. A start takes 50 ms for weights, then 30 ms."""
    pool = ScaledPool("default", range(replicas), initial, fewest, scaler, WEIGHTS)
    start = StartUp.model_validate({"init_s": 0.03, **(start_up or {})})
    feature = ScalingFeature([pool], start, requeues=requeues)
    cluster = build(requests, replicas=replicas, features=[feature, *others], **options)
    cluster.make_network = partial(network, replicas=replicas)
    cluster.run()
    cluster.stop()
    check_invariants(cluster, drained=True)
    return cluster, feature

"""Small clusters of machines whose models take turns; weights are read at 1 GB/s, initialising takes 30 ms."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from hardware_profiles import load_accelerator
from policies.routing.round_robin import RoundRobin
from simulator.engine.clock import Environment
from simulator.engine.cluster import Cluster
from simulator.engine.control import Control
from simulator.network.cluster_network import ClusterNetwork
from simulator.network.placement import PoolNodes
from simulator.network.topology import Topology
from simulator.parallel import ParallelPlan
from simulator.scenario_model_swap import ModelSwap
from simulator.scenario_network import NetworkPart
from simulator.several_models.routing import ModelRoutingFeature
from simulator.several_models.swapping import ModelSwapFeature, SwappedPool
from tests.disaggregation.support import LAYERS, LINK
from tests.engine.support import Request, build, check_invariants

WEIGHTS = 50_000_000


def network(env: Environment, machines: int, models: int) -> ClusterNetwork:
    """Return the links of machines of one GPU in one node, which the pools share."""
    plan, gpu = ParallelPlan(), load_accelerator("a100-80gb")
    pools = [PoolNodes(f"pool{i}", None, gpu, plan, machines, "pool0" if i else None) for i in range(models)]
    part = NetworkPart.model_validate(
        {**LINK, "nic_gbit_per_s": 80.0, "storage_read_gb_per_s": 1.0, "storage_latency_s": 0.0, "pcie_efficiency": 1.0}
    )
    number = machines * models
    return ClusterNetwork(env, Topology(pools, part), [plan] * number, num_layers=LAYERS, num_kv_heads=8)


class AtMostOne:
    """Checks, whenever replicas begin or stop to take requests, that one of each machine's does at most, and is up."""

    name = "at-most-one"

    def __init__(self, pools: Sequence[SwappedPool]) -> None:
        self.pools = pools
        self.checked = 0

    def attach(self, control: Control) -> None:
        self.control = control
        control.on_members.append(self._check)

    def _check(self, _: int) -> None:
        for replicas in zip(*(pool.replicas for pool in self.pools), strict=True):
            takes = [index for index in replicas if self.control.takes_requests(index)]
            assert len(takes) <= 1
            assert all(self.control.is_alive(index) for index in takes)
            busy = [index for index in replicas if self.control.cluster.outstanding_requests[index]]
            assert len(busy) <= 1
            self.checked += 1

    def describe(self) -> dict[str, Any]:
        return {}


def serve(
    requests: Sequence[Request],
    codes: Sequence[int],
    *,
    machines: int = 1,
    models: int = 2,
    others: Sequence[Any] = (),
    seqs: int = 256,
    until: int | None = None,
    part: dict[str, Any] | None = None,
    **options: Any,
) -> tuple[Cluster, ModelSwapFeature]:
    """Serve requests, each for the model of its code, and check what holds for every run."""
    pools = [
        SwappedPool(f"pool{i}", f"model{i}", range(i * machines, (i + 1) * machines), WEIGHTS, seqs)
        for i in range(models)
    ]
    swap = ModelSwap.model_validate({"pools": [pool.name for pool in pools], "init_s": 0.03, **(part or {})})
    routing = ModelRoutingFeature(
        [pool.model for pool in pools],
        [pool.replicas for pool in pools],
        codes,
        lambda row: f"model{codes[row]}",
        [None, *((RoundRobin(), np.random.default_rng(i)) for i in range(1, models))],
    )
    feature, watch = ModelSwapFeature(swap, pools, codes), AtMostOne(pools)
    cluster = build(
        requests,
        replicas=machines * models,
        features=[routing, feature, watch, *others],
        make_network=partial(network, machines=machines, models=models),
        seqs=seqs,
        **options,
    )
    cluster.run(until)
    cluster.stop()
    check_invariants(cluster, drained=until is None)
    check_machines(cluster, feature)
    return cluster, feature


def check_machines(cluster: Cluster, feature: ModelSwapFeature) -> None:
    """Assert that one model is loaded or being loaded on each machine, at all times, and paid for."""
    control = cluster.control
    assert control is not None
    times = sorted({0, cluster.end_ns, *(at for at, *_ in feature.changes if at <= cluster.end_ns)})
    for machine in range(len(feature.machines)):
        replicas = [pool.replicas[machine] for pool in feature.pools]
        for begin, end in pairwise(times):
            up = [control.up_ns(index, begin, end) for index in replicas]
            assert sorted(up) == [0] * (len(replicas) - 1) + [end - begin]

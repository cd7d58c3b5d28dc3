"""Small clusters whose prompts and tokens are computed on different replicas, joined by one slow interface each."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from hardware_profiles import load_accelerator
from policies.routing.round_robin import RoundRobin
from simulator.disaggregation.feature import DisaggregationFeature
from simulator.disaggregation.splitwise import ClusterScheduler
from simulator.engine.clock import Environment
from simulator.engine.cluster import Cluster
from simulator.network.cluster_network import ClusterNetwork
from simulator.network.placement import PoolNodes
from simulator.network.topology import Topology
from simulator.parallel import ParallelPlan
from simulator.scenario_disaggregation import Disaggregation
from simulator.scenario_network import NetworkPart
from tests.engine.support import Request, build, check_invariants

KV_BYTES, LAYERS = 100_000, 10
LINK = {"latency_s": 0.0, "hop_latency_s": 0.0, "per_message_s": 0.0, "nic_efficiency": 1.0, "placement": "separate"}

VLLM = {"reserve": "after-prefill", "first_token": "recomputed", "transfer": "after-prefill"}
SGLANG = {"reserve": "before-prefill", "first_token": "forwarded", "transfer": "after-prefill"}
STREAMED = {"reserve": "beside-prefill", "first_token": "streamed", "transfer": "layer-wise"}


def disaggregation(roles: Sequence[str], **keys: Any) -> DisaggregationFeature:
    """Return the feature for replicas of these roles; 1 token has 100,000 bytes of KV in 10 layers."""
    defaults = {"serial_below_tokens": 0, "reserved_decode_tokens": 0}
    part = Disaggregation.model_validate({**defaults, **VLLM, **keys})
    return DisaggregationFeature(
        part,
        roles,
        decode_router=RoundRobin(),
        rng=np.random.default_rng(1),
        kv_bytes_per_token=KV_BYTES,
        num_layers=LAYERS,
        make_chooser=partial(ClusterScheduler, max_pending_prompt_tokens=part.max_pending_prompt_tokens)
        if part.kind == "splitwise"
        else None,
    )


def network(env: Environment, replicas: int, gbit_per_s: float) -> ClusterNetwork:
    """Return the links of replicas of one GPU, each in a node of its own."""
    plan = ParallelPlan()
    pools = [PoolNodes(f"pool{i}", None, load_accelerator("a100-80gb"), plan, 1) for i in range(replicas)]
    part = NetworkPart.model_validate({**LINK, "nic_gbit_per_s": gbit_per_s})
    return ClusterNetwork(env, Topology(pools, part), [plan] * replicas, num_layers=LAYERS, num_kv_heads=8)


def serve(
    requests: Sequence[Request],
    roles: Sequence[str],
    *,
    keys: dict[str, Any],
    others: Sequence[Any] = (),
    gbit_per_s: float = 8.0,
    **options: Any,
) -> tuple[Cluster, DisaggregationFeature]:
    """Serve requests to their end, and check what holds for every run; the interface carries 1 GB/s by default."""
    feature = disaggregation(roles, **keys)
    cluster = build(requests, replicas=len(roles), features=[feature, *others], **options)
    cluster.make_network = partial(network, replicas=len(roles), gbit_per_s=gbit_per_s)
    cluster.run()
    cluster.stop()
    check_invariants(cluster, drained=True)
    assert cluster.control is not None
    assert not cluster.control.transits
    assert not feature.decode_scope.coming_requests.any()
    assert not feature.decode_scope.coming_tokens.any()
    return cluster, feature

"""Swaps over the cluster's links: by hand, the same stepwise, nothing lost, and as a scenario has them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hardware_profiles import load_accelerator, load_node
from policies import registry
from policies.protocols import BatchingPolicy
from simulator import Scenario
from simulator.cost.links import PCIE_LATENCY_S
from simulator.engine.clock import Environment, to_ns
from simulator.engine.cluster import Cluster
from simulator.engine.control import Control
from simulator.engine.links import Link
from simulator.engine.swap import NO_CALLS, UNKNOWN_NS, SwapConfig
from simulator.errors import InputError
from simulator.network.cluster_network import ClusterNetwork
from simulator.network.placement import PoolNodes
from simulator.network.topology import Topology
from simulator.parallel import ParallelPlan
from simulator.runner import run
from simulator.scenario_network import NetworkPart
from simulator.swap_links import SwapLinksFeature
from tests.engine.support import ENERGY, MS, LinearCost, Request, build, check_invariants, fingerprint, times_ms
from tests.engine.test_control import ACTS, REQUESTS, Acts
from tests.engine.test_swap import OutAndIn, OutAndInWaiting
from workloads import Trace

LATENCY = to_ns(PCIE_LATENCY_S / 2)
BEGIN = 1 + LATENCY  # ns before the first byte of a copy moves
NEVER_USED = Link("its own", 1e-3, 0.0)


def network(env: Environment, replicas: int, bandwidth: float = 1e6, tp: int = 1) -> ClusterNetwork:
    """Return the links of replicas in one node, four GPUs, two of them behind one PCIe switch: 1 ms a KV block."""
    plan = ParallelPlan(tp=tp)
    accelerator = replace(load_accelerator("a40"), pcie_bandwidth=bandwidth)
    pool = PoolNodes("pool", replace(load_node("a40-4x"), gpus_per_pcie_switch=2), accelerator, plan, replicas)
    part = NetworkPart.model_validate({"pcie_efficiency": 1.0})
    return ClusterNetwork(env, Topology([pool], part), [plan] * replicas, num_layers=10, num_kv_heads=8)


def serve(
    requests: Sequence[Request],
    *,
    replicas: int = 1,
    bandwidth: float = 1e6,
    tp: int = 1,
    others: Sequence[Any] = (),
    until: int | None = None,
    **options: Any,
) -> tuple[Cluster, SwapLinksFeature]:
    """Serve requests to their end, and check what holds for every run."""
    feature = SwapLinksFeature(range(replicas))
    common = {"blocks": 20, "swap_blocks": 20, "link": NEVER_USED, "cost": LinearCost(10 * MS), **options}
    cluster = build(requests, replicas=replicas, features=[feature, *others], **common)
    cluster.make_network = partial(network, replicas=replicas, bandwidth=bandwidth, tp=tp)
    cluster.run(until)
    cluster.stop()
    check_invariants(cluster, drained=until is None)
    assert (np.asarray(cluster.recorder.queued) < UNKNOWN_NS).all()
    return cluster, feature


def both_ways(requests: Sequence[Request], **options: Any) -> tuple[Cluster, SwapLinksFeature]:
    """Serve requests fast and stepwise, and check that nothing differs."""
    runs = [serve(requests, fast_forward=fast, **options) for fast in (True, False)]
    assert everything(*runs[0]) == everything(*runs[1])
    return runs[0]


def everything(cluster: Cluster, feature: SwapLinksFeature) -> dict[str, Any]:
    return {**fingerprint(cluster), "feature": feature.describe(), "links": carried(cluster)}


def carried(cluster: Cluster) -> dict[str, int]:
    """Return the bytes of each link that carried some."""
    if cluster.network is None:  # nobody swapped
        return {}
    links = cluster.network.network
    uses = [links.use(link) for link in range(len(links.links))]
    return {use.name: use.bytes for use in uses if use.bytes}


SWAPPED = Request(0, 5 * 16 - 6, 12)  # five blocks after the third step
OTHER = Request(0, 16, 20)


# ------------------------------------------------------------------------------------------------------- by hand


def test_a_step_waits_until_its_copy_is_done() -> None:
    # As over a link of its own: out at 30 ms, that step lasts 15 ms; in at 45 ms, 15 ms again.
    cluster, feature = both_ways([SWAPPED, OTHER], policy=OutAndInWaiting)
    assert cluster.recorder.columns["ended_ns"].tolist() == [140 * MS + 2 * BEGIN, 220 * MS + 2 * BEGIN]
    assert cluster.replicas[0].counters.swap_stall_ns == 10 * MS + 2 * BEGIN
    assert cluster.replicas[0].counters.busy_ns == cluster.end_ns
    assert carried(cluster) == {
        "node0/gpu0/pcie-up": 5000,
        "node0/pcie-switch0/up": 5000,
        "node0/gpu0/pcie-down": 5000,
        "node0/pcie-switch0/down": 5000,
        "node0/host-memory": 10_000,
    }
    each_s = (5 * MS + LATENCY) / 1e9
    assert feature.describe() == {
        "copies": 2,
        "given_up": 0,
        "bytes": 10_000,
        "moving_s": pytest.approx(2 * each_s),
        "alone_s": pytest.approx(2 * each_s),
    }


@pytest.mark.parametrize(("policy", "stall_ms"), [(OutAndInWaiting, 20), (OutAndIn, 0)])
def test_two_replicas_behind_one_switch_have_half_of_it_each(policy: type[BatchingPolicy], stall_ms: int) -> None:
    cluster, feature = both_ways([SWAPPED, SWAPPED, OTHER, OTHER], policy=policy, replicas=2)
    ends = cluster.recorder.columns["ended_ns"].tolist()
    if stall_ms:  # 10 ms each way: tokens at 10, 20, 30, then 70, 80 ... 150
        assert ends == [150 * MS + 2 * BEGIN] * 2 + [230 * MS + 2 * BEGIN] * 2
    else:  # out from 30 to 40 ms and a little, seen at 50; in until 60 and a little, seen at 70: it decodes to 160
        assert ends == [160 * MS] * 2 + [210 * MS] * 2
    for replica in cluster.replicas:
        assert replica.counters.swap_stall_ns == (20 * MS + 2 * BEGIN if stall_ms else 0)
    told = feature.describe()
    assert told["moving_s"] == pytest.approx(4 * (10 * MS + LATENCY) / 1e9)
    assert told["alone_s"] == pytest.approx(4 * (5 * MS + LATENCY) / 1e9)


def test_replicas_behind_different_switches_are_not_in_each_others_way() -> None:
    # Two GPUs a replica: both of a switch move five blocks of their own, over an uplink that has one GPU's bandwidth.
    cluster, _ = both_ways([SWAPPED, SWAPPED, OTHER, OTHER], policy=OutAndInWaiting, replicas=2, tp=2)
    assert times_ms(cluster, "ended_ns") == pytest.approx([150, 150, 230, 230], abs=0.01)
    assert carried(cluster)["node0/pcie-switch1/up"] == carried(cluster)["node0/pcie-switch0/up"] == 10_000


@dataclass
class Load:
    """Something else on the links: so many bytes from host memory to a GPU, from some time on."""

    at_ns: int
    num_bytes: int
    name: str = "load"

    def attach(self, control: Control) -> None:
        done: Callable[[int], None] = lambda _: None  # noqa: E731
        control.at(self.at_ns, lambda: control.network.host_to_gpu(0, self.num_bytes, done) and None)

    def describe(self) -> dict[str, Any]:
        return {}


def test_a_swap_contends_with_whatever_else_is_on_its_links() -> None:
    # 100 kB come in all the time: out is as before, from 30 to 35 ms; in takes 10 ms instead of 5.
    cluster, _ = both_ways([SWAPPED, OTHER], policy=OutAndInWaiting, others=[Load(20 * MS, 100_000)])
    assert cluster.replicas[0].counters.swap_stall_ns == 15 * MS + 2 * BEGIN


def test_calls_bound_a_copy_where_they_take_longer() -> None:
    swap = SwapConfig(call_s=1e-3, calls_per_run=8, blocks_per_call=5)
    cluster, _ = both_ways([SWAPPED, OTHER], policy=OutAndInWaiting, swap=swap)
    assert cluster.replicas[0].counters.swap_stall_ns == 2 * (8 * MS + 1)


def test_a_request_that_arrives_while_a_step_waits_is_queued_at_its_end() -> None:
    cluster, _ = both_ways([SWAPPED, OTHER, Request(33 * MS, 16, 2)], policy=OutAndInWaiting)
    assert cluster.recorder.queued[2] == 45 * MS + BEGIN


@pytest.mark.parametrize("sample_ns", [100_000, MS])
def test_samples_while_a_step_waits_show_that_nothing_is_computed_yet(sample_ns: int) -> None:
    """Whether they are taken with arrays or one by one; from 30 ms on the step that began then waits until 35 ms."""
    cluster, _ = both_ways([SWAPPED, OTHER], policy=OutAndInWaiting, sample_ns=sample_ns)
    samples = cluster.recorder.timeline.columns()
    drawn = dict(zip(samples["t_ns"].tolist(), samples["energy_nj"].tolist(), strict=True))
    assert (np.diff(samples["energy_nj"]) > 0).all()
    assert drawn[35 * MS] - drawn[30 * MS] == pytest.approx(ENERGY.busy_mw * 5 * MS / 1000, abs=1)
    busy = dict(zip(samples["t_ns"].tolist(), samples["busy_ns"].tolist(), strict=True))
    assert busy[35 * MS] == 35 * MS


def test_a_run_that_is_stopped_while_a_step_waits_counts_what_it_waited() -> None:
    cluster, _ = both_ways([SWAPPED, OTHER, Request(31 * MS, 16, 2)], policy=OutAndInWaiting, until=33 * MS)
    assert cluster.replicas[0].counters.swap_stall_ns == 3 * MS
    assert cluster.replicas[0].counters.busy_ns == 33 * MS
    assert carried(cluster)["node0/gpu0/pcie-up"] == (3 * MS - BEGIN) // 1000


@pytest.mark.parametrize("policy", [OutAndIn, OutAndInWaiting])
def test_a_lost_replica_gives_up_its_copies(policy: type[BatchingPolicy]) -> None:
    # Replica 0 dies at 33 ms; its switch is free for replica 1 then, whose copy has moved half of 3 ms by then.
    acts = Acts([(33 * MS, "lose", 0, 2)])
    cluster, feature = both_ways([SWAPPED, SWAPPED, OTHER, OTHER], policy=policy, replicas=2, others=[acts])
    assert feature.describe()["given_up"] == 1
    assert feature.describe()["copies"] == 2
    moved = carried(cluster)
    assert moved["node0/gpu0/pcie-up"] == pytest.approx(1500, abs=2)
    assert moved["node0/gpu1/pcie-up"] == 5000
    if policy is OutAndInWaiting:
        assert cluster.replicas[0].counters.swap_stall_ns == 3 * MS
        # Out: 3 ms at half, 3.5 ms alone; in alone: 5 ms.
        assert cluster.replicas[1].counters.swap_stall_ns == pytest.approx(11.5 * MS, abs=2 * BEGIN + 10)


# ------------------------------------------------------------------------------------------- whatever happens


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    requests=REQUESTS,
    at_once=st.booleans(),
    acts=ACTS,
    policy=st.sampled_from(["vllm", "switch", "switch-async"]),
    period=st.sampled_from([1, 4]),
    swap=st.sampled_from([NO_CALLS, SwapConfig(keep_copies=True), SwapConfig(call_s=1e-3, calls_per_run=3)]),
    cost=st.sampled_from([LinearCost(10 * MS), LinearCost(10 * MS, token=1000, kv=100)]),
    bandwidth=st.sampled_from([1e5, 1e6, 1e12]),
    overlap=st.booleans(),
    tp=st.sampled_from([1, 2]),
    load=st.sampled_from([0, 10_000, 200_000]),
)
def test_fast_forward_equals_stepwise_and_nothing_is_lost(
    requests: list[Request],
    at_once: bool,
    acts: list[tuple[int, str, int, int]],
    policy: str,
    period: int,
    swap: SwapConfig,
    cost: LinearCost,
    bandwidth: float,
    overlap: bool,
    tp: int,
    load: int,
) -> None:
    if at_once:
        requests = [replace(request, arrival=(request.arrival or 0) // (10 * MS) * 10 * MS) for request in requests]

    def batching() -> Any:
        if policy == "vllm":
            return registry.make("batching", "vllm", {"preemption_mode": "swap"})
        asynchronous = policy == "switch-async"
        params = {"pattern": "random", "update_period": period, "asynchronous": asynchronous}
        return registry.make("batching", "fastswitch", params)

    cluster, feature = both_ways(
        requests,
        policy=batching,
        cost=cost,
        swap=swap,
        bandwidth=bandwidth,
        tp=tp,
        replicas=2,
        max_len=320,
        blocks=24,
        swap_blocks=40,
        async_scheduling=overlap and policy != "vllm",
        others=[Acts(acts), *([Load(90 * MS, load)] if load else [])],
    )
    assert cluster.network is None or not cluster.network.network.active
    told, moved = feature.describe(), carried(cluster)
    assert not any(mover._queue for mover in feature.movers)
    counters = [replica.counters for replica in cluster.replicas]
    assert told["copies"] + told["given_up"] == sum(each.swaps_out + each.swaps_in for each in counters)
    asked = tp * sum(each.swapped_bytes for each in counters)
    ports = sum(size for name, size in moved.items() if "/gpu" in name)
    assert told["bytes"] <= ports - load <= asked
    assert told["given_up"] or told["bytes"] == asked
    assert moved.get("node0/host-memory", 0) == ports
    assert told["moving_s"] >= told["alone_s"] * (1 - 1e-6) - 1e-8 * told["copies"]


# ------------------------------------------------------------------------------------------------- in a scenario


def scenario(over: str, **pool: Any) -> Scenario:
    return Scenario.from_mapping(
        {
            "cluster": {
                "pools": [
                    {
                        "accelerator": "a40",
                        "node": "a40-4x",
                        "replicas": 2,
                        "batching": {"name": "vllm", "params": {"preemption_mode": "swap"}},
                        "engine": {"num_kv_blocks": 600, "max_model_len": 4096},
                        "swap": {"over": over},
                        **pool,
                    }
                ]
            }
        }
    )


def trace() -> Trace:
    rng = np.random.default_rng(3)
    return Trace(
        arrival_s=np.sort(rng.uniform(0, 5, 60)),
        prompt_tokens=rng.integers(100, 600, 60),
        output_tokens=rng.integers(200, 600, 60),
    )


def test_a_scenario_swaps_over_its_own_link_or_over_the_clusters() -> None:
    own, links = (run(scenario(over), trace=trace()).summary for over in ("own", "links"))
    assert own["swap_links"] is None and own["links"]["links"] == []
    assert links["swap_links"]["bytes"] == links["memory"]["swapped_bytes"] > 0
    assert links["memory"]["swap_stall_s"] > own["memory"]["swap_stall_s"] > 0
    assert {link["name"] for link in links["links"]["links"]} >= {"node0/pcie-switch0/up", "node0/host-memory"}
    assert links["swap_links"]["moving_s"] >= links["swap_links"]["alone_s"]


def test_what_does_not_swap_needs_no_links() -> None:
    summary = run(scenario("links", batching="vllm-v1"), trace=trace()).summary
    assert summary["swap_links"] is None


@pytest.mark.parametrize("parallel", [{"pp": 2}])
def test_stages_are_refused(parallel: dict[str, int]) -> None:
    with pytest.raises(InputError, match=r"cluster\.pools\.0\.swap\.over: .* pipeline stages \(pp=2\)"):
        run(scenario("links", parallel=parallel, replicas=1), trace=trace())

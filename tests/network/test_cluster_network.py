from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator import Scenario
from simulator.build import build
from simulator.engine.clock import NS_PER_S, Environment
from simulator.errors import InputError
from simulator.network.cluster_network import ClusterNetwork, Place, build_network, check_connected
from simulator.network.result import describe_links
from simulator.network.shares import kv_shares, share_bytes
from simulator.network.topology import gpu, host, remote
from simulator.parallel import ParallelPlan
from simulator.resolve import Resolved, resolve
from simulator.runner import Watch, run, simulate
from simulator.summary_sections import WITHOUT_LINKS
from simulator.terminal import details
from workloads import Trace

GB = 10**9


def resolved_of(*pools: dict[str, Any], **more: Any) -> Resolved:
    named = [{"name": f"pool{i}", "engine": {"num_kv_blocks": 1000}, **pool} for i, pool in enumerate(pools)]
    return resolve(Scenario.from_mapping({"cluster": {"pools": named}, **more}))


def network_of(*pools: dict[str, Any], **more: Any) -> ClusterNetwork:
    return build_network(Environment(initial_time=0), resolved_of(*pools, **more))


DGX = {"node": "dgx-h100", "parallel": {"tp": 8}}
FREE = {"latency_s": 0.0, "hop_latency_s": 0.0, "per_message_s": 0.0}

# --------------------------------------------------------------------------------------------------------- shares


def test_shares_add_up() -> None:
    quarters = [(i, i + 1, 4) for i in range(4)]
    assert [share_bytes(10, [each]) for each in quarters] == [2, 3, 2, 3]
    assert [share_bytes(0, [each]) for each in quarters] == [0, 0, 0, 0]
    # The second quarter is 3 bytes; its halves are 1 and 2.
    assert [share_bytes(10, [(1, 2, 4), (i, i + 1, 2)]) for i in range(2)] == [1, 2]
    assert share_bytes(10, []) == 10


def shares(sender: ParallelPlan, receiver: ParallelPlan, num_bytes: int, **more: Any) -> list[tuple[int, int, int]]:
    found = kv_shares(sender, receiver, **{"num_layers": 32, "num_kv_heads": 8, **more})
    return [(i, j, share_bytes(num_bytes, portions)) for i, j, portions in found]


def test_equal_plans_send_rank_to_rank() -> None:
    plan = ParallelPlan(tp=2)
    assert shares(plan, plan, 100) == [(0, 0, 50), (1, 1, 50)]


def test_fewer_ranks_are_split_to_more() -> None:
    assert shares(ParallelPlan(tp=1), ParallelPlan(tp=4), 100) == [(0, rank, 25) for rank in range(4)]
    assert shares(ParallelPlan(tp=4), ParallelPlan(tp=2), 100) == [(0, 0, 25), (1, 0, 25), (2, 1, 25), (3, 1, 25)]


def test_stages_send_their_layers() -> None:
    """Two stages of 16 layers to one stage of two ranks: each stage has half of every head's bytes."""
    found = shares(ParallelPlan(pp=2), ParallelPlan(tp=2), 100)
    assert found == [(0, 0, 25), (0, 1, 25), (1, 0, 25), (1, 1, 25)]


def test_layers_are_sent_by_the_stage_that_holds_them() -> None:
    found = shares(ParallelPlan(pp=2), ParallelPlan(tp=1), 100, layers=range(12, 20))
    assert found == [(0, 0, 50), (1, 0, 50)]
    assert shares(ParallelPlan(pp=2), ParallelPlan(tp=1), 100, layers=[20]) == [(1, 0, 100)]


def test_copies_of_heads_are_sent_to_every_rank_that_keeps_one() -> None:
    """Four ranks that all hold the same: each sends one of the receiver's four copies."""
    four = ParallelPlan(tp=4)
    assert shares(four, four, 100, num_kv_heads=1) == [(rank, rank, 100) for rank in range(4)]
    assert shares(ParallelPlan(tp=1), ParallelPlan(tp=2), 100, num_kv_heads=1) == [(0, 0, 100), (0, 1, 100)]
    # Two heads over four ranks: 0 and 1 hold the first, 2 and 3 the second.
    assert shares(four, ParallelPlan(tp=2), 100, num_kv_heads=2) == [(0, 0, 50), (3, 1, 50)]


def test_context_parallel_ranks_divide_heads_or_tokens() -> None:
    one, ring = ParallelPlan(), ParallelPlan(cp=2, context="ring")
    ulysses = ParallelPlan(cp=2, context="ulysses")
    assert shares(one, ring, 100, num_kv_heads=1) == [(0, 0, 50), (0, 1, 50)]  # half of the tokens each
    assert shares(one, ulysses, 100) == [(0, 0, 50), (0, 1, 50)]  # half of the heads each
    assert shares(one, ulysses, 100, num_kv_heads=1) == [(0, 0, 100), (0, 1, 100)]  # the only head on both
    # Tokens to heads: both halves of the tokens to both halves of the heads.
    assert shares(ring, ulysses, 100) == [(0, 0, 25), (0, 1, 25), (1, 0, 25), (1, 1, 25)]
    assert shares(ParallelPlan(tp=2), ParallelPlan(tp=2, cp=2), 100) == [(0, 0, 25), (1, 1, 25), (0, 2, 25), (1, 3, 25)]


plans = st.builds(
    ParallelPlan,
    tp=st.sampled_from([1, 2, 4, 8, 16]),
    pp=st.sampled_from([1, 2, 3]),
    cp=st.sampled_from([1, 2]),
    context=st.sampled_from(["ring", "ulysses"]),
)


@given(plans, plans, st.integers(0, 10**6), st.sampled_from([1, 2, 4, 8]), st.integers(3, 40))
def test_every_byte_reaches_every_copy(a: ParallelPlan, b: ParallelPlan, size: int, heads: int, layers: int) -> None:
    found = shares(a, b, size, num_layers=layers, num_kv_heads=heads)
    assert sum(part for *_, part in found) == size * (b.attention_ranks // min(b.attention_ranks, heads))
    assert len({(i, j) for i, j, _ in found}) == len(found)
    assert all(0 <= i < a.gpus and 0 <= j < b.gpus and part >= 0 for i, j, part in found)
    assert {j for _, j, _ in found} == set(range(b.gpus))


# ------------------------------------------------------------------------------------------------------ transfers


def test_eight_ranks_send_over_eight_interfaces() -> None:
    """8 x 45 GB/s: 360 GB of KV take 1 s, and both PCIe links 3.2 us, the interfaces none."""
    net = network_of({**DGX, "replicas": 2}, network=FREE)
    ended: list[int] = []
    group = net.gpu_to_gpu(0, 1, 360 * GB, ended.append)
    net.network.env.run()
    assert len(group.flows) == 8 and ended == [NS_PER_S + 3200]
    assert net.estimate_ns("gpu", "gpu", 0, 360 * GB, to=1) == ended[0]


def test_transfers_of_two_replicas_share_the_interface() -> None:
    """Two one-GPU replicas on a node with one interface of 0.9 x 40 Gbit/s send at once: each at half of it."""
    net = network_of({"node": "aws-g5.12xlarge", "replicas": 5}, network={**FREE, "gpudirect": True})
    ended: list[int] = []
    for sender in (0, 1):
        net.gpu_to_gpu(sender, 4, 9 * GB, ended.append)
    net.network.env.run()
    assert ended == [4 * NS_PER_S + 3200] * 2
    assert net.estimate_ns("gpu", "gpu", 0, 9 * GB, to=4) == 2 * NS_PER_S + 3200


def test_messages_are_paid_before_the_bytes() -> None:
    net = network_of({**DGX, "replicas": 2}, network={**FREE, "per_message_s": 2e-6})
    ended: list[int] = []
    net.gpu_to_gpu(0, 1, 0, ended.append, messages=10)
    net.network.env.run()
    assert ended == [20_000 + 3200]
    assert net.estimate_ns("gpu", "gpu", 0, 0, to=1, messages=10) == ended[0]


def test_loading_from_the_host_is_limited_by_what_is_shared() -> None:
    """8 H100 with 64 x 0.86 GB/s each want 440 GB/s: host memory has 300; one alone has its PCIe link."""
    net = network_of({**DGX})
    assert net.estimate_ns("host", "gpu", 0, 300 * GB) == NS_PER_S + 1600
    one = network_of({"node": "dgx-h100"})
    assert one.estimate_ns("host", "gpu", 0, GB) == pytest.approx(NS_PER_S / 64 / 0.86 + 1600, abs=1)


def test_storage_is_shared_by_all() -> None:
    net = network_of({**DGX, "replicas": 2}, network={"storage_latency_s": 0.0, **FREE})
    ended: list[int] = []
    for replica in (0, 1):
        net.storage_to_gpu(replica, 40 * GB, ended.append)
    net.network.env.run()
    assert ended == [2 * NS_PER_S + 1600] * 2


PLACES: list[tuple[Place, Place]] = [
    (a, b) for a in ("gpu", "host", "flash", "remote") for b in ("gpu", "host", "flash", "remote") if a != b
]


@pytest.mark.parametrize(("source", "target"), PLACES)
@pytest.mark.parametrize("node", ["dgx-h100", "h100-pcie-8x", "aws-g5.48xlarge", "aws-p5.48xlarge", "a40-4x"])
def test_an_estimate_is_what_an_idle_network_takes(node: str, source: Place, target: Place) -> None:
    net = network_of({"node": node, "replicas": 2, "parallel": {"tp": 4}})
    ended: list[int] = []
    net.start(net.parts(source, target, 1, 10**9 + 7), ended.append)
    net.network.env.run()
    assert net.estimate_ns(source, target, 1, 10**9 + 7) == pytest.approx(ended[0], abs=2)


def test_the_named_transfers_go_where_they_say() -> None:
    net = network_of({"node": "dgx-h100", "replicas": 2, "parallel": {"tp": 8}})
    calls = {
        "gpu0/pcie-up": net.gpu_to_host,
        "gpu0/pcie-down": net.host_to_gpu,
        "flash/read": net.flash_to_host,
        "flash/write": net.host_to_flash,
        "nic0/rx": net.storage_to_host,
        "nic0/tx": net.host_to_storage,
    }
    for link, call in calls.items():
        group = call(1, 800, lambda _: None)
        names = {net.network.links[i].name for flow in group.flows for i in flow.path}
        assert f"node1/{link}" in names, link
        assert group.num_bytes == 800
    group = net.host_to_host(0, 1, 800, lambda _: None)
    assert len(group.flows) == 8 and group.num_bytes == 800


def test_parts_between_replicas_follow_their_nodes() -> None:
    """A replica on two nodes of 4 GPUs sends from both to one on a node of 8."""
    net = network_of(
        {"node": "aws-g5.12xlarge", "parallel": {"tp": 4, "pp": 2}}, {"node": "dgx-h100", "parallel": {"tp": 8}}
    )
    assert net.parts("host", "host", 0, 100, to=1) == [(host(0), host(2), 50), (host(1), host(2), 50)]
    found = net.parts("gpu", "gpu", 0, 160, to=1)
    assert len(found) == 16 and found[0] == (gpu(0, 0), gpu(2, 0), 10)


def test_a_link_that_is_down_has_no_estimate_until_it_is_back() -> None:
    net = network_of({**DGX, "replicas": 2}, network=FREE)
    assert net.estimate_ns("gpu", "gpu", 0, 8, to=1) is not None
    net.set_capacity("node0/nic3/tx", 0.0)
    assert net.estimate_ns("gpu", "gpu", 0, 8, to=1) is None
    net.set_capacity("node0/nic3/tx", 0.5)
    assert net.estimate_ns("gpu", "gpu", 0, 360 * GB, to=1) == 2 * NS_PER_S + 3200


def test_pools_without_a_link_are_refused_with_the_reason() -> None:
    apart = {"network": {"fabric": "none"}}
    with pytest.raises(
        InputError, match=r"disaggregation moves data between pools 'pool0' and 'pool1', but nothing joins"
    ):
        check_connected(resolved_of(DGX, DGX, **apart), ["pool0", "pool1"], "disaggregation")
    check_connected(resolved_of(DGX, DGX), ["pool0", "pool1"], "disaggregation")
    half = {"node": "dgx-h100", "parallel": {"tp": 4}}
    check_connected(resolved_of(half, half, **apart), ["pool0", "pool1"], "disaggregation")  # on one node
    with pytest.raises(InputError, match="nothing joins"):
        separate = {"network": {"fabric": "none", "placement": "separate"}}
        check_connected(resolved_of(half, half, **separate), ["pool0", "pool1"], "disaggregation")


def test_what_was_taken_for_granted_is_noted() -> None:
    assert network_of({}).notes == (
        "pool 'pool0' names no node type: its links are those of nodes of 8 GPUs (nvswitch), each with a PCIe port and "
        "an interface of 200 Gbit/s",
    )
    assert network_of(DGX).notes == ()


# ---------------------------------------------------------------------------------------------------------- result


def test_links_in_use_are_described_the_busiest_first() -> None:
    """9 GB at 4.5 GB/s each way of one interface, then as long again without anything."""
    net = network_of({"node": "aws-g5.12xlarge", "replicas": 5}, network={**FREE, "gpudirect": True})
    net.gpu_to_gpu(0, 4, 9 * GB, lambda _: None)
    net.network.env.run()
    found = describe_links(net, 4 * NS_PER_S)
    assert [link["name"] for link in found["links"]][:2] == ["node0/nic0/tx", "node1/nic0/rx"]
    assert found["links"][0] == {
        "name": "node0/nic0/tx",
        "bandwidth": 4.5 * GB,
        "bytes": 9 * GB,
        "utilization": 0.5,
        "busy": pytest.approx(0.5),
        "peak_flows": 1,
    }
    assert len(found["links"]) == 4 and found["idle_links"] == len(net.network.links) - 4
    assert describe_links(net, 0)["links"][0]["utilization"] is None


def test_the_terminal_names_the_busiest_link_where_there_is_one() -> None:
    result = run({"cluster": {"pools": [{"engine": {"num_kv_blocks": 400}}]}}, trace=trace(3))
    assert "Links" not in [label for label, _, _ in details(result.summary)]
    net = network_of({"node": "aws-g5.12xlarge", "replicas": 5}, network={**FREE, "gpudirect": True})
    net.gpu_to_gpu(0, 4, 9 * GB, lambda _: None)
    net.network.env.run()
    summary = {**result.summary, "links": describe_links(net, 4 * NS_PER_S)}
    said = {label: text for label, text, _ in details(summary)}["Links"]
    assert said == "busiest node0/nic0/tx: 50.0 % used (9.00 GB at up to 4.50 GB/s), 4 in use"


def test_without_links_the_section_says_why() -> None:
    assert describe_links(network_of(DGX), 5)["reason"] == "nothing was moved over links"
    assert describe_links(network_of(DGX), 5)["links"] == []


def test_tensor_parallelism_over_slow_links_is_noted() -> None:
    def notes(**pool: Any) -> list[str]:
        return [note for note in resolved_of(pool).notes if "slow link" in note]

    (said,) = notes(node="aws-g5.12xlarge", parallel={"tp": 4})
    assert said.startswith("pool 'pool0' has tensor parallelism over a slow link: tp=4 over pcie4 at 12.8 GB/s a GPU")
    assert notes(node="dgx-h100", parallel={"tp": 8}) == []
    assert notes(node="aws-g5.12xlarge", parallel={"pp": 4}) == []
    assert notes(node="a40-4x", parallel={"tp": 2}) == [] and len(notes(node="a40-4x", parallel={"tp": 4})) == 1


# ---------------------------------------------------------------------------------------- with a cluster that runs


def trace(count: int) -> Trace:
    rng = np.random.default_rng(3)
    return Trace(
        arrival_s=np.sort(rng.uniform(0, 5, count)),
        prompt_tokens=rng.integers(20, 900, count),
        output_tokens=rng.integers(2, 120, count),
    )


def followed(stepwise: bool) -> tuple[list[tuple[int, int]], Sequence[Any], Any]:
    """Run five replicas; each request that ends sends 1 GiB to another node. Return when each transfer ended."""
    resolved = resolved_of(
        {"node": "aws-g5.12xlarge", "replicas": 5, "engine": {"num_kv_blocks": 400, "max_model_len": 2048}}
    )
    built = build(resolved, trace(60), stepwise=stepwise)
    cluster = built.cluster
    net = build_network(cluster.env, resolved)
    log: list[tuple[int, int]] = []
    told = cluster.workload.source.ended

    def ended(row: int, end_ns: int) -> Any:
        assert cluster.env.now == end_ns
        sender = cluster.recorder.replica[row]
        net.gpu_to_gpu(sender, 0 if sender == 4 else 4, 2**30, lambda now: log.append((row, now)))
        return told(row, end_ns)

    cluster.workload.source.ended = ended  # type: ignore[method-assign]
    simulate(built, Watch())
    uses = [net.network.use(link) for link in range(len(net.network.links))]
    return log, uses, cluster.recorder.columns["last_token_ns"].tolist()


def test_fast_forward_and_stepwise_see_the_same_transfers() -> None:
    assert followed(True) == followed(False)
    log, uses, _ = followed(False)
    assert len(log) == 60 and max(use.peak_flows for use in uses) > 1


def test_a_run_without_features_builds_no_links() -> None:
    result = run({"cluster": {"pools": [{"engine": {"num_kv_blocks": 400}}]}}, trace=trace(5))
    assert result.summary["links"] == {"links": [], "idle_links": None, "reason": WITHOUT_LINKS}


def test_attention_data_parallel_ranks_send_as_replicas_of_their_own() -> None:
    """A rank of two GPUs, both with all of the latent KV, sends it to a rank of the other replica in another node."""
    dp = {
        "node": "dgx-h100",
        "parallel": {"tp": 2, "dp": 4, "ep": 8},
        "replicas": 2,
    }
    resolved = resolved_of(dp, model="deepseek-v3")
    net = build_network(Environment(initial_time=0), resolved)
    assert net.topology.num_replicas == 8
    assert net.parts("gpu", "gpu", 1, 100, to=4) == [(gpu(0, 2), gpu(1, 0), 100), (gpu(0, 3), gpu(1, 1), 100)]
    assert net.parts("remote", "gpu", 1, 100) == [(remote(), gpu(0, 2), 50), (remote(), gpu(0, 3), 50)]

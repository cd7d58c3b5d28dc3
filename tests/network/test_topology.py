from __future__ import annotations

import pytest

from hardware_profiles import load_accelerator, load_node
from simulator.cost.links import P2P_LATENCY_S
from simulator.errors import InputError
from simulator.network.flows import Path
from simulator.network.placement import PoolNodes, place
from simulator.network.topology import Topology, flash, gpu, host, remote
from simulator.parallel import ParallelPlan
from simulator.scenario_network import NetworkPart

GB = 10**9


def pool(node: str | None = None, replicas: int = 1, tp: int = 1, pp: int = 1, **more: str) -> PoolNodes:
    kind = None if node is None else load_node(node)
    accelerator = load_accelerator(more.get("accelerator") or (kind.accelerator if kind else "a100-80gb"))
    return PoolNodes(more.get("name", "default"), kind, accelerator, ParallelPlan(tp, pp), replicas)


def topology(*pools: PoolNodes, **part: object) -> Topology:
    return Topology(pools, NetworkPart.model_validate(part))


def names(top: Topology, path: Path) -> list[str]:
    return [top.links[i].name for i in path]


def only(top: Topology, *ends: object) -> list[str]:
    (path,) = top.route(*ends)  # type: ignore[arg-type]
    return names(top, path)


# ------------------------------------------------------------------------------------------------------ placement


def test_replicas_fill_nodes_in_order_and_are_not_split() -> None:
    _, placed = place([pool("dgx-h100", replicas=4, tp=3)])
    assert [{node for node, _ in replica} for replica in placed] == [{0}, {0}, {1}, {1}]
    assert placed[1] == ((0, 3), (0, 4), (0, 5))


def test_pools_of_one_node_type_share_nodes_unless_told_not_to() -> None:
    pools = [pool("dgx-h100", tp=4), pool("dgx-h100", tp=4, name="other"), pool("dgx-a100", name="third")]
    nodes, placed = place(pools)
    assert [node.type.name for node in nodes] == ["dgx-h100", "dgx-a100"]
    assert placed[1] == ((0, 4), (0, 5), (0, 6), (0, 7)) and placed[2] == ((1, 0),)
    nodes, placed = place(pools, separate=True)
    assert len(nodes) == 3 and placed[1][0] == (1, 0)


def test_a_larger_replica_spans_nodes_and_keeps_its_groups_whole() -> None:
    """Two stages of 4 on nodes of 4, and one of 4 stages of 2 on nodes of 4 that begins with a new node."""
    _, placed = place([pool("aws-g5.12xlarge", tp=4, pp=2)])
    assert placed[0] == tuple((stage, rank) for stage in range(2) for rank in range(4))
    _, placed = place([pool("aws-g5.12xlarge"), pool("aws-g5.12xlarge", replicas=2, tp=2, pp=3, name="b")])
    assert placed[1] == ((1, 0), (1, 1), (1, 2), (1, 3), (2, 0), (2, 1))
    assert placed[2] == ((3, 0), (3, 1), (3, 2), (3, 3), (4, 0), (4, 1))


def test_attention_data_parallel_ranks_are_replicas_of_their_own_placed_together() -> None:
    """Two replicas of four ranks of two GPUs on nodes of eight, then three ranks that don't fit beside another."""
    ranks = PoolNodes("a", load_node("dgx-h100"), load_accelerator("h100-sxm"), ParallelPlan(tp=2, dp=4), 2)
    more = PoolNodes("b", load_node("dgx-h100"), load_accelerator("h100-sxm"), ParallelPlan(tp=2, dp=3), 2)
    _, placed = place([ranks, more])
    assert placed[:5] == (((0, 0), (0, 1)), ((0, 2), (0, 3)), ((0, 4), (0, 5)), ((0, 6), (0, 7)), ((1, 0), (1, 1)))
    assert [replica[0] for replica in placed[8:]] == [(2, 0), (2, 2), (2, 4), (3, 0), (3, 2), (3, 4)]
    assert topology(ranks, more).num_replicas == 14


def test_a_pool_without_a_node_type_gets_nodes_that_hold_its_replicas() -> None:
    top = topology(pool(replicas=3, tp=4), pool(tp=16, name="big", accelerator="h100-sxm"))
    assert [(node.type.gpus, node.type.fabric) for node in top.nodes] == [
        (8, "nvswitch"),
        (8, "nvswitch"),
        (16, "nvswitch"),
    ]
    assert top.links[top.link("node0/nic0/tx")].bandwidth == pytest.approx(0.9 * 25 * GB)
    assert top.links[top.link("node2/nic15/tx")].bandwidth == pytest.approx(0.9 * 50 * GB)
    assert [note.split(" names")[0] for note in top.notes] == ["pool 'default'", "pool 'big'"]


# ---------------------------------------------------------------------------------------------------- DGX H100


def test_routes_of_dgx_h100() -> None:
    top = topology(pool("dgx-h100", replicas=3, tp=8))
    assert only(top, gpu(0, 2), gpu(0, 5)) == ["node0/gpu2/nvlink-out", "node0/gpu5/nvlink-in"]
    assert only(top, gpu(0, 2), host(0)) == ["node0/gpu2/pcie-up", "node0/host-memory"]
    assert only(top, host(0), gpu(0, 2)) == ["node0/host-memory", "node0/gpu2/pcie-down"]
    assert only(top, gpu(0, 3), gpu(1, 3)) == [
        "node0/gpu3/pcie-up",
        "node0/nic3/tx",
        "node1/nic3/rx",
        "node1/gpu3/pcie-down",
    ]
    # From one rail to another: over the spine.
    assert only(top, gpu(0, 3), gpu(1, 4))[1:5] == ["node0/nic3/tx", "leaf0.3/up", "leaf0.4/down", "node1/nic4/rx"]
    assert only(top, flash(0), gpu(0, 1)) == [
        "node0/flash/read",
        "node0/host-memory",
        "node0/host-memory",
        "node0/gpu1/pcie-down",
    ]
    assert only(top, gpu(0, 1), flash(0))[1:] == ["node0/host-memory", "node0/host-memory", "node0/flash/write"]
    assert only(top, host(0), flash(0)) == ["node0/host-memory", "node0/flash/write"]
    # Storage is staged in host memory, over the GPU's own interface.
    assert only(top, remote(), gpu(1, 6)) == [
        "storage/read",
        "leaf0.6/down",
        "node1/nic6/rx",
        "node1/host-memory",
        "node1/host-memory",
        "node1/gpu6/pcie-down",
    ]
    assert only(top, gpu(1, 6), remote())[-3:] == ["node1/nic6/tx", "leaf0.6/up", "storage/write"]
    # Host to host is striped over all eight rails, host to a GPU goes on the GPU's.
    between = top.route(host(0), host(2))
    assert [names(top, path) for path in between] == [
        ["node0/host-memory", f"node0/nic{i}/tx", f"node2/nic{i}/rx", "node2/host-memory"] for i in range(8)
    ]
    assert only(top, host(0), gpu(1, 5)) == [
        "node0/host-memory",
        "node0/nic5/tx",
        "node1/nic5/rx",
        "node1/gpu5/pcie-down",
    ]
    assert len(top.route(remote(), host(0))) == 8
    assert top.route(gpu(0, 1), gpu(0, 1)) == ((),)


def test_bandwidths_of_dgx_h100_are_data_sheet_times_efficiency() -> None:
    top = topology(pool("dgx-h100"))
    rate = {spec.name: spec.bandwidth / GB for spec in top.links}
    assert rate["node0/gpu0/nvlink-out"] == pytest.approx(450 * 0.87)
    assert rate["node0/gpu0/pcie-up"] == pytest.approx(64 * 0.86)
    assert rate["node0/nic7/rx"] == pytest.approx(50 * 0.9)
    assert rate["leaf0.7/up"] == pytest.approx(50 * 0.9)
    assert rate["storage/read"] == 40 and rate["node0/flash/write"] == 3.5
    # 8 GPUs x (2 NVLink + 2 PCIe) + memory + 2 flash + 8 x 2 NIC, 8 leaves x 2, storage x 2.
    assert len(top.links) == 32 + 3 + 16 + 16 + 2
    assert len(top.links_of(0)) == 51


def test_several_interfaces_a_gpu_are_striped_over() -> None:
    top = topology(pool("aws-p5.48xlarge", replicas=2, tp=8))
    paths = top.route(gpu(0, 1), gpu(1, 1))
    assert [names(top, path)[1] for path in paths] == [f"node0/nic{i}/tx" for i in (4, 5, 6, 7)]
    assert [names(top, path)[2] for path in paths] == [f"node1/nic{i}/rx" for i in (4, 5, 6, 7)]


def test_two_gpus_a_switch_share_one_interface_and_one_uplink_in_p4d() -> None:
    top = topology(pool("aws-p4d.24xlarge", replicas=2, tp=8))
    for index in (2, 3):  # the interface is on their switch, so data for it does not cross the uplink
        assert only(top, gpu(0, index), gpu(1, index))[:2] == [f"node0/gpu{index}/pcie-up", "node0/nic1/tx"]
        assert only(top, gpu(0, index), host(0))[1] == "node0/pcie-switch1/up"


# --------------------------------------------------------------------------------------------- PCIe, pairs, meshes


def test_routes_of_a_pcie_box() -> None:
    top = topology(pool("h100-pcie-8x", replicas=2, tp=8))
    assert only(top, gpu(0, 0), gpu(0, 3)) == ["node0/gpu0/pcie-up", "node0/gpu3/pcie-down"]
    assert only(top, gpu(0, 0), gpu(0, 4)) == [
        "node0/gpu0/pcie-up",
        "node0/pcie-switch0/up",
        "node0/pcie-switch1/down",
        "node0/gpu4/pcie-down",
    ]
    assert only(top, host(0), gpu(0, 6)) == ["node0/host-memory", "node0/pcie-switch1/down", "node0/gpu6/pcie-down"]
    assert only(top, gpu(0, 6), gpu(1, 1)) == [
        "node0/gpu6/pcie-up",
        "node0/nic1/tx",
        "leaf0.1/up",
        "leaf0.0/down",
        "node1/nic0/rx",
        "node1/gpu1/pcie-down",
    ]


def test_aws_g5_goes_through_host_memory_and_one_interface() -> None:
    top = topology(pool("aws-g5.48xlarge", replicas=2, tp=8))
    assert only(top, gpu(0, 0), gpu(0, 7)) == ["node0/gpu0/pcie-up", "node0/gpu7/pcie-down"]
    assert only(top, gpu(0, 7), gpu(1, 2)) == [
        "node0/gpu7/pcie-up",
        "node0/host-memory",
        "node0/host-memory",
        "node0/nic0/tx",
        "node1/nic0/rx",
        "node1/host-memory",
        "node1/host-memory",
        "node1/gpu2/pcie-down",
    ]
    direct = topology(pool("aws-g5.48xlarge", replicas=2, tp=8), gpudirect=True)
    assert only(direct, gpu(0, 7), gpu(1, 2))[1] == "node0/nic0/tx"


def test_an_interface_that_is_not_on_a_switch_is_behind_the_uplink() -> None:
    """Two switches and one interface: it can't be on both, so it is taken to be on the host."""
    top = topology(pool("a40-4x", replicas=2, tp=4))
    assert only(top, gpu(0, 3), gpu(1, 0)) == [
        "node0/gpu3/pcie-up",
        "node0/pcie-switch1/up",
        "node0/nic0/tx",
        "node1/nic0/rx",
        "node1/pcie-switch0/down",
        "node1/gpu0/pcie-down",
    ]


def test_bridged_pairs_use_their_bridge_and_others_pcie() -> None:
    top = topology(pool("a40-4x", tp=4))
    assert only(top, gpu(0, 2), gpu(0, 3)) == ["node0/gpu2-gpu3"]
    assert only(top, gpu(0, 1), gpu(0, 2))[0] == "node0/gpu1/pcie-up"
    assert top.links[top.link("node0/gpu0-gpu1")].bandwidth == pytest.approx(56.25 * GB * 0.87)


def test_a_mesh_has_a_link_for_every_pair() -> None:
    top = topology(pool("mi300x-8x", tp=8))
    assert only(top, gpu(0, 1), gpu(0, 6)) == ["node0/gpu1-gpu6"]
    assert top.links[top.link("node0/gpu1-gpu6")].bandwidth == pytest.approx(64 * GB * 0.87)


def test_trays_of_an_nvl72_reach_each_other_over_nvlink() -> None:
    top = topology(pool("gb200-nvl72-tray", replicas=20, tp=4))
    assert only(top, gpu(0, 1), gpu(17, 2)) == ["node0/gpu1/nvlink-out", "node17/gpu2/nvlink-in"]
    assert "node0/nic1/tx" in only(top, gpu(0, 1), gpu(18, 1))
    apart = topology(pool("gb200-nvl72-tray", replicas=2, tp=4), nvlink_domain_nodes=1)
    assert "node0/nic1/tx" in only(apart, gpu(0, 1), gpu(1, 1))


# ---------------------------------------------------------------------------------------------------------- fabric


def test_an_oversubscribed_leaf_spine() -> None:
    """Two nodes of 8 interfaces a leaf switch: 16 x 45 GB/s below, a quarter of that above."""
    top = topology(
        pool("dgx-h100", replicas=3, tp=8),
        fabric="leaf-spine",
        nodes_per_leaf=2,
        oversubscription=4.0,
        hop_latency_s=1e-6,
    )
    assert only(top, gpu(0, 3), gpu(1, 4))[1:3] == ["node0/nic3/tx", "node1/nic4/rx"]
    assert only(top, gpu(0, 3), gpu(2, 4))[1:5] == ["node0/nic3/tx", "leaf0.0/up", "leaf1.0/down", "node2/nic4/rx"]
    up, lone = top.links[top.link("leaf0.0/up")], top.links[top.link("leaf1.0/up")]
    assert up.bandwidth == pytest.approx(16 * 45 * GB / 4) and up.latency_s == 1e-6
    assert lone.bandwidth == pytest.approx(8 * 45 * GB / 4)
    assert not up.never_full
    whole = topology(pool("dgx-h100"))
    assert whole.links[whole.link("leaf0.3/up")].never_full


def test_rails_of_other_groups_are_reached_over_the_spine() -> None:
    top = topology(pool("dgx-h100", replicas=3, tp=8), nodes_per_leaf=2)
    assert only(top, gpu(1, 3), gpu(2, 3))[1:5] == ["node1/nic3/tx", "leaf0.3/up", "leaf1.3/down", "node2/nic3/rx"]


def test_unequal_numbers_of_interfaces_stripe_over_the_larger() -> None:
    """Four interfaces of 100 Gbit/s of a p5 GPU send to the one of 400 Gbit/s of a DGX GPU.

    Only one of them is on its rail; that one alone would be slower.
    """
    top = topology(pool("aws-p5.48xlarge", tp=8), pool("dgx-h100", tp=8, name="other"))
    paths = [names(top, path) for path in top.route(gpu(0, 0), gpu(1, 0))]
    assert [path[1] for path in paths] == [f"node0/nic{i}/tx" for i in range(4)]
    assert {path[-2] for path in paths} == {"node1/nic0/rx"}
    assert [len(path) for path in paths] == [4, 6, 6, 6]


def test_without_a_fabric_nodes_do_not_reach_each_other() -> None:
    top = topology(pool("dgx-h100", replicas=2, tp=8), fabric="none")
    with pytest.raises(
        InputError, match=r"nothing joins GPU 0 of node 0 and host memory of node 1: network.fabric is none"
    ):
        top.route(gpu(0, 0), host(1))
    with pytest.raises(InputError, match="nothing joins shared storage and host memory of node 1"):
        top.route(remote(), host(1))
    assert only(top, gpu(0, 0), host(0))


def test_overrides_set_what_they_say() -> None:
    top = topology(
        pool("dgx-h100"),
        nic_gbit_per_s=100.0,
        nic_efficiency=0.5,
        pcie_efficiency=1.0,
        nvlink_efficiency=1.0,
        host_memory_gb_per_s=100.0,
        flash_read_gb_per_s=50.0,
        storage_write_gb_per_s=1.0,
        latency_s=4e-6,
        per_message_s=3e-6,
    )
    of = {spec.name: spec for spec in top.links}
    assert of["node0/nic0/tx"].bandwidth == 6.25 * GB
    assert (of["node0/nic0/tx"].latency_s, of["node0/nic0/tx"].per_message_s) == (2e-6, 3e-6)
    assert of["node0/gpu0/pcie-up"].bandwidth == 64 * GB and of["node0/gpu0/nvlink-in"].bandwidth == 450 * GB
    assert of["node0/host-memory"].bandwidth == 100 * GB and of["node0/flash/read"].bandwidth == 50 * GB
    assert of["storage/write"].bandwidth == GB


def test_a_message_between_nodes_takes_what_the_cost_model_says() -> None:
    assert NetworkPart().latency_s == P2P_LATENCY_S


def test_an_unknown_link_is_an_error_for_people() -> None:
    with pytest.raises(InputError, match=r"there is no link 'node9/nic0/tx'"):
        topology(pool("dgx-h100")).link("node9/nic0/tx")

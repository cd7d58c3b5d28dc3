"""Profiles that ship: sane, sourced, dense, one direction."""

import pytest

from hardware_profiles import list_accelerators, list_nodes, load_accelerator, load_node

WANTED = """
    a100-40gb a100-80gb a100-80gb-pcie a10g a40 a6000 b200 h100-pcie h100-sxm h200 l4 l40s mi300x rtx-4090
    rtx-pro-6000
""".split()  # noqa: SIM905 (a list of 34 quoted names is harder to read)


def test_the_accelerators_that_people_serve_on_are_there():
    assert set(WANTED) <= set(list_accelerators())
    assert list_accelerators() == sorted(list_accelerators())


@pytest.mark.parametrize("name", list_accelerators())
def test_figures_are_possible_and_sourced(name):
    accelerator = load_accelerator(name)
    assert accelerator.name == name
    assert 8 * 2**30 < accelerator.memory_bytes < 300 * 2**30
    assert 0.9 * accelerator.memory_bytes < accelerator.process_memory_bytes <= accelerator.memory_bytes
    assert 2e11 < accelerator.memory_bandwidth < 1e13
    assert 10 < accelerator.sm_count < 400
    assert 50 < accelerator.tdp_w <= 1500
    assert accelerator.scale_up_bandwidth < accelerator.memory_bandwidth
    figures = {"memory_bytes", "memory_bandwidth", "peak_flops", "sm_count", "scale_up_bandwidth", "pcie_bandwidth"}
    assert figures | {"tdp_w"} <= set(accelerator.sources)
    assert (accelerator.usable_memory_bytes is not None) == ("usable_memory_bytes" in accelerator.sources)


@pytest.mark.parametrize("name", list_accelerators())
def test_narrower_datatypes_are_no_slower(name):
    peak = load_accelerator(name).peak_flops
    assert peak["fp16"] >= peak["fp32"]
    assert peak.get("bf16", peak["fp16"]) == peak["fp16"]
    if "fp8" in peak:
        assert peak["fp8"] == pytest.approx(2 * peak["bf16"], rel=0.02)
    if "fp4" in peak:
        assert peak["fp4"] >= 1.9 * peak["fp8"]


@pytest.mark.parametrize(
    ("name", "dense_bf16", "sparse_bf16"),
    [
        # Data sheets print both for these; ours must be the dense one.
        ("a100-80gb", 312e12, 624e12),
        ("h100-sxm", 989.4e12, 1979e12),
        ("h100-pcie", 756e12, 1513e12),
        ("h200", 989.4e12, 1979e12),
        ("b200", 2.25e15, 4.5e15),
        ("l40s", 362.05e12, 733e12),
        ("l4", 121e12, 242e12),
        ("a40", 149.7e12, 299.4e12),
        ("mi300x", 1307.4e12, 2614.9e12),
        ("rtx-4090", 165.2e12, 330.4e12),
    ],
)
def test_peak_rates_are_dense(name, dense_bf16, sparse_bf16):
    peak = load_accelerator(name).peak_flops["bf16"]
    assert peak == dense_bf16
    assert peak == pytest.approx(sparse_bf16 / 2, rel=0.02)


@pytest.mark.parametrize(
    ("name", "generation", "both_directions"),
    [
        ("a100-80gb", "nvlink3", 600e9),
        ("h100-sxm", "nvlink4", 900e9),
        ("b200", "nvlink5", 1800e9),
        ("a40", "nvlink3-bridge", 112.5e9),
        ("mi300x", "xgmi", 896e9),
    ],
)
def test_links_are_those_of_one_direction(name, generation, both_directions):
    accelerator = load_accelerator(name)
    assert accelerator.scale_up == generation
    assert accelerator.scale_up_bandwidth == both_directions / 2


def test_memory_is_what_the_driver_shows():
    assert load_accelerator("h100-sxm").memory_bytes == 81559 * 2**20
    assert load_accelerator("a100-80gb").memory_bytes == 80 * 2**30


@pytest.mark.parametrize("name", list_nodes())
def test_nodes_are_possible_and_sourced(name):
    node = load_node(name)
    accelerator = load_accelerator(node.accelerator)
    assert node.name == name
    assert node.gpus in (1, 2, 4, 8)
    assert node.gpus % node.gpus_per_pcie_switch == 0
    assert node.host_memory_bytes >= 16 * 2**30
    assert all(node.sources.values())
    if node.fabric == "nvswitch":
        assert accelerator.scale_up.startswith("nvlink")
    if node.fabric == "nvlink-pairs":
        assert accelerator.scale_up.endswith("bridge")


@pytest.mark.parametrize("accelerator", WANTED)
def test_every_wanted_accelerator_has_a_node(accelerator):
    assert any(load_node(name).accelerator == accelerator for name in list_nodes())


def test_nic_speed_is_bytes_per_second():
    (nic,) = load_node("dgx-h100").nics
    assert (nic.count, nic.bandwidth) == (8, 50e9)


def test_aliases_are_unique_and_load_in_any_case():
    aliases = [alias for name in list_accelerators() for alias in load_accelerator(name).aliases]
    assert len(aliases) == len(set(aliases))
    assert not set(aliases) & set(list_accelerators())
    assert load_accelerator("H100").name == "h100-sxm"

"""Strict loading: every mistake in a profile's file is named with its file and key."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import hardware_profiles
from hardware_profiles import ProfileError, load_accelerator, load_node

ROOT = Path(hardware_profiles.__file__).parent


@pytest.fixture
def accelerator():
    return yaml.safe_load((ROOT / "accelerators" / "h100-sxm.yaml").read_text())


@pytest.fixture
def node():
    return yaml.safe_load((ROOT / "nodes" / "dgx-h100.yaml").read_text())


def write(tmp_path, content):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_by_path(tmp_path, accelerator, node):
    mine = load_accelerator(write(tmp_path, accelerator))
    assert mine.name == "mine"
    assert mine.peak_flops == load_accelerator("h100-sxm").peak_flops
    assert load_node(str(write(tmp_path, node))).nics == load_node("dgx-h100").nics


def test_unknown_names():
    with pytest.raises(ProfileError, match=r"unknown accelerator 'h100-smx'; did you mean 'h100-sxm'\?"):
        load_accelerator("h100-smx")
    with pytest.raises(ProfileError, match=r"unknown accelerator 'tpu'; known: a100-40gb, "):
        load_accelerator("tpu")
    with pytest.raises(ProfileError, match=r"unknown node type 'dgx-h10'; did you mean 'dgx-h100'\?"):
        load_node("dgx-h10")


OPTIONAL = {"aliases", "idle_w", "usable_gib"}
KEYS = sorted(yaml.safe_load((ROOT / "accelerators" / "h100-sxm.yaml").read_text()).keys() - OPTIONAL)


@pytest.mark.parametrize("key", KEYS)
def test_a_missing_key_is_named(tmp_path, accelerator, key):
    del accelerator[key]
    with pytest.raises(ProfileError, match=rf"mine.yaml: key '{key}' is missing"):
        load_accelerator(write(tmp_path, accelerator))


def test_a_figure_without_its_source_is_named(tmp_path, accelerator):
    del accelerator["sources"]["idle_w"]
    with pytest.raises(ProfileError, match="sources: key 'idle_w' is missing"):
        load_accelerator(write(tmp_path, accelerator))


@pytest.mark.parametrize("key", ["memory_mib", "memory_gb_per_s", "sm_count", "pcie_gb_per_s", "tdp_w", "usable_gib"])
@pytest.mark.parametrize("value", [-1, 0, "80", True, [80], float("nan"), float("inf")])
def test_a_number_that_is_none_is_named(tmp_path, accelerator, key, value):
    accelerator[key] = value
    with pytest.raises(ProfileError, match=rf"mine.yaml: key '{key}' must be "):
        load_accelerator(write(tmp_path, accelerator))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tdp_watts": 700}, "unknown key 'tdp_watts'; did you mean 'tdp_w'"),
        ({"memory_mib": 81559.5}, "key 'memory_mib' must be a whole number"),
        ({"peak_tflops": 989}, "key 'peak_tflops' must be a mapping"),
        ({"peak_tflops": {}}, "key 'peak_tflops' must give at least one of"),
        ({"peak_tflops": {"bf15": 989}}, "peak_tflops: unknown key 'bf15'; did you mean 'bf16'"),
        ({"peak_tflops": {"bf16": -1}}, "peak_tflops: key 'bf16' must be finite and above 0"),
        ({"vendor": ""}, "key 'vendor' must be text"),
        ({"aliases": [4090]}, "key 'aliases' must be a list of names, got 4090"),
        ({"aliases": "h100"}, "key 'aliases' must be a list"),
        ({"sources": {}}, "sources: key 'memory_mib' is missing"),
    ],
)
def test_what_is_wrong_with_an_accelerator(tmp_path, accelerator, change, message):
    with pytest.raises(ProfileError, match=r"mine.yaml") as error:
        load_accelerator(write(tmp_path, {**accelerator, **change}))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"accelerator": "h100-smx"}, "key 'accelerator' is unknown: 'h100-smx'; did you mean 'h100-sxm'"),
        ({"fabric": "nvswich"}, "key 'fabric' is unknown: 'nvswich'; did you mean 'nvswitch'"),
        ({"gpus_per_pcie_switch": 9}, "key 'gpus_per_pcie_switch' must be at most gpus (8), got 9"),
        ({"gpus": 0}, "key 'gpus' must be finite and above 0"),
        ({"nics": {"name": "x"}}, "key 'nics' must be a list"),
        ({"nics": ["x"]}, "nics, entry 1: must be a mapping"),
        ({"nics": [{"name": "x", "count": 1}]}, "nics, entry 1: key 'gbit_per_s' is missing"),
        ({"nics": [{"name": "x", "count": 1, "gbit_per_s": -4}]}, "key 'gbit_per_s' must be finite and above 0"),
        ({"gpu": 8}, "unknown key 'gpu'; did you mean 'gpus'"),
    ],
)
def test_what_is_wrong_with_a_node(tmp_path, node, change, message):
    with pytest.raises(ProfileError, match=r"mine.yaml") as error:
        load_node(write(tmp_path, {**node, **change}))
    assert message in str(error.value)


def test_files_that_are_no_profiles(tmp_path):
    with pytest.raises(ProfileError, match=r"absent.yaml: cannot be read"):
        load_accelerator(tmp_path / "absent.yaml")
    path = tmp_path / "mine.yaml"
    path.write_text("a: [")
    with pytest.raises(ProfileError, match=r"mine.yaml: not a YAML file"):
        load_accelerator(path)
    path.write_text("- a")
    with pytest.raises(ProfileError, match=r"mine.yaml: must hold a mapping, got list"):
        load_accelerator(path)


def test_optional_figures(tmp_path, accelerator):
    content = copy.deepcopy(accelerator)
    content["idle_w"] = 70
    content["sources"]["idle_w"] = "measured"
    assert load_accelerator(write(tmp_path, content)).idle_w == 70.0
    del content["usable_gib"], content["sources"]["usable_gib"]
    mine = load_accelerator(write(tmp_path, content))
    assert mine.process_memory_bytes == mine.memory_bytes


def test_the_package_stands_alone():
    code = "import sys, hardware_profiles; print([m for m in sys.modules if m in ('simulator', 'pandas', 'numpy')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    assert done.stdout.strip() == "[]"

"""Presets lie under what the user gives, key by key."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulator import presets
from simulator.errors import InputError
from simulator.scenario import Scenario, ScenarioError, assemble

EVERY = {"cluster": {"pools": [{"batching": {"name": "vllm", "params": {"watermark": 0.2}}, "replicas": 2}]}}
NAMED = {
    "router": "round-robin",
    "cluster": {"pools": [{"name": "a", "replicas": 2}, {"name": "b", "replicas": 3, "engine": {"max_num_seqs": 5}}]},
}


@pytest.mark.parametrize("name", presets.list_presets())
def test_a_preset_is_a_valid_scenario_that_says_whom_it_follows(name: str) -> None:
    preset = presets.load_preset(name)
    assert preset.summary.endswith(".") and preset.source
    Scenario.from_mapping({"preset": name})


@pytest.mark.parametrize(
    ("over", "pools"),
    [
        ({}, [{"batching": {"name": "vllm", "params": {"watermark": 0.2}}, "replicas": 2}]),
        (
            {"cluster": {"pools": [{"name": "x", "replicas": 7}, {"name": "y"}]}},
            [
                {"batching": {"name": "vllm", "params": {"watermark": 0.2}}, "replicas": 7, "name": "x"},
                {"batching": {"name": "vllm", "params": {"watermark": 0.2}}, "replicas": 2, "name": "y"},
            ],
        ),
        # The same policy keeps the preset's parameters, another one doesn't.
        (
            {"cluster": {"pools": [{"batching": {"params": {"preemption_mode": "swap"}}}]}},
            [
                {
                    "batching": {"name": "vllm", "params": {"watermark": 0.2, "preemption_mode": "swap"}},
                    "replicas": 2,
                }
            ],
        ),
        (
            {"cluster": {"pools": [{"batching": "vllm"}]}},
            [{"batching": {"name": "vllm", "params": {"watermark": 0.2}}, "replicas": 2}],
        ),
        (
            {"cluster": {"pools": [{"batching": "sarathi"}]}},
            [{"batching": {"name": "sarathi"}, "replicas": 2}],
        ),
    ],
)
def test_one_pool_without_a_name_lies_under_every_pool(over: dict, pools: list) -> None:  # type: ignore[type-arg]
    assert presets.merged(EVERY, over)["cluster"]["pools"] == pools


def test_named_pools_are_put_together_by_name_the_users_first() -> None:
    over = {"router": "random", "cluster": {"pools": [{"name": "c"}, {"name": "b", "replicas": 9}]}}
    found = presets.merged(NAMED, over)
    assert found["router"] == "random"
    assert found["cluster"]["pools"] == [
        {"name": "c"},
        {"name": "b", "replicas": 9, "engine": {"max_num_seqs": 5}},
        {"name": "a", "replicas": 2},
    ]
    assert NAMED["cluster"]["pools"][1]["replicas"] == 3  # type: ignore[index]  # nothing was changed


def test_flags_go_before_the_file_and_the_file_before_the_preset(tmp_path: Path) -> None:
    file = tmp_path / "scenario.yaml"
    file.write_text("preset: vllm-swap\ncluster:\n  pools:\n    - engine: {swap_space_gib: 8, max_num_seqs: 7}\n")
    flags = [("cluster.pools.*.engine.max_num_seqs", 3, "--max-num-seqs")]
    pool = assemble(file, flags).cluster.pools[0]
    assert pool.batching is not None and pool.batching.params == {"preemption_mode": "swap"}
    assert (pool.engine.swap_space_gib, pool.engine.max_num_seqs) == (8.0, 3)
    assert assemble(None, flags, preset="vllm-swap").cluster.pools[0].engine.swap_space_gib == 4.0


def test_a_preset_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("summary: Mine.\nsource: me\nscenario: {seed: 5}\n")
    assert Scenario.from_mapping({"preset": str(file)}).seed == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("summary: x\nsource: y\nscenario: {sed: 5}\n", r"'?sed'?.*did you mean '?seed'?"),
        ("summary: x\nsource: y\nscenario: {preset: z}\n", "can't name another"),
        ("summary: x\nsource: y\n", "needs 'scenario', a mapping"),
        ("summary: x\nsource: y\nscenarios: {}\n", "unknown key 'scenarios'; did you mean 'scenario'"),
    ],
)
def test_a_bad_preset_is_an_error_that_says_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        presets.load_preset(str(file))


def test_an_unknown_preset_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(InputError, match="unknown preset 'vlm-swap'; did you mean 'vllm-swap'"):
        Scenario.from_mapping({"preset": "vlm-swap"})


def test_wrong_keys_beside_a_preset_keep_their_line(tmp_path: Path) -> None:
    file = tmp_path / "scenario.yaml"
    file.write_text("preset: vllm-swap\ncluster:\n  pools:\n    - replica: 2\n")
    with pytest.raises(ScenarioError, match=r"line 4.*replica"):
        assemble(file, [])

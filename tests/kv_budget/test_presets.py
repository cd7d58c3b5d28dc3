"""Each preset against its paper's own arithmetic, and what stands in the way of one in a scenario."""

from __future__ import annotations

from typing import Any

import pytest

from policies import registry
from policies.budget import KVBudget
from policies.protocols import PolicyError
from simulator.errors import InputError
from simulator.kv_budget import model_facts
from simulator.models import load_model
from simulator.resolve import Resolved, resolve
from simulator.scenario import Scenario

GQA = model_facts(load_model("llama-3.1-8b"))
MHA = model_facts(load_model("llama-2-7b"))


def preset(name: str, model: Any = GQA, **params: Any) -> KVBudget:
    budget: KVBudget = registry.make("kv_budget", name, params).budget(model)  # type: ignore[attr-defined]
    return budget


def test_h2o_keeps_both_shares_of_the_prompt() -> None:
    assert preset("h2o").kept_tokens(1000) == 200
    assert preset("h2o", heavy_ratio=0.02, recent_ratio=0.02).kept_tokens(5000) == 200
    assert not preset("h2o").grows
    # Scores once more: half of attention's 4 x heads x head_dim FLOPs a pair.
    assert preset("h2o").per_pair.flops == 32 * 2 * 32 * 128
    assert preset("h2o", score_pass=False).per_pair.flops == 0


def test_streaming_window_keeps_sinks_and_window() -> None:
    budget = preset("streaming-window", sinks=4, window=1020)
    assert [budget.kept_tokens(n) for n in (10, 100_000)] == [1024, 1024]
    assert budget.drop == "prefill"


def test_lazy_eviction_holds_a_window_more_and_reads_half_of_it() -> None:
    budget = preset("lazy-eviction", budget_tokens=1000, window=100)
    assert budget.kept_tokens(5) == 1100
    assert [group.read.tokens for group in budget.groups if group.read] == [1050]


def test_squeeze_attention_spreads_what_it_takes() -> None:
    """The paper's allocation: (layers x b - fewer x p b) / more for the others; the total stays layers x b."""
    budget = preset("squeeze-attention", budget_ratio=0.2, squeeze=0.4, unimportant=0.25)
    more, fewer = budget.groups
    assert (more.layers, fewer.layers) == (24, 8)
    assert more.keep is not None and fewer.keep is not None
    assert fewer.keep.prompt_share == pytest.approx(0.08)
    assert more.keep.prompt_share == pytest.approx((32 * 0.2 - 8 * 0.08) / 24)
    assert budget.kept_tokens(10_000) == 2000
    with pytest.raises(PolicyError, match=r"would keep 1\.\d+ of the prompt; lower"):
        preset("squeeze-attention", budget_ratio=0.9)


def test_fastkv_computes_a_share_in_later_layers_and_grows() -> None:
    budget = preset("fastkv")
    first, rest = budget.groups
    assert (first.layers, first.prefill_share) == (16, 1.0)
    assert (rest.layers, rest.prefill_share) == (16, 0.2)
    assert budget.grows and budget.kept_tokens(1000) == 108
    assert len(preset("fastkv", tsp_depth=1.0).groups) == 1


def test_bits_of_a_plain_cache() -> None:
    assert GQA.token_bits / preset("kv8").token_bits == 2
    assert preset("kv4").token_bits / GQA.kv_elements == 4 + 32 / 64
    unfused = preset("kv8", fused=False)
    assert unfused.read_bits == GQA.token_bits
    assert unfused.per_read.memory_bytes == 32 * 2048 * (1 + 2)  # read in 8 bits, written in 16


def test_gear_adds_low_rank_and_outliers() -> None:
    """4 bits, 2 % x (16 + 32) bits, rank 4 of 16 bits a head for keys and for values, a scale and a minimum."""
    elements = GQA.kv_elements
    assert preset("gear").token_bits == pytest.approx(elements * (4 + 0.96) + 2 * 8 * 4 * 16 + 32)
    # Up to about a third of 16 bits for a model with a head of 128 for each query (the paper's compression).
    assert MHA.token_bits / preset("gear", MHA).token_bits == pytest.approx(16 / 5.46, rel=0.01)


def test_xquant_stores_inputs() -> None:
    """7.7 times less than 16-bit keys and values with a head each (abstract); with grouped queries half of that."""
    assert MHA.token_bits / preset("xquant", MHA).token_bits == pytest.approx(7.7, abs=0.01)
    assert GQA.token_bits / preset("xquant", GQA).token_bits == pytest.approx(7.7 / 2, abs=0.01)
    # Making keys and values of a token again: two products of 4,096 x 4,096, or of 1,024 x 1,024.
    assert preset("xquant", MHA).per_read.flops == pytest.approx(32 * 4 * 4096 * 4096, rel=0.01)
    assert preset("xquant", GQA).per_read.flops == pytest.approx(32 * 4 * 1024 * 1024, rel=0.01)


def test_alisa_reads_a_fifth_and_keeps_the_rest_elsewhere() -> None:
    budget = preset("alisa")
    assert budget.read_share == pytest.approx(0.2)
    assert budget.token_bits == 8 * GQA.kv_elements
    assert budget.offload is not None and budget.offload.load_share == pytest.approx(0.1)
    assert [cap.tokens for cap in budget.tracked] == [1024, 1024 + 4096]


def _resolved(pool: dict[str, Any], model: str = "llama-3.1-8b") -> Resolved:
    return resolve(Scenario.from_mapping({"model": model, "cluster": {"pools": [pool]}}))


def test_compression_gives_blocks() -> None:
    full = _resolved({}).pools[0].memory
    for name in ("kv8", "kv4"):
        memory = _resolved({"kv_budget": name}).pools[0].memory
        assert memory.num_kv_blocks == memory.kv_bytes // (memory.kv_bytes_per_token * memory.block_size)
        ratio = full.kv_bytes_per_token / memory.kv_bytes_per_token
        assert ratio == pytest.approx(GQA.token_bits / preset(name).token_bits, rel=1e-3)
    gear = _resolved({"kv_budget": "gear"}).pools[0].memory
    # 20 tokens of 256 requests stay uncompressed.
    assert gear.kv_window_bytes == 256 * 20 * (full.kv_bytes_per_token - gear.kv_bytes_per_token)
    assert _resolved({"kv_budget": "h2o"}).pools[0].memory == full


def test_dropped_tokens_switch_prefix_caching_off() -> None:
    resolved = _resolved({"kv_budget": "h2o"})
    assert resolved.pools[0].pool.engine.prefix_caching is False
    assert any("prefix caching is off" in note for note in resolved.notes)
    assert _resolved({"kv_budget": "kv8"}).pools[0].pool.engine.prefix_caching is True
    with pytest.raises(InputError, match="missing from a prefix"):
        _resolved({"kv_budget": "h2o", "engine": {"prefix_caching": True}})


def test_what_it_does_to_answers_is_noted() -> None:
    notes = _resolved({"kv_budget": "kv4"}).notes
    assert any("accuracy" in note for note in notes)


@pytest.mark.parametrize(
    ("pool", "model", "says"),
    [
        ({"kv_budget": "h2o"}, "mistral-7b-v0.1", "sliding window"),
        ({"kv_budget": "kv4", "accelerator": "h200", "parallel": {"tp": 8}}, "deepseek-v3", "bound by arithmetic"),
        ({"kv_budget": "fastkv", "parallel": {"pp": 2}}, "llama-3.1-8b", "pipeline stages"),
        ({"kv_budget": "kv8", "offload": {}}, "opt-30b", "together with 'offload'"),
        ({"kv_budget": "kv8", "parallel": {"cp": 2}}, "llama-3.1-8b", "context parallelism"),
    ],
)
def test_what_is_not_modelled_is_refused(pool: dict[str, Any], model: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        _resolved(pool, model)
    assert "cluster.pools.0" in str(caught.value)


def test_a_policy_of_one_s_own(tmp_path: Any) -> None:
    """A file with one class is enough, and a wrong number of layers is its own fault."""
    file = tmp_path / "mine.py"
    file.write_text(
        "from dataclasses import dataclass\n"
        "from policies.budget import Cap, KVBudget, LayerGroup\n"
        "from policies.protocols import KVBudgetPolicy\n"
        "@dataclass\n"
        "class Mine(KVBudgetPolicy):\n"
        "    name = 'mine'\n"
        "    def budget(self, model):\n"
        "        groups = (LayerGroup(5, Cap(10), Cap(10)),)\n"
        "        return KVBudget(groups, model.token_bits, model.token_bits)\n"
    )
    with pytest.raises(InputError, match=r"'mine' declares 5 layers, and llama-3\.1-8b has 32"):
        _resolved({"kv_budget": f"{file}:Mine"})


def test_an_unknown_name_is_met_with_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'streaming-window'"):
        Scenario.from_mapping({"cluster": {"pools": [{"kv_budget": "streamingwindow"}]}})

"""Hugging Face configurations: what is read, and what is said where a key is wrong."""

import json

import pytest

from simulator.errors import InputError
from simulator.models import SUPPORTED_ARCHITECTURES, from_hf_config, load_entry, load_model

WHERE = "some/config.json"
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "max_position_embeddings": 512,
}
REQUIRED = [key for key in LLAMA if key not in ("architectures", "num_key_value_heads")]


def parse(**changes):
    return from_hf_config({**LLAMA, **changes}, "tiny", WHERE)


def test_llama_by_hand():
    spec = parse()
    layer = 64 * (4 + 2 * 2) * 16 + 64 * 64 + 3 * 64 * 96 + 2 * 64
    assert spec.parameter_count() == 3 * layer + 64 + 2 * 100 * 64
    assert spec.extra_parameters == 3 * 2 * 64 + 64
    assert (spec.name, spec.source, spec.default_dtype) == ("tiny", WHERE, "bf16")


def test_llama_biases():
    plain, biased = parse(), parse(attention_bias=True, mlp_bias=True)
    per_layer = (4 + 2 * 2) * 16 + 64 + 2 * 96 + 64
    assert biased.parameter_count() - plain.parameter_count() == 3 * per_layer


@pytest.mark.parametrize("key", REQUIRED)
def test_a_missing_key_is_named(key):
    with pytest.raises(InputError, match=rf"some/config.json: key '{key}' is missing \(LlamaForCausalLM\)"):
        from_hf_config({name: value for name, value in LLAMA.items() if name != key}, "tiny", WHERE)


@pytest.mark.parametrize("key", [*REQUIRED, "num_key_value_heads"])
@pytest.mark.parametrize("value", ["64", 0, -1, 1.5, True, [64]])
def test_an_ill_typed_key_is_named(key, value):
    with pytest.raises(InputError, match=rf"some/config.json: key '{key}' must be a whole number"):
        parse(**{key: value})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": None}, "key 'architectures' must be a list"),
        ({"architectures": []}, "key 'architectures' must be a list"),
        ({"architectures": ["LlamaForCasualLM"]}, "did you mean 'LlamaForCausalLM'"),
        ({"architectures": ["MambaLM"]}, "Qwen3MoeForCausalLM"),
        ({"num_key_value_heads": 3}, "must divide the 4 attention heads"),
        ({"num_attention_heads": 6, "num_key_value_heads": 6}, "must divide hidden_size 64"),
        ({"tie_word_embeddings": "no"}, "key 'tie_word_embeddings' must be true or false"),
        ({"torch_dtype": "bf15"}, "unknown datatype 'bf15'; did you mean 'bf16'"),
        ({"torch_dtype": 16}, "key 'torch_dtype' must be a string"),
        ({"quantization_config": 8}, "key 'quantization_config' must be a mapping"),
        ({"quantization_config": {"quant_method": "awk"}}, "did you mean 'awq'"),
        ({"quantization_config": {"quant_method": "awq", "bits": 3}}, "must be 4 or 8"),
        ({"quantization_config": {"quant_method": "modelopt", "quant_algo": "FP9"}}, "did you mean 'FP8'"),
        ({"quantization_config": {"quant_method": "compressed-tensors"}}, "one weight format"),
    ],
)
def test_what_is_wrong_is_said(changes, message):
    with pytest.raises(InputError, match=r"some/config\.json") as error:
        parse(**changes)
    assert message in str(error.value)


def test_unsupported_architecture_lists_the_supported_ones():
    with pytest.raises(InputError) as error:
        parse(architectures=["LlamaForCasualLM"])
    assert all(name in str(error.value) for name in SUPPORTED_ARCHITECTURES)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("mixtral-8x7b", "num_local_experts"),
        ("mixtral-8x7b", "num_experts_per_tok"),
        ("qwen3-30b-a3b", "num_experts"),
        ("qwen3-30b-a3b", "moe_intermediate_size"),
        ("deepseek-v3", "kv_lora_rank"),
        ("deepseek-v3", "qk_rope_head_dim"),
        ("deepseek-v3", "v_head_dim"),
        ("deepseek-v3", "n_routed_experts"),
        ("gpt-oss-20b", "num_local_experts"),
        ("opt-13b", "ffn_dim"),
        ("falcon-180b", "num_attention_heads"),
    ],
)
def test_missing_keys_of_other_architectures(name, key):
    config = dict(load_entry(name).config)
    del config[key]
    with pytest.raises(InputError, match=f"key '{key}' is missing"):
        from_hf_config(config, name, WHERE)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("gpt-oss-20b", {"layer_types": ["full_attention"]}, "must have 24 entries"),
        ("gpt-oss-20b", {"layer_types": ["linear_attention"] * 24}, "got 'linear_attention'"),
        ("mixtral-8x7b", {"num_experts_per_tok": 9}, "at most num_local_experts 8"),
        ("opt-13b", {"word_embed_proj_dim": 512}, "projections are not modelled"),
    ],
)
def test_values_that_cannot_be(name, changes, message):
    with pytest.raises(InputError, match=message):
        from_hf_config({**load_entry(name).config, **changes}, name, WHERE)


def test_without_layer_types_gpt_oss_alternates():
    config = {key: value for key, value in load_entry("gpt-oss-20b").config.items() if key != "layer_types"}
    assert from_hf_config(config, "x", WHERE).sliding_layer_ids == load_model("gpt-oss-20b").sliding_layer_ids


@pytest.mark.parametrize(("name", "window"), [("mistral-7b-v0.1", 4096), ("gemma-2-9b", 4096), ("gpt-oss-20b", 128)])
def test_a_window_left_out_is_that_of_the_architecture_and_null_is_none(name, window):
    config = {key: value for key, value in load_entry(name).config.items() if key != "sliding_window"}
    assert from_hf_config(config, "x", WHERE).sliding_window == window
    assert from_hf_config({**config, "sliding_window": None}, "x", WHERE).sliding_window is None


def test_qwen_windows_only_where_switched_on():
    config = {**load_entry("qwen2.5-7b").config, "sliding_window": 4096, "max_window_layers": 20}
    assert from_hf_config(config, "x", WHERE).num_sliding_layers == 0
    spec = from_hf_config({**config, "use_sliding_window": True}, "x", WHERE)
    assert spec.sliding_layer_ids == tuple(range(20, 28))


def test_qwen2_moe_shared_expert_by_hand():
    # Qwen1.5-MoE-A2.7B: 14.3B in all, 2.7B a token (its model card).
    config = {
        "architectures": ["Qwen2MoeForCausalLM"],
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "moe_intermediate_size": 1408,
        "shared_expert_intermediate_size": 5632,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "num_experts": 60,
        "num_experts_per_tok": 4,
        "decoder_sparse_step": 1,
        "vocab_size": 151936,
        "max_position_embeddings": 8192,
    }
    spec = from_hf_config(config, "x", WHERE)
    assert spec.parameter_count() == pytest.approx(14.3e9, rel=0.01)
    assert spec.active_parameter_count() == pytest.approx(2.7e9, rel=0.01)
    sparse = from_hf_config({**config, "decoder_sparse_step": 2, "mlp_only_layers": [1]}, "x", WHERE)
    assert [sparse.is_moe_layer(layer) for layer in range(4)] == [False, False, False, True]
    assert sparse.moe_layers == 11


def test_gpt_neox_by_hand():
    # GPT-NeoX-20B: 20.55B parameters (arXiv:2204.06745, Table 1 gives 20,554,567,680).
    config = {
        "architectures": ["GPTNeoXForCausalLM"],
        "hidden_size": 6144,
        "intermediate_size": 24576,
        "num_hidden_layers": 44,
        "num_attention_heads": 64,
        "vocab_size": 50432,
        "max_position_embeddings": 2048,
    }
    assert from_hf_config(config, "x", WHERE).parameter_count() == 20_554_567_680


def test_gemma_3_windows_in_five_of_six_layers():
    config = {
        "architectures": ["Gemma3ForCausalLM"],
        "hidden_size": 1152,
        "intermediate_size": 6912,
        "num_hidden_layers": 26,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "sliding_window": 512,
        "vocab_size": 262144,
        "max_position_embeddings": 32768,
    }
    spec = from_hf_config(config, "x", WHERE)
    assert spec.num_sliding_layers == 22
    assert not spec.is_sliding_layer(5)
    assert spec.parameter_count() == pytest.approx(1.0e9, rel=0.01)


def test_older_falcon_keys():
    config = dict(load_entry("falcon-40b").config)
    config.update(n_layer=config.pop("num_hidden_layers"), n_head=config.pop("num_attention_heads"))
    config.update(n_head_kv=config.pop("num_kv_heads"))
    spec = from_hf_config(config, "x", WHERE)
    assert spec.parameter_count() == load_model("falcon-40b").parameter_count()
    assert spec.num_kv_heads == 8


@pytest.mark.parametrize(
    ("table", "weight_format"),
    [
        ({"quant_method": "fp8"}, "fp8"),
        ({"quant_method": "awq", "bits": 4}, "int4"),
        ({"quant_method": "gptq", "bits": 8}, "int8"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "fp4"),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "float"}}},
            },
            "fp8",
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int"}}},
            },
            "int4",
        ),
    ],
)
def test_quantised_checkpoints(table, weight_format):
    spec = parse(quantization_config=table, torch_dtype="float16")
    assert spec.quantization.weight_format == spec.default_dtype == weight_format
    assert spec.base_dtype == "fp16"


def test_by_path(tmp_path):
    folder = tmp_path / "My-Model"
    folder.mkdir()
    path = folder / "config.json"
    path.write_text(json.dumps({**LLAMA, "_name_or_path": "me/my-model"}))
    spec = load_model(path)
    assert (spec.name, spec.hf_id) == ("My-Model", "me/my-model")
    assert load_model(str(path)) == load_model(str(folder)) == spec


def test_paths_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match=r"absent.json: cannot be read"):
        load_model(tmp_path / "absent.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(InputError, match=r"broken.json: not a JSON file"):
        load_model(tmp_path / "broken.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(InputError, match=r"list.json: must hold a mapping, got list"):
        load_model(tmp_path / "list.json")

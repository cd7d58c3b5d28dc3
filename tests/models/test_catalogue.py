"""The catalogue against published figures, and figures worked out by hand."""

import time

import pytest

from simulator.errors import InputError
from simulator.models import kv_bytes_per_token, list_models, load_entry, load_model, weight_bytes

WANTED = """
    deepseek-r1 deepseek-v3 falcon-180b gpt-oss-120b gpt-oss-20b llama-2-13b llama-2-70b llama-2-7b
    llama-3-70b llama-3-8b llama-3.1-405b llama-3.1-70b llama-3.1-8b llama-3.2-1b llama-3.2-3b llama-3.3-70b
    mistral-7b-v0.1 mistral-7b-v0.3 mixtral-8x22b mixtral-8x7b opt-13b opt-175b opt-30b opt-66b qwen2.5-14b
    qwen2.5-32b qwen2.5-72b qwen2.5-7b qwen3-14b qwen3-235b-a22b qwen3-30b-a3b qwen3-32b qwen3-8b yi-34b
""".split()  # noqa: SIM905 (a list of 34 quoted names is harder to read)


def test_the_catalogue_holds_the_models_that_people_serve():
    assert set(WANTED) <= set(list_models())
    assert list_models() == sorted(list_models())


@pytest.mark.parametrize("name", list_models())
def test_parameters_are_within_one_percent_of_the_published_figure(name):
    entry, spec = load_entry(name), load_model(name)
    assert spec.parameter_count() == pytest.approx(entry.parameters, rel=0.01)
    assert spec.name == name
    assert spec.hf_id == entry.hf_id
    assert spec.source
    assert entry.parameters_source


@pytest.mark.parametrize("name", [name for name in list_models() if load_entry(name).active_parameters])
def test_active_parameters_are_as_published(name):
    # Within 2.5 %: the figures are published with one or two digits.
    entry, spec = load_entry(name), load_model(name)
    active = spec.active_parameter_count(include_embedding=not entry.active_excludes_embedding)
    assert active == pytest.approx(entry.active_parameters, rel=0.025)
    assert entry.active_parameters_source


@pytest.mark.parametrize("name", list_models())
def test_parts_add_up(name):
    spec = load_model(name)
    layers = sum(sum(spec.layer_weight_elements(spec.is_moe_layer(layer)).values()) for layer in range(spec.num_layers))
    ends = spec.vocab_size * spec.hidden_size * (1 if spec.tied_embeddings else 2)
    assert layers + ends + spec.extras.model == spec.parameter_count()
    assert sum(spec.is_moe_layer(layer) for layer in range(spec.num_layers)) == spec.moe_layers
    assert sum(spec.is_sliding_layer(layer) for layer in range(spec.num_layers)) == spec.num_sliding_layers
    assert spec.active_parameter_count() <= spec.parameter_count()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("llama-3.1-8b", 2 * 8 * 128 * 2 * 32),  # 131,072 bytes
        ("llama-2-7b", 2 * 32 * 128 * 2 * 32),
        ("deepseek-v3", (512 + 64) * 2 * 61),
        ("falcon-7b", 2 * 1 * 64 * 2 * 32),  # multi-query
        ("gpt-oss-120b", 2 * 8 * 64 * 2 * 36),
        ("qwen3-30b-a3b", 2 * 4 * 128 * 2 * 48),  # head_dim is not hidden_size / heads
    ],
)
def test_kv_bytes_per_token(name, expected):
    assert kv_bytes_per_token(load_model(name)) == expected
    assert kv_bytes_per_token(load_model(name), "fp8") == expected // 2


def test_llama_3_1_8b_by_hand():
    spec = load_model("llama-3.1-8b")
    assert spec.parameter_count() == 8_030_261_248
    assert spec.layer_weight_elements() == {
        "qkv": 4096 * 6144,
        "o": 4096 * 4096,
        "gate_up": 2 * 4096 * 14336,
        "down": 4096 * 14336,
        "router": 0,
        "experts": 0,
        "shared": 0,
        "other": 2 * 4096,
    }
    assert spec.gqa_group == 4
    assert weight_bytes(spec) == 2 * 8_030_261_248


def test_mistral_windows():
    assert load_model("mistral-7b-v0.1").sliding_window == 4096
    assert load_model("mistral-7b-v0.1").num_sliding_layers == 32
    assert load_model("mistral-7b-v0.3").sliding_window is None
    assert load_model("mistral-7b-v0.3").num_sliding_layers == 0


def test_gpt_oss_alternates_windows_and_quantises_experts_only():
    spec = load_model("gpt-oss-120b")
    assert (spec.sliding_window, spec.num_sliding_layers, spec.full_attention_layers) == (128, 18, 18)
    assert spec.is_sliding_layer(0)
    assert not spec.is_sliding_layer(1)
    assert spec.quantization.weight_format == "mxfp4"
    assert spec.quantization.families == ("gate_up", "down", "experts", "shared")
    assert spec.default_dtype == "fp4"


def test_deepseek_has_three_dense_layers_and_fp8_weights():
    spec = load_model("deepseek-v3")
    assert [spec.is_moe_layer(layer) for layer in range(4)] == [False, False, False, True]
    assert (spec.moe_layers, spec.dense_layers) == (58, 3)
    assert spec.default_dtype == "fp8"
    assert spec.kv_elements_per_token_layer() == 576


@pytest.mark.parametrize(
    "alias", ["meta-llama/Llama-3.1-8B-Instruct", "META-LLAMA/llama-3.1-8b", "LLaMA-3.1-8B", "meta-llama/Llama-3.1-8B"]
)
def test_names_and_ids_in_any_case(alias):
    assert load_model(alias) == load_model("llama-3.1-8b")


def test_no_two_models_share_a_name():
    names = [name.lower() for model in list_models() for name in {load_entry(model).hf_id, *load_entry(model).aliases}]
    assert len(names) == len(set(names))
    assert not set(names) & set(list_models())


def test_unknown_model():
    with pytest.raises(InputError, match=r"unknown model 'llama-3.1-9b'; did you mean 'llama-3.1-8b'\?"):
        load_model("llama-3.1-9b")


def test_specifications_can_be_hashed_and_compared():
    assert len({load_model("qwen3-8b"), load_model("qwen3-8b")}) == 1


def test_loading_one_model_is_quick():
    start = time.perf_counter()
    load_entry.cache_clear()
    load_model("openai/gpt-oss-120b")
    assert time.perf_counter() - start < 0.5

"""Bytes of weights: what each format stores, scales included."""

import pytest

from simulator.errors import InputError
from simulator.models import (
    DTYPE_BYTES,
    WEIGHT_FORMATS,
    load_model,
    weight_bytes,
    weight_bytes_by_family,
    weight_formats,
)


def test_bits_with_scales():
    bits = {name: form.bits_per_element for name, form in WEIGHT_FORMATS.items()}
    assert bits["bf16"] == bits["fp16"] == 16
    assert bits["mxfp4"] == 4 + 8 / 32
    assert bits["fp4"] == 4 + 8 / 16
    assert bits["int4"] == 4 + (16 + 4) / 128
    assert bits["fp8"] == 8 + 32 / 16384
    assert DTYPE_BYTES["int4"] == 0.5


def test_bytes_round_up():
    assert WEIGHT_FORMATS["mxfp4"].bytes_of(32) == 17
    assert WEIGHT_FORMATS["mxfp4"].bytes_of(33) == 19  # 132 bits of weights, two scales: 148 bits


def test_published_deepseek_v3_is_fp8_but_for_ends_router_and_norms():
    spec = load_model("deepseek-v3")
    formats = weight_formats(spec)
    assert {family for family, form in formats.items() if form == "bf16"} == {
        "embedding", "lm_head", "router", "other"
    }  # fmt: skip
    # 671.03e9 bytes at one byte each, 2.0e9 more for what has two, 0.02 % scales.
    assert weight_bytes(spec) == pytest.approx(673.1e9, rel=0.001)


def test_published_gpt_oss_120b_is_as_large_as_its_checkpoint():
    # The gpt-oss model card (arXiv:2508.10925), Table 1, gives checkpoint sizes of 60.8 GiB and 12.8 GiB.
    assert weight_bytes(load_model("gpt-oss-120b")) / 2**30 == pytest.approx(60.8, rel=0.005)
    assert weight_bytes(load_model("gpt-oss-20b")) / 2**30 == pytest.approx(12.8, rel=0.005)


def test_the_published_format_keeps_its_own_choice_of_matrices():
    spec = load_model("gpt-oss-20b")
    assert weight_bytes(spec, "mxfp4") == weight_bytes(spec, "fp4") == weight_bytes(spec)
    assert weight_bytes(spec, "bf16") == 2 * spec.parameter_count()


def test_quantising_leaves_the_ends_in_sixteen_bits():
    spec = load_model("llama-3.1-8b")
    families = weight_bytes_by_family(spec, "int4")
    assert families["embedding"] == families["lm_head"] == 2 * 128256 * 4096
    assert families["down"] == 32 * 4096 * 14336 // 128 * (128 * 4 + 20) // 8
    assert weight_bytes(spec, "fp8") < weight_bytes(spec) / 1.7
    assert weight_bytes(spec, "fp32") == 4 * spec.parameter_count()
    assert weight_bytes(spec, "bfloat16") == weight_bytes(spec)


def test_unknown_datatype():
    with pytest.raises(InputError, match=r"weights of llama-3.1-8b: unknown datatype 'fp9'; did you mean 'fp8'"):
        weight_bytes(load_model("llama-3.1-8b"), "fp9")

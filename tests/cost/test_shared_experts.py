"""Shared experts beside routed ones, MLA's products of decodes, and what measured experts hold, by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware_profiles import load_accelerator
from simulator.calibration.schema import frame
from simulator.cost.efficiency import DEFAULT_EFFICIENCY
from simulator.cost.kernels import CHOICE_KERNELS, RooflineKernels
from simulator.cost.operator_cost import OperatorCost
from simulator.cost.operators import OperatorTimes
from simulator.cost.roofline import kernel_shapes, roofline_cost
from simulator.cost.table_kernels import TableKernels
from simulator.engines import load_engine
from simulator.models import load_model
from simulator.parallel import ParallelPlan
from simulator.sharding import Matrix, attention_matrices, latent_expansion
from tests.cost.support import advanced, batch

H200 = load_accelerator("h200")
V3 = load_model("deepseek-v3")
EIGHT = ParallelPlan(8)
SHARED_BYTES = 3 * 7168 * 256 * (1 + 4 / 128**2)
"""A rank's share of the shared expert: 2048 / 8 wide, 8 bits, a scale of 32 bits for each 128 x 128."""


def cost(beside: int, plan: ParallelPlan = EIGHT) -> OperatorCost:
    return roofline_cost(V3, H200, plan, host_overhead_s=0.0, shared_beside=beside)


APART, BESIDE = cost(0), cost(64)


def table(software: str, *parts: tuple[str, dict[str, object]]) -> TableKernels:
    made = {
        "hardware": "h200",
        "software": software,
        "software_version": "1",
        "date": "2026-01-01",
        "source": "by hand",
    }
    rows = pd.concat([frame({"operator": name, **made, **columns}, 2) for name, columns in parts], ignore_index=True)
    shapes = kernel_shapes(V3, H200, EIGHT)
    return TableKernels(rows, shapes, RooflineKernels(shapes, DEFAULT_EFFICIENCY))


def test_shared_experts_beside_routed_ones_take_the_time_to_read_them() -> None:
    shape = batch(16, 1000)
    apart, beside = APART.breakdown(shape), BESIDE.breakdown(shape)
    assert beside["shared"] == pytest.approx(58 * SHARED_BYTES / H200.memory_bandwidth, rel=1e-3)
    dense = 3 / 61  # the first three layers have no experts, and their activation stays
    assert 0 < beside["activation"] < 10 * dense * apart["activation"]
    for family in apart.keys() - {"shared", "activation"}:
        assert beside[family] == apart[family]
    saved = apart["shared"] + apart["activation"] - beside["shared"] - beside["activation"]
    assert APART.step_ns(shape) - BESIDE.step_ns(shape) == pytest.approx(saved * 1e9, abs=2)


@pytest.mark.parametrize("shape", [batch(65, 1000), batch(3, 1000, [(20, 0)])])
def test_larger_steps_and_those_with_prompts_compute_them_one_after_the_other(shape) -> None:
    assert BESIDE.step_ns(shape) == APART.step_ns(shape)


def test_attention_data_parallel_ranks_hide_theirs_too() -> None:
    plan = ParallelPlan(ep=8, dp=8)
    shape = batch(16, 1000)
    apart, beside = cost(0, plan), cost(64, plan)
    assert beside.seconds(shape, 16) < apart.seconds(shape, 16)
    assert beside.breakdown(shape)["shared"] == pytest.approx(58 * 8 * SHARED_BYTES / H200.memory_bandwidth, rel=1e-3)
    with_prompt = batch(16, 1000, [(8, 0)])
    assert beside.seconds(with_prompt, 24) == apart.seconds(with_prompt, 24)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 200), st.integers(1, 4000), st.integers(1, 20))
def test_a_run_is_its_steps_and_hiding_never_takes_longer(decodes: int, kv: int, k: int) -> None:
    shape = batch(decodes, kv)
    steps = [BESIDE.step_ns(advanced(shape, i)) for i in range(k)]
    assert BESIDE.run_ns(shape, k).tolist() == steps == BESIDE.few_ns(shape, k)
    assert all(step <= apart for step, apart in zip(steps, APART.run_ns(shape, k), strict=True))


def test_decodes_take_the_measured_products_a_head_and_prompts_the_expansion() -> None:
    heads = {"heads": 16, "weight_dtype": "fp8", "tokens": [1, 9]}
    kernels = table(
        "sglang", ("mla_absorb", {**heads, "time_s": [8e-6, 16e-6]}), ("mla_expand", {**heads, "time_s": [7e-6, 9e-6]})
    )
    expansion = latent_expansion(V3, 8)
    assert expansion is not None and expansion in attention_matrices(V3, 8)
    assert kernels.absorbed(expansion, np.array([1.0, 5.0])) == pytest.approx([15e-6, 20e-6])
    operators = OperatorTimes(kernel_shapes(V3, H200, EIGHT), kernels)
    tokens, idle = np.array([5.0]), np.zeros(1)
    decode, chunk = (operators.layer(tokens, idle, True, decodes)["qkv"][0] for decodes in (True, False))
    assert decode - chunk == pytest.approx(20e-6 - kernels.gemm(expansion, tokens)[0])


def test_products_that_were_not_measured_for_both_are_the_expansion() -> None:
    kernels = table("sglang", ("mla_absorb", {"heads": 16, "weight_dtype": "fp8", "tokens": [1, 9], "time_s": 1e-6}))
    expansion = latent_expansion(V3, 8)
    assert expansion is not None
    assert kernels.absorbed(expansion, np.ones(1)) == kernels.gemm(expansion, np.ones(1))


@pytest.mark.parametrize(("software", "more"), [("sglang", 0), ("trtllm", 0), ("vllm", CHOICE_KERNELS)])
def test_the_choice_of_experts_is_counted_once(software: str, more: int) -> None:
    experts = {
        "hidden_size": 7168,
        "intermediate_size": 2048,
        "num_experts": 256,
        "top_k": 8,
        "weight_dtype": "fp8_block",
        "moe_tp": 8,
        "moe_ep": 1,
        "routing": "power_law_1.2",
        "tokens": [1, 9],
        "time_s": [1e-4, 2e-4],
    }
    kernels = table(software, ("experts", experts))
    assert kernels.choice_kernels == more
    operators = OperatorTimes(kernel_shapes(V3, H200, EIGHT), kernels)
    (router,) = operators.layer(np.ones(1), np.zeros(1), True)["router"]
    (choice,) = kernels.elementwise(2 * 256, np.ones(1), more) if more else (0.0,)
    assert router == pytest.approx(kernels.gemm(Matrix("router", 7168, 256), np.ones(1))[0] + choice)


def test_engines_say_up_to_how_many_tokens() -> None:
    assert {name: load_engine(name).shared_beside for name in ("vllm", "sglang", "trtllm")} == {
        "vllm": 256,
        "sglang": 512,
        "trtllm": 128,
    }
    assert load_engine("vllm", "0.6").shared_beside == 0


def test_prompts_do_not_take_the_absorbed_form_that_was_measured() -> None:
    """SGLang's table has the absorbed form: 3.4 times the multiplications of the expanded one that it runs."""
    times: dict[str, object] = {
        "sequences": 1,
        "new_tokens": [1024, 8192],
        "cached_tokens": 0,
        "heads": 16,
        "kv_dtype": "bf16",
        "time_s": [1e-3, 64e-3],
    }
    ours, theirs = (table(software, ("mla_prefill", times)) for software in ("sglang", "trtllm"))
    pairs = 8192 * 8193 // 2
    assert theirs.attention.prefill_s(1, 8192, 0, pairs, 8192) == pytest.approx(64e-3)
    estimate = RooflineKernels(kernel_shapes(V3, H200, EIGHT), DEFAULT_EFFICIENCY).attention
    assert ours.attention.prefill_s(1, 8192, 0, pairs, 8192) == estimate.prefill_s(1, 8192, 0, pairs, 8192)
    assert any("expanded form" in line for line in ours.sources)

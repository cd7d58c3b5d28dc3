"""Roofline: operators by hand, bounds that hold whatever the factors, and a run that equals its steps."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware_profiles import load_accelerator, load_node
from simulator.cost.attention import window_pairs
from simulator.cost.efficiency import DEFAULT_EFFICIENCY as EFFICIENCY
from simulator.cost.roofline import roofline_cost
from simulator.errors import InputError
from simulator.models import load_model, weight_bytes
from simulator.parallel import ParallelPlan
from tests.cost.support import advanced, batch, shapes

LLAMA = load_model("llama-3.1-8b")
A100 = load_accelerator("a100-80gb")
H100 = load_accelerator("h100-sxm")

LATENCY = EFFICIENCY.attention_latency_s
COSTS = {
    "dense": roofline_cost(LLAMA, A100),
    "dense-tp2-pp3": roofline_cost(load_model("llama-3.1-70b"), H100, ParallelPlan(tp=2, pp=3)),
    "moe": roofline_cost(load_model("qwen3-30b-a3b"), H100),
    "windows-moe": roofline_cost(load_model("gpt-oss-120b"), H100, ParallelPlan(tp=2)),
    "windows-only": roofline_cost(load_model("mistral-7b-v0.1"), load_accelerator("l4"), host_overhead_s=0.0),
    "windows-pp2": roofline_cost(load_model("gemma-2-9b"), A100, ParallelPlan(pp=2), kv_dtype="fp8"),
    "mla-moe": roofline_cost(load_model("deepseek-v3"), load_accelerator("h200"), ParallelPlan(tp=8)),
    "int4": roofline_cost(LLAMA, load_accelerator("rtx-4090"), weights_dtype="int4"),
}

every_cost = pytest.mark.parametrize("cost", COSTS.values(), ids=COSTS.keys())


@every_cost
@given(shape=shapes(), k=st.integers(1, 40))
def test_run_equals_its_steps(cost, shape, k):
    run = cost.run_ns(shape, k)
    assert run.dtype == "int64"
    assert run.tolist() == [cost.step_ns(advanced(shape, i)) for i in range(k)]


@every_cost
@given(shape=shapes())
def test_stages_add_up_to_the_step(cost, shape):
    stages = cost.stage_ns(shape)
    assert sum(stages) == cost.step_ns(shape)
    assert min(stages) >= 1


@every_cost
@given(shape=shapes())
def test_breakdown_adds_up_to_the_step(cost, shape):
    parts = cost.breakdown(shape)
    assert min(parts.values()) >= 0
    assert sum(parts.values()) * 1e9 == pytest.approx(cost.step_ns(shape), abs=4, rel=1e-9)


@every_cost
@given(shape=shapes(), more=st.integers(1, 500))
def test_more_work_never_takes_less_time(cost, shape, more):
    before = cost.step_ns(shape)
    padded, longer, with_chunk = (advanced(shape, 0) for _ in range(3))
    padded.padding_tokens += more
    assert cost.step_ns(padded) >= before
    longer.decode_kv += more * longer.decodes
    longer.decode_window_kv += more * longer.decodes
    longer.chunks = [(new, cached + more) for new, cached in longer.chunks]
    assert cost.step_ns(longer) >= before
    with_chunk.chunks.append((more, 0))
    with_chunk.prefill_tokens += more
    with_chunk.logit_rows += 1
    assert cost.step_ns(with_chunk) > before


@given(
    new=st.integers(1, 50),
    cached=st.integers(0, 60),
    window=st.integers(1, 40),
)
def test_pairs_in_a_window_as_counted(new, cached, window):
    attended = [range(max(0, position - window + 1), position + 1) for position in range(cached, cached + new)]
    pairs, context = window_pairs(new, cached, window)
    assert pairs == sum(map(len, attended))
    assert context == len(set().union(*attended))


def test_decode_of_one_is_above_what_memory_allows():
    kv_tokens = 1000
    bytes_read = weight_bytes(LLAMA) - 128256 * 4096 * 2 + kv_tokens * 131072
    step_s = COSTS["dense"].step_ns(batch(1, kv_tokens)) / 1e9
    assert bytes_read / A100.memory_bandwidth < step_s < 2 * bytes_read / A100.memory_bandwidth


def test_prefill_stays_below_peak():
    tokens = 8192
    layers = LLAMA.parameter_count() - 2 * 128256 * 4096
    flops = 2 * layers * tokens + 32 * 4 * 32 * 128 * tokens * (tokens + 1) / 2
    step_s = COSTS["dense"].step_ns(batch(chunks=[(tokens, 0)])) / 1e9
    assert 0.5 * A100.peak_flops["bf16"] < flops / step_s < A100.peak_flops["bf16"]


def test_operators_by_hand():
    parts = COSTS["dense"].breakdown(batch(1, 1000))
    bandwidth = A100.memory_bandwidth * EFFICIENCY.gemm_bytes
    down = EFFICIENCY.gemm_latency_s + 2 * (14336 * 4096 + 14336 + 4096) / bandwidth
    assert parts["down"] == pytest.approx(32 * down, rel=1e-12)
    head = EFFICIENCY.gemm_latency_s + 2 * (128256 * 4096 + 128256 + 4096) / bandwidth
    assert parts["lm_head"] == pytest.approx(head, rel=1e-12)
    cache = (1000 * 2 * 8 * 128 * 2 + 2 * 32 * 128 * 2) / (A100.memory_bandwidth * EFFICIENCY.decode_bytes)
    assert parts["attention_decode"] == pytest.approx(32 * (LATENCY + cache), rel=1e-12)
    assert parts["attention_prefill"] == 0


def test_large_products_are_bound_by_arithmetic():
    tokens = 8192
    parts = COSTS["dense"].breakdown(batch(chunks=[(tokens, 0)]))
    rate = A100.peak_flops["bf16"] * EFFICIENCY.gemm_flops
    assert parts["gate_up"] == pytest.approx(32 * (4e-6 + 2 * tokens * 4096 * 28672 / rate), rel=1e-12)
    pairs = tokens * (tokens + 1) // 2
    attention = 4 * 32 * 128 * pairs / (A100.peak_flops["bf16"] * EFFICIENCY.prefill_flops)
    assert parts["attention_prefill"] == pytest.approx(32 * (LATENCY + attention), rel=1e-12)


def test_cached_context_costs_attention_only():
    fresh, cached = (COSTS["dense"].breakdown(batch(chunks=[(512, before)])) for before in (0, 20_000))
    assert cached.pop("attention_prefill") > 10 * fresh.pop("attention_prefill")
    assert cached == fresh


def test_experts_touched_by_hand():
    model = load_model("mixtral-8x7b")  # 8 experts, 2 a token
    cost = roofline_cost(model, H100, ParallelPlan(tp=2))
    expert = 3 * 4096 * 7168 * 2
    bandwidth = H100.memory_bandwidth * EFFICIENCY.experts_bytes
    for tokens in (1, 2, 16):
        touched = 8 * (1 - (1 - 2 / 8) ** tokens)
        rows = tokens * 2 * (2 * 4096 + 3 * 7168) * 2
        layer = EFFICIENCY.experts_latency_s + (touched * expert + rows) / bandwidth
        assert cost.breakdown(batch(tokens, 100))["experts"] == pytest.approx(32 * layer, rel=1e-9)


def test_latent_attention_reads_the_latent():
    decodes, kv = 4, 5000
    parts = COSTS["mla-moe"].breakdown(batch(decodes, kv))
    h200 = load_accelerator("h200")
    heads = 128 // 8
    read = decodes * (kv * 576 + heads * (2 * 512 + 64)) * 2
    assert parts["attention_decode"] == pytest.approx(
        61 * (LATENCY + read / (h200.memory_bandwidth * EFFICIENCY.decode_bytes)), rel=1e-12
    )


def test_latent_attention_on_one_rank_is_bound_by_arithmetic():
    model = load_model("deepseek-v2-lite")
    cost = roofline_cost(load_model("deepseek-v3"), load_accelerator("a100-80gb"), ParallelPlan(pp=61))
    parts = cost.breakdown(batch(64, 5000))
    flops = 64 * 5000 * 2 * 128 * (2 * 512 + 64)
    rate = A100.peak_flops["bf16"] * EFFICIENCY.decode_flops
    assert parts["attention_decode"] == pytest.approx(61 * (LATENCY + flops / rate), rel=1e-12)
    assert roofline_cost(model, A100).step_ns(batch(1, 10)) > 0


def test_sliding_layers_read_their_window():
    model = load_model("gpt-oss-120b")
    cost = roofline_cost(model, H100)
    parts = cost.breakdown(batch(8, 10_000, window=128))
    rows = 8 * 2 * 64 * 64 * 2
    token = 2 * 8 * 64 * 2
    read = 18 * (8 * 10_000 * token + rows) + 18 * (8 * 128 * token + rows)
    assert parts["attention_decode"] == pytest.approx(
        36 * LATENCY + read / (H100.memory_bandwidth * EFFICIENCY.decode_bytes), rel=1e-12
    )


@pytest.mark.parametrize("shape", [batch(1, 1000), batch(64, 2000), batch(chunks=[(8192, 0)])])
def test_more_ranks_are_faster_but_not_ideally_so(shape):
    model = load_model("llama-3.1-70b")
    times = [roofline_cost(model, H100, ParallelPlan(tp=tp)).step_ns(shape) for tp in (1, 2, 4, 8)]
    for fewer, more in pairwise(times):
        assert fewer / 2 < more < fewer


def test_all_reduces_over_pcie_take_longer():
    model, shape = load_model("llama-3.1-70b"), batch(chunks=[(4096, 0)])
    plan = ParallelPlan(tp=4)
    nvlink = roofline_cost(model, A100, plan).breakdown(shape)["collectives"]
    pcie = roofline_cost(model, load_accelerator("a100-80gb-pcie"), plan).breakdown(shape)["collectives"]
    size = 4096 * 8192 * 2
    assert nvlink == pytest.approx(161 * (9e-6 + 1.5 * size / (300e9 * 0.7)), rel=0.01)
    assert pcie == pytest.approx(161 * (12.8e-6 + 1.5 * size / (32e9 * 0.4)), rel=0.01)


def test_bridges_join_pairs_only():
    model, a40, node = LLAMA, load_accelerator("a40"), load_node("a40-4x")
    sources = [roofline_cost(model, a40, ParallelPlan(tp=tp), node=node).sources for tp in (2, 4)]
    assert "tensor parallel all_reduce and all_gather: estimate for nvlink3-bridge" in sources[0]
    assert "tensor parallel all_reduce and all_gather: estimate for pcie4" in sources[1]


def test_replicas_larger_than_a_node_cross_the_network():
    model, node = load_model("llama-3.1-70b"), load_node("dgx-a100")
    inside = roofline_cost(model, A100, ParallelPlan(tp=8), node=node)
    across = roofline_cost(model, A100, ParallelPlan(tp=16), node=node)
    assert any("network of dgx-a100" in line for line in across.sources)
    shape = batch(chunks=[(4096, 0)])
    assert across.breakdown(shape)["collectives"] > 5 * inside.breakdown(shape)["collectives"]
    stages = roofline_cost(model, A100, ParallelPlan(tp=8, pp=2), node=node)
    assert "pipeline stages: estimate for network of dgx-a100" in stages.sources


def test_stages_hold_what_they_should():
    plan = ParallelPlan(pp=4)
    shape = batch(16, 500)
    cost = roofline_cost(LLAMA, A100, plan, host_overhead_s=0.25)
    first, second, third, last = cost.stage_ns(shape)
    assert first > 250_000_000 + second * 0.9
    assert second == third
    head = cost.breakdown(shape)["lm_head"] * 1e9
    assert last > head
    assert cost.breakdown(shape)["send"] == pytest.approx(3 * (10e-6 + 16 * 2 * 4096 * 2 / (300e9 * 0.7)))
    assert "send" not in COSTS["dense"].breakdown(shape)


def test_narrow_weights_are_faster_to_read_and_named_where_widened():
    shape = batch(1, 100)
    bf16, fp8, int4 = (roofline_cost(LLAMA, H100, weights_dtype=dtype) for dtype in ("bf16", "fp8", "int4"))
    assert bf16.step_ns(shape) > fp8.step_ns(shape) > int4.step_ns(shape)
    prefill = batch(chunks=[(8192, 0)])
    assert fp8.step_ns(prefill) < bf16.step_ns(prefill)
    assert int4.step_ns(prefill) == pytest.approx(bf16.step_ns(prefill), rel=0.01)
    assert "int4 weights: products computed in bf16" in int4.sources
    assert not any("products computed" in line for line in fp8.sources)
    assert "fp8 weights: products computed in bf16" in roofline_cost(LLAMA, A100, weights_dtype="fp8").sources


def test_host_overhead_is_part_of_the_step():
    shape = batch(3, 70)
    without = roofline_cost(LLAMA, A100, host_overhead_s=0.0).step_ns(shape)
    assert roofline_cost(LLAMA, A100, host_overhead_s=1e-3).step_ns(shape) == pytest.approx(without + 1_000_000, abs=1)
    assert "host overhead: 1 ms a step" in roofline_cost(LLAMA, A100, host_overhead_s=1e-3).sources[1]


def test_an_empty_step_is_host_overhead_only():
    assert roofline_cost(LLAMA, A100, host_overhead_s=2e-3).step_ns(batch()) == 2_000_000
    assert roofline_cost(LLAMA, A100, host_overhead_s=0.0).run_ns(batch(), 2).tolist() == [1, 1]


def test_estimates_say_so():
    assert COSTS["dense"].sources[0].startswith("estimate, not measured: roofline from the data sheet of a100-80gb")
    assert any("uniform" in line for line in COSTS["moe"].sources)


def test_step_does_not_depend_on_how_the_table_grew():
    shape = batch(0, 0, [(30_000, 0)])
    small = batch(1, 10)
    one, other = (roofline_cost(load_model("mixtral-8x7b"), H100) for _ in range(2))
    before = one.step_ns(small)
    assert one.step_ns(shape) == other.step_ns(shape)
    assert one.step_ns(small) == before == other.step_ns(small)


def test_counts_beyond_the_tables():
    cost = roofline_cost(load_model("mixtral-8x7b"), H100)
    below, above = (batch(chunks=[(tokens, 0)]) for tokens in ((1 << 18) - 1, 1 << 18))
    assert cost.step_ns(below) < cost.step_ns(above) == cost.step_ns(above)
    rows = [batch(chunks=[(1, 0)]) for _ in range(3)]
    for shape, count in zip(rows, (5000, 1 << 18, 1 << 18), strict=True):
        shape.logit_rows = count
    assert cost.step_ns(rows[0]) < cost.step_ns(rows[1]) == cost.step_ns(rows[2])


def test_same_times_in_another_process():
    code = (
        "from tests.cost.test_roofline import COSTS; from tests.cost.support import batch;"
        "print([cost.step_ns(batch(7, 300, [(99, 10)])) for cost in COSTS.values()])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == str([cost.step_ns(batch(7, 300, [(99, 10)])) for cost in COSTS.values()])


@pytest.mark.parametrize(
    ("accelerator", "arguments", "message"),
    [
        ("t4", {}, "t4 does not compute in bf16; set activation_dtype to one of: fp16, fp32"),
        ("a100-80gb", {"activation_dtype": "fp8"}, "activation_dtype must have 16 bits or more, got 'fp8'"),
        ("a100-80gb", {"kv_dtype": "fp9"}, "KV cache of llama-3.1-8b: unknown datatype 'fp9'"),
        ("a100-80gb", {"weights_dtype": "int5"}, "unknown datatype 'int5'"),
        ("a100-80gb", {"host_overhead_s": -1.0}, "host_overhead_s must be at least 0"),
        ("a100-80gb", {"plan": ParallelPlan(tp=3)}, "nearest: tp=2"),
    ],
)
def test_errors(accelerator, arguments, message):
    with pytest.raises(InputError, match=message):
        roofline_cost(LLAMA, load_accelerator(accelerator), **arguments)


def test_t4_computes_in_fp16():
    cost = roofline_cost(LLAMA, load_accelerator("t4"), activation_dtype="fp16")
    assert cost.step_ns(batch(1, 10)) > 0

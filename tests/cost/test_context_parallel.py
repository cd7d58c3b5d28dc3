"""Context parallelism: attention and communication by hand, ring against Ulysses, runs against steps, memory."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware_profiles import load_accelerator, load_node
from simulator import InputError, Scenario, run
from simulator.cost.attention import roofline_attention
from simulator.cost.context_parallel import Exchange, RingAttention, UlyssesAttention
from simulator.cost.efficiency import DEFAULT_EFFICIENCY
from simulator.cost.fitted_kernels import fitted_cost
from simulator.cost.links import CollectiveLink
from simulator.cost.operator_cost import OperatorCost
from simulator.cost.roofline import roofline_cost
from simulator.cost.shape import BatchShape
from simulator.memory import plan_memory
from simulator.models import load_model
from simulator.parallel import ParallelPlan
from tests.cost.support import advanced, batch, shapes
from tests.test_run import assert_same, hashed

H100 = load_accelerator("h100-sxm")
LLAMA = load_model("llama-3.1-8b")  # 32 heads, 8 key-value heads of 128, 32 layers
LINK = CollectiveLink("test", 100e9, 5e-6, True)
LATENCY = DEFAULT_EFFICIENCY.attention_latency_s


def block(tp: int = 1):  # type: ignore[no-untyped-def]
    """Attention of one rank with 1 PFLOP/s and 1 TB/s as reached by prefill."""
    return roofline_attention(
        LLAMA,
        tp,
        peak_flops=1e15 / DEFAULT_EFFICIENCY.prefill_flops,
        memory_bandwidth=1e12 / DEFAULT_EFFICIENCY.prefill_bytes,
        activation_bytes=2,
        kv_bytes=2,
        efficiency=DEFAULT_EFFICIENCY,
    )


def ring(ranks: int, striped: bool, send_s: float) -> RingAttention:
    none = Exchange(0.0, 0.0)
    return RingAttention(block(), ranks, striped, send_s, none, none, lambda decodes: 0.0)


def whole_prompt(tokens: int) -> tuple[int, int, int, int, int]:
    """One chunk without cached tokens, as `Attention.prefill_s` takes it."""
    return 1, tokens, 0, tokens * (tokens + 1) // 2, tokens


def test_an_exchange_by_hand() -> None:
    """Four ranks hold 250 of 1,000 tokens each, 8 kB a token, and send three quarters of that."""
    exchange = Exchange.of(LINK, 4, 8000.0)
    assert exchange.latency_s == 5e-6
    assert 1000 * exchange.token_s == pytest.approx(250 * 8000 * 0.75 / 100e9)
    assert Exchange.of(CollectiveLink("ring", 1e9, 5e-6, False), 4, 1.0).latency_s == pytest.approx(15e-6)


def test_ulysses_by_hand() -> None:
    """Attention of a quarter of the heads over all tokens, and two all-to-alls: 4 x hidden / ranks for equal heads."""
    wide, tokens = block(4), 32768
    attention = UlyssesAttention(wide, Exchange.of(LINK, 4, 3 * 8192.0), Exchange.of(LINK, 4, 8192.0))
    work = tokens * (tokens + 1) // 2 * 4 * 8 * 128 / 1e15
    moved = tokens / 4 * 4 * 8192 * 0.75 / 100e9
    assert attention.prefill_s(*whole_prompt(tokens)) == pytest.approx(LATENCY + work + 10e-6 + moved)
    assert attention.decode(9).at(5000) == pytest.approx(
        wide.decode(9).at(5000) + 10e-6 + 9 / 4 * 4 * 8192 * 0.75 / 1e11
    )


def test_a_balanced_ring_divides_the_work() -> None:
    """Transfers that take no time: as long as the whole on one rank, divided; a launch for each block."""
    tokens = 65536
    alone = block().prefill_s(*whole_prompt(tokens)) - LATENCY
    for ranks in (2, 4, 8):
        found = ring(ranks, True, 0.0).prefill_s(*whole_prompt(tokens))
        assert found == pytest.approx(alone / ranks + ranks * LATENCY, rel=1e-6)


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_an_unstriped_ring_waits_for_its_last_rank(ranks: int) -> None:
    """Half a block, then full ones: (2 - 1/N) times the work of balanced ranks; 1.5, 1.75, 1.875."""
    tokens = 131072
    even = ring(ranks, True, 0.0).prefill_s(*whole_prompt(tokens)) - ranks * LATENCY
    uneven = ring(ranks, False, 0.0).prefill_s(*whole_prompt(tokens)) - ranks * LATENCY
    assert uneven / even == pytest.approx(2 - 1 / ranks, rel=1e-3)


def test_cached_tokens_are_balanced_without_stripes_too() -> None:
    tokens, cached = 64, 1_000_000
    args = 1, tokens, cached, tokens * cached + tokens * (tokens + 1) // 2, tokens + cached
    assert ring(4, False, 0.0).prefill_s(*args) == pytest.approx(ring(4, True, 0.0).prefill_s(*args), rel=1e-3)


def test_transfers_hide_under_attention_but_for_the_last_round() -> None:
    """A transfer longer than a block: three transfers and the last block; one shorter: nothing of it is seen."""
    tokens = 32768
    each = ring(4, True, 0.0).prefill_s(*whole_prompt(tokens)) / 4
    slow = 2 * each / (tokens / 4)
    found = ring(4, True, slow).prefill_s(*whole_prompt(tokens))
    assert found == pytest.approx(3 * (2 * each + 10e-6) + each)
    assert ring(4, True, slow / 4).prefill_s(*whole_prompt(tokens)) == pytest.approx(4 * each)


def test_decodes_of_a_ring_read_a_share_of_the_tokens() -> None:
    exchange = Exchange(3e-6, 1e-9)
    attention = RingAttention(block(), 4, True, 0.0, exchange, exchange, lambda decodes: decodes * 1e-8)
    expected = block().decode(8).at(20_000) + 2 * (3e-6 + 8e-9) + 8e-8
    assert attention.decode(8).at(80_000) == pytest.approx(expected)


def cost(cp: int, context: str = "ring", tokens_s: bool = True, **options: object) -> OperatorCost:
    plan = ParallelPlan(cp=cp, context=context, **options)  # type: ignore[arg-type]
    return roofline_cost(LLAMA, H100, plan, host_overhead_s=0.0)


@pytest.mark.parametrize("context", ["ring", "ulysses"])
def test_a_long_prompt_takes_about_a_share_of_the_time(context: str) -> None:
    alone = cost(1).step_ns(batch(chunks=[(131072, 0)]))
    for ranks in (2, 4, 8):
        assert 1.0 <= cost(ranks, context).step_ns(batch(chunks=[(131072, 0)])) * ranks / alone < 1.15


def test_dense_layers_compute_a_share_of_the_tokens() -> None:
    one, four = cost(1).breakdown(batch(chunks=[(2048, 0)])), cost(4).breakdown(batch(chunks=[(8192, 0)]))
    for family in ("qkv", "o", "gate_up", "down", "norms_rotary_cache", "lm_head"):
        assert four[family] == one[family]


def test_one_rank_is_as_without() -> None:
    shape = batch(40, 900, [(512, 100)])
    assert cost(1, "ulysses").step_ns(shape) == cost(1, "ring", striped=False).step_ns(shape) == cost(1).step_ns(shape)


def test_ring_and_ulysses_cross() -> None:
    """Over PCIe Ulysses, which waits for its all-to-alls, falls behind the ring once attention hides its transfers."""
    node = load_node("h100-pcie-8x")
    accelerator = load_accelerator(node.accelerator)

    def step(context: str, tokens: int) -> int:
        plan = ParallelPlan(cp=8, context=context)
        return roofline_cost(LLAMA, accelerator, plan, node=node).step_ns(batch(chunks=[(tokens, 0)]))

    assert step("ulysses", 4096) < step("ring", 4096)
    assert step("ulysses", 1_000_000) > step("ring", 1_000_000)


@cache
def made(make, plan: ParallelPlan) -> OperatorCost:  # type: ignore[no-untyped-def]
    return make(LLAMA, H100, plan)  # type: ignore[no-any-return]


@pytest.mark.parametrize("make", [roofline_cost, fitted_cost])
@pytest.mark.parametrize(
    "plan",
    [ParallelPlan(cp=4), ParallelPlan(2, 2, cp=2, striped=False), ParallelPlan(cp=8, context="ulysses")],
)
@settings(max_examples=20, deadline=None)
@given(shape=shapes(), k=st.integers(1, 60))
def test_runs_equal_steps(make, plan: ParallelPlan, shape: BatchShape, k: int) -> None:  # type: ignore[no-untyped-def]
    found = made(make, plan)
    steps = [found.step_ns(advanced(shape, i)) for i in range(k)]
    assert found.run_ns(shape, k).tolist() == found.few_ns(shape, k) == steps


def test_memory_grows_with_the_ranks() -> None:
    """Each rank holds all weights, and a share of the tokens (ring) or of the key-value heads (Ulysses)."""

    def plan(cp: int, context: str = "ring"):  # type: ignore[no-untyped-def]
        return plan_memory(LLAMA, H100, ParallelPlan(cp=cp, context=context), max_num_batched_tokens=8192)

    one, four = plan(1), plan(4)
    assert four.weights == one.weights and four.kv_bytes_per_token == one.kv_bytes_per_token // 4
    assert four.num_kv_blocks > 4 * one.num_kv_blocks * 0.99
    assert plan(4, "ulysses").kv_bytes_per_token == one.kv_bytes_per_token // 4
    # 16 ranks and 8 key-value heads: each is held twice, where a ring still divides the tokens by 16.
    assert plan(16, "ulysses").kv_bytes_per_token == one.kv_bytes_per_token // 8
    assert plan(16).kv_bytes_per_token == one.kv_bytes_per_token // 16


@pytest.mark.parametrize("context", ["ring", "ulysses"])
def test_a_scenario_from_end_to_end(context: str) -> None:
    pool = {"accelerator": "h100-sxm", "parallel": {"tp": 2, "cp": 2, "context": context}}
    scenario = Scenario.from_mapping({"workload": {"time_scale": 0.1}, "cluster": {"pools": [pool]}})
    one = run(scenario, trace=hashed(16))
    assert_same(one, run(scenario, trace=hashed(16), stepwise=True))
    assert one.summary["pools"][0]["gpus"] == 4
    assert 0 < one.summary["efficiency"]["mbu"] < 1 and 0 < one.summary["efficiency"]["mfu"] < 1
    assert any(f"context parallelism over 2 ranks, {context}" in line for line in one.summary["costs"]["sources"])


@pytest.mark.parametrize(
    ("model", "pool", "message"),
    [
        ("llama-3.1-8b", {"cp": 3, "context": "ulysses"}, r"nearest: cp=2 \(feasible with tp=1: 1, 2, 4, 8, 16, 32\)"),
        ("llama-3.1-8b", {"tp": 8, "cp": 8, "context": "ulysses"}, "or context=ring"),
        ("deepseek-v2-lite", {"cp": 2}, "latent attention"),
        ("gemma-2-9b", {"cp": 2}, "sliding windows"),
    ],
)
def test_refusals(model: str, pool: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run({"model": model, "cluster": {"pools": [{"parallel": pool}]}}, trace=hashed(16, 2))


def test_an_unknown_way_is_refused() -> None:
    with pytest.raises(InputError, match="context must be one of ring, ulysses, got 'tree'"):
        ParallelPlan(cp=2, context="tree")

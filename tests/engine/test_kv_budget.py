"""KV budgets in the engine: blocks, and sums over what decodes attend to, by hand and step by step."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policies import registry
from policies.budget import Cap, KVBudget, LayerGroup, ModelFacts, Offload, Work
from policies.protocols import BatchingPolicy
from simulator.cost.shape import BatchShape
from simulator.engine.budget import BudgetKVManager
from simulator.engine.links import Link
from simulator.engine.sequence import Sequence
from tests.engine.support import MS, LinearCost, Request, build, check_invariants, fingerprint, simulate
from tests.engine.test_control import ACTS, REQUESTS, Acts, simulate_acts
from tests.engine.test_fast_forward import workloads

FACTS = ModelFacts(4, 64, 4, 2, 16, 64, 16, 16)


def budget(*groups: LayerGroup, **fields: Any) -> KVBudget:
    return KVBudget(groups=groups, token_bits=FACTS.token_bits, read_bits=FACTS.token_bits, **fields)


def same(cap: Cap, **fields: Any) -> KVBudget:
    """Return a budget of one cap in all layers."""
    return budget(LayerGroup(4, cap, cap), **fields)


POLICIES = [
    name
    for name in registry.names("batching")
    if registry.resolve("batching", name).profile is BatchingPolicy.profile  # type: ignore[attr-defined]
]
"""Those that don't profile their engine, which isn't modelled with a budget."""


class ReadCost(LinearCost):
    """Step time linear in the tokens that decodes read within each cap, and in their squares."""

    def _at(self, shape: BatchShape, i: int) -> int:
        total = super()._at(shape, i)
        for number, (reads, squares, growth, growing) in enumerate(shape.decode_reads if shape.decodes else ()):
            total += (number + 1) * 7 * (reads + i * growth) + squares + 2 * i * growing + growth * i * i
        return total


COST = ReadCost(3 * MS, token=20_011, kv=307, pair=13)


def blocks_by_step(kv_budget: KVBudget | None, requests: list[Request], **options: Any) -> list[int]:
    """Return the blocks in use at the end of each step of 10 ms."""
    cluster = simulate(requests, kv_budget=kv_budget, sample_ns=10 * MS, fast_forward=False, **options)
    return cluster.recorder.timeline.columns()["kv_blocks"].tolist()


def test_blocks_stop_growing_and_the_prompt_s_surplus_goes_back() -> None:
    """A prompt of 40 with 20 % kept: 10 blocks of 4 while it is computed, 2 from then on."""
    used = blocks_by_step(same(Cap(prompt_share=0.2)), [Request(0, 40, 6)], block_size=4)
    assert used[0] == 10
    assert set(used[1:-1]) == {2}


def test_a_cap_beyond_the_prompt_is_grown_into() -> None:
    """A prompt of 6 takes 2 blocks of 4; with a cap of 11 it takes its third with the third decode, never a fourth."""
    used = blocks_by_step(same(Cap(tokens=11)), [Request(0, 6, 12)], block_size=4)
    # Sampled just before a step's end: prefill, then decodes with 7, 8, 9 ... tokens.
    assert used[:5] == [2, 2, 2, 3, 3]
    assert max(used) == 3


def test_dropping_all_along_bounds_the_prefill_too() -> None:
    used = blocks_by_step(same(Cap(tokens=12), drop="prefill"), [Request(0, 64, 5)], block_size=4, budget=16)
    assert max(used) == 3


def test_decoded_tokens_come_on_top() -> None:
    """A prompt of 40 of which 8 stay is 2 blocks of 4 of 10; 9 more tokens take 3 blocks."""
    used = blocks_by_step(same(Cap(prompt_share=0.2), grows=True), [Request(0, 40, 10)], block_size=4)
    assert used[0] == 10
    assert used[1:5] == [3, 3, 3, 3]
    assert used[5:9] == [4, 4, 4, 4]


def test_what_was_dropped_takes_no_room_in_host_memory_or_when_it_comes_back() -> None:
    """Of 10 blocks of 4 tokens 8 were dropped: 41 tokens of context are 3 blocks to swap."""
    kv = BudgetKVManager(20, 4, same(Cap(prompt_share=0.2), grows=True))
    sequence = Sequence(0, 0, 40, 5)
    assert kv.admit(sequence, 40, 0)
    assert (kv.free_blocks, kv.held_by(sequence)) == (10, 10)
    kv.prefilled(sequence)
    assert (kv.free_blocks, sequence.private_blocks, kv.held_by(sequence)) == (18, 2, 10)
    assert kv.blocks_of(sequence, 41) == 3
    kv.prefilled(sequence)  # again, as for one that was to move and stays
    assert (kv.free_blocks, sequence.private_blocks, kv.held_by(sequence)) == (18, 2, 10)
    sequence.recompute()
    assert kv.blocks_of(sequence, 41) == 11


def test_layers_with_different_caps_take_their_mean() -> None:
    """Three layers that keep 4 tokens and one that keeps 12 take the memory of 6 tokens in all."""
    declared = budget(LayerGroup(3, Cap(4), Cap(4)), LayerGroup(1, Cap(12), Cap(12)))
    assert declared.kept_tokens(100) == 6
    assert max(blocks_by_step(declared, [Request(0, 3, 30)], block_size=1)) == 6


def test_reads_by_hand() -> None:
    """Prompts of 3 and 8 decode together; caps of 5 tokens and of half the prompt."""
    seen: list[list[tuple[int, int, int, int]]] = []

    class Watch(LinearCost):
        def step_ns(self, shape: BatchShape) -> int:
            if shape.decodes == 2:
                seen.append(list(shape.decode_reads))
            return 10 * MS

    declared = budget(LayerGroup(2, Cap(5), Cap(5)), LayerGroup(2, Cap(prompt_share=0.5), Cap(prompt_share=0.5)))
    simulate([Request(0, 3, 4), Request(0, 8, 4)], kv_budget=declared, cost=Watch(10 * MS), fast_forward=False)
    # Attended: 4 and 9, 5 and 10, 6 and 11. Within 5: 4 + 5, 5 + 5, 5 + 5; within 2 and 4: always full.
    assert seen == [
        [(9, 41, 1, 4), (6, 20, 0, 0)],
        [(10, 50, 0, 0), (6, 20, 0, 0)],
        [(10, 50, 0, 0), (6, 20, 0, 0)],
    ]


def test_what_was_dropped_of_the_prompt_is_not_read() -> None:
    seen: list[tuple[int, int, int, int]] = []

    class Watch(LinearCost):
        def step_ns(self, shape: BatchShape) -> int:
            if shape.decodes:
                seen.append(shape.decode_reads[0])
            return 10 * MS

    declared = same(Cap(prompt_share=0.1), grows=True)
    simulate([Request(0, 100, 4)], kv_budget=declared, cost=Watch(10 * MS), fast_forward=False)
    assert seen == [(11, 121, 1, 11), (12, 144, 1, 12), (13, 169, 1, 13)]


@st.composite
def budgets(draw: st.DrawFn) -> KVBudget:
    """Draw a budget: caps by tokens or share, layers that differ, dropping early or late, growing, offloading."""
    kind = draw(st.sampled_from(["fixed", "share", "prefill", "grows", "layers", "offload"]))
    tokens = draw(st.integers(1, 120))
    share = draw(st.sampled_from([0.1, 0.37, 0.8]))
    if kind == "fixed":
        read = draw(st.integers(1, tokens))
        return budget(LayerGroup(4, Cap(tokens), Cap(read)))
    if kind == "share":
        return same(Cap(tokens=draw(st.sampled_from([0, 9])), prompt_share=share))
    if kind == "prefill":
        return same(Cap(tokens), drop="prefill")
    if kind == "grows":
        return same(Cap(prompt_share=share), grows=True)
    if kind == "layers":
        return budget(
            LayerGroup(1, Cap(tokens), Cap(tokens)), LayerGroup(3, Cap(prompt_share=share), Cap(prompt_share=share))
        )
    return budget(LayerGroup(4, Cap(tokens)), offload=Offload(tokens, 30, 0.1, 0.1, Work(flops=1.0)))


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(options=workloads(), kv_budget=budgets(), chunk=st.sampled_from([16, 100, 512]), overlap=st.booleans())
def test_fast_forward_is_exact(
    policy: str, options: dict[str, Any], kv_budget: KVBudget, chunk: int, overlap: bool
) -> None:
    """INV-fast-forward and the other invariants, blocks above all, for every batching policy under random budgets."""
    batching = registry.resolve("batching", policy)
    common = {
        **options,
        "policy": batching,
        "queueing": registry.resolve("queueing", batching.queueing),  # type: ignore[attr-defined]
        "cost": COST,
        "budget": chunk,
        "async_scheduling": overlap,
        "hash_block_tokens": 0,
        "window": None,
        "kv_budget": kv_budget,
    }
    assert fingerprint(simulate(**common)) == fingerprint(simulate(**common, fast_forward=False))


@settings(max_examples=15, deadline=None)
@given(options=workloads(), kv_budget=budgets(), swap_blocks=st.sampled_from([0, 20, 1000]))
def test_swapping(options: dict[str, Any], kv_budget: KVBudget, swap_blocks: int) -> None:
    common = {
        **options,
        "policy": lambda: registry.make("batching", "vllm", {"preemption_mode": "swap"}),
        "cost": COST,
        "budget": 100_000,
        "swap_blocks": swap_blocks,
        "link": Link("test", 1e7, 1e-4),
        "hash_block_tokens": 0,
        "window": None,
        "kv_budget": kv_budget,
    }
    assert fingerprint(simulate(**common)) == fingerprint(simulate(**common, fast_forward=False))


@settings(max_examples=25, deadline=None)
@given(requests=REQUESTS, acts=ACTS, kv_budget=budgets())
def test_requests_that_move_or_are_lost(
    requests: list[Request], acts: list[tuple[int, str, int, int]], kv_budget: KVBudget
) -> None:
    """Blocks are freed on both sides, and fast-forward stays exact, with moves, losses and retries."""
    common = {"cost": COST, "budget": 64, "max_len": 320, "replicas": 2, "blocks": 40, "kv_budget": kv_budget}
    fast, slow = (simulate_acts(requests, acts, fast_forward=quick, **common) for quick in (True, False))
    assert fingerprint(fast) == fingerprint(slow)


def test_a_request_that_moves_is_cut_where_it_arrives() -> None:
    """A prompt of 40 with a fifth kept: 2 blocks of 4 on either side, whatever was sent."""
    cluster = build(
        [Request(0, 40, 9)],
        kv_budget=same(Cap(prompt_share=0.2)),
        replicas=2,
        block_size=4,
        features=[Acts([(25 * MS, "move", 0, 1)])],
    )
    cluster.run(60 * MS)
    assert [replica.kv.used_blocks for replica in cluster.replicas] == [0, 2]


@settings(max_examples=25, deadline=None)
@given(
    prompts=st.lists(st.integers(1, 90), min_size=1, max_size=8),
    outputs=st.lists(st.integers(1, 60), min_size=8, max_size=8),
    kv_budget=budgets(),
)
def test_kv_stays_within_the_budget(prompts: list[int], outputs: list[int], kv_budget: KVBudget) -> None:
    """At every step blocks and reads are those of the members one by one: of the context as far as the budget goes."""
    checked = 0

    class Watch(LinearCost):
        def step_ns(self, shape: BatchShape) -> int:
            nonlocal checked
            lane = cluster.replicas[0].lanes[0]
            members = [s for s in lane.sequences if s.group is not None]
            for cap, (total, squares, *_) in zip(kv_budget.tracked, shape.decode_reads, strict=False):
                reads = [_read(kv_budget, cap, s.prompt_tokens, s.context_tokens + 1) for s in members]
                assert (total, squares) == (sum(reads), sum(read * read for read in reads))
            if not shape.chunks:
                expected = sum(_blocks(kv_budget, s.prompt_tokens, s.context_tokens + 1, 4) for s in members)
                assert lane.kv.used_blocks == expected
                checked += 1
            return 10 * MS

    requests = [Request(0, prompt, output) for prompt, output in zip(prompts, outputs, strict=False)]
    cluster = build(requests, kv_budget=kv_budget, cost=Watch(10 * MS), block_size=4, fast_forward=False)
    cluster.run(None)
    cluster.stop()
    check_invariants(cluster, drained=True)
    assert checked >= max(outputs[: len(prompts)]) - 1 - len(prompts)


def _blocks(kv_budget: KVBudget, prompt: int, tokens: int, size: int) -> int:
    """Return the blocks that a decoding sequence takes with so many tokens, its new one included."""
    kept = kv_budget.kept_tokens(prompt)
    assert kept is not None
    if kv_budget.grows:
        return -(-tokens // size) - max(0, prompt - kept) // size
    return -(-min(tokens, kept) // size)


def _read(kv_budget: KVBudget, cap: Cap, prompt: int, attended: int) -> int:
    if kv_budget.grows:
        return attended - max(0, prompt - cap.of(prompt))
    return min(attended, cap.of(prompt))


def test_more_requests_fit_under_a_budget() -> None:
    """Memory for two full sequences at a time holds ten at a fifth of the prompt."""
    requests = [Request(0, 100, 100) for _ in range(10)]

    def mean_batch(kv_budget: KVBudget | None) -> float:
        cluster = simulate(requests, kv_budget=kv_budget, blocks=26, block_size=16, seqs=64)
        counters = cluster.replicas[0].counters
        return counters.decode_tokens / counters.steps

    full, fifth = mean_batch(None), mean_batch(same(Cap(prompt_share=0.2)))
    assert full < 2.5
    assert fifth > 3 * full


def test_the_cap_s_arithmetic() -> None:
    assert [Cap(prompt_share=0.1).of(n) for n in (1, 10, 30, 31)] == [1, 1, 3, 4]
    assert Cap(tokens=8, prompt_share=0.1).of(100) == 18
    with pytest.raises(ValueError, match="a cap of nothing"):
        Cap()
    with pytest.raises(ValueError, match="must say how many it reads"):
        budget(LayerGroup(4, Cap(10)))
    with pytest.raises(ValueError, match="exactly its gpu_tokens"):
        budget(LayerGroup(4, Cap(10)), offload=Offload(11, None, 0.1, 0.1, Work()))
    with pytest.raises(ValueError, match="fixed number of tokens"):
        same(Cap(prompt_share=0.5), drop="prefill")
    with pytest.raises(ValueError, match="can grow after it"):
        same(Cap(5), drop="prefill", grows=True)

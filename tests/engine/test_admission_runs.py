"""A step that admitted may be the first of a run (``repeats_admissions``): fewer runs, the same timetable.

A run is what the engine takes in one go, as ``batches`` record it: (start ms, end ms, steps, decodes, prompt tokens).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.batching.sarathi import Sarathi
from policies.batching.vllm_v1 import VllmV1
from policies.protocols import BatchingPolicy, CachedBlockView, KVEvictionPolicy
from simulator.engine.cluster import Cluster
from tests.engine.support import MS, LinearCost, Request, fingerprint, simulate, times_ms


class SarathiNotAsked(Sarathi):
    """Sarathi that isn't asked of steps that admitted."""

    repeats_admissions: ClassVar[bool] = False


class VllmV1NotAsked(VllmV1):
    """The same of vLLM v1."""

    repeats_admissions: ClassVar[bool] = False


POLICIES = [(Sarathi, SarathiNotAsked), (VllmV1, VllmV1NotAsked)]
both = pytest.mark.parametrize(("policy", "without"), POLICIES)


def runs(cluster: Cluster) -> list[tuple[float, float, int, int, int]]:
    assert cluster.recorder.batches is not None
    return [
        (start / MS, end / MS, steps, decodes, prompt)
        for _, _, start, end, steps, decodes, prompt in cluster.recorder.batches
    ]


def alike(policy: type[BatchingPolicy], without: type[BatchingPolicy], **options: Any) -> tuple[Cluster, Cluster]:
    """Run with and without, and stepwise; assert that all recorded the same, and return the first two."""
    found = [
        simulate(policy=p, fast_forward=fast, keep_batches=True, **options)
        for p, fast in ((policy, True), (without, True), (policy, False))
    ]
    assert fingerprint(found[0]) == fingerprint(found[1]) == fingerprint(found[2])
    return found[0], found[1]


@both
def test_the_head_chunk_of_a_prompt_begins_the_run(policy: type[BatchingPolicy], without: type[BatchingPolicy]) -> None:
    # Budget 100, a prompt of 350: three steps of 100 tokens, one of 50.
    found, plain = alike(policy, without, requests=[Request(0, 350, 1)], budget=100)
    assert runs(found) == [(0, 30, 3, 0, 100), (30, 40, 1, 0, 50)]
    assert runs(plain) == [(0, 10, 1, 0, 100), (10, 30, 2, 0, 100), (30, 40, 1, 0, 50)]
    assert times_ms(found, "first_token_ns") == [40]


@both
def test_a_request_that_waits_behind_it_is_looked_at_when_there_is_budget(
    policy: type[BatchingPolicy], without: type[BatchingPolicy]
) -> None:
    # A's 350 tokens as above; the fourth step has 50 for B. B's other 200 are two steps more.
    found, plain = alike(policy, without, requests=[Request(0, 350, 1), Request(0, 250, 1)], budget=100)
    assert runs(found) == [(0, 30, 3, 0, 100), (30, 40, 1, 0, 100), (40, 60, 2, 0, 100)]
    assert len(runs(plain)) == 4
    assert times_ms(found, "scheduled_ns") == [0, 30]
    assert times_ms(found, "first_token_ns") == [40, 60]


@both
def test_decodes_go_on_beside_it(policy: type[BatchingPolicy], without: type[BatchingPolicy]) -> None:
    # A decodes from 10 ms on. B comes at 5 ms: 99 tokens a step beside A's one, 297 in all: [10, 40).
    requests = [Request(0, 30, 9), Request(5 * MS, 297, 1)]
    found, plain = alike(policy, without, requests=requests, budget=100)
    assert runs(found)[:2] == [(0, 10, 1, 0, 30), (10, 40, 3, 1, 99)]
    assert runs(plain)[1:3] == [(10, 20, 1, 1, 99), (20, 40, 2, 1, 99)]
    assert times_ms(found, "first_token_ns") == [10, 40]


@both
def test_an_arrival_ends_it_only_where_it_is_the_first_to_wait(
    policy: type[BatchingPolicy], without: type[BatchingPolicy]
) -> None:
    # B comes at 15 ms and waits behind nobody: the run is cut at 20 ms, and goes on as another, as there is no budget.
    # C comes at 25 ms behind B, which changes nothing.
    requests = [Request(0, 500, 1), Request(15 * MS, 60, 1), Request(25 * MS, 40, 1)]
    found, _ = alike(policy, without, requests=requests, budget=100)
    assert runs(found) == [(0, 20, 2, 0, 100), (20, 50, 3, 0, 100), (50, 60, 1, 0, 100)]


@both
def test_prompts_that_are_complete_after_one_step_begin_no_run(
    policy: type[BatchingPolicy], without: type[BatchingPolicy]
) -> None:
    # Two places: A's and B's 20 tokens leave budget, but C finds no place before they end.
    requests = [Request(0, 20, 3), Request(0, 20, 3), Request(0, 20, 1)]
    found, plain = alike(policy, without, requests=requests, seqs=2, budget=100)
    assert runs(found) == runs(plain) == [(0, 10, 1, 0, 40), (10, 30, 2, 2, 0), (30, 40, 1, 0, 20)]


@both
def test_several_chunks_are_repeated_while_none_is_complete(
    policy: type[BatchingPolicy], without: type[BatchingPolicy]
) -> None:
    # The last 30 of A leave 70 for B in the same step: chunks differ from step to step, and B's run begins after it.
    requests = [Request(0, 130, 1), Request(0, 270, 1)]
    found, _ = alike(policy, without, requests=requests, budget=100)
    assert runs(found) == [(0, 10, 1, 0, 100), (10, 20, 1, 0, 100), (20, 40, 2, 0, 100)]


def test_a_step_that_admitted_and_left_budget_is_one_by_itself() -> None:
    # A threshold of 50 tokens of a budget of 100: somebody else could have been admitted in the second step.
    found = simulate(
        [Request(0, 150, 1)],
        policy=lambda: VllmV1(long_prefill_token_threshold=50),
        budget=100,
        keep_batches=True,
    )
    assert runs(found) == [(0, 10, 1, 0, 50), (10, 30, 2, 0, 50)]


def test_chunks_of_several_requests_admitted_at_once_are_repeated() -> None:
    # A threshold of 50 a request: A and B are admitted together and fill the budget of 100, three times over.
    def threshold(policy: type[VllmV1]) -> Any:
        return lambda: policy(long_prefill_token_threshold=50)

    requests = [Request(0, 150, 1), Request(0, 150, 1), Request(0, 30, 1)]
    found, plain = alike(threshold(VllmV1), threshold(VllmV1NotAsked), requests=requests, budget=100)
    assert runs(found) == [(0, 30, 3, 0, 100), (30, 40, 1, 0, 30)]
    assert len(runs(plain)) == 3


@both
def test_with_a_prefix_cache_the_run_caches_what_the_next_one_finds(
    policy: type[BatchingPolicy], without: type[BatchingPolicy]
) -> None:
    # A's 320 tokens are 20 blocks: five steps of 64. B has the same first 18 of them: 32 are left to compute.
    requests = [
        Request(0, 320, 1, hashes=tuple(range(20))),
        Request(0, 320, 1, hashes=(*range(18), 100, 101)),
    ]
    found, plain = alike(policy, without, requests=requests, budget=64, hash_block_tokens=16)
    assert runs(found) == [(0, 50, 5, 0, 64), (50, 60, 1, 0, 32)]
    assert len(runs(plain)) == 3
    assert found.recorder.columns["cached_tokens"].tolist() == [0, 288]


@both
def test_with_a_prefix_cache_the_run_evicts_step_by_step(
    policy: type[BatchingPolicy], without: type[BatchingPolicy]
) -> None:
    # 24 blocks. A leaves its 10 cached; B's 16 blocks take the 14 without contents and A's last two; C, as A, finds 8.
    requests = [
        Request(0, 160, 1, hashes=tuple(range(10))),
        Request(1000 * MS, 256, 1, hashes=tuple(range(100, 116))),
        Request(2000 * MS, 160, 1, hashes=tuple(range(10))),
    ]
    found, _ = alike(policy, without, requests=requests, budget=64, hash_block_tokens=16, blocks=24)
    assert (1000, 1040, 4, 0, 64) in runs(found)
    assert found.recorder.columns["cached_tokens"].tolist() == [0, 0, 128]


@dataclass
class BeginningsFirst(KVEvictionPolicy):
    """Evicts what has no identity, then what stands nearest to the beginning of a prompt."""

    name: ClassVar[str] = "beginnings-first"

    def rank(self, block: CachedBlockView) -> float:
        return block.depth_tokens if block.num_tokens else -1


def test_with_a_prefix_cache_a_step_of_the_run_finds_what_the_steps_before_it_left() -> None:
    # 14 blocks. A leaves 10 cached; B, without identities, takes the other 4 and A's first two, and gives back 6. C, as
    # A, finds nothing, and computes two blocks a step: the first two are cached for D to find; the others are cached
    # still from A, and so remain C's own copies; but steps four and five take A's third to sixth: D finds two.
    prompt = tuple(range(10))
    requests = [
        Request(0, 160, 1, hashes=prompt),
        Request(1000 * MS, 96, 1),
        Request(2000 * MS, 160, 1, hashes=prompt),
        Request(3000 * MS, 160, 1, hashes=prompt),
    ]
    common: dict[str, Any] = {"budget": 32, "hash_block_tokens": 16, "blocks": 14, "eviction": BeginningsFirst}
    found, _ = alike(VllmV1, VllmV1NotAsked, requests=requests, **common)
    assert (2000, 2050, 5, 0, 32) in runs(found)
    assert found.recorder.columns["cached_tokens"].tolist() == [0, 0, 0, 32]


def crowded(policy: type[VllmV1], blocks: int, **options: Any) -> dict[str, Any]:
    """Options of a run in which C's prompt is computed beside A and B, in memory that may run out meanwhile.

    A and B take a block every four steps, C's 60 tokens 6 a step; no blocks are kept for them.
    """
    return {
        "requests": [Request(0, 8, 60), Request(0, 8, 60), Request(55 * MS, 60, 5)],
        "policy": lambda: policy(reserve_full_input=False),
        "budget": 8,
        "blocks": blocks,
        "block_size": 4,
        "keep_batches": True,
        **options,
    }


@pytest.mark.parametrize("blocks", [18, 20, 21, 22, 23, 24, 25, 26, 28, 40])
def test_kv_memory_that_runs_out_within_it(blocks: int) -> None:
    options = {"cost": LinearCost(10 * MS, kv=1000, pair=10), "sample_ns": 7 * MS}
    found = simulate(**crowded(VllmV1, blocks, **options))
    assert fingerprint(found) == fingerprint(simulate(**crowded(VllmV1NotAsked, blocks, **options)))
    assert fingerprint(found) == fingerprint(simulate(**crowded(VllmV1, blocks, fast_forward=False, **options)))


def test_these_memories_run_out_before_within_or_after_it() -> None:
    found = {}
    for blocks in (20, 25, 28, 40):
        cluster = simulate(**crowded(VllmV1, blocks))
        longest = max(steps for _, _, steps, decodes, prompt in runs(cluster) if decodes and prompt)
        found[blocks] = (longest, cluster.replicas[0].counters.preemptions > 0)
    assert found == {20: (2, True), 25: (4, True), 28: (10, True), 40: (10, False)}


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 300), st.integers(1, 300), st.integers(1, 40)), min_size=1, max_size=8),
    budget=st.integers(8, 90),
    blocks=st.sampled_from([22, 30, 60, 1000]),
    cached=st.booleans(),
    overlap=st.booleans(),
    data=st.data(),
)
def test_any_load(
    rows: list[tuple[int, int, int]], budget: int, blocks: int, cached: bool, overlap: bool, data: st.DataObject
) -> None:
    policy, without = data.draw(st.sampled_from(POLICIES))
    requests = [
        Request(at * MS, prompt, output, hashes=[i + 100 * (row % 2) for i in range(prompt // 16)] if cached else ())
        for row, (at, prompt, output) in enumerate(sorted(rows))
    ]
    alike(
        policy,
        without,
        requests=requests,
        budget=budget,
        blocks=blocks,
        max_len=blocks * 16,
        hash_block_tokens=16 if cached else 0,
        async_scheduling=overlap,
        cost=LinearCost(10 * MS, token=1001, kv=17, pair=3),
    )

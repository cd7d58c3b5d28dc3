"""Small cases whose timetables are worked out by hand. A step takes 10 ms unless said."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from policies.batching.sarathi import Sarathi
from policies.batching.vllm import Vllm
from policies.batching.vllm_v1 import VllmV1
from policies.protocols import ArrivalView, ClusterView, RoutingPolicy
from simulator.engine.links import Link
from simulator.engine.recorder import Outcome
from tests.engine.support import MS, LinearCost, Request, simulate, times_ms


def test_one_request_alone_takes_a_step_for_its_prompt_and_one_for_each_further_token() -> None:
    # 5 ms: arrives. [5, 15) prompt -> token 1. [15, 25) -> 2. [25, 35) -> 3. [35, 45) -> 4.
    cluster = simulate([Request(5 * MS, prompt=100, output=4)])
    assert times_ms(cluster, "scheduled_ns") == [5]
    assert times_ms(cluster, "first_token_ns") == [15]
    assert times_ms(cluster, "last_token_ns") == [45]
    assert times_ms(cluster, "itl_max_ns") == [10]
    itl = cluster.recorder.itl[0]
    assert (itl.total, itl.total_ns, itl.max_ns) == (3, 30 * MS, 10 * MS)
    assert cluster.replicas[0].counters.steps == 4


def test_step_time_follows_the_context_as_it_grows() -> None:
    # 10 ms a step + 1 ms a token computed or row of logits (prompt 3+1; decode 1+1) + 1 ms an attended token, which
    # the sum over all tokens and the sum within the window both count: twice.
    cost = LinearCost(10 * MS, token=MS, kv=MS)
    # prompt: 10 + 4 = 14; decode 1 attends 3+1 tokens: 10 + 2 + 2*4 = 20; decode 2 attends 5: 10 + 2 + 2*5 = 22.
    cluster = simulate([Request(0, prompt=3, output=3)], cost=cost)
    assert times_ms(cluster, "first_token_ns") == [14]
    assert times_ms(cluster, "last_token_ns") == [14 + 20 + 22]
    assert times_ms(cluster, "itl_max_ns") == [22]


def test_two_overlapping_requests_share_steps_under_one_token_budget() -> None:
    # 0: A arrives. [0, 10) A prompt -> A1. 13: B arrives. [10, 20) A2. [20, 30) A3, B prompt -> B1. [30, 40) A4, B2.
    cluster = simulate([Request(0, 50, 4), Request(13 * MS, 50, 2)], policy=VllmV1)
    assert times_ms(cluster, "scheduled_ns") == [0, 20]
    assert times_ms(cluster, "first_token_ns") == [10, 30]
    assert times_ms(cluster, "last_token_ns") == [40, 40]
    assert cluster.replicas[0].counters.steps == 4


def test_prefill_first_stalls_the_decode_of_a_running_request() -> None:
    # [0, 10) A prompt -> A1. 13: B arrives. [10, 20) A2. [20, 30) B prompt alone -> B1. [30, 40) A3, B2. [40, 50) A4.
    cluster = simulate([Request(0, 50, 4), Request(13 * MS, 50, 2)], policy=Vllm, budget=100_000)
    assert times_ms(cluster, "first_token_ns") == [10, 30]
    assert times_ms(cluster, "last_token_ns") == [50, 40]
    assert times_ms(cluster, "itl_max_ns") == [20, 10]  # A's third token came 20 ms after its second


def test_an_arrival_at_a_step_boundary_counts_as_before_it() -> None:
    # B arrives at 20 ms, when A's second step ends: it is in the step that begins then.
    cluster = simulate([Request(0, 50, 9), Request(20 * MS, 50, 1)])
    assert times_ms(cluster, "scheduled_ns") == [0, 20]
    assert times_ms(cluster, "first_token_ns") == [10, 30]


def test_prompts_are_cut_at_the_token_budget() -> None:
    # Budget 100: [0, 10) 100 of 250. [10, 20) 100. [20, 30) the last 50 -> token 1. [30, 40) token 2.
    cluster = simulate([Request(0, 250, 2)], policy=Sarathi, budget=100)
    assert times_ms(cluster, "first_token_ns") == [30]
    assert times_ms(cluster, "last_token_ns") == [40]
    assert cluster.replicas[0].counters.steps == 4


def test_a_prompt_of_exactly_the_budget_is_one_chunk_and_one_more_token_makes_it_two() -> None:
    assert times_ms(simulate([Request(0, 100, 1)], policy=Sarathi, budget=100), "first_token_ns") == [10]
    assert times_ms(simulate([Request(0, 101, 1)], policy=Sarathi, budget=100), "first_token_ns") == [20]


def test_decodes_take_their_share_of_the_budget_before_chunks() -> None:
    # Budget 100. [0, 10) A prompt (10) and 90 of B's 120 -> A1. [10, 20) A2 and the last 30 of B -> B1. [20, 30) A3.
    cluster = simulate([Request(0, 10, 3), Request(0, 120, 1)], policy=Sarathi, budget=100)
    assert times_ms(cluster, "first_token_ns") == [10, 20]
    assert times_ms(cluster, "last_token_ns") == [30, 20]


def test_full_kv_memory_preempts_the_youngest_by_recompute() -> None:
    # 4 blocks of 16. A and B: prompts of 31 tokens, 2 blocks each; 4 tokens of output each.
    # [0, 10)  both prompts -> A1, B1; 31 tokens in KV each.
    # [10, 20) A2, B2: the 32nd token still fits.
    # 20: each needs a third block and none is free: B, admitted last, is preempted with 2 tokens generated.
    # [20, 30) A3. [30, 40) A4: A ends, its 3 blocks are free.
    #          B's recompute (31 + 2 tokens: 3 blocks) did not fit beside A.
    # [40, 50) B's 33 tokens again -> B3. [50, 60) B4.
    cluster = simulate([Request(0, 31, 4), Request(0, 31, 4)], blocks=4)
    columns = cluster.recorder.columns
    assert list(columns["preemptions"]) == [0, 1]
    assert times_ms(cluster, "first_token_ns") == [10, 10]  # kept from before the preemption
    assert times_ms(cluster, "last_token_ns") == [40, 60]
    assert times_ms(cluster, "itl_max_ns") == [10, 30]  # B's third token came 30 ms after its second
    assert cluster.replicas[0].counters.preemptions == 1


def test_full_kv_memory_preempts_by_swap_over_the_host_link() -> None:
    # As above under vLLM v0 with 1000 bytes a block over 1 MB/s and 1 ms latency: 2 blocks move in 1 + 2 = 3 ms.
    # [0, 10) prompts. [10, 20) A2, B2. 20: B is swapped out, 3 ms. [23, 33) A3. [33, 43) A4, A ends.
    # 43: B is swapped in, 3 ms. [46, 56) B3. [56, 66) B4.
    cluster = simulate(
        [Request(0, 31, 4), Request(0, 31, 4)],
        policy=lambda: Vllm(preemption_mode="swap", watermark=0.0),
        blocks=4,
        budget=100_000,
        swap_blocks=10,
        link=Link("test", bandwidth=1e6, latency_s=1e-3),
    )
    assert times_ms(cluster, "last_token_ns") == [43, 66]
    assert times_ms(cluster, "itl_max_ns") == [13, 36]
    counters = cluster.replicas[0].counters
    assert (counters.swaps_out, counters.swaps_in, counters.swapped_bytes) == (1, 1, 4000)


def test_a_swap_that_does_not_fit_in_host_memory_becomes_a_counted_recompute() -> None:
    cluster = simulate(
        [Request(0, 31, 4), Request(0, 31, 4)],
        policy=lambda: Vllm(preemption_mode="swap", watermark=0.0),
        blocks=4,
        budget=100_000,
        swap_blocks=1,
        link=Link("test", bandwidth=1e6, latency_s=1e-3),
    )
    counters = cluster.replicas[0].counters
    assert (counters.swaps_out, counters.swaps_refused, counters.preemptions) == (0, 1, 1)


def test_a_request_waits_while_kv_memory_is_full() -> None:
    # 4 blocks. A holds 3 (48 tokens), B needs 2 and waits for A's end at 30; [30, 40) B's prompt.
    cluster = simulate([Request(0, 40, 3), Request(0, 20, 1)], blocks=4)
    assert times_ms(cluster, "scheduled_ns") == [0, 30]
    assert times_ms(cluster, "last_token_ns") == [30, 40]


def test_a_cached_prefix_is_not_computed_again() -> None:
    # B shares A's first two blocks of 16 of its 40 tokens and arrives after A ended: 8 tokens are left to compute.
    # A costs 10 + 40 + 1 = 51 ms, B 10 + 8 + 1 = 19 ms (1 ms a token and row of logits).
    cost = LinearCost(10 * MS, token=MS)
    requests = [Request(0, 40, 1, hashes=(1, 2)), Request(100 * MS, 40, 1, hashes=(1, 2))]
    cluster = simulate(requests, cost=cost, hash_block_tokens=16)
    assert list(cluster.recorder.columns["cached_tokens"]) == [0, 32]
    assert times_ms(cluster, "first_token_ns") == [51, 119]


def test_a_wholly_cached_prompt_still_computes_its_last_block() -> None:
    # 32 tokens, both blocks cached: one token must be computed, and blocks are found whole, so 16 are.
    requests = [Request(0, 32, 1, hashes=(1, 2)), Request(100 * MS, 32, 1, hashes=(1, 2))]
    cluster = simulate(requests, hash_block_tokens=16)
    assert list(cluster.recorder.columns["cached_tokens"]) == [0, 16]


def test_lru_evicts_the_end_of_a_prefix_before_its_beginning() -> None:
    # 4 blocks. A (2 identified blocks + 1 token) leaves blocks 1, 2 cached. B needs 3 blocks: the one without contents,
    # A's tail block and then A's *last* identified block. C finds only block 1.
    requests = [
        Request(0, 33, 1, hashes=(1, 2)),
        Request(100 * MS, 40, 1, hashes=(8, 9)),
        Request(200 * MS, 33, 1, hashes=(1, 2)),
    ]
    cluster = simulate(requests, blocks=4, hash_block_tokens=16)
    assert list(cluster.recorder.columns["cached_tokens"]) == [0, 0, 16]


def test_identities_coarser_than_the_engines_blocks_are_found_whole() -> None:
    # Identities of 64 tokens over blocks of 16: of 130 tokens two identities (128 tokens) are found.
    requests = [Request(0, 130, 1, hashes=(1, 2, 3)), Request(100 * MS, 130, 1, hashes=(1, 2, 4))]
    cluster = simulate(requests, hash_block_tokens=64)
    assert list(cluster.recorder.columns["cached_tokens"]) == [0, 128]


def test_a_follow_up_finds_the_generated_tokens_of_the_turn_before() -> None:
    # Turn 1: 20 + 13 tokens; its KV holds 20 + 12 = 32 tokens (the last token is never fed), two whole blocks.
    requests = [Request(0, 20, 13, hashes=(1, 2)), Request(None, 40, 1, hashes=(1, 2, 3))]
    cluster = simulate(requests, hash_block_tokens=16, after={0: [(5 * MS, 1)]})
    assert list(cluster.recorder.columns["cached_tokens"]) == [0, 32]
    assert times_ms(cluster, "arrival_ns") == [0, 135]


def test_two_pipeline_stages_hold_two_batches_in_flight() -> None:
    # Stages of 10 ms. A alone in lane 0: [0, 10) stage 1, [10, 20) stage 2 -> A1. B arrives at 2 and enters when the
    # first stage is free: [10, 20), [20, 30) -> B1. A again [20, 30), [30, 40) -> A2.
    cluster = simulate([Request(0, 50, 2), Request(2 * MS, 50, 1)], stages=2)
    assert times_ms(cluster, "first_token_ns") == [20, 30]
    assert times_ms(cluster, "last_token_ns") == [40, 30]


def test_requests_that_can_never_run_are_rejected_with_the_reason() -> None:
    cluster = simulate([Request(0, 1000, 5), Request(0, 100, 5)], max_len=500)
    columns = cluster.recorder.columns
    assert list(columns["outcome"]) == [Outcome.REJECTED, Outcome.FINISHED]
    assert "max_model_len = 500" in cluster.recorder.reasons[0]

    cluster = simulate([Request(0, 1000, 5)], blocks=10)
    assert cluster.recorder.reasons[0] == "prompt of 1000 tokens exceeds the replica's KV memory of 160 tokens"


def test_an_output_beyond_the_context_ends_at_the_context() -> None:
    cluster = simulate([Request(0, 90, 50)], max_len=100)
    assert list(cluster.recorder.columns["output_tokens"]) == [10]
    assert cluster.num_truncated == 1


def test_stopping_early_counts_the_steps_done_and_leaves_the_rest_unfinished() -> None:
    # Steps end at 10, 20, ...; what ends exactly at the end of the window is outside it.
    for until, tokens in ((35 * MS, 3), (30 * MS, 2)):
        for fast in (True, False):
            cluster = simulate([Request(0, 10, 100), Request(50 * MS, 10, 1)], until=until, fast_forward=fast)
            assert list(cluster.recorder.columns["outcome"]) == [Outcome.UNFINISHED] * 2
            assert list(cluster.recorder.columns["output_tokens"]) == [tokens, 0]
            assert cluster.num_arrived == 1


def test_samples_show_the_replica_just_before_their_instant() -> None:
    # Steps [0, 10) prompt of 20, then one token each 10 ms; sampled every 25 ms up to the end at 60.
    cluster = simulate([Request(0, 20, 6), Request(30 * MS, 100, 1)], sample_ns=25 * MS, seqs=1)
    columns = cluster.recorder.timeline.columns()
    assert [t / MS for t in columns["t_ns"]] == [25, 50]
    assert list(columns["running"]) == [1, 1]
    assert list(columns["waiting"]) == [0, 1]
    assert list(columns["steps"]) == [2, 4]  # steps that ended before the instant
    assert list(columns["prefill_tokens"]) == [20, 20]
    assert list(columns["decode_tokens"]) == [1, 3]
    assert list(columns["kv_blocks"]) == [2, 2]
    assert [t / MS for t in columns["busy_ns"]] == [25, 50]


@pytest.mark.parametrize("fast", [True, False])
def test_a_sliding_window_bounds_what_a_decode_reads(fast: bool) -> None:
    # Window 4, prompt 2: decodes attend to 3, 4, 5, 6 tokens, of which the window holds 3, 4, 4, 4. 1 ms each, summed.
    cost = LinearCost(MS, kv=MS)
    cluster = simulate([Request(0, 2, 5)], cost=cost, window=4, fast_forward=fast)
    assert times_ms(cluster, "last_token_ns") == [1 + (1 + 3 + 3) + (1 + 4 + 4) + (1 + 5 + 4) + (1 + 6 + 4)]


def test_a_router_sees_the_identities_of_the_prompt_only() -> None:
    """INV-blind: a trace may identify the blocks of the answer too; how many there are would give its length away."""
    seen: list[int] = []

    @dataclass
    class Spy(RoutingPolicy):
        name = "spy"

        def route(self, request: ArrivalView, cluster: ClusterView) -> int:
            seen.append(len(request.block_hashes))
            return 0

    simulate([Request(0, 70, 160, hashes=tuple(range(14)))], router=Spy(), replicas=2, hash_block_tokens=16)
    assert seen == [4]


def test_a_rejected_request_is_not_counted_as_truncated() -> None:
    # 8 blocks hold 128 tokens: prompt and answer would end at max_model_len = 200, but the prompt is refused.
    cluster = simulate([Request(0, 150, 100)], blocks=8, max_len=200)
    assert list(cluster.recorder.columns["outcome"]) == [Outcome.REJECTED]
    assert cluster.num_truncated == 0


@pytest.mark.parametrize("fast", [True, False])
def test_asynchronous_scheduling_sees_an_arrival_one_step_later(fast: bool) -> None:
    # [0, 10) A prompt -> A1. 13: B arrives in A's second step, whose successor is composed already. [20, 30) A3.
    # [30, 40) A4, B prompt -> B1. [40, 50) A5, B2. The engine looks at its input at 20.
    requests = [Request(0, 50, 5), Request(13 * MS, 50, 2)]
    cluster = simulate(requests, async_scheduling=True, fast_forward=fast)
    assert times_ms(cluster, "queued_ns") == [0, 20]
    assert times_ms(cluster, "first_token_ns") == [10, 40]
    assert times_ms(cluster, "last_token_ns") == [50, 50]
    assert times_ms(simulate(requests, fast_forward=fast), "first_token_ns") == [10, 30]


@pytest.mark.parametrize("fast", [True, False])
def test_asynchronous_scheduling_frees_a_place_one_step_later(fast: bool) -> None:
    # Two places. A ends at 20, when [20, 30) is composed already, with B alone; C takes A's place from 30 on.
    requests = [Request(0, 50, 2), Request(0, 50, 9), Request(1 * MS, 50, 1)]
    cluster = simulate(requests, seqs=2, async_scheduling=True, fast_forward=fast)
    assert times_ms(cluster, "first_token_ns") == [10, 10, 40]
    assert times_ms(simulate(requests, seqs=2, fast_forward=fast), "first_token_ns") == [10, 10, 30]


@pytest.mark.parametrize("fast", [True, False])
def test_asynchronous_scheduling_with_nothing_else_to_do_waits_for_the_results(fast: bool) -> None:
    # B arrives in A's last step: nothing could be composed ahead, so it is in the step that begins when A ends.
    cluster = simulate([Request(0, 50, 2), Request(13 * MS, 50, 1)], async_scheduling=True, fast_forward=fast)
    assert times_ms(cluster, "first_token_ns") == [10, 30]


def test_a_request_is_queued_when_the_step_in_flight_ends() -> None:
    # [0, 10) A1, [10, 20) A2 ... B at 13, C at 20 (a boundary counts as before it), D at 57, when nobody runs.
    requests = [Request(0, 50, 3), Request(13 * MS, 50, 1), Request(20 * MS, 50, 1), Request(57 * MS, 50, 1)]
    assert times_ms(simulate(requests), "queued_ns") == [0, 20, 20, 57]

"""What each batching policy composes, step by step, against timetables worked out by hand.

A timetable has a line a request and a column a step: a number is prompt tokens computed, ``d`` a decode, ``.`` nothing,
``x`` preempted, ``|`` the end. Requests are A, B, C… in the order of their numbers; blocks have 4 tokens.
"""

import math

import pytest

from policies.batching.fastgen import Fastgen
from policies.batching.orca import Orca
from policies.batching.sarathi import Sarathi
from policies.batching.sglang import Sglang
from policies.batching.sjf import Sjf
from policies.batching.static import Static
from policies.batching.trtllm import Trtllm
from policies.batching.vllm import Vllm
from policies.batching.vllm_v1 import VllmV1
from policies.protocols import UNBOUNDED, PolicyError
from policies.queueing.sjf import Sjf as ShortestFirst
from policies.testing import FakeReplica

A, B, C = 0, 1, 2


def replica(**settings):
    return FakeReplica(**{"block_size": 4, "max_model_len": 16, "max_num_seqs": 8, **settings})


def timetable(replica, policy, steps=None):
    """Run and return one string a request, one character group a step."""
    ran = replica.run(policy) if steps is None else [replica.step(policy) for _ in range(steps)]
    rows = []
    for request in range(len(replica.requests)):
        row, ended = [], False
        for step in ran:
            prompt = dict(step.prefills).get(request)
            mark = "." if prompt is None else str(prompt)
            if request in step.decodes:
                mark = "d"
            if request in step.preempted or request in step.swapped_out:
                mark = "x" if mark == "." else "x" + mark
            row.append("" if ended else mark)
            if request in step.finished:
                row[-1] += "|"
                ended = True
        rows.append(" ".join(mark for mark in row if mark))
    return rows


# -------------------------------------------------------------------------------------------------------- static


def test_static_starts_a_batch_only_when_the_last_has_ended():
    r = replica()
    r.add(5, 3), r.add(3, 1), r.add(4, 2)
    assert timetable(r, Static(batch_size=2)) == [
        "5 d d|",
        "3|",
        ". . . 4 d|",
    ]


def test_static_pads_prompts_to_the_longest_and_keeps_finished_slots_computing():
    r = replica()
    r.add(5, 3), r.add(3, 1), r.add(4, 2)
    # A and B: 2 of 5 tokens are padding in B's row; B ends at once, its slot computes on; C is alone.
    assert [step.padding for step in r.run(Static(batch_size=2))] == [2, 1, 1, 0, 0]


def test_static_keeps_padded_prompts_within_the_token_budget():
    r = replica(max_num_batched_tokens=12)
    r.add(5, 1), r.add(3, 1), r.add(4, 1)
    # 2 rows of 5 are 10, 3 rows of 5 would be 15.
    assert timetable(r, Static(batch_size=3)) == ["5|", "3|", ". 4|"]


# ---------------------------------------------------------------------------------------------------------- orca


def test_orca_mixes_new_prompts_with_decodes():
    r = replica()
    r.add(5, 4)
    policy = Orca()
    r.step(policy)
    r.add(3, 2)
    assert timetable(r, policy) == ["d d d|", "3 d|"]


def test_orca_reserves_the_longest_context_at_admission():
    r = replica(total_blocks=8)
    r.add(5, 3), r.add(3, 3), r.add(1, 1)
    # 16 tokens are 4 blocks: two requests fill the memory.
    assert timetable(r, Orca()) == [
        "5 d d|",
        "3 d d|",
        ". . . 1|",
    ]


@pytest.mark.parametrize(("reserve", "together"), [("predicted", 2), ("pow2", 1)])
def test_orca_reserves_what_is_predicted_or_the_next_power_of_two(reserve, together):
    r = replica(total_blocks=5)
    # 3 + 5 tokens are 2 blocks, 3 + 8 are 3.
    r.add(3, 5, predicted_output_tokens=5), r.add(3, 5, predicted_output_tokens=5)
    step = r.step(Orca(reserve=reserve))
    assert len(step.prefills) == together
    assert r.kv.free_blocks == {2: 1, 1: 2}[together]


@pytest.mark.parametrize(("allocation", "together"), [("exact", 2), ("buddy", 1)])
def test_orca_rounds_a_reservation_up_to_a_power_of_two_as_a_buddy_allocator_does(allocation, together):
    r = replica(total_blocks=7)
    # 3 + 6 tokens are 3 blocks, and 16 tokens, the power of two above, are 4.
    r.add(3, 6, predicted_output_tokens=6), r.add(3, 6, predicted_output_tokens=6)
    step = r.step(Orca(reserve="predicted", allocation=allocation))
    assert len(step.prefills) == together
    assert r.kv.free_blocks == {2: 1, 1: 3}[together]


def test_orca_reserves_no_more_than_there_is_even_where_the_power_of_two_would_be_more():
    r = replica(total_blocks=3)
    r.add(3, 6, predicted_output_tokens=6)
    assert len(r.step(Orca(reserve="predicted", allocation="buddy")).prefills) == 1
    assert r.kv.free_blocks == 0


def test_orca_needs_a_predictor_for_what_it_predicts():
    r = replica()
    r.add(3, 5)
    with pytest.raises(PolicyError, match="policy 'orca' with reserve 'pow2' needs predicted output lengths"):
        r.step(Orca(reserve="pow2"))


# ---------------------------------------------------------------------------------------------------------- vllm


def test_vllm_computes_prompts_before_decodes_and_never_both():
    r = replica()
    r.add(8, 4), r.add(8, 4)
    policy = Vllm()
    assert timetable(r, policy, 2) == ["8 d", "8 d"]
    r.add(4, 2)
    # The decodes of A and B stand still while C's prompt is computed.
    assert timetable(r, policy) == [". d d|", ". d d|", "4 d|"]


def test_vllm_admits_whole_prompts_within_the_budget():
    r = replica(max_num_batched_tokens=16)
    r.add(8, 2), r.add(7, 2), r.add(2, 2)
    assert timetable(r, Vllm()) == ["8 . d|", "7 . d|", ". 2 d|"]


def test_vllm_preempts_the_last_one_and_recomputes_it():
    r = replica(total_blocks=5)
    r.add(8, 6), r.add(8, 6)
    # Both fill 2 blocks, 1 is free, both need one: B goes, and comes back with 8 + 1 tokens when A has ended.
    assert timetable(r, Vllm()) == [
        "8 d d d d d|",
        "8 x . . . . 9 d d d d|",
    ]


def test_vllm_swaps_the_last_one_out_and_in_again():
    r = replica(total_blocks=5)
    r.add(8, 6), r.add(8, 6)
    steps = r.run(Vllm(preemption_mode="swap"))
    assert [step.swapped_out for step in steps][:3] == [(), (B,), ()]
    assert [step.swapped_in for step in steps].index((B,)) == 6
    assert steps[6].decodes == (B,)  # in the step in which it came back
    assert len(steps) == 11


def test_vllm_admits_nobody_while_somebody_is_swapped_out():
    r = replica(total_blocks=5)
    r.add(8, 6), r.add(8, 6), r.add(1, 1)
    policy = Vllm(preemption_mode="swap")
    steps = [r.step(policy) for _ in range(3)]
    assert [step.prefills for step in steps] == [((A, 8), (B, 8), (C, 1)), (), ()]
    r.add(1, 1)
    assert r.step(policy).prefills == ()


def test_vllm_keeps_a_watermark_free_and_refuses_what_never_fits_below_it():
    r = replica(total_blocks=10, max_model_len=64)
    policy = Vllm(watermark=0.2)
    r.add(36, 2)
    r.add(28, 9), r.add(4, 2)
    # A's 9 blocks and 2 of watermark are more than 10. B takes 7 and leaves 3; C would leave 2, which is allowed.
    assert r.step(policy).prefills == ((B, 28), (C, 4))
    assert r.refused == {A: "needs 11 KV blocks, watermark included, of 10"}
    r.add(4, 2)
    assert r.step(policy).prefills == ()


# ------------------------------------------------------------------------------------------------------- vllm-v1


def test_vllm_v1_gives_one_budget_to_running_then_waiting_requests():
    r = replica(max_num_batched_tokens=8, max_model_len=64)
    r.add(12, 3), r.add(10, 2), r.add(3, 1)
    # Step 1: A's rest, then 4 of B. Step 2: A decodes, B's rest, 1 of C.
    assert timetable(r, VllmV1()) == [
        "8 4 d d|",
        ". 4 6 d|",
        ". . 1 2|",
    ]


def test_vllm_v1_takes_cached_prefixes_off_before_it_cuts_chunks():
    r = replica(max_num_batched_tokens=8)
    r.add(12, 1, cached_tokens=8), r.add(12, 1)
    assert timetable(r, VllmV1()) == ["4|", "4 8|"]


def test_vllm_v1_cuts_long_prompts_to_the_threshold():
    r = replica(max_num_batched_tokens=8)
    r.add(7, 1), r.add(4, 1), r.add(5, 1)
    assert timetable(r, VllmV1(long_prefill_token_threshold=3)) == ["3 3 1|", "3 1|", "2 3|"]


def test_vllm_v1_admits_only_what_fits_whole_unless_told_otherwise():
    for reserve, admitted in ((True, ()), (False, ((B, 7),))):
        r = replica(total_blocks=4, max_num_batched_tokens=8)
        r.add(4, 8)
        policy = VllmV1(reserve_full_input=reserve)
        r.step(policy)
        r.add(16, 1)
        # A holds 2 blocks after this step's decode, 2 are free: 7 of B's 16 tokens fit, 16 don't.
        step = r.step(policy)
        assert (step.decodes, step.prefills) == ((A,), admitted)


def test_vllm_v1_admits_nobody_in_a_step_that_preempted():
    r = replica(total_blocks=3)
    r.add(4, 3), r.add(4, 3)
    policy = VllmV1()
    r.step(policy)
    r.add(1, 1)
    # A and B need a block each, 1 is free: B goes and frees 1. C would fit, but not in this step, and then stands
    # behind B, which needs 2 blocks for 5 tokens and gets them when A has ended.
    assert timetable(r, policy) == ["d d|", "x . 5 d|", ". . 1|"]


def test_vllm_v1_keeps_a_watermark_only_while_something_runs():
    r = replica(total_blocks=4)
    r.add(16, 1)
    assert r.step(VllmV1(watermark=0.5)).prefills == ((A, 16),)
    r.add(4, 3), r.add(8, 1)
    assert r.step(VllmV1(watermark=0.5)).prefills == ((B, 4),)


def test_vllm_v1_decodes_the_first_ones_if_there_are_more_than_the_budget():
    r = replica(max_num_batched_tokens=2)
    for _ in range(3):
        r.add(1, 4)
    policy = VllmV1()
    assert timetable(r, policy, 3) == ["1 d d", "1 d d", ". . ."]


# ------------------------------------------------------------------------------------------------------- sarathi


def test_sarathi_serves_decodes_then_running_prompts_then_new_ones():
    r = replica(max_num_batched_tokens=8, max_model_len=64)
    r.add(4, 4), r.add(10, 2), r.add(20, 1)
    assert timetable(r, Sarathi()) == [
        "4 d d d|",
        "4 6 d|",
        ". 1 6 7 6|",
    ]


def test_sarathi_takes_blocks_for_the_whole_prompt_at_admission():
    r = replica(total_blocks=20, max_num_batched_tokens=8, max_model_len=64)
    r.add(40, 1)
    r.step(Sarathi())
    assert r.kv.free_blocks == 10


def test_sarathi_does_not_start_a_prompt_whose_blocks_are_not_free():
    r = replica(total_blocks=10, max_num_batched_tokens=8, max_model_len=64)
    r.add(8, 3), r.add(36, 1)
    # 8 of 10 blocks are free after A's prompt, B needs 9 though its first chunk needs 2.
    assert timetable(r, Sarathi(), 3) == ["8 d d|", ". . ."]


# ------------------------------------------------------------------------------------------------------- fastgen


def test_fastgen_fills_every_forward_pass_to_the_same_size():
    r = replica(max_num_batched_tokens=8)
    r.add(4, 4), r.add(10, 3), r.add(3, 2)
    assert timetable(r, Fastgen()) == [
        "4 d d d|",
        "4 6 d d|",
        ". 1 2 d|",
    ]


def test_fastgen_lets_a_decode_without_a_block_wait():
    r = replica(total_blocks=3)
    r.add(4, 4), r.add(4, 4)
    # One block is free: A takes it. B waits until A has ended.
    assert timetable(r, Fastgen()) == [
        "4 d d d|",
        "4 . . . d d d|",
    ]


def test_fastgen_starts_all_over_when_nothing_can_go_on():
    r = replica(total_blocks=2)
    r.add(4, 3), r.add(4, 3)
    # No block is free and both need one: both are dropped; A starts again with 4 + 1 tokens, which fill the memory.
    assert timetable(r, Fastgen()) == [
        "4 x5 d|",
        "4 x . 5 d|",
    ]


# ------------------------------------------------------------------------------------------------------- sglang


def test_sglang_computes_prompts_in_chunks_before_decodes():
    r = replica(max_num_batched_tokens=8, max_model_len=64)
    r.add(20, 2, predicted_output_tokens=2), r.add(8, 2, predicted_output_tokens=2)
    assert timetable(r, Sglang()) == [
        "8 8 4 . d|",
        ". . 4 4 d|",
    ]


def test_sglang_admits_against_what_is_expected_to_be_generated():
    r = replica(total_blocks=10)
    r.add(8, 4, predicted_output_tokens=20), r.add(4, 2, predicted_output_tokens=4)
    # Of 40 tokens A takes 8, a page and 20 to come: 8 are left, B needs 4 + 4 and a page. It isn't tried again before
    # A has ended.
    assert timetable(r, Sglang()) == ["8 d d d|", ". . . . 4 d|"]


def test_sglang_ratio_falls_to_its_floor_with_decode_steps():
    r = replica(total_blocks=400, max_model_len=2000)
    r.add(4, 700, predicted_output_tokens=700)
    policy = Sglang()
    r.step(policy)
    assert policy._ratio == 0.7
    r.step(policy)
    assert math.isclose(policy._ratio, 0.7 - 0.7 * 0.86 / 600)
    assert r.steps[-1].stable_steps == 1
    r.run(policy)
    assert math.isclose(policy._ratio, 0.098)
    assert r.steps[-1].stable_steps == UNBOUNDED


def test_sglang_retracts_the_fewest_output_tokens_first():
    r = replica(total_blocks=6, max_model_len=64)
    policy = Sglang(schedule_conservativeness=0.0)
    r.add(4, 20, predicted_output_tokens=1)
    r.step(policy), r.step(policy)
    r.add(7, 20, predicted_output_tokens=1)
    # A has 5 tokens, B 7. Five decodes later they have 10 and 12 in 3 blocks each, and B needs a fourth; it has the
    # fewer outputs.
    assert timetable(r, policy, 7) == [". d d d d d d", "7 d d d d d x"]
    # A has generated 7 tokens and is expected to generate none: (7 + 20) / (7 + 0 + 1) is capped at 1.
    assert policy._ratio == 1.0


# -------------------------------------------------------------------------------------------------------- trtllm


def test_trtllm_keeps_blocks_for_all_that_a_request_may_generate():
    r = replica(total_blocks=4)
    r.add(4, 3, predicted_output_tokens=8), r.add(4, 1, predicted_output_tokens=1)
    # A keeps 3 blocks for 12 tokens, B needs 2 for 5.
    assert timetable(r, Trtllm()) == ["4 d d|", ". . . 4|"]


def test_trtllm_max_utilization_starts_what_fits_now_and_pauses_the_last():
    r = replica(total_blocks=3)
    r.add(4, 3), r.add(4, 3)
    assert timetable(r, Trtllm(capacity_policy="max_utilization")) == [
        "4 d d|",
        "4 x . 5 d|",
    ]


def test_trtllm_cuts_prompts_to_whole_blocks_only_with_chunked_context():
    for chunked, b in ((False, ". 6|"), (True, "4 2|")):
        r = replica(max_num_batched_tokens=10, total_blocks=100)
        r.add(5, 2), r.add(6, 1)
        assert timetable(r, Trtllm(capacity_policy="max_utilization", chunked_context=chunked)) == ["5 d|", b]


def test_trtllm_needs_a_bound_to_guarantee_that_nothing_is_evicted():
    r = replica()
    r.add(4, 3)
    with pytest.raises(PolicyError, match="'guaranteed_no_evict' needs predicted output lengths"):
        r.step(Trtllm())


# ----------------------------------------------------------------------------------------------------------- sjf


def test_sjf_admits_the_shortest_predicted_output_first():
    r = replica(max_num_seqs=1, queueing=ShortestFirst())
    r.add(4, 3, predicted_output_tokens=3), r.add(4, 1, predicted_output_tokens=1)
    r.add(4, 2, predicted_output_tokens=2)
    assert timetable(r, Sjf()) == [
        ". . . 4 d d|",
        "4|",
        ". 4 d|",
    ]


# ------------------------------------------------------------------------------------------------- stable steps


@pytest.mark.parametrize("cls", [Fastgen, Orca, Sarathi, Static, Trtllm, Vllm, VllmV1])
def test_decodes_with_nobody_waiting_are_stable_without_end(cls):
    r = replica()
    r.add(4, 9, predicted_output_tokens=9)
    policy = cls()
    r.step(policy)
    assert r.step(policy).stable_steps == UNBOUNDED


@pytest.mark.parametrize("cls", [Fastgen, Sarathi, Vllm, VllmV1])
def test_decodes_before_a_request_that_lacks_blocks_are_stable_without_end(cls):
    r = replica(total_blocks=4)
    r.add(5, 9), r.add(12, 1)
    policy = cls()
    r.step(policy)
    step = r.step(policy)
    assert (step.decodes, step.prefills, step.stable_steps) == ((A,), (), UNBOUNDED)


@pytest.mark.parametrize("cls", [Fastgen, Sarathi, VllmV1])
def test_a_chunk_that_leaves_budget_is_stable_for_one_step_if_somebody_waits_for_blocks(cls):
    """The prompt that is computed may share its prefix with the one that waits."""
    r = replica(total_blocks=6, max_num_batched_tokens=8, max_model_len=64)
    r.add(16, 1), r.add(12, 1)
    policy = cls()
    r.step(policy)
    full = r.step(policy)
    assert (full.prefills, full.stable_steps) == (((A, 8),), UNBOUNDED)  # the budget is used up
    r = replica(total_blocks=6, max_num_batched_tokens=8, max_model_len=64)
    r.add(15, 1), r.add(12, 1)
    r.step(policy)
    partial = r.step(policy)
    assert (partial.prefills, partial.stable_steps) == (((A, 7),), 1)


def test_trtllm_does_not_promise_a_chunk_that_was_cut_to_whole_blocks():
    """Of 26 tokens 8 go in each step while more than 10 are left, and then all 10."""
    r = replica(max_num_batched_tokens=10, max_model_len=64)
    r.add(26, 1)
    policy = Trtllm(capacity_policy="max_utilization")
    assert [(s.prefill_tokens, s.stable_steps) for s in r.run(policy)] == [(8, 1), (8, 1), (10, UNBOUNDED)]

"""Requests handed over from prefill to decode: times by hand, back-pressure, losses, fast-forward equal to stepwise."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.batching.sarathi import Sarathi
from policies.batching.vllm_v1 import VllmV1
from simulator.engine.recorder import Outcome
from tests.disaggregation.support import KV_BYTES, SGLANG, STREAMED, VLLM, disaggregation, network, serve
from tests.engine.support import MS, LinearCost, Request, build, check_invariants, fingerprint
from tests.engine.test_control import ACTS, REQUESTS, Acts

PD = ["prefill", "decode"]
COPY = 3_200  # ns before the first byte: PCIe to the interface, and from it

# Steps take 10 ms. A prompt of 100 tokens has 10 MB of KV: 10 ms over 1 GB/s.


def test_first_token_counts_the_transfer_and_a_step_where_it_is_recomputed() -> None:
    # Prompt to 10 ms, KV to 20 ms, then a step for each of three tokens on replica 1. What follows on another replica
    # does so 1 ns later.
    cluster, feature = serve([Request(0, 100, 3)], PD, keys=VLLM)
    columns = cluster.recorder.columns
    assert columns["first_token_ns"][0] == 30 * MS + 4 + COPY
    assert columns["last_token_ns"][0] == 50 * MS + 4 + COPY
    assert columns["replica"][0] == 1
    assert [replica.counters.decode_tokens for replica in cluster.replicas] == [0, 3]
    told = feature.describe()
    assert told["handovers"] == 1
    assert told["bytes"] == 100 * KV_BYTES
    assert told["transfer_s"]["max"] == pytest.approx(0.010, abs=4e-6)


def test_a_forwarded_token_comes_with_the_kv() -> None:
    # Memory at 0 ns, prefill from 2 ns to 10 ms, KV to 20 ms: the first token is delivered then, another each 10 ms.
    cluster, _ = serve([Request(0, 100, 3)], PD, keys=SGLANG)
    columns = cluster.recorder.columns
    assert columns["first_token_ns"][0] == 20 * MS + 4 + COPY
    assert columns["last_token_ns"][0] == 40 * MS + 4 + COPY
    assert [replica.counters.decode_tokens for replica in cluster.replicas] == [0, 2]


def test_a_streamed_token_does_not_wait_for_the_transfer() -> None:
    keys = {**STREAMED, "transfer": "after-prefill"}
    cluster, _ = serve([Request(0, 100, 3)], PD, keys=keys)
    columns = cluster.recorder.columns
    assert columns["first_token_ns"][0] == 10 * MS
    assert columns["itl_max_ns"][0] == 20 * MS + 2 + COPY
    assert columns["last_token_ns"][0] == 40 * MS + 2 + COPY


def test_layers_go_while_the_next_are_computed() -> None:
    # The first of 10 layers is computed at 1 ms; over 1 GB/s all KV takes 10 ms from then on: 1 ms after the prompt.
    cluster, feature = serve([Request(0, 100, 3)], PD, keys=STREAMED)
    columns = cluster.recorder.columns
    assert columns["first_token_ns"][0] == 10 * MS
    assert columns["itl_max_ns"][0] == 11 * MS + COPY + 2
    assert feature.describe()["bytes"] == 100 * KV_BYTES


def test_over_a_quick_link_the_last_layer_is_left() -> None:
    # 10 GB/s: nine layers go in 0.9 ms beside the prompt, the last one in 0.1 ms after it.
    cluster, _ = serve([Request(0, 100, 3)], PD, keys=STREAMED, gbit_per_s=80.0)
    assert cluster.recorder.columns["itl_max_ns"][0] == 10 * MS + MS // 10 + 2 + COPY


def test_short_prompts_go_when_they_are_computed() -> None:
    cluster, _ = serve([Request(0, 100, 3)], PD, keys={**STREAMED, "serial_below_tokens": 101})
    assert cluster.recorder.columns["itl_max_ns"][0] == 20 * MS + 2 + COPY


def test_sync_is_waited_for() -> None:
    cluster, _ = serve([Request(0, 100, 3)], PD, keys={**VLLM, "sync_s": 0.004})
    assert cluster.recorder.columns["first_token_ns"][0] == 34 * MS + 4 + COPY


def test_one_token_ends_where_it_was_computed() -> None:
    cluster, feature = serve([Request(0, 100, 1)], PD, keys=VLLM)
    assert cluster.recorder.columns["last_token_ns"][0] == 10 * MS
    assert feature.describe()["ended_at_prefill"] == 1
    assert feature.describe()["handovers"] == 0


def test_a_full_decode_replica_holds_kv_back_where_it_was_computed() -> None:
    # 10 blocks a replica. Each request holds 7 of them: the second's KV waits on replica 0 until the first has ended
    # on replica 1, and so does the third's prompt, for which there is no memory on replica 0.
    requests = [Request(0, 100, 4), Request(MS, 100, 4), Request(2 * MS, 100, 4)]
    cluster, feature = serve(requests, PD, keys=VLLM, blocks=10, max_len=150)
    columns = cluster.recorder.columns
    ends = columns["last_token_ns"]
    assert ends[0] == 60 * MS + 4 + COPY
    # Memory at 60 ms, KV 10 ms later, four steps.
    assert ends[1] == pytest.approx(ends[0] + 50 * MS, abs=2 * COPY)
    # Its prompt starts when the second's KV has gone (70 ms), but memory for it comes with the second's end.
    assert columns["scheduled_ns"][2] == pytest.approx(70 * MS, abs=3 * COPY)
    assert ends[2] == pytest.approx(ends[1] + 50 * MS, abs=3 * COPY)
    # The second is computed at 30 ms and gets memory at 60 ms, the third at 80 ms and 110 ms.
    assert feature.describe()["memory_wait_s"]["max"] == pytest.approx(0.030, abs=1e-5)


def test_a_prompt_waits_for_the_memory_that_is_asked_for_before_it() -> None:
    requests = [Request(0, 100, 4), Request(MS, 100, 4)]
    cluster, _ = serve(requests, PD, keys=SGLANG, blocks=10, max_len=150)
    columns = cluster.recorder.columns
    assert columns["scheduled_ns"][1] == columns["last_token_ns"][0] + 1


def test_room_is_left_for_the_tokens_of_others() -> None:
    # Memory for two requests, but not with 40 tokens of room for each.
    requests = [Request(0, 64, 4), Request(0, 64, 4)]
    for reserved, together in ((0, True), (40, False)):
        cluster, _ = serve(requests, PD, keys={**SGLANG, "reserved_decode_tokens": reserved}, blocks=10, max_len=150)
        columns = cluster.recorder.columns
        assert bool(columns["scheduled_ns"][1] < columns["last_token_ns"][0]) is together


def test_a_preempted_request_comes_back_before_another_s_kv_is_let_in() -> None:
    # 10 blocks of 16 tokens: two requests outgrow them together, and the second is preempted. Beside the first there is
    # memory for the third's 60 tokens then, but not for the second's more than 80.
    requests = [Request(0, 64, 40), Request(0, 64, 40), Request(100 * MS, 60, 2)]
    cluster, _ = serve(requests, PD, keys=VLLM, blocks=10, max_len=150, gbit_per_s=800.0)
    columns = cluster.recorder.columns
    assert columns["preemptions"].tolist() == [0, 1, 0]
    assert columns["first_token_ns"][2] > columns["last_token_ns"][0]
    assert columns["last_token_ns"][1] > columns["last_token_ns"][0]


def test_kv_that_is_cached_where_it_goes_is_not_sent() -> None:
    requests = [Request(0, 64, 3, hashes=(1, 2, 3, 4)), Request(200 * MS, 100, 3, hashes=(1, 2, 3, 4, 5, 6))]
    _, feature = serve(requests, PD, keys=VLLM, hash_block_tokens=16)
    told = feature.describe()
    assert told["cached_tokens"] == 64
    assert told["bytes"] == 100 * KV_BYTES


def test_two_prefill_replicas_share_the_interface_of_one_decode_replica() -> None:
    cluster, _ = serve([Request(0, 100, 3), Request(0, 100, 3)], ["prefill", "prefill", "decode"], keys=VLLM)
    assert cluster.recorder.columns["first_token_ns"].tolist() == [40 * MS + 4 + COPY] * 2


def test_decode_replicas_take_turns_and_mixed_ones_keep_what_they_get() -> None:
    roles = ["prefill", "mixed", "decode", "decode"]
    cluster, feature = serve([Request(i * 500 * MS, 100, 3) for i in range(4)], roles, keys=VLLM)
    assert cluster.recorder.columns["replica"].tolist() == [2, 1, 3, 1]
    assert cluster.recorder.columns["prefill_replica"].tolist() == [0, -1, 0, -1]
    assert feature.describe()["handovers"] == 2


def test_what_can_not_be_decoded_is_refused_at_once() -> None:
    cluster, _ = serve([Request(0, 200, 3)], PD, keys=VLLM, blocks=10, max_len=150)
    assert cluster.recorder.columns["outcome"][0] == Outcome.REJECTED
    assert "where it would decode" in cluster.recorder.reasons[0]


def test_what_is_too_long_to_decode_there_is_served_where_it_stays() -> None:
    feature = disaggregation(["prefill", "mixed", "decode"], **VLLM)
    requests = [Request(i * 500 * MS, *lengths) for i, lengths in enumerate([(100, 3), (200, 3), (200, 3), (100, 80)])]
    cluster = build(requests, replicas=3, features=[feature])
    cluster.make_network = partial(network, replicas=3, gbit_per_s=8.0)
    feature._longest = 150  # as of a decode pool of its own
    cluster.run()
    cluster.stop()
    check_invariants(cluster, drained=True)
    columns = cluster.recorder.columns
    assert columns["outcome"].tolist() == [Outcome.FINISHED, Outcome.FINISHED, Outcome.REJECTED, Outcome.FINISHED]
    assert columns["replica"].tolist() == [2, 1, -1, 1]
    assert columns["output_tokens"].tolist() == [3, 3, 0, 80]


def test_a_lost_decode_replica_is_replaced_while_the_kv_is_still_there() -> None:
    # Lost at 15 ms, half way through the transfer: the KV goes to the other one from then on.
    cluster, _ = serve(
        [Request(0, 100, 3)], ["prefill", "decode", "decode"], keys=VLLM, others=[Acts([(15 * MS, "lose", 1, 0)])]
    )
    columns = cluster.recorder.columns
    assert columns["replica"][0] == 2
    assert columns["first_token_ns"][0] == pytest.approx(35 * MS, abs=2 * COPY)
    assert columns["attempts"][0] == 1


def test_a_request_that_was_taken_back_leaves_nothing_behind() -> None:
    cluster, feature = serve([Request(0, 100, 3)], PD, keys=VLLM, others=[Acts([(15 * MS, "withdraw", 0, 0)])])
    assert cluster.recorder.columns["outcome"][0] == Outcome.TIMED_OUT
    assert feature.describe()["handovers"] == 0


WAYS = st.sampled_from(
    [
        VLLM,
        SGLANG,
        STREAMED,
        {**SGLANG, "transfer": "layer-wise", "reserved_decode_tokens": 20},
        {**STREAMED, "kind": "splitwise"},
    ]
)


def test_what_a_lost_replica_held_at_most_counts_steps_that_ended_before() -> None:
    # Lost at 40 ms, in a run that began at 20 ms, while a prompt computed before waits to be sent.
    lengths = [
        (0, 1, 2),
        (0, 108, 2),
        (1, 128, 1),
        (1, 1, 1),
        (1, 1, 1),
        (1, 1, 1),
        (1, 1, 1),
        (0, 1, 1),
        (11, 200, 40),
    ]
    cost = LinearCost(10 * MS, token=1000, kv=100)
    options = {"policy": Sarathi, "cost": cost, "budget": 64, "max_len": 320, "async_scheduling": True, "blocks": 40}
    peaks = []
    for fast in (True, False):
        cluster, _ = serve(
            [Request(*each) for each in lengths],
            ["prefill", "decode", "prefill"],
            keys=VLLM,
            others=[Acts([(40 * MS, "lose", 2, 0)])],
            fast_forward=fast,
            **options,
        )
        peaks.append(cluster.replicas[2].counters.peak_kv_blocks)
    assert peaks == [15, 15]


@pytest.mark.parametrize("policy", [VllmV1, Sarathi])
@pytest.mark.parametrize(
    "options",
    [
        {"roles": ["prefill", "decode"]},
        {"roles": ["decode", "prefill", "decode", "mixed"], "hash_block_tokens": 16, "blocks": 30, "seqs": 4},
        {"roles": ["prefill", "decode", "prefill"], "async_scheduling": True, "blocks": 40},
    ],
    ids=["plain", "prefixes", "async"],
)
@given(requests=REQUESTS, acts=ACTS, keys=WAYS)
@settings(max_examples=15, deadline=None)
def test_fast_forward_equals_stepwise(
    policy: Any,
    options: dict[str, Any],
    requests: list[Request],
    acts: list[tuple[int, str, int, int]],
    keys: dict[str, Any],
) -> None:
    acts = [act for act in acts if act[1] != "move"]
    roles, more = options["roles"], {key: value for key, value in options.items() if key != "roles"}
    cost = LinearCost(10 * MS, token=1000, kv=100)
    runs = [
        serve(
            requests,
            roles,
            keys={**keys, "max_pending_prompt_tokens": 150},
            others=[Acts(acts)],
            policy=policy,
            cost=cost,
            budget=64,
            max_len=320,
            fast_forward=fast,
            **more,
        )
        for fast in (True, False)
    ]
    assert fingerprint(runs[0][0]) == fingerprint(runs[1][0])
    assert runs[0][1].describe() == runs[1][1].describe()


@given(requests=REQUESTS, keys=WAYS)
@settings(max_examples=15, deadline=None)
def test_every_byte_is_sent_once_and_every_token_comes(requests: list[Request], keys: dict[str, Any]) -> None:
    if keys["transfer"] == "layer-wise":  # which sends the KV of one-token answers too: nobody knows it beforehand
        requests = [replace(request, output=request.output + 1) for request in requests]
    cluster, feature = serve(requests, ["prefill", "decode", "decode"], keys=keys, max_len=320)
    columns = cluster.recorder.columns
    assert (columns["outcome"] == Outcome.FINISHED).all()
    told = feature.describe()
    assert told["handovers"] + told["ended_at_prefill"] + told["stayed"] == len(requests)
    sent = sum(request.prompt for request in requests if request.output > 1) * KV_BYTES
    if not told["stayed"]:
        assert told["bytes"] == sent
    if cluster.network is not None:
        links = cluster.network.network
        carried = sum(links.use(link).bytes for link, spec in enumerate(links.links) if spec.name.endswith("tx"))
        assert carried == told["bytes"]
    assert np.all(columns["first_token_ns"] <= columns["last_token_ns"])


def test_a_replica_is_idle_at_samples_before_what_is_handed_to_it_begins() -> None:
    # KV is there at 20 ms; three steps go on to 50 ms. Nothing arrives on replica 1 between, so that nothing but the
    # beginning of its first step takes the samples of the time before.
    cluster, _ = serve([Request(0, 100, 3)], PD, keys=VLLM, sample_ns=5 * MS)
    samples = cluster.recorder.timeline.columns()
    decode = samples["replica"] == 1
    busy = np.diff(samples["busy_ns"][decode], prepend=0)
    assert samples["t_ns"][decode].tolist() == [at * 5 * MS for at in range(1, 11)]
    assert busy.tolist() == [0, 0, 0, 0, 5 * MS - COPY - 4, *[5 * MS] * 5]
    assert samples["running"][decode].tolist() == [0] * 4 + [1] * 6


def test_what_a_request_had_is_known_where_a_run_ends_while_its_kv_is_sent() -> None:
    """Its first token came at 10 ms, its KV would be there at 20 ms."""
    feature = disaggregation(PD, **{**STREAMED, "transfer": "after-prefill"})
    cluster = build([Request(0, 100, 3)], replicas=2, features=[feature])
    cluster.make_network = partial(network, replicas=2, gbit_per_s=8.0)
    cluster.run(15 * MS)
    cluster.stop()
    assert cluster.recorder.columns["output_tokens"][0] == 1
    assert cluster.recorder.columns["last_token_ns"][0] == 10 * MS

"""Splitwise: which machines a request gets, when machines change pools, and what a machine puts into a step."""

from __future__ import annotations

from typing import Any

from policies.batching.splitwise import Splitwise
from tests.disaggregation.support import STREAMED, serve
from tests.engine.support import MS, LinearCost, Request, simulate

SPLITWISE: dict[str, Any] = {**STREAMED, "kind": "splitwise", "transfer": "after-prefill"}

# A step takes 10 ms, and 1 ms for each token of a prompt; KV goes quickly.
OPTIONS: dict[str, Any] = {"policy": Splitwise, "cost": LinearCost(10 * MS, token=1 * MS), "gbit_per_s": 800.0}


def test_prompts_go_where_the_fewest_prompt_tokens_are_pending() -> None:
    requests = [Request(0, 300, 2), Request(1, 100, 2), Request(2, 100, 2), Request(3, 50, 2)]
    cluster, feature = serve(requests, ["prefill", "prefill", "decode", "decode"], keys=SPLITWISE, **OPTIONS)
    # 300 | 100, then 300 | 200, then 300 | 250: replica 0 computes the first alone and replica 1 the rest.
    assert [replica.counters.prefill_tokens for replica in cluster.replicas] == [300, 250, 0, 0]
    # Tokens go where the least memory is spoken for: 300 | 100, 300 | 200, 300 | 250.
    assert cluster.recorder.columns["replica"].tolist() == [2, 3, 3, 3]
    assert feature.describe()["moves_to_mixed"] == 0


def test_a_token_machine_takes_prompts_while_the_queue_is_long_and_goes_home() -> None:
    keys = {**SPLITWISE, "max_pending_prompt_tokens": 250}
    requests = [Request(0, 200, 3), Request(1, 200, 3), Request(2, 40, 3), Request(900 * MS, 200, 3)]
    cluster, feature = serve(requests, ["prefill", "decode"], keys=keys, **OPTIONS)
    # The second would make 400 tokens: the token machine is mixed from then on, and computes it and decodes it. The
    # third finds 200 tokens pending on either, and room for 40 more on the prompt machine.
    assert [replica.counters.prefill_tokens for replica in cluster.replicas] == [200 + 40 + 200, 200]
    told = feature.describe()
    assert told["moves_to_mixed"] == 1
    assert told["stayed"] == 1
    assert told["handovers"] == 3


def test_a_prompt_machine_takes_tokens_while_memory_is_spoken_for_and_goes_home() -> None:
    # 20 blocks of 16 = 320 tokens: memory for one request of 200 and not for two.
    requests = [Request(0, 200, 9), Request(1, 200, 9), Request(5000 * MS, 200, 2)]
    cluster, feature = serve(requests, ["prefill", "decode"], keys=SPLITWISE, blocks=20, max_len=300, **OPTIONS)
    assert cluster.recorder.columns["replica"].tolist() == [1, 0, 1]
    told = feature.describe()
    assert (told["moves_to_mixed"], told["stayed"], told["handovers"]) == (1, 1, 2)


def test_where_all_is_full_the_least_loaded_machine_serves_alone() -> None:
    requests = [Request(i, 200, 9) for i in range(4)]
    _cluster, feature = serve(requests, ["prefill", "decode"], keys=SPLITWISE, blocks=20, max_len=300, **OPTIONS)
    told = feature.describe()
    assert told["served_alone"] == 2
    assert told["handovers"] + told["stayed"] == 4


def test_machines_of_role_mixed_stay_mixed() -> None:
    keys = {**SPLITWISE, "max_pending_prompt_tokens": 250}
    requests = [Request(0, 200, 3), Request(1, 200, 3), Request(900 * MS, 200, 3)]
    cluster, feature = serve(requests, ["prefill", "mixed", "decode"], keys=keys, **OPTIONS)
    assert [replica.counters.prefill_tokens for replica in cluster.replicas] == [400, 200, 0]
    assert cluster.recorder.columns["replica"].tolist() == [2, 2, 2]
    assert feature.describe()["moves_to_mixed"] == 0


# -------------------------------------------------------------------------------------------- batching on a machine


def batches(requests: list[Request], **more: Any) -> list[tuple[int, int]]:
    """Return decodes and prompt tokens of each step."""
    cluster = simulate(requests, policy=Splitwise, keep_batches=True, fast_forward=False, **more)
    assert cluster.recorder.batches is not None
    return [(batch[5], batch[6]) for batch in cluster.recorder.batches]


def test_prompts_are_whole_and_share_a_step_up_to_the_limit() -> None:
    requests = [Request(0, 60, 1), Request(0, 30, 1), Request(0, 20, 1), Request(0, 150, 1), Request(0, 1, 1)]
    assert batches(requests, budget=100) == [(0, 90), (0, 20), (0, 150), (0, 1)]


def test_decodes_wait_beside_prompts_that_fill_the_step_but_not_for_ever() -> None:
    # Two requests decode from 10 ms on; from then on there is a prompt of 10 tokens, the whole limit, for each step.
    requests = [Request(0, 4, 8), Request(0, 4, 8), *(Request(5 * MS, 10, 1) for _ in range(8))]
    steps = batches(requests, budget=10)
    assert steps[0] == (0, 8)
    # Put off four times each, and then no more.
    assert steps[1:9] == [(0, 10), (0, 10), (0, 10), (0, 10), (2, 10), (2, 10), (2, 10), (2, 10)]


def test_those_who_waited_go_first() -> None:
    # Three decode and there is room for one beside a prompt of 9: they take turns.
    requests = [Request(0, 2, 30) for _ in range(3)] + [Request(5 * MS, 9, 1) for _ in range(3)]
    cluster = simulate(requests, policy=Splitwise, budget=10)
    ends = cluster.recorder.columns["last_token_ns"][:3]
    # Each got one token in those three steps.
    assert len(set(ends.tolist())) == 1

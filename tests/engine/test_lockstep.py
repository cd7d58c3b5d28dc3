"""Attention data parallel ranks: common boundaries, by hand, dummies and waits, fast-forward equal to stepwise."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policies import registry
from policies.protocols import RoutingPolicy
from simulator.cost.together import LockstepTimes
from tests.engine.support import MS, LinearCost, Request, fingerprint, simulate, times_ms
from tests.engine.test_control import ACTS, REQUESTS, simulate_acts
from tests.engine.test_fast_forward import workloads


class JointLinear(LinearCost):
    """Each rank's part linear in its batch; 4 ms for the experts and 1 ns for each token, 1 ms for the exchange."""

    def together(self, shapes: Any, k: int) -> LockstepTimes:
        own = np.array([self.run_ns(shape, k) for shape in shapes], dtype=np.int64)
        return LockstepTimes(own, 1 * MS, 4 * MS + sum(shape.tokens for shape in shapes))


COST = JointLinear(3 * MS, token=20_011, kv=307, kv_sq=1, pair=13)
FLAT = JointLinear(10 * MS)


def lockstep_print(cluster: Any) -> dict[str, Any]:
    """Return everything recorded, and what the groups counted."""
    return {**fingerprint(cluster), "lockstep": [vars(group.counters) for group in cluster.lockstep]}


def test_two_ranks_by_hand():
    # Every step takes 10 + 4 + 1 ms and 1 ns a token. Rank 0: a prompt of 20 and 3 tokens out; rank 1: a prompt of
    # 40, 2 out, which comes at 1 ms and so begins with the second step.
    requests = [Request(0, 20, 3), Request(1 * MS, 40, 2)]
    cluster = simulate(requests, ranks=2, cost=FLAT, keep_batches=True)
    step = [15 * MS + 20, 15 * MS + 41, 15 * MS + 2]  # prompt 0; decode 0 and prompt 1; both decode
    ends = np.cumsum(step).tolist()
    columns = cluster.recorder.columns
    assert columns["first_token_ns"].tolist() == [ends[0], ends[1]]
    assert columns["last_token_ns"].tolist() == [ends[2], ends[2]]
    assert columns["replica"].tolist() == [0, 1]
    counters = cluster.lockstep[0].counters
    assert (counters.steps, counters.busy_ns) == (3, ends[2])
    assert (counters.exchange_ns, counters.experts_ns) == (3 * MS, 12 * MS + 20 + 41 + 2)
    assert counters.dummy_steps == [0, 1]  # rank 1 had nothing to do in the first
    assert counters.dummy_ns == [0, ends[0]]
    assert counters.waiting_ns == [0, 0]
    assert [replica.counters.busy_ns for replica in cluster.replicas] == [ends[2], ends[2] - ends[0]]


def test_the_slowest_rank_decides_and_the_others_wait():
    # 1 ms a token: own parts of the first step are 10 + 8 + 1 (the logits' row) and 10 + 3 + 1 ms.
    cost = JointLinear(10 * MS, token=MS)
    cluster = simulate([Request(0, 8, 1), Request(0, 3, 1)], ranks=2, cost=cost)
    assert times_ms(cluster, "first_token_ns") == [24 + 11e-6] * 2
    assert cluster.lockstep[0].counters.waiting_ns == [0, 5 * MS]


def test_a_request_on_an_idle_rank_cuts_the_run_of_all():
    # Rank 0 decodes for long; a request on rank 1 must begin at the next boundary, whatever run is in flight.
    requests = [Request(0, 1, 400), Request(1000 * MS, 1, 2)]
    cluster = simulate(requests, ranks=2, cost=FLAT)
    first = cluster.recorder.columns["scheduled_ns"][1]
    assert 0 <= first - 1000 * MS <= 15 * MS + 1
    assert cluster.recorder.columns["queued_ns"][1] == first


def test_all_boundaries_are_common():
    rng = np.random.default_rng(5)
    requests = [Request(int(t), int(p), int(o)) for t, p, o in rng.integers(1, (400 * MS, 300, 60), (40, 3))]
    cluster = simulate(requests, ranks=4, cost=COST, keep_batches=True, fast_forward=False)
    spans = {(start, end) for _, _, start, end, *_ in cluster.recorder.batches}
    ordered = sorted(spans)
    assert all(before[1] <= after[0] for before, after in pairwise(ordered))
    group = cluster.lockstep[0]
    assert group.counters.steps == len(spans)
    for rank, replica in enumerate(cluster.replicas):
        assert replica.counters.steps + group.counters.dummy_steps[rank] == group.counters.steps
        assert replica.counters.busy_ns + group.counters.dummy_ns[rank] == group.counters.busy_ns


def test_one_rank_with_work_is_one_engine():
    requests = [Request(0, 50, 30), Request(20 * MS, 70, 9)]

    class First(RoutingPolicy):
        name = "first"

        def choose(self, request, ranks):
            return 0

    class Alone(LinearCost):
        def _at(self, shape, i):
            return super()._at(shape, i) + 5 * MS + shape.tokens

    together = simulate(requests, ranks=3, cost=COST, balancing=First)
    alone = simulate(requests, cost=Alone(3 * MS, token=20_011, kv=307, kv_sq=1, pair=13))
    for name, column in alone.recorder.columns.items():
        assert (column == together.recorder.columns[name]).all(), name


@pytest.mark.parametrize("policy", ["vllm-v1", "sglang", "trtllm", "orca"])
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    options=workloads(),
    budget=st.sampled_from([16, 512]),
    overlap=st.booleans(),
    ranks=st.sampled_from([2, 3, 5]),
    replicas=st.sampled_from([1, 2]),
    balancing=st.sampled_from(registry.names("balancing")),
    prefill_balance=st.sampled_from([None, (4, 0), (7, 2)]),
)
def test_fast_forward_equals_stepwise(
    policy: str,
    options: dict[str, Any],
    budget: int,
    overlap: bool,
    ranks: int,
    replicas: int,
    balancing: str,
    prefill_balance: tuple[int, int] | None,
) -> None:
    batching = registry.resolve("batching", policy)
    common = {
        "policy": batching,
        "queueing": registry.resolve("queueing", batching.queueing),  # type: ignore[attr-defined]
        "cost": COST,
        "budget": budget,
        "async_scheduling": overlap,
        "ranks": ranks,
        "replicas": replicas,
        "balancing": registry.resolve("balancing", balancing),
        "prefill_balance": prefill_balance,
        **options,
    }
    assert lockstep_print(simulate(**common)) == lockstep_print(simulate(**common, fast_forward=False))


def test_the_router_sees_whole_replicas_and_the_engine_chooses_the_rank():
    requests = [Request(i * MS, 10, 200) for i in range(8)]
    cluster = simulate(requests, ranks=2, replicas=2, cost=FLAT)
    # Round-robin over two replicas of two ranks, and in turn within each.
    assert cluster.recorder.columns["replica"].tolist() == [0, 2, 1, 3, 0, 2, 1, 3]


def test_vllm_counts_what_it_sends_between_reports():
    requests = [Request(0, 10, 50) for _ in range(6)]
    cluster = simulate(requests, ranks=3, cost=FLAT, balancing=registry.resolve("balancing", "vllm"))
    assert cluster.recorder.columns["replica"].tolist() == [0, 1, 2, 0, 1, 2]


def test_trtllm_sends_to_the_fewest_tokens_within_a_fair_share():
    requests = [Request(i, prompt, 50) for i, prompt in enumerate([900, 10, 10, 10])]
    cluster = simulate(requests, ranks=2, cost=FLAT, balancing=registry.resolve("balancing", "trtllm"))
    # Rank 1 has fewer tokens after the first, but not more than its share of the requests: 2 of 3, 2 of 4.
    assert cluster.recorder.columns["replica"].tolist() == [0, 1, 1, 0]


def test_prompts_wait_until_every_rank_has_one():
    # Both ranks decode from the second step on (15 ms each). Rank 0 has a prompt from 40 ms, rank 1 from 100 ms: both
    # begin with the first step after that.
    requests = [Request(0, 1, 60), Request(0, 1, 60), Request(40 * MS, 10, 1), Request(100 * MS, 10, 1)]
    cluster = simulate(requests, ranks=2, cost=FLAT, prefill_balance=(50, 0))
    scheduled = cluster.recorder.columns["scheduled_ns"]
    assert scheduled[2] == scheduled[3]
    assert 100 * MS <= scheduled[3] < 116 * MS
    free = simulate(requests, ranks=2, cost=FLAT)
    assert free.recorder.columns["scheduled_ns"][2] < 56 * MS


def test_prompts_wait_no_longer_than_the_timeout():
    # Step 1 holds the first prompts; the count is 1 after step 2, 2 after step 3 ... and 0 again after each 5th more.
    requests = [Request(0, 1, 60), Request(0, 1, 60), Request(16 * MS, 10, 1)]
    cluster = simulate(requests, ranks=2, cost=FLAT, prefill_balance=(5, 0))
    ends = np.cumsum([15 * MS + 2] * 6).tolist()  # two tokens in each step
    # Steps 2 to 5 hold it or have nobody to hold (count 4 after step 5); with step 6 the count reaches 5.
    assert cluster.recorder.columns["scheduled_ns"][2] == ends[4]
    assert cluster.lockstep[0].counters.held_steps == 3


@pytest.mark.parametrize("overlap", [False, True])
@settings(max_examples=25, deadline=None)
@given(requests=REQUESTS, acts=ACTS, ranks=st.sampled_from([2, 3]), prefill_balance=st.sampled_from([None, (4, 1)]))
def test_with_requests_moved_and_ranks_lost_or_slow_fast_forward_equals_stepwise(
    requests: list[Request], acts: Any, ranks: int, prefill_balance: tuple[int, int] | None, overlap: bool
) -> None:
    fast, slow = (
        simulate_acts(
            requests,
            acts,
            cost=JointLinear(10 * MS, token=1000, kv=100),
            ranks=ranks,
            replicas=2,
            async_scheduling=overlap,
            prefill_balance=prefill_balance,
            blocks=40,
            budget=64,
            max_len=320,
            fast_forward=fast,
        )
        for fast in (True, False)
    )
    assert lockstep_print(fast) == lockstep_print(slow)


def test_a_slow_rank_slows_all() -> None:
    # Steps of 10 + 4 + 1 ms; from 20 ms on rank 0 takes half as long again, in its own part and in its experts.
    cluster = simulate_acts(
        [Request(0, 1, 3), Request(0, 1, 3)], [(16 * MS, "slow", 0, 50)], ranks=2, cost=JointLinear(10 * MS)
    )
    first = 15 * MS + 2
    assert cluster.recorder.columns["last_token_ns"].tolist() == [first + first + (15 * MS + 6 * MS + 3 + 1 * MS)] * 2

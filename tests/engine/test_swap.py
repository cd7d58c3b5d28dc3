"""Swaps that a step waits for and swaps that go on meanwhile: by hand, and the same stepwise."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policies import registry
from policies.protocols import UNBOUNDED, BatchingPolicy, PolicyError, ReplicaView, StepPlan
from simulator.engine.links import Link
from simulator.engine.swap import NO_CALLS, SwapConfig, SwapSpace
from tests.engine.support import MS, LinearCost, Request, check_invariants, fingerprint, simulate, times_ms
from tests.engine.test_control import ACTS, REQUESTS, simulate_acts
from tests.engine.test_fast_forward import COST, workloads

BLOCK = 1000
LINK = Link("test", 1e6, 0.0)  # 1 ms a block of 1000 bytes


# --------------------------------------------------------------------------------------------------- the space


def test_a_copy_takes_its_bytes_or_its_calls_whichever_is_longer() -> None:
    assert SwapSpace(9, BLOCK, LINK, NO_CALLS).put("a", 4, 0) == 4 * MS
    each = SwapConfig(call_s=1e-3, calls_per_run=8)
    assert SwapSpace(9, BLOCK, LINK, each).put("a", 4, 0) == 4 * 8 * MS
    groups = SwapConfig(call_s=1e-3, calls_per_run=8, blocks_per_call=3)
    assert SwapSpace(9, BLOCK, LINK, groups).put("a", 4, 0) == 2 * 8 * MS


def test_each_direction_is_first_come_first_served() -> None:
    space = SwapSpace(9, BLOCK, LINK, NO_CALLS)
    assert space.put("a", 2, 0) == 2 * MS
    assert space.put("b", 3, 1 * MS) == 5 * MS
    assert space.take("a", 2, 3 * MS) == 5 * MS  # the other way is free
    assert space.put("c", 1, 9 * MS) == 10 * MS


def test_only_what_was_added_goes_out_again_where_copies_are_kept() -> None:
    space = SwapSpace(9, BLOCK, LINK, SwapConfig(keep_copies=True))
    space.put("a", 4, 0)
    assert space.take("a", 3, 100 * MS) == 104 * MS  # three full blocks, one that goes on being written
    assert (space.used, space.in_use) == (4, 0)
    assert space.put("a", 6, 200 * MS) == 203 * MS  # the fourth, fifth and sixth
    assert (space.used, space.in_use, space.blocks_kept, space.bytes_moved) == (6, 6, 3, (4 + 4 + 3) * BLOCK)
    space.take("a", 6, 300 * MS)
    space.forget("a")
    assert space.used == 0


def test_kept_copies_make_room_the_oldest_first() -> None:
    space = SwapSpace(6, BLOCK, LINK, SwapConfig(keep_copies=True))
    for owner in ("a", "b"):
        space.put(owner, 3, 0)
        space.take(owner, 3, 0)
    assert space.put("c", 2, 0) is not None
    assert space.used == 5  # a's copy went
    assert space.put("b", 4, 1000 * MS) == 1001 * MS  # b's is still there
    assert space.put("d", 3, 0) is None and space.refused == 1


# -------------------------------------------------------------------------------------------- in an engine, by hand


@dataclass
class OutAndIn(BatchingPolicy):
    """Swaps request 0 out after its third step and back as soon as that can be."""

    name: ClassVar[str] = "out-and-in"
    source: ClassVar[str] = "this test"
    wait: ClassVar[bool] = False

    def reset(self) -> None:
        self._out = False

    def compose(self, view: ReplicaView, plan: StepPlan) -> None:
        if view.swapped:
            plan.swap_in(view.swapped[0], wait=self.wait)
        elif not self._out and view.num_steps >= 3:
            self._out = True
            plan.preempt(next(iter(view.running)), swap=True, wait=self.wait)
        if view.waiting:
            plan.prefill(view.waiting.first, plan.uncached_tokens(view.waiting.first))
        plan.decode_all()

    def stable_steps(self, view: ReplicaView, plan: StepPlan) -> int:
        return UNBOUNDED if self._out else 1


class OutAndInWaiting(OutAndIn):
    wait = True


def swapped(policy: type[BatchingPolicy], **options: Any) -> Any:
    """Two requests that decode in steps of 10 ms; the first is swapped out after the third step, 5 ms each way."""
    requests = [Request(0, 5 * 16 - 6, 12), Request(0, 16, 20)]
    common = {"blocks": 20, "swap_blocks": 20, "link": LINK, "cost": LinearCost(10 * MS), **options}
    runs = [simulate(requests, policy=policy, fast_forward=fast, **common) for fast in (True, False)]
    assert fingerprint(runs[0]) == fingerprint(runs[1])
    return runs[0]


def test_a_step_waits_for_a_swap() -> None:
    """Steps at 0 (prompt 0), 10 (prompt 1), 20. Out at 30: that step lasts 15 ms; in at 45: 15 ms again."""
    cluster = swapped(OutAndInWaiting)
    # Request 0: tokens at 10, 20, 30; then 60, 70 .. : 12 tokens until 140. Request 1: 20, 30, 45, 60, 70 .. 220.
    assert times_ms(cluster, "ended_ns") == [140, 220]
    assert times_ms(cluster, "itl_max_ns") == [30, 15]
    assert cluster.replicas[0].counters.swap_stall_ns == 10 * MS


def test_others_go_on_while_a_request_is_copied() -> None:
    """Out from 30 to 35 ms, seen at the boundary at 40; in from 40 to 45, so it decodes again from 50 on."""
    cluster = swapped(OutAndIn)
    assert times_ms(cluster, "ended_ns") == [10 + 20 + 20 + 9 * 10, 20 + 19 * 10]
    assert times_ms(cluster, "itl_max_ns") == [30, 10]
    assert cluster.replicas[0].counters.swap_stall_ns == 0


def test_blocks_are_free_when_the_copy_out_is_done() -> None:
    """Samples of used blocks: 5 and 2 while the copy goes out, 2 afterwards, 7 as soon as it comes in."""
    cluster = swapped(OutAndIn, sample_ns=5 * MS)
    columns = cluster.recorder.timeline.columns()
    used = dict(zip((columns["t_ns"] // MS).tolist(), columns["kv_blocks"].tolist(), strict=True))
    running = dict(zip((columns["t_ns"] // MS).tolist(), columns["running"].tolist(), strict=True))
    assert [used[t] for t in (30, 35, 40, 45)] == [7, 7, 7, 7]
    assert [running[t] for t in (30, 35, 40, 45, 50)] == [2, 1, 1, 2, 2]


def test_swaps_beside_computing_are_refused_with_stages() -> None:
    with pytest.raises(PolicyError, match="aren't modelled with stages"):
        simulate(
            [Request(0, 50, 30), Request(0, 50, 30)],
            policy=OutAndIn,
            stages=2,
            swap_blocks=20,
            link=LINK,
            cost=LinearCost(10 * MS, stages=2),
        )


# -------------------------------------------------------------------------------------------------- fastswitch


def fastswitch(**params: Any) -> Any:
    return lambda: registry.make("batching", "fastswitch", params)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    options=workloads(),
    pattern=st.sampled_from(["random", "markov", "trace"]),
    period=st.sampled_from([1, 3, 20]),
    asynchronous=st.booleans(),
    swap_blocks=st.sampled_from([0, 20, 1000]),
    keep=st.booleans(),
    overlap=st.booleans(),
    bandwidth=st.sampled_from([1e5, 1e6, 1e9]),
)
def test_fast_forward_equals_stepwise(
    options: dict[str, Any],
    pattern: str,
    period: int,
    asynchronous: bool,
    swap_blocks: int,
    keep: bool,
    overlap: bool,
    bandwidth: float,
) -> None:
    common: dict[str, Any] = {
        "policy": fastswitch(pattern=pattern, update_period=period, asynchronous=asynchronous),
        "cost": COST,
        "budget": 100_000,
        "swap_blocks": swap_blocks,
        "swap": SwapConfig(call_s=5e-6, calls_per_run=4, blocks_per_call=2, keep_copies=keep),
        "async_scheduling": overlap,
        "link": Link("test", bandwidth, 1e-4),
        **options,
    }
    assert fingerprint(simulate(**common)) == fingerprint(simulate(**common, fast_forward=False))


def contended() -> list[Request]:
    rng = np.random.default_rng(7)
    arrivals = np.cumsum(rng.exponential(20 * MS, 150)).astype(int)
    return [Request(int(at), int(rng.integers(40, 200)), int(rng.integers(20, 80))) for at in arrivals]


def test_groups_asynchronous_swaps_and_kept_copies_each_cut_what_switching_costs() -> None:
    """The mechanisms of the paper one on top of the other: stalls, and the tail of gaps between tokens, fall."""
    calls = {"call_s": 6e-6, "calls_per_run": 64}
    stages = {
        "vllm": (False, SwapConfig(**calls)),
        "groups": (False, SwapConfig(**calls, blocks_per_call=16)),
        "kept": (False, SwapConfig(**calls, blocks_per_call=16, keep_copies=True)),
        "all": (True, SwapConfig(**calls, blocks_per_call=16, keep_copies=True)),
    }
    stalls, gaps, moved = {}, {}, {}
    for name, (asynchronous, swap) in stages.items():
        cluster = simulate(
            contended(),
            policy=fastswitch(pattern="random", update_period=10, asynchronous=asynchronous),
            blocks=60,
            max_len=320,
            swap_blocks=5000,
            swap=swap,
            link=Link("test", 2e7, 0.0),
            cost=LinearCost(10 * MS),
        )
        counters = cluster.replicas[0].counters
        stalls[name], moved[name] = counters.swap_stall_ns, counters.swapped_bytes / counters.swaps_out
        gaps[name] = cluster.recorder.itl[0].quantile_s(0.99)
        assert counters.swaps_out > 30
    assert stalls["groups"] < 0.5 * stalls["vllm"]
    assert moved["kept"] < 0.8 * moved["groups"]
    assert stalls["all"] < 0.2 * stalls["kept"]
    assert gaps["all"] < gaps["vllm"]


def test_urgency_of_the_markov_pattern_persists_and_of_the_random_one_does_not() -> None:
    from policies.testing import FakeRequest

    requests = [FakeRequest(row, 10, 10) for row in range(2000)]
    for pattern, kept in (("markov", 0.8), ("random", 0.0)):
        policy: Any = registry.make("batching", "fastswitch", {"pattern": pattern})
        policy._update = 40
        before = [policy._urgency(request)[0] for request in requests]
        policy._update = 41
        after = [policy._urgency(request)[0] for request in requests]
        assert np.mean(np.equal(before, after)) == pytest.approx(kept, abs=0.03)
        assert np.mean(before) == pytest.approx(0.5, abs=0.03)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    requests=REQUESTS,
    acts=ACTS,
    period=st.sampled_from([1, 4]),
    keep=st.booleans(),
    queueing=st.sampled_from(["fcfs", "vtc"]),
)
def test_requests_lost_moved_or_withdrawn_while_they_are_copied(
    requests: list[Request], acts: list[tuple[int, str, int, int]], period: int, keep: bool, queueing: str
) -> None:
    """Nothing is lost or doubled, and a fast-forwarded run is a stepwise one."""
    requests = [replace(request, tenant=f"t{row % 3}") for row, request in enumerate(requests)]
    common: dict[str, Any] = {
        "policy": fastswitch(pattern="random", update_period=period),
        "queueing": lambda: registry.make("queueing", queueing),
        "cost": LinearCost(10 * MS, token=1000, kv=100),
        "max_len": 320,
        "blocks": 24,
        "replicas": 2,
        "swap_blocks": 100,
        "swap": SwapConfig(keep_copies=keep),
        "link": Link("test", 1e5, 0.0),
    }
    fast, slow = (simulate_acts(requests, acts, fast_forward=fast, **common) for fast in (True, False))
    check_invariants(fast, drained=True)
    assert fingerprint(fast) == fingerprint(slow)

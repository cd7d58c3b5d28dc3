"""What replicas report of their load is what a reader works out by hand, and the same stepwise and fast-forwarded."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.queueing.priority import Priority
from policies.queueing.sjf import Sjf
from simulator.engine.control import Control
from tests.engine.support import MS, LinearCost, Request, simulate


class Watch:
    """Notes every replica's load at given times."""

    name = "watch"

    def __init__(self, times: list[int]) -> None:
        self.times = times
        self.seen: list[tuple[Any, ...]] = []

    def attach(self, control: Control) -> None:
        self.control = control
        for at in self.times:
            control.at(at, self._look)

    def _look(self) -> None:
        for replica, load in zip(self.control.cluster.replicas, self.control.cluster.loads, strict=True):
            waiting = [*replica.waiting, *(each for _, each in replica.arriving), *replica.swapped]
            assert load.waiting_blocks == sum(-(-each.prefill_target // 16) for each in waiting)
            assert load.num_preempted == sum(each.preemptions > 0 for each in waiting)
            assert load.num_waiting == len(waiting)
            self.seen.append(
                (
                    load.used_blocks,
                    load.num_running,
                    load.num_waiting,
                    load.num_preempted,
                    load.waiting_blocks,
                    load.first_waiting_blocks,
                    tuple((each.request_id, each.context_tokens, each.is_decoding) for each in load.running()),
                )
            )

    def describe(self) -> dict[str, Any]:
        return {}


def test_loads_by_hand() -> None:
    # One request may run at a time; steps of 10 ms. The first (20 tokens: 2 blocks) has its prompt done at 10 ms and
    # 22 tokens in KV at 30 ms; the second (40: 3 blocks) and the third (10: 1) wait.
    watch = Watch([35 * MS])
    simulate([Request(0, 20, 9), Request(1, 40, 2), Request(2, 10, 2)], seqs=1, features=[watch])
    assert watch.seen == [(2, 1, 2, 0, 4, 3, ((0, 22, True),))]


@pytest.mark.parametrize("queueing", [None, Sjf, Priority])
@pytest.mark.parametrize("async_scheduling", [False, True])
@given(
    requests=st.lists(
        st.builds(
            Request,
            arrival=st.integers(0, 200 * MS),
            prompt=st.integers(1, 150),
            output=st.integers(1, 40),
            priority=st.integers(0, 2),
            predicted=st.integers(1, 40).map(float),
        ),
        min_size=1,
        max_size=12,
    ),
    times=st.lists(st.integers(0, 500 * MS) | st.integers(0, 50).map(lambda i: 10 * MS * i), min_size=1, max_size=8),
)
@settings(max_examples=25, deadline=None)
def test_loads_are_the_same_stepwise(
    queueing: Any, async_scheduling: bool, requests: list[Request], times: list[int]
) -> None:
    seen = []
    options = {} if queueing is None else {"queueing": queueing}
    for fast in (True, False):
        watch = Watch(times)
        simulate(
            requests,
            features=[watch],
            fast_forward=fast,
            blocks=24,
            seqs=3,
            budget=64,
            max_len=320,
            cost=LinearCost(10 * MS, token=1000, kv=100),
            async_scheduling=async_scheduling,
            **options,  # type: ignore[arg-type]
        )
        seen.append(watch.seen)
    assert seen[0] == seen[1]

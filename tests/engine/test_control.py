"""Requests withdrawn, lost, moved and tried again: nothing is lost or doubled, fast-forward equals stepwise."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.batching.sarathi import Sarathi
from policies.batching.vllm_v1 import VllmV1
from simulator.engine.cluster import Cluster
from simulator.engine.control import Control
from simulator.engine.place import Place, release_at_source
from simulator.engine.recorder import Outcome
from simulator.engine.sequence import DECODING, MOVING, Sequence
from tests.engine.support import MS, LinearCost, Request, build, check_invariants, fingerprint, simulate, times_ms


@dataclass
class Move:
    """A move of a running request, its KV copied at a stop."""

    control: Control
    sequence: Sequence
    to: int
    copy_ns: int
    replicas: tuple[int, ...] = ()
    place: Place = field(init=False)
    is_open: bool = True

    def begin(self) -> None:
        self.replicas = (self.sequence.replica, self.to)
        self.control.transits[self.sequence.request_id] = self
        replica, now = self.control.replica_of(self.sequence), self.control.now_ns
        tokens = replica.context_at(self.sequence, now) + 50
        self.place = Place(self.control, self.sequence, self.to, tokens, self._granted)

    def _granted(self, _: int) -> None:
        self.control.replica_of(self.sequence).between_steps(self._stop)

    def _stop(self, _: int) -> None:
        if not self.is_open:
            return
        sequence = self.sequence
        if sequence.state is not DECODING or sequence.context_tokens > self.place.tokens:
            self.control.transits.pop(sequence.request_id, None)
            self.abort(0)
            return
        self.control.replica_of(sequence).detach(sequence)
        self.control.at(self.copy_ns, self._copied)

    def _copied(self) -> None:
        if self.is_open:
            self.place.settle(self.sequence, self._settled)

    def _settled(self, coming: Sequence, _: int) -> None:
        release_at_source(self.control, self.sequence)
        self.control.cluster.recorder.migrations[coming.request_id] += 1

    def abort(self, _: int) -> Sequence:
        self.is_open = False
        self.place.give_up()
        return self.sequence

    def destination_lost(self, now: int) -> None:
        sequence = self.sequence
        if sequence.on_replica and sequence.state is MOVING:

            def resume(_: int) -> None:
                if self.control.live.get(sequence.request_id) is sequence and sequence.on_replica:
                    self.control.replica_of(sequence).take_over(sequence)

            self.control.replica_of(sequence).between_steps(resume)


@dataclass
class Acts:
    """Things done to a cluster at given times: (ns, what, a number, another)."""

    acts: list[tuple[int, str, int, int]]
    name: str = "acts"

    def attach(self, control: Control) -> None:
        self.control = control
        for at, what, one, other in self.acts:
            control.at(at, lambda what=what, one=one, other=other: getattr(self, "_" + what)(one, other))  # type: ignore[misc]

    def describe(self) -> dict[str, Any]:
        return {}

    def _lose(self, index: int, how: int) -> None:
        index %= self.control.cluster.num_replicas
        if not self.control.is_alive(index):
            return
        control, now = self.control, self.control.now_ns
        control.close(index)
        for sequence in control.lose(index):
            if how % 3 == 0:
                control.try_again(sequence, now)
            elif how % 3 == 1:
                control.carry_on(sequence, now)
            else:
                control.conclude(sequence, now, Outcome.FAILED, "its replica was lost")

        def back() -> None:
            control.restore(index)
            control.open(index)

        control.at(30 * MS + how, back)

    def _withdraw(self, row: int, how: int) -> None:
        def then(sequence: Sequence, now: int) -> None:
            if how % 2:
                self.control.try_again(sequence, now)
            else:
                self.control.conclude(sequence, now, Outcome.TIMED_OUT, "its client gave up")

        self.control.withdraw(row, then)

    def _move(self, row: int, to: int) -> None:
        control = self.control
        sequence = control.live.get(row)
        to %= control.cluster.num_replicas
        if sequence is None or row in control.transits or sequence.state is not DECODING or sequence.replica == to:
            return
        if not sequence.on_replica or not control.is_alive(to):
            return
        Move(control, sequence, to, copy_ns=3 * MS + 17).begin()

    def _slow(self, index: int, percent: int) -> None:
        replica = self.control.cluster.replicas[index % self.control.cluster.num_replicas]

        def slow(_: int) -> None:
            replica.stretch = 1.0 + percent / 100

        replica.between_steps(slow)


def simulate_acts(requests: list[Request], acts: list[tuple[int, str, int, int]], **options: object) -> Cluster:
    return simulate(requests, features=[Acts(acts)], **options)


def test_a_moved_request_goes_on_where_it_was() -> None:
    # Prompt in step 1 (ends at 10 ms), then a token every 10 ms. Asked to move at 25 ms: replica 1 is idle and has the
    # blocks at once; replica 0's step ends at 30 ms with the third token. It is copied at 33 ms; 1 ns later it runs.
    cluster = simulate_acts([Request(0, 20, 6)], [(25 * MS, "move", 0, 1)], replicas=2)
    columns = cluster.recorder.columns
    assert times_ms(cluster, "first_token_ns") == [10]
    assert columns["last_token_ns"][0] == 33 * MS + 18 + 30 * MS
    assert columns["replica"][0] == 1
    assert columns["migrations"][0] == 1
    assert columns["itl_max_ns"][0] == 13 * MS + 18
    assert [replica.counters.decode_tokens for replica in cluster.replicas] == [2, 3]


def test_what_a_lost_replica_was_doing_is_lost() -> None:
    # Two tokens at 10 and 20 ms; lost at 25 ms; recomputed on replica 1 from 25 ms: the third token at 35 ms.
    cluster = simulate_acts([Request(0, 20, 4)], [(25 * MS, "lose", 0, 1)], replicas=2)
    assert times_ms(cluster, "first_token_ns") == [10]
    assert times_ms(cluster, "last_token_ns") == [45]
    assert cluster.replicas[0].counters.busy_ns == 25 * MS
    assert cluster.replicas[1].counters.prefill_tokens == 22


def test_a_new_attempt_begins_with_nothing() -> None:
    cluster = simulate_acts([Request(0, 20, 4)], [(25 * MS, "lose", 0, 0)], replicas=2)
    columns = cluster.recorder.columns
    assert times_ms(cluster, "first_token_ns") == [35]
    assert times_ms(cluster, "last_token_ns") == [65]
    assert columns["attempts"][0] == 2
    assert columns["outcome"][0] == Outcome.FINISHED


def test_requests_wait_while_no_replica_takes_any() -> None:
    cluster = simulate_acts([Request(0, 20, 2)], [(5 * MS, "lose", 0, 0)])
    assert times_ms(cluster, "first_token_ns") == [45]


def test_withdrawn_when_its_step_has_ended() -> None:
    cluster = simulate_acts([Request(0, 20, 9), Request(0, 20, 9)], [(25 * MS, "withdraw", 0, 0)])
    columns = cluster.recorder.columns
    assert columns["outcome"].tolist() == [Outcome.TIMED_OUT, Outcome.FINISHED]
    assert columns["ended_ns"].tolist() == [30 * MS + 1, 90 * MS]
    assert columns["output_tokens"].tolist() == [3, 9]
    assert cluster.recorder.reasons == {0: "its client gave up"}


def test_a_request_that_ends_first_is_not_withdrawn() -> None:
    cluster = simulate_acts([Request(0, 20, 3)], [(25 * MS, "withdraw", 0, 0)])
    assert cluster.recorder.columns["outcome"].tolist() == [Outcome.FINISHED]


def test_a_slow_replica_takes_longer() -> None:
    cluster = simulate_acts([Request(0, 20, 4)], [(15 * MS, "slow", 0, 50)])
    assert times_ms(cluster, "last_token_ns") == [10 + 10 + 15 + 15]


def test_a_full_destination_is_waited_for() -> None:
    # Replica 1 has 8 blocks, of which the second request holds 7 until 80 ms; the first needs 5 of them.
    requests = [Request(0, 20, 20), Request(0, 96, 8)]
    cluster = simulate_acts(requests, [(25 * MS, "move", 0, 1)], replicas=2, blocks=8)
    columns = cluster.recorder.columns
    assert columns["migrations"][0] == 1
    assert columns["itl_max_ns"][0] == 10 * MS + 3 * MS + 18
    assert columns["last_token_ns"][0] == (200 + 3) * MS + 18


def test_ticks_end_with_the_requests() -> None:
    seen: list[int] = []

    class Ticking(Acts):
        def attach(self, control: Control) -> None:
            control.every(10 * MS, lambda: seen.append(control.now_ns))

    simulate([Request(0, 20, 4)], features=[Ticking([])])
    assert seen == [10 * MS, 20 * MS, 30 * MS, 40 * MS]  # the last before the step that ends then


def test_ticks_give_up_when_nobody_can_help() -> None:
    class Closed(Acts):
        def attach(self, control: Control) -> None:
            control.close(0)
            control.every(10 * MS, lambda: None)

    cluster = build([Request(0, 20, 4)], features=[Closed([])])
    cluster.run()
    cluster.stop()
    assert cluster.recorder.columns["outcome"].tolist() == [Outcome.UNFINISHED]


REQUESTS = st.lists(
    st.builds(
        Request,
        arrival=st.integers(0, 300 * MS),
        prompt=st.integers(1, 200),
        output=st.integers(1, 40),
        hashes=st.lists(st.integers(1, 3), max_size=6).map(
            lambda steps: [sum(steps[: i + 1]) for i in range(len(steps))]
        ),
        class_code=st.integers(0, 1),
    ),
    min_size=1,
    max_size=12,
)
ACTS = st.lists(
    st.tuples(
        st.integers(0, 600 * MS) | st.integers(0, 60).map(lambda i: 10 * MS * i),
        st.sampled_from(["lose", "withdraw", "move", "move", "slow"]),
        st.integers(0, 11),
        st.integers(0, 50),
    ),
    max_size=12,
)


@pytest.mark.parametrize("policy", [VllmV1, Sarathi])
@pytest.mark.parametrize(
    "options",
    [
        {"replicas": 2},
        {"replicas": 3, "hash_block_tokens": 16, "blocks": 30, "seqs": 4},
        {"replicas": 2, "async_scheduling": True, "blocks": 40},
    ],
    ids=["plain", "prefixes", "async"],
)
@given(requests=REQUESTS, acts=ACTS)
@settings(max_examples=40, deadline=None)
def test_fast_forward_equals_stepwise(
    policy: Any, options: dict[str, Any], requests: list[Request], acts: list[tuple[int, str, int, int]]
) -> None:
    cost = LinearCost(10 * MS, token=1000, kv=100)
    fast, slow = (
        simulate_acts(requests, acts, policy=policy, cost=cost, budget=64, max_len=320, fast_forward=fast, **options)
        for fast in (True, False)
    )
    assert fingerprint(fast) == fingerprint(slow)


@given(requests=REQUESTS, acts=ACTS)
@settings(max_examples=40, deadline=None)
def test_with_pipeline_stages_nothing_is_lost(requests: list[Request], acts: list[tuple[int, str, int, int]]) -> None:
    acts = [act for act in acts if act[1] == "lose"]
    cluster = simulate_acts(requests, acts, stages=2, replicas=2, max_len=320)
    check_invariants(cluster, drained=True)


def test_a_place_given_back_by_the_last_requests_goes_to_one_that_moves_in() -> None:
    # Replica 1 holds one request at a time, and its only one ends as the other, copied meanwhile, asks to run there.
    # With asynchronous scheduling the place is given back while the next step, an empty one, is composed.
    requests = [Request(0, 20, 30), Request(0, 20, 6)]
    for at in range(20, 62, 3):
        cluster = simulate_acts(
            requests, [(at * MS, "move", 0, 1)], replicas=2, seqs=1, async_scheduling=True, blocks=40
        )
        assert cluster.recorder.columns["outcome"].tolist() == [Outcome.FINISHED] * 2


# -------------------------------------------------------------------------------- what features do to one another


def controlled(requests: list[Request], act: Any, **options: object) -> Cluster:
    """Simulate with a feature that is nothing but what it does to the control at the beginning."""

    class One(Acts):
        def attach(self, control: Control) -> None:
            act(control)

    return simulate(requests, features=[One([])], **options)


def test_a_replica_is_open_when_all_who_closed_it_have_opened_it() -> None:
    seen = []

    def act(control: Control) -> None:
        for by, what in [
            ("one", control.close),
            ("other", control.close),
            ("one", control.open),
            ("other", control.open),
        ]:
            what(0, by)
            seen.append(control.takes_requests(0))

    controlled([Request(0, 20, 2)], act)
    assert seen == [False, False, False, True]


def test_what_is_sent_to_a_dead_replica_is_stranded_until_somebody_notices() -> None:
    # Round robin sends the second request to replica 1, which died at 5 ms; that is noticed at 40 ms.
    outstanding = []

    def act(control: Control) -> None:
        def notice() -> None:
            outstanding.append(control.cluster.outstanding_requests.tolist())
            control.close(1)
            for sequence in control.recover(1):
                control.try_again(sequence, control.now_ns)
            outstanding.append(control.cluster.outstanding_requests.tolist())

        control.at(5 * MS, lambda: control.lose(1) and None)
        control.at(40 * MS, notice)

    cluster = controlled([Request(0, 20, 9), Request(10 * MS, 20, 2)], act, replicas=2)
    assert outstanding == [[1, 1], [2, 0]]
    assert times_ms(cluster, "first_token_ns") == [10, 50]
    assert cluster.recorder.columns["attempts"].tolist() == [1, 2]


def test_a_stranded_request_can_be_withdrawn() -> None:
    def act(control: Control) -> None:
        control.lose(0)
        give_up = lambda sequence, now: control.conclude(sequence, now, Outcome.TIMED_OUT, "no answer")  # noqa: E731
        control.at(30 * MS, lambda: control.withdraw(0, give_up))

    cluster = controlled([Request(0, 20, 9)], act)
    assert cluster.recorder.columns["ended_ns"].tolist() == [30 * MS]
    assert cluster.outstanding_requests.tolist() == [0]


def test_an_end_can_be_taken_over_and_what_is_held_is_another_one() -> None:
    held = []

    def act(control: Control) -> None:
        def take_over(sequence: Sequence, now: int, outcome: Outcome, reason: str) -> bool:
            held.append((sequence, control.hold(sequence), outcome, reason))
            control.at(15 * MS, lambda: control.carry_on(held[0][1], control.now_ns))
            return True

        control.before_end.append(take_over)
        lost = lambda: [control.conclude(one, control.now_ns, Outcome.FAILED, "lost") for one in control.lose(0)]  # noqa: E731
        control.at(25 * MS, lost)
        control.at(30 * MS, lambda: control.restore(0))

    # Two tokens until 25 ms, goes on at 40 ms: the third at 50 ms, the fourth at 60 ms.
    cluster = controlled([Request(0, 20, 4)], act)
    assert times_ms(cluster, "last_token_ns") == [60]
    before, after, outcome, reason = held[0]
    assert before is not after and after.base_generated == 2
    assert (outcome, reason) == (Outcome.FAILED, "lost")


def test_what_happens_meanwhile_keeps_no_run_going() -> None:
    seen: list[int] = []

    def act(control: Control) -> None:
        def again() -> None:
            seen.append(control.now_ns)
            control.meanwhile(10 * MS, again)

        control.meanwhile(10 * MS, again)

    controlled([Request(0, 20, 4)], act)
    assert seen == [10 * MS, 20 * MS, 30 * MS, 40 * MS]

    def closed(control: Control) -> None:
        seen.clear()
        control.close(0)
        act(control)

    class One(Acts):
        def attach(self, control: Control) -> None:
            closed(control)

    cluster = build([Request(0, 20, 4)], features=[One([])])
    cluster.run()
    assert len(seen) == 999


def test_a_slow_pipeline_takes_longer_in_each_stage() -> None:
    def act(control: Control) -> None:
        control.cluster.replicas[0].stretch = 1.5

    cluster = controlled([Request(0, 20, 2)], act, stages=2)
    assert times_ms(cluster, "first_token_ns") == [30]
    assert times_ms(cluster, "last_token_ns") == [60]

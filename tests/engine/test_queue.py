"""The waiting queue of a replica against a list."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.queueing.priority import Priority
from simulator.engine.queue import FCFSQueue, KeyedQueue, WaitingQueue
from simulator.engine.sequence import Sequence

_OPERATIONS = st.lists(st.sampled_from(["push", "push", "push_front", "remove", "remove first"]), max_size=40)


@given(operations=_OPERATIONS, choice=st.randoms())
def test_first_come_first_served_is_a_list_that_is_also_added_to_at_the_front(operations, choice) -> None:
    queue, expected = FCFSQueue(), []
    for row, what in enumerate(operations):
        sequence = Sequence(row, 0, 1, 1)
        if what == "push":
            assert queue.push(sequence) is (not expected)
            expected.append(sequence)
        elif what == "push_front":
            queue.push_front(sequence)
            expected.insert(0, sequence)
        elif expected:
            gone = expected[0] if what == "remove first" else choice.choice(expected)
            queue.remove(gone)
            expected.remove(gone)
        assert list(queue) == expected
        assert len(queue) == len(expected)
        assert bool(queue) is bool(expected)
        if expected:
            assert queue.first is expected[0]


def test_who_was_preempted_stands_before_all_others_and_who_left_may_come_back() -> None:
    a, b, c = (Sequence(row, 0, 1, 1) for row in range(3))
    queue = FCFSQueue()
    for sequence in (a, b, c):
        queue.push(sequence)
    queue.remove(a)
    queue.remove(b)
    queue.push_front(a)
    queue.push_front(b)
    assert list(queue) == [b, a, c]
    queue.remove(b)
    queue.push(b)
    assert list(queue) == [a, c, b]


@pytest.mark.parametrize("make", [FCFSQueue, lambda: KeyedQueue(Priority())])
def test_an_empty_queue_has_no_first(make) -> None:
    queue: WaitingQueue = make()
    for _ in range(2):
        assert not queue
        with pytest.raises(IndexError):
            queue.first
        sequence = Sequence(0, 0, 1, 1)
        assert queue.push(sequence)
        queue.remove(sequence)


def test_another_attempt_at_a_request_is_not_taken_for_the_one_before() -> None:
    queue = KeyedQueue(Priority())
    first, lost = Sequence(0, 0, 10, 1), Sequence(1, 0, 10, 1)
    first.arrival_order, lost.arrival_order = 1, 2
    queue.push(first)
    queue.push(lost)
    queue.remove(lost)
    again = lost.successor()
    queue.push(again)
    queue.remove(first)
    assert list(queue) == [again]
    assert queue.first is again

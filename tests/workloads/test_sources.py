"""Sources, as timelines worked out by hand."""

import numpy as np
import pytest

from workloads import ClosedLoop, OpenLoop, Sessions, Trace, TraceError

S = 1_000_000_000


def trace(arrival, **columns):
    n = len(arrival)
    return Trace(np.array(arrival, float), np.full(n, 10), np.full(n, 5), **columns)


def test_open_loop_sends_at_the_arrivals_and_ignores_ends():
    source = OpenLoop(trace([0, 0.5, 0.5, 2.0000000004]))
    assert list(source.first()) == [(0, 0), (S // 2, 1), (S // 2, 2), (2 * S, 3)]
    assert list(source.ended(0, 5 * S)) == []
    assert list(source.first()) == [(0, 0), (S // 2, 1), (S // 2, 2), (2 * S, 3)]


def test_open_loop_yields_plain_integers_over_many_chunks():
    source = OpenLoop(trace(np.arange(70_000) / 1000))
    pairs = list(source.first())
    assert pairs[-1] == (69_999_000_000, 69_999)
    assert all(type(t) is int and type(row) is int for t, row in pairs[:3])


def test_closed_loop_keeps_its_clients_busy():
    source = ClosedLoop(trace([0] * 4), clients=2, think_time_s=1.0, stagger_s=0.25)
    assert list(source.first()) == [(0, 0), (S // 4, 1)]
    assert list(source.ended(1, 3 * S)) == [(4 * S, 2)]
    assert list(source.ended(0, 5 * S)) == [(6 * S, 3)]
    assert list(source.ended(2, 7 * S)) == []
    assert list(source.first()) == [(0, 0), (S // 4, 1)]


def test_closed_loop_without_thinking_sends_one_nanosecond_later():
    source = ClosedLoop(trace([0, 0]), clients=1)
    list(source.first())
    assert list(source.ended(0, 7)) == [(8, 1)]


def test_more_clients_than_requests():
    assert list(ClosedLoop(trace([0]), clients=9).first()) == [(0, 0)]


def test_closed_loop_refuses_nonsense():
    with pytest.raises(TraceError, match="at least 1 client, got 0"):
        ClosedLoop(trace([0]), clients=0)
    for name in ("think_time_s", "stagger_s"):
        for wrong in (-1.0, np.nan, np.inf):
            with pytest.raises(TraceError, match="must be finite and at least 0"):
                ClosedLoop(trace([0]), clients=1, **{name: wrong})


def test_sessions_send_the_next_turn_after_the_answer_and_the_think_time():
    source = Sessions(
        trace(
            [0, 1, 2, 9],
            session_id=[0, 1, 0, 0],
            parent_id=[-1, -1, 0, 2],
            think_time_s=[np.nan, np.nan, 2.5, 0],
        )
    )
    assert list(source.first()) == [(0, 0), (S, 1)]
    assert list(source.ended(1, 2 * S)) == []
    assert list(source.ended(0, 10 * S)) == [(12 * S + S // 2, 2)]
    assert list(source.ended(2, 20 * S)) == [(20 * S + 1, 3)]


def test_a_turn_of_unknown_think_time_waits_for_its_own_arrival_or_its_parent():
    source = Sessions(trace([0, 9], parent_id=[-1, 0]))
    assert list(source.ended(0, 3 * S)) == [(9 * S, 1)]
    assert list(source.ended(0, 30 * S)) == [(30 * S + 1, 1)]


def test_an_agent_fans_out_in_the_order_of_time():
    source = Sessions(trace([0, 1, 2], parent_id=[-1, 0, 0], think_time_s=[np.nan, 3, 1]))
    assert list(source.ended(0, S)) == [(2 * S, 2), (4 * S, 1)]


def test_every_row_is_sent_once():
    """Driven with a fixed answer time, each source sends each row exactly once, never before its cause."""
    rng = np.random.default_rng(3)
    n = 300
    parent = np.array([-1 if i == 0 or rng.random() < 0.5 else int(rng.integers(i)) for i in range(n)])
    base = trace(np.sort(rng.random(n)), parent_id=parent, think_time_s=np.where(parent >= 0, rng.random(n), np.nan))
    for source in (OpenLoop(base), ClosedLoop(base, 7), Sessions(base)):
        pending, sent = sorted(source.first()), []
        while pending:
            at, row = pending.pop(0)
            sent.append(row)
            later = source.ended(row, at + 1000)
            assert all(t > at + 1000 for t, _ in later)
            pending = sorted([*pending, *later])
        assert sorted(sent) == list(range(n))

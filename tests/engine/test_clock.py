"""Events in the order of one instant, used again and moved forward; time that passes without any."""

from __future__ import annotations

from itertools import pairwise

import pytest
import simpy

from simulator.engine import cluster as cluster_module
from simulator.engine.clock import ARRIVALS, Boundary, Environment, step_priority
from tests.engine.support import MS, Request, simulate, times_ms


def after(env: Environment, delay_ns: int, priority: int, log: list[tuple[int, str]], name: str) -> Boundary:
    """Schedule an event that writes down when it came."""
    boundary = Boundary(env)
    boundary.schedule(delay_ns, priority, [lambda _: log.append((env.now, name))])
    return boundary


def test_events_of_one_instant_come_by_priority_whatever_the_order_in_which_they_were_made() -> None:
    env, log = Environment(), []
    after(env, 5, step_priority(1, 0), log, "replica 1")
    after(env, 5, step_priority(0, 1), log, "replica 0, lane 1")
    after(env, 5, step_priority(0, 0), log, "replica 0, lane 0")
    after(env, 5, ARRIVALS, log, "arrival")
    env.run()
    assert log == [(5, name) for name in ("arrival", "replica 0, lane 0", "replica 0, lane 1", "replica 1")]


def test_the_clock_is_moved_on_to_before_the_next_event() -> None:
    env, log = Environment(), []
    after(env, 100, ARRIVALS, log, "arrival")
    assert env.skip_to(99)
    assert env.now == 99
    after(env, 0, ARRIVALS, log, "now")  # delays are counted from there
    env.run()
    assert log == [(99, "now"), (100, "arrival")]


@pytest.mark.parametrize("at_ns", [100, 101])
def test_the_clock_is_not_moved_on_to_an_event_nor_beyond_it(at_ns: int) -> None:
    env, log = Environment(), []
    after(env, 100, step_priority(7, 0), log, "step")
    assert not env.skip_to(at_ns)
    assert env.now == 0
    env.run()
    assert log == [(100, "step")]


def test_with_nothing_scheduled_the_clock_is_moved_on_anywhere() -> None:
    env = Environment()
    assert env.skip_to(10**15)
    assert env.now == 10**15
    with pytest.raises(simpy.core.EmptySchedule):
        env.step()


def test_an_event_is_used_again_with_other_callbacks() -> None:
    env, log = Environment(), []
    boundary = Boundary(env)

    def again(_: object) -> None:
        log.append((env.now, "first"))
        boundary.schedule(7, ARRIVALS, [lambda _: log.append((env.now, "second"))])

    boundary.schedule(5, ARRIVALS, [again])
    env.run()
    assert log == [(5, "first"), (12, "second")]


def test_callbacks_are_called_in_their_order_and_their_list_is_left_as_it_is() -> None:
    env, log = Environment(), []
    callbacks = [lambda _: log.append("one"), lambda _: log.append("two")]
    boundary = Boundary(env)
    for _ in range(2):
        boundary.schedule(1, ARRIVALS, callbacks)
        env.run()
    assert log == ["one", "two"] * 2
    assert len(callbacks) == 2


def test_an_event_that_is_to_come_sooner_comes_once() -> None:
    env, log = Environment(), []
    late = after(env, 100, ARRIVALS, log, "cut")
    after(env, 50, ARRIVALS, log, "between")
    sooner = late.sooner(30, ARRIVALS)
    env.run()
    assert log == [(30, "cut"), (50, "between")]
    sooner.schedule(5, ARRIVALS, [lambda _: log.append((env.now, "again"))])
    env.run()
    assert log[2:] == [(105, "again")]  # the void event moved the clock to 100


def test_what_was_moved_forward_can_be_moved_again() -> None:
    env, log = Environment(), []
    boundary = after(env, 100, ARRIVALS, log, "cut")
    for delay in (60, 40, 20):
        boundary = boundary.sooner(delay, ARRIVALS)
    env.run()
    assert log == [(20, "cut")]


# ------------------------------------------------------------------------------------------- in a whole run


def test_steps_of_one_who_is_alone_need_no_events() -> None:
    # The arrival, and the lane that wakes: the run ends with nothing scheduled.
    cluster = simulate([Request(0, 40, 500)])
    assert cluster.events == 2
    assert cluster.replicas[0].counters.steps == 500
    assert times_ms(cluster, "last_token_ns") == [5000]
    assert simulate([Request(0, 40, 500)], fast_forward=False).events == 502


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("at_ms", [30, 30 + 1e-6, 40 - 1e-6, 40])
def test_an_arrival_while_time_passes_without_events_is_seen_at_the_next_boundary(fast: bool, at_ms: float) -> None:
    # A's steps end at 10, 20, 30, 40. Who comes at 30 exactly is in [30, 40), who comes later in [40, 50).
    requests = [Request(0, 50, 9), Request(round(at_ms * MS), 50, 1)]
    cluster = simulate(requests, fast_forward=fast)
    assert times_ms(cluster, "first_token_ns") == [10, 40 if at_ms == 30 else 50]


@pytest.mark.parametrize("fast", [True, False])
def test_one_who_follows_on_a_step_that_needed_no_event_comes_in_its_turn(fast: bool) -> None:
    # A on replica 0 ends at 30, B on replica 1 at 80. C follows A 1 ns later, on replica 0, while B decodes.
    requests = [Request(0, 50, 3), Request(0, 50, 8), Request(None, 50, 1)]
    cluster = simulate(requests, replicas=2, after={0: [(1, 2)]}, fast_forward=fast)
    assert cluster.recorder.columns["replica"].tolist() == [0, 1, 0]
    assert cluster.recorder.columns["ended_ns"].tolist() == [30 * MS, 80 * MS, 40 * MS + 1]


def test_time_never_goes_back_whoever_moves_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    class Watched(Environment):
        def skip_to(self, at_ns: int) -> bool:
            seen.append(self.now)
            moved = super().skip_to(at_ns)
            seen.append(self.now)
            return moved

    monkeypatch.setattr(cluster_module, "Environment", Watched)
    simulate([Request(at * 3 * MS, 50, 7) for at in range(20)], replicas=3)
    assert len(seen) > 40
    assert all(before <= now for before, now in pairwise(seen))

"""Simulated time: whole nanoseconds inside, seconds outside, and events with a place in the order of one instant.

Order within one nanosecond: what happens to flows on links, then arrivals (SimPy's own priorities, 0 and 1), then
replicas by index, and within a replica its pipeline batches by index. The order doesn't depend on how many events led
there, so that a fast-forwarded run and a stepwise one see the same instants in the same order.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappush
from operator import attrgetter
from typing import Any, TypeAlias

import simpy
from simpy.events import Event

NS_PER_S = 1_000_000_000
LANES_PER_REPLICA = 64
"""Most batches in flight on one replica (pipeline stages): room in the priority numbers."""


ARRIVALS = 1
"""Priority of arrivals: before all steps of the same instant."""


def to_ns(seconds: float) -> int:
    """Return seconds as whole nanoseconds, rounded half to even."""
    return round(seconds * NS_PER_S)


def to_s(ns: int) -> float:
    """Return nanoseconds as seconds."""
    return ns / NS_PER_S


def step_priority(replica: int, lane: int) -> int:
    """Return the priority of a replica's events: after all arrivals, then by replica and lane."""
    return 2 + replica * LANES_PER_REPLICA + lane


class Environment(simpy.Environment):
    """SimPy's environment with a clock of whole nanoseconds: it begins at 0, and only whole numbers are added."""

    now: int = property(attrgetter("_now"))  # type: ignore[assignment]  # a getter in C takes half the time of ours
    """The time, ns."""

    def skip_to(self, at_ns: int) -> bool:
        """Move the clock on if nothing is scheduled until then; False, with nothing changed, if something is.

        An event at that time would be the next that SimPy takes, so it needn't be made. The clock is moved first, as a
        signal handler may schedule the end of the run at any moment, and must not do so in the past.
        """
        before, self._now = self._now, at_ns
        if self._queue and self._queue[0][0] <= at_ns:
            self._now = before
            return False
        return True


Callbacks: TypeAlias = list[Callable[[Event], None]]
"""What is called, with the event, when its time has come."""


class Boundary(Event):
    """An event at a step boundary: SimPy's ``Timeout`` with a priority of its own, which can be used again."""

    __slots__ = ()

    def __init__(self, env: simpy.Environment) -> None:
        self.env = env
        self.callbacks: Any = []
        self._value = None
        self._ok = True
        self._defused = False

    def schedule(self, delay_ns: int, priority: int, callbacks: Callbacks) -> None:
        """Let it come, for the first time or after it has come.

        The callbacks are not copied, so that a lane makes its lists but once.
        """
        self.callbacks = callbacks
        env = self.env
        # What `simpy.Environment.schedule` does, without the call.
        heappush(env._queue, (env._now + delay_ns, priority, next(env._eid), self))  # type: ignore[misc]

    def sooner(self, delay_ns: int, priority: int) -> Boundary:
        """Return a new event, at an earlier time, with this one's callbacks.

        SimPy can't take an event out of its schedule; this one stays there and does nothing.
        """
        earlier = Boundary(self.env)
        earlier.schedule(delay_ns, priority, self.callbacks)
        self.callbacks = []
        return earlier

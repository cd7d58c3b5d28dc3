"""Sources of requests: what sends a trace's requests, told when each one ends.

This is the one loop that the world really has. The simulator asks a source once for the requests that it sends
by itself (:meth:`Source.first`) and, whenever a request ends in whatever way, for those that follow from that
(:meth:`Source.ended`). Times are whole nanoseconds of the simulator's clock.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from workloads.trace import Ints, Trace, TraceError

_CHUNK = 1 << 15
_NONE: tuple[tuple[int, int], ...] = ()


class Source(Protocol):
    """What the simulator asks of a source. A source serves one run at a time; ``first`` starts it anew."""

    trace: Trace

    def first(self) -> Iterator[tuple[int, int]]:
        """Yield ``(arrival_ns, row)`` of the requests that nothing precedes, in the order of time, lazily."""
        ...

    def ended(self, row: int, end_ns: int) -> Sequence[tuple[int, int]]:
        """Return the ``(arrival_ns, row)`` that the end of this row causes, each later than ``end_ns``.

        Called once for every request that ends, whatever its outcome.
        """
        ...


def nanoseconds(seconds: npt.NDArray[np.float64]) -> Ints:
    """Convert seconds to the nearest whole nanoseconds (halves to even)."""
    return np.rint(seconds * 1e9).astype(np.int64)


def _pairs(times_ns: Ints, rows: Ints) -> Iterator[tuple[int, int]]:
    for start in range(0, len(rows), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        yield from zip(times_ns[chunk].tolist(), rows[chunk].tolist(), strict=True)


class OpenLoop:
    """Replays arrivals as the trace has them, whatever the server does."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace

    def first(self) -> Iterator[tuple[int, int]]:
        """Yield every request at its arrival."""
        for start in range(0, len(self.trace), _CHUNK):
            times = nanoseconds(self.trace.arrival_s[start : start + _CHUNK]).tolist()
            yield from zip(times, range(start, start + len(times)), strict=True)

    def ended(self, row: int, end_ns: int) -> Sequence[tuple[int, int]]:
        """Return nothing."""
        return _NONE


class ClosedLoop:
    """Keeps a fixed number of clients busy: each sends the next row of the trace when its last one ended.

    Rows go out in the order of the trace; its arrival times and parents play no part.

    Parameters
    ----------
    trace
        Requests in the order in which they are sent.
    clients
        Requests in flight, at least 1.
    think_time_s
        Seconds between the end of a request and the client's next one.
    stagger_s
        Client i starts at ``i * stagger_s``; 0: all start together.
    """

    def __init__(self, trace: Trace, clients: int, *, think_time_s: float = 0.0, stagger_s: float = 0.0) -> None:
        if clients < 1:
            raise TraceError(f"a closed loop needs at least 1 client, got {clients}")
        if not 0 <= think_time_s < math.inf or not 0 <= stagger_s < math.inf:
            raise TraceError(
                f"think and stagger times must be finite and at least 0, got {think_time_s} s and {stagger_s} s"
            )
        self.trace = trace
        self.clients = clients
        self._wait_ns = max(1, round(think_time_s * 1e9))
        self._stagger_ns = round(stagger_s * 1e9)
        self._next = min(clients, len(trace))

    def first(self) -> Iterator[tuple[int, int]]:
        """Yield the first request of every client."""
        self._next = min(self.clients, len(self.trace))
        return ((row * self._stagger_ns, row) for row in range(self._next))

    def ended(self, row: int, end_ns: int) -> Sequence[tuple[int, int]]:
        """Return the next row of the trace, if one is left."""
        following = self._next
        if following >= len(self.trace):
            return _NONE
        self._next = following + 1
        return ((end_ns + self._wait_ns, following),)


class Sessions:
    """Sends first turns at their arrival, and a later turn when its parent ended and its user has thought.

    A turn without a known think time goes out at its own arrival, or when its parent ended if that is later. A
    parent may have several turns after it (an agent that fans out).
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        n = len(trace)
        parents = trace.parent_id if trace.parent_id is not None else np.full(n, -1, np.int64)
        later = np.flatnonzero(parents >= 0)
        self._children = later[np.argsort(parents[later], kind="stable")]
        self._offsets: Ints = np.searchsorted(parents[self._children], np.arange(n + 1))
        self._roots = np.flatnonzero(parents < 0)

    def first(self) -> Iterator[tuple[int, int]]:
        """Yield the turns that have no parent, at their arrival."""
        return _pairs(nanoseconds(self.trace.arrival_s[self._roots]), self._roots)

    def ended(self, row: int, end_ns: int) -> Sequence[tuple[int, int]]:
        """Return the turns after this one."""
        start, stop = int(self._offsets[row]), int(self._offsets[row + 1])
        if start == stop:
            return _NONE
        return sorted((self._arrival_ns(child, end_ns), child) for child in self._children[start:stop].tolist())

    def _arrival_ns(self, row: int, end_ns: int) -> int:
        think = np.nan if self.trace.think_time_s is None else float(self.trace.think_time_s[row])
        if np.isnan(think):
            return max(end_ns + 1, round(float(self.trace.arrival_s[row]) * 1e9))
        return end_ns + max(1, round(think * 1e9))

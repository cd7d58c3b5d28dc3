"""The waiting queue of a replica."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Protocol

from policies.protocols import PolicyError, QueueingPolicy
from simulator.engine.sequence import Sequence


class WaitingQueue(Protocol):
    """What the engine needs of a queue; policies see the part that `policies.protocols.WaitingView` names."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Sequence]: ...

    @property
    def first(self) -> Sequence:
        """The request to consider next."""
        ...

    def push(self, sequence: Sequence) -> bool:
        """Queue an arrival; True if it is the first now."""
        ...

    def push_front(self, sequence: Sequence) -> None:
        """Queue a preempted request again."""
        ...

    def remove(self, sequence: Sequence) -> None:
        """Take a request out, usually the first. O(1) amortised."""
        ...


class FCFSQueue:
    """First come, first served; a preempted request goes to the front, as in vLLM."""

    __slots__ = ("_entries", "_size")

    def __init__(self) -> None:
        self._entries: deque[tuple[Sequence, int]] = deque()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Sequence]:
        return (s for s, ticket in self._entries if s.ticket == ticket)

    @property
    def first(self) -> Sequence:
        return self._entries[0][0]

    def push(self, sequence: Sequence) -> bool:
        sequence.ticket += 1
        self._entries.append((sequence, sequence.ticket))
        self._size += 1
        return self._size == 1

    def push_front(self, sequence: Sequence) -> None:
        sequence.ticket += 1
        self._entries.appendleft((sequence, sequence.ticket))
        self._size += 1

    def remove(self, sequence: Sequence) -> None:
        sequence.ticket += 1  # its entry, wherever it stands, is void now
        self._size -= 1
        entries = self._entries
        while entries and entries[0][0].ticket != entries[0][1]:
            entries.popleft()


class KeyedQueue:
    """Smallest key first, ties in the order of arrival; a preempted request goes back by its key.

    The key is the policy's and is asked once, when a request is first queued.
    """

    __slots__ = ("_heap", "_policy", "_size")

    def __init__(self, policy: QueueingPolicy) -> None:
        self._policy = policy
        self._heap: list[tuple[float, int, int, Sequence]] = []
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Sequence]:
        return (entry[3] for entry in sorted(self._heap, key=lambda e: e[:3]) if entry[3].ticket == entry[2])

    @property
    def first(self) -> Sequence:
        return self._heap[0][3]

    def push(self, sequence: Sequence) -> bool:
        key = self._policy.key(sequence)
        if key != key:
            raise PolicyError(
                f"queueing policy {self._policy.name!r} orders by predicted length, but the scenario has no predictor: "
                "set predictor to 'oracle' or 'noisy'"
            )
        sequence.queue_key = key
        self._push(sequence)
        return self.first is sequence

    def push_front(self, sequence: Sequence) -> None:
        self._push(sequence)

    def _push(self, sequence: Sequence) -> None:
        sequence.ticket += 1
        heappush(self._heap, (sequence.queue_key, sequence.arrival_order, sequence.ticket, sequence))
        self._size += 1

    def remove(self, sequence: Sequence) -> None:
        sequence.ticket += 1
        self._size -= 1
        heap = self._heap
        while heap and heap[0][3].ticket != heap[0][2]:
            heappop(heap)

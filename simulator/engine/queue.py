"""The waiting queue of a replica."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Protocol

from policies.protocols import PolicyError, QueueingPolicy
from simulator.engine.sequence import Sequence


class Wanted:
    """What those who wait in a queue need together, kept up as they come and go.

    Attributes
    ----------
    block_size
        Tokens of a KV block; set before anybody is queued.
    blocks
        KV blocks that they need to start.
    preempted
        Those who ran before.
    """

    __slots__ = ("block_size", "blocks", "preempted")

    def __init__(self) -> None:
        self.block_size = 1
        self.blocks = 0
        self.preempted = 0

    def comes(self, sequence: Sequence) -> None:
        """Count a request that is queued."""
        sequence.wanted_blocks = blocks = -(-sequence.prefill_target // self.block_size)
        self.blocks += blocks
        if sequence.preemptions:
            self.preempted += 1

    def goes(self, sequence: Sequence) -> None:
        """Count a request no more."""
        self.blocks -= sequence.wanted_blocks
        if sequence.preemptions:
            self.preempted -= 1


class WaitingQueue(Protocol):
    """What the engine needs of a queue; policies see the part that `policies.protocols.WaitingView` names."""

    wanted: Wanted

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


class FCFSQueue(OrderedDict[Sequence, None]):
    """First come, first served; a preempted request goes to the front, as in vLLM.

    An ordered set: whether somebody waits is asked in every step, and costs nothing of a built-in container.
    """

    __slots__ = ("wanted",)

    def __init__(self) -> None:
        super().__init__()
        self.wanted = Wanted()

    @property
    def first(self) -> Sequence:
        for sequence in self:
            return sequence
        raise IndexError("nobody waits")

    def push(self, sequence: Sequence) -> bool:
        self[sequence] = None
        self.wanted.comes(sequence)
        return len(self) == 1

    def push_front(self, sequence: Sequence) -> None:
        self[sequence] = None
        self.wanted.comes(sequence)
        self.move_to_end(sequence, last=False)

    def remove(self, sequence: Sequence) -> None:
        del self[sequence]
        self.wanted.goes(sequence)


class KeyedQueue:
    """Smallest key first, ties in the order of arrival; a preempted request goes back by its key.

    The key is the policy's and is asked once, when a request is first queued.
    """

    __slots__ = ("_heap", "_policy", "_size", "_tickets", "wanted")

    def __init__(self, policy: QueueingPolicy) -> None:
        self.wanted = Wanted()
        self._policy = policy
        self._heap: list[tuple[float, int, int, Sequence]] = []
        self._size = 0
        self._tickets = 0  # one a push: an attempt at a request must not be taken for one before

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Sequence]:
        return (entry[3] for entry in sorted(self._heap, key=lambda e: e[:3]) if entry[3].ticket == entry[2])

    @property
    def first(self) -> Sequence:
        return self._heap[0][3]

    def key(self, sequence: Sequence) -> float:
        """Return the policy's key of a request."""
        key = self._policy.key(sequence)
        if key != key:
            raise PolicyError(
                f"queueing policy {self._policy.name!r} orders by predicted length, but the scenario has no predictor: "
                "set predictor to 'oracle' or 'noisy'"
            )
        return key

    def push(self, sequence: Sequence) -> bool:
        sequence.queue_key = self.key(sequence)
        self._push(sequence)
        return self.first is sequence

    def push_front(self, sequence: Sequence) -> None:
        self._push(sequence)

    def _push(self, sequence: Sequence) -> None:
        self.wanted.comes(sequence)
        self._tickets += 1
        sequence.ticket = self._tickets
        heappush(self._heap, (sequence.queue_key, sequence.arrival_order, sequence.ticket, sequence))
        self._size += 1

    def remove(self, sequence: Sequence) -> None:
        self.wanted.goes(sequence)
        sequence.ticket = 0
        self._size -= 1
        heap = self._heap
        while heap and heap[0][3].ticket != heap[0][2]:
            heappop(heap)

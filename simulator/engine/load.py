"""What a replica reports of its load, as of the steps that ended before now: for routers, rescheduling and scaling.

Everything here is the same in a fast-forwarded run and a stepwise one, which is why it is asked for here and not of
the replica's own counters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from simulator.engine.queue import FCFSQueue, KeyedQueue
from simulator.engine.sequence import DECODING, Sequence

if TYPE_CHECKING:
    from policies.protocols import ReplicaLoadView
    from simulator.engine.replica import Replica


@dataclass(frozen=True, slots=True)
class RunningRequest:
    """A running request as it stands now: a `policies.protocols.RunningRequestView`."""

    request_id: int
    prompt_tokens: int
    context_tokens: int
    predicted_output_tokens: float
    priority: int
    is_decoding: bool


class ReplicaLoad:
    """Load of one replica now: a `policies.protocols.ReplicaLoadView`.

    Parameters
    ----------
    takes_requests
        Tells whether routers may choose it now.
    """

    __slots__ = ("_replica", "_takes_requests")

    def __init__(self, replica: Replica, takes_requests: Callable[[int], bool]) -> None:
        self._replica = replica
        self._takes_requests = takes_requests

    @property
    def replica(self) -> int:
        return self._replica.index

    @property
    def takes_requests(self) -> bool:
        return self._takes_requests(self._replica.index)

    @property
    def block_size(self) -> int:
        return self._replica.kv.block_size

    @property
    def total_blocks(self) -> int:
        return self._replica.kv.total_blocks

    @property
    def used_blocks(self) -> int:
        return self._replica.used_blocks_at(self._replica.env.now)

    @property
    def free_blocks(self) -> int:
        return self.total_blocks - self.used_blocks

    @property
    def max_num_seqs(self) -> int:
        return self._replica.limits.max_num_seqs

    @property
    def num_running(self) -> int:
        return self._replica.num_running

    @property
    def num_waiting(self) -> int:
        replica = self._replica
        return len(replica.waiting) + len(replica.arriving) + len(replica.swapped)

    @property
    def num_preempted(self) -> int:
        replica = self._replica
        return replica.waiting.wanted.preempted + self._preempted_arriving() + len(replica.swapped)

    @property
    def waiting_blocks(self) -> int:
        replica = self._replica
        return (
            replica.waiting.wanted.blocks
            + sum(self._demand(sequence) for _, sequence in replica.arriving)
            + sum(self._demand(sequence) for sequence in replica.swapped)
        )

    @property
    def first_waiting_blocks(self) -> int:
        first = self._first_waiting()
        return 0 if first is None else self._demand(first)

    def running(self) -> list[RunningRequest]:
        """Return the running requests in the order of admission, lane by lane. O(batch)."""
        replica, now = self._replica, self._replica.env.now
        return [
            RunningRequest(
                sequence.request_id,
                sequence.prompt_tokens,
                replica.context_at(sequence, now),
                sequence.predicted_output_tokens,
                sequence.priority,
                sequence.state is DECODING,
            )
            for lane in replica.lanes
            for sequence in lane.sequences
        ]

    def _preempted_arriving(self) -> int:
        return sum(sequence.preemptions > 0 for _, sequence in self._replica.arriving)

    def _waiting(self) -> Iterable[Sequence]:
        replica = self._replica
        yield from replica.waiting
        for _, sequence in replica.arriving:
            yield sequence
        yield from replica.swapped

    def _demand(self, sequence: Sequence) -> int:
        return self._replica.kv.blocks_for(max(sequence.prefill_target, sequence.computed_tokens))

    def _first_waiting(self) -> Sequence | None:
        """Return who is to be admitted next: one who was swapped out, else by the order of the queue.

        Under asynchronous scheduling some have arrived and aren't queued yet, how many of them depends on the length of
        the run in flight; so the order is looked for over both. Among tenants the choice depends on the steps in
        flight too: the first to arrive stands for it.
        """
        replica = self._replica
        if replica.swapped:
            return replica.swapped[0]
        queue = replica.waiting
        if isinstance(queue, FCFSQueue):
            return queue.first if queue else replica.arriving[0][1] if replica.arriving else None
        if isinstance(queue, KeyedQueue):

            def place(each: Sequence) -> tuple[float, int]:
                return each.queue_key if each.ticket else queue.key(each), each.arrival_order

            first = [queue.first] if queue else []
            return min([*first, *(each for _, each in replica.arriving)], key=place, default=None)
        return min(self._waiting(), key=lambda each: each.arrival_order, default=None)


class WholeLoad:
    """Load of a replica whose attention data parallel ranks are replicas of their own: theirs added up.

    Its number is that of its first rank; the request to be admitted next is that of the rank where it needs the most.
    """

    def __init__(self, ranks: SequenceOf[ReplicaLoadView]) -> None:
        self._ranks = ranks

    @property
    def replica(self) -> int:
        return self._ranks[0].replica

    @property
    def takes_requests(self) -> bool:
        return all(rank.takes_requests for rank in self._ranks)

    @property
    def block_size(self) -> int:
        return self._ranks[0].block_size

    @cached_property
    def total_blocks(self) -> int:
        return sum(rank.total_blocks for rank in self._ranks)

    @cached_property
    def used_blocks(self) -> int:
        return sum(rank.used_blocks for rank in self._ranks)

    @property
    def free_blocks(self) -> int:
        return self.total_blocks - self.used_blocks

    @property
    def max_num_seqs(self) -> int:
        return sum(rank.max_num_seqs for rank in self._ranks)

    @property
    def num_running(self) -> int:
        return sum(rank.num_running for rank in self._ranks)

    @property
    def num_waiting(self) -> int:
        return sum(rank.num_waiting for rank in self._ranks)

    @property
    def num_preempted(self) -> int:
        return sum(rank.num_preempted for rank in self._ranks)

    @property
    def waiting_blocks(self) -> int:
        return sum(rank.waiting_blocks for rank in self._ranks)

    @property
    def first_waiting_blocks(self) -> int:
        return max(rank.first_waiting_blocks for rank in self._ranks)

    def running(self) -> list[RunningRequest]:
        """Return the running requests, rank by rank. O(batch)."""
        return [request for rank in self._ranks for request in rank.running()]  # type: ignore[misc]


__all__ = ["ReplicaLoad", "RunningRequest", "WholeLoad"]

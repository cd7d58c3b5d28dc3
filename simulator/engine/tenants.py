"""Tenants of a replica: a waiting queue that a policy chooses from by tenant, and how many tokens each was given.

The tokens of a tenant's decoding requests are not counted one by one: all members of a decode group advance together,
so a tenant's n members that joined at steps j1..jn have generated ``n * step - (j1 + .. + jn)`` tokens since. A look at
a tenant's service costs O(1) a lane, a choice O(tenants), and a step nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterator
from collections.abc import Sequence as SequenceOf
from typing import TYPE_CHECKING

from policies.protocols import QueueingPolicy
from simulator.engine.queue import Wanted
from simulator.engine.sequence import Sequence

if TYPE_CHECKING:
    from simulator.engine.lane import Lane


class TenantMembers:
    """How many members of one decode group each tenant has, and the sum of the steps at which they joined."""

    __slots__ = ("counts", "joined")

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.joined: dict[str, int] = {}

    def change(self, tenant: str, members: int, step: int) -> None:
        """Note that a member joined at a step (1), or that one which had joined then left (-1)."""
        self.counts[tenant] = self.counts.get(tenant, 0) + members
        self.joined[tenant] = self.joined.get(tenant, 0) + members * step


class TenantQueue:
    """Waiting requests by tenant, first come, first served within one; a preempted one goes to its tenant's front.

    To the engine it is a `simulator.engine.queue.WaitingQueue`, to its policy a `policies.protocols.TenantsView`.
    """

    __slots__ = ("_policy", "_queues", "_settled", "_size", "lanes", "wanted")

    def __init__(self, policy: QueueingPolicy) -> None:
        self.wanted = Wanted()
        self._policy = policy
        self._queues: dict[str, OrderedDict[Sequence, None]] = {}
        self._settled: dict[str, int] = {}
        self._size = 0
        self.lanes: SequenceOf[Lane] = ()

    # ---------------------------------------------------------------------------------------------------- view

    @property
    def waiting(self) -> Collection[str]:
        return self._queues.keys()

    def output_tokens(self, tenant: str) -> int:
        tokens = self._settled.get(tenant, 0)
        for lane in self.lanes:
            members = lane.group.tenants
            assert members is not None
            count = members.counts.get(tenant, 0)
            if count:
                steps = lane.group.step
                if lane.steps > 1 and lane.shape.decodes:
                    steps += lane.steps_done(lane.env.now)  # of the run in flight, which is not applied yet
                tokens += count * steps - members.joined[tenant]
        return tokens

    def decoding(self, tenant: str) -> int:
        return sum(lane.group.tenants.counts.get(tenant, 0) for lane in self.lanes if lane.group.tenants)

    # --------------------------------------------------------------------------------------------------- queue

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Sequence]:
        """Go through all that wait: those of the tenant whose turn it is first, the others in the order of arrival."""
        if not self._size:
            return
        turn = self._policy.choose(self)
        yield from self._queues[turn]
        others = (each for tenant, queue in self._queues.items() if tenant != turn for each in queue)
        yield from sorted(others, key=lambda each: each.arrival_order)

    @property
    def first(self) -> Sequence:
        if not self._size:
            raise IndexError("nobody waits")
        return next(iter(self._queues[self._policy.choose(self)]))

    def push(self, sequence: Sequence) -> bool:
        self._queue_of(sequence.tenant)[sequence] = None
        self.wanted.comes(sequence)
        self._size += 1
        return True  # whose turn it is may change with every token: nobody can say that it isn't this one's

    def push_front(self, sequence: Sequence) -> None:
        queue = self._queue_of(sequence.tenant)
        queue[sequence] = None
        queue.move_to_end(sequence, last=False)
        self.wanted.comes(sequence)
        self._size += 1

    def _queue_of(self, tenant: str) -> OrderedDict[Sequence, None]:
        queue = self._queues.get(tenant)
        if queue is None:
            self._policy.came(tenant, self)
            queue = self._queues[tenant] = OrderedDict()
        return queue

    def remove(self, sequence: Sequence) -> None:
        queue = self._queues[sequence.tenant]
        del queue[sequence]
        self.wanted.goes(sequence)
        self._size -= 1
        if not queue:
            del self._queues[sequence.tenant]
            self._policy.left(sequence.tenant, self)

    def stable_steps(self) -> int:
        """For how many steps of decodes, the one just composed included, the turn stays whose it is."""
        return self._policy.stable_steps(self)

    # ------------------------------------------------------------------------------------------------- service

    def admitted(self, sequence: Sequence) -> None:
        """Let the policy charge a request that starts for the first time."""
        self._policy.admitted(sequence, self)

    def generated(self, tenant: str, tokens: int) -> None:
        """Count output tokens of requests that are in no decode group (any more)."""
        self._settled[tenant] = self._settled.get(tenant, 0) + tokens

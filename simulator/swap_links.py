"""Swaps of preempted requests over the cluster's links, where they contend with all else that is on them.

Each GPU of a replica moves its share of a copy between its memory and its host's, by its PCIe link, the uplink of its
PCIe switch where several GPUs share one, and host memory. A replica's copies in one direction go one after the other,
as a copy engine has them, first come, first served. Those that one step waits for go one after the other in both
directions, since what comes in may be written over what has just gone out. A copy is done when its bytes are there and
the time that submitting its calls takes has passed; its bytes move as fast as the links let them meanwhile.

What a replica begins or gives up in a step reaches the links a nanosecond later, as the links' state must not depend on
the order of the steps of one instant (`Control.soon`).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from simulator.engine.clock import to_s
from simulator.engine.control import Control
from simulator.engine.sequence import Sequence as Request
from simulator.errors import InputError
from simulator.network.flows import FlowGroup

if TYPE_CHECKING:
    from simulator.engine.replica import ReplicaConfig
    from simulator.resolve import Resolved


@dataclass(eq=False, slots=True)
class Copy:
    """Blocks of one request on their way, or waiting to be.

    Attributes
    ----------
    way
        ``"out"``, to host memory, or ``"in"``.
    num_bytes
        Over all GPUs of the replica.
    calls_ns
        Time that submitting its calls takes.
    waited_for
        Whether a step waits for it.
    began_ns
        When its bytes began to move; -1: not yet.
    """

    owner: Hashable
    way: str
    num_bytes: int
    calls_ns: int
    waited_for: bool
    began_ns: int = -1
    flows: FlowGroup | None = None


class ReplicaCopies:
    """The copies of one replica: `simulator.engine.swap.SharedLinks`.

    Attributes
    ----------
    copies, given_up
        How many were done, and how many not, as their request was lost or withdrawn.
    num_bytes
        Of those done, over all GPUs.
    took_ns, alone_ns
        What those done took from their begin on, and what they would have taken with the links to themselves, as these
        are when each is done.
    """

    def __init__(self, control: Control, index: int) -> None:
        self._control = control
        self._index = index
        self._lane = control.cluster.replicas[index].lanes[0]
        self._queue: list[Copy] = []
        self.copies = 0
        self.given_up = 0
        self.num_bytes = 0
        self.took_ns = 0
        self.alone_ns = 0

    def begin(self, owner: Hashable, way: str, num_bytes: int, calls_ns: int, waited_for: bool) -> None:
        """Begin a copy, or let it queue; ``num_bytes`` on each GPU."""
        gpus = len(self._control.network.topology.placement(self._index))
        self._queue.append(Copy(owner, way, num_bytes * gpus, calls_ns, waited_for))
        self._control.soon(self._look)

    def cancel(self, owner: Hashable) -> None:
        """Give up a request's copies; the lane doesn't hear of them any more."""
        for copy in [each for each in self._queue if each.owner is owner]:
            self._queue.remove(copy)
            self.given_up += 1
            self._control.soon(partial(self._stop, copy))

    def _stop(self, copy: Copy) -> None:
        if copy.flows is not None:
            copy.flows.cancel()
        self._look()

    def _look(self) -> None:
        """Begin the copies whose turn it is."""
        busy: set[str] = set()
        step_is_served = False
        for copy in self._queue:
            if copy.began_ns < 0 and copy.way not in busy and not (copy.waited_for and step_is_served):
                self._start(copy)
            busy.add(copy.way)
            step_is_served = step_is_served or copy.waited_for

    def _start(self, copy: Copy) -> None:
        copy.began_ns = self._control.now_ns
        network = self._control.network
        move = network.gpu_to_host if copy.way == "out" else network.host_to_gpu
        copy.flows = move(self._index, copy.num_bytes, partial(self._moved, copy), label=f"swap {copy.way}")

    def _moved(self, copy: Copy, now: int) -> None:
        """Wait for what is left of submitting the calls, once all bytes are there."""
        left_ns = copy.began_ns + copy.calls_ns - now
        if left_ns > 0:
            self._control.at(left_ns, partial(self._done, copy))
        else:
            self._done(copy)

    def _done(self, copy: Copy) -> None:
        if copy not in self._queue:
            return  # given up while its flows, or its calls, came to their end
        self._queue.remove(copy)
        self.copies += 1
        self.num_bytes += copy.num_bytes
        self.took_ns += self._control.now_ns - copy.began_ns
        self.alone_ns += max(copy.calls_ns, self._alone_ns(copy))
        assert isinstance(copy.owner, Request)
        self._lane.copied(copy.owner, copy.waited_for)
        self._look()

    def _alone_ns(self, copy: Copy) -> int:
        estimate, index = self._control.network.estimate_ns, self._index
        alone_ns = (
            estimate("gpu", "host", index, copy.num_bytes)
            if copy.way == "out"
            else estimate("host", "gpu", index, copy.num_bytes)
        )
        return self._control.now_ns - copy.began_ns if alone_ns is None else alone_ns


class SwapLinksFeature:
    """Lets replicas swap over the cluster's links.

    Parameters
    ----------
    replicas
        Indices of those that do; of one pipeline stage, and no attention data parallel ranks.
    """

    name = "swap_links"

    def __init__(self, replicas: Sequence[int]) -> None:
        self.replicas = tuple(replicas)

    def attach(self, control: Control) -> None:
        """Give each replica's swap space what moves its copies."""
        self.movers = [ReplicaCopies(control, index) for index in self.replicas]
        for index, mover in zip(self.replicas, self.movers, strict=True):
            control.cluster.replicas[index].swap_space.links = mover

    def describe(self) -> dict[str, Any]:
        """Return the section of the summary.

        Returns
        -------
        dict
            ``copies`` done and ``given_up`` (their requests were lost or withdrawn); ``bytes`` of those done, over all
            GPUs; ``moving_s``, what they took from their begin on, added up; ``alone_s``, what they would have taken
            with the links to themselves. The difference is what contention cost.
        """
        movers = self.movers
        return {
            "copies": sum(each.copies for each in movers),
            "given_up": sum(each.given_up for each in movers),
            "bytes": sum(each.num_bytes for each in movers),
            "moving_s": to_s(sum(each.took_ns for each in movers)),
            "alone_s": to_s(sum(each.alone_ns for each in movers)),
        }


def make_swap_links(resolved: Resolved, configs: Sequence[ReplicaConfig]) -> SwapLinksFeature | None:
    """Return the feature of a scenario with pools that swap over the links; None without one that has host memory.

    Raises
    ------
    InputError
        If such a pool has pipeline stages or attention data parallel ranks.
    """
    replicas: list[int] = []
    first = 0
    for index, each in enumerate(resolved.pools):
        mine = range(first, first + each.max_replicas * each.plan.dp)
        first = mine.stop
        if each.pool.swap.over != "links" or not configs[mine.start].swap_blocks:
            continue
        for name, given in (
            (f"pipeline stages (pp={each.plan.pp})", each.plan.pp > 1),
            (f"attention data parallel ranks (dp={each.plan.dp})", each.plan.dp > 1),
        ):
            if given:
                raise InputError(
                    f"cluster.pools.{index}.swap.over: swaps over the cluster's links are not modelled with {name}; "
                    "leave one of them out, or choose 'own'"
                )
        replicas += mine
    return SwapLinksFeature(replicas) if replicas else None


__all__ = ["SwapLinksFeature", "make_swap_links"]

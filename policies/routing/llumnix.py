"""Llumnix's dispatching: the freest replica."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from policies.protocols import ArrivalView, ClusterView, ReplicaLoadView, RoutingPolicy, param


@dataclass
class Llumnix(RoutingPolicy):
    """The freest replica: the most KV left a request, what its queue needs taken off. Idle ones first.

    Replicas report their memory and their queues, so this knows what an answer has grown to, which a router that counts
    its own requests doesn't. Without migration (no ``cluster.rescheduler``) it is what the paper compares with as
    INFaaS++. Ties go to the first replica. Running requests of high priority add headroom, as in the rescheduling
    policy of this name, so that others go elsewhere; a request of high priority itself looks at the memory alone. All
    of the queue counts, as in the artifact and the later releases; with ``queue: first`` only the request to start next
    does, as in the paper's algorithm 1.

    The reports are those of this instant; the releases poll every 0.05 s (not modelled).
    """

    name: ClassVar[str] = "llumnix"
    source: ClassVar[str] = (
        "Sun et al., Llumnix, OSDI 2024, section 4.4; AlibabaPAI/llumnix llumnix/instance_info.py"
        " (DispatchLoadComputation, remaining_steps)"
    )

    queue: str = param("all", "waiting requests that count", choices=("all", "first"))
    high_priority: int = param(-1, "requests of this priority or a smaller number get headroom; -1: none do", ge=-1)
    high_priority_blocks: int = param(
        100, "KV to which a replica with such requests is to be used at most (an assumption)", unit="blocks", ge=1
    )

    def route(self, request: ArrivalView, cluster: ClusterView) -> int:
        """Return the replica with the most freeness."""
        loads = cluster.loads
        urgent = request.priority <= self.high_priority
        return min(range(len(loads)), key=lambda index: (self._load(loads[index], urgent), index))

    def _headroom(self, load: ReplicaLoadView) -> int:
        if self.high_priority < 0 or not any(each.priority <= self.high_priority for each in load.running()):
            return 0
        return max(0, load.total_blocks - self.high_priority_blocks)

    def _load(self, load: ReplicaLoadView, urgent: bool = False) -> float:
        waiting = load.num_waiting
        if self.queue == "first":
            waiting = min(waiting, 1)
            wanted = load.first_waiting_blocks
        else:
            wanted = load.waiting_blocks if waiting else 0
        requests = load.num_running + waiting
        if not urgent:
            wanted += self._headroom(load)
        return (wanted - load.free_blocks) / requests if requests else float("-inf")

"""A conversation stays on its replica."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from policies.protocols import ArrivalView, ClusterView, RoutingPolicy

_MASK = (1 << 64) - 1


@dataclass
class SessionAffinity(RoutingPolicy):
    """All requests of a session to one replica, chosen by a hash of the session; others to the least loaded.

    Jump consistent hashing of the session's number: the same on every run and machine, even over replicas,
    and when their number changes from n to n + 1 only one session in n + 1 moves. Requests without a session
    go where the fewest requests are outstanding, the first of equals. A session's load doesn't move it.
    """

    name: ClassVar[str] = "session-affinity"
    source: ClassVar[str] = (
        "Lamping and Veach, A Fast, Minimal Memory, Consistent Hash Algorithm, arXiv:1406.2294;"
        " vLLM production-stack src/vllm_router/routers/routing_logic.py SessionRouter"
    )

    def route(self, request: ArrivalView, cluster: ClusterView) -> int:
        """Return the session's replica."""
        if request.session_id < 0:
            return int(cluster.outstanding_requests.argmin())
        key = (request.session_id * 0x9E3779B97F4A7C15 + 0x632BE59BD9B4E019) & _MASK
        chosen, jump = 0, 0
        while jump < cluster.num_replicas:
            chosen = jump
            key = (key * 2862933555777941757 + 1) & _MASK
            jump = int((chosen + 1) * ((1 << 31) / ((key >> 33) + 1)))
        return chosen

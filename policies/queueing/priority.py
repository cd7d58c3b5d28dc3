"""By priority, then by arrival."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from policies.protocols import QueueingPolicy, RequestView


@dataclass
class Priority(QueueingPolicy):
    """Smallest priority number first, ties in the order of arrival.

    As vLLM's ``--scheduling-policy priority`` orders its waiting queue. It orders only those that wait:
    running requests are preempted as the batching policy says (vLLM preempts the one of the largest number
    first).
    """

    name: ClassVar[str] = "priority"
    source: ClassVar[str] = "vLLM v1 vllm/v1/core/sched/request_queue.py PriorityRequestQueue"

    def key(self, request: RequestView) -> float:
        """Return the priority."""
        return float(request.priority)

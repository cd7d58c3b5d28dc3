"""First come, first served."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from policies.protocols import QueueingPolicy, RequestView


@dataclass
class Fcfs(QueueingPolicy):
    """First come, first served: the request that arrived first goes first.

    All keys are equal, so that the order of arrival decides. A preempted request goes back to the front.
    """

    name: ClassVar[str] = "fcfs"
    source: ClassVar[str] = "the default of vLLM, Sarathi-Serve, TensorRT-LLM and others"
    in_arrival_order: ClassVar[bool] = True

    def key(self, request: RequestView) -> float:
        """Return the same key for every request."""
        return 0.0

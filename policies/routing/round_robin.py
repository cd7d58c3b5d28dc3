"""Round robin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from policies.protocols import ArrivalView, ClusterView, RoutingPolicy


@dataclass
class RoundRobin(RoutingPolicy):
    """Round robin: each replica in turn, whatever its load."""

    name: ClassVar[str] = "round-robin"
    source: ClassVar[str] = "the default of NGINX's upstream module and of many LLM gateways"

    def reset(self) -> None:
        """Start at replica 0."""
        self._next = 0

    def route(self, request: ArrivalView, cluster: ClusterView) -> int:
        """Return the replica after the last one."""
        chosen = self._next % cluster.num_replicas
        self._next = chosen + 1
        return chosen

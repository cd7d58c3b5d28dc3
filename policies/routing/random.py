"""Uniformly random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from policies.protocols import ArrivalView, ClusterView, RoutingPolicy
from policies.routing._draws import Draws


@dataclass
class Random(RoutingPolicy):
    """Uniformly random: any replica with the same probability, from the router's own random stream."""

    name: ClassVar[str] = "random"
    source: ClassVar[str] = "the usual baseline; SGLang sgl-router src/policies/random.rs"

    def reset(self) -> None:
        """Begin with nothing drawn."""
        self._draws = Draws()

    def route(self, request: ArrivalView, cluster: ClusterView) -> int:
        """Return a replica drawn at random."""
        return self._draws.next(cluster.rng, (cluster.num_replicas,))[0]

"""The better of two random replicas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from policies.protocols import ArrivalView, ClusterView, RoutingPolicy
from policies.routing._draws import Draws


@dataclass
class PowerOfTwo(RoutingPolicy):
    """The better of two: of two different random replicas the one with fewer outstanding requests.

    A tie goes to the one drawn first. Nearly as even as asking all replicas, at the price of asking two.
    """

    name: ClassVar[str] = "power-of-two"
    source: ClassVar[str] = (
        "Mitzenmacher, The Power of Two Choices in Randomized Load Balancing, IEEE TPDS 12(10), 2001;"
        " SGLang sgl-router src/policies/power_of_two.rs"
    )

    def reset(self) -> None:
        """Begin with nothing drawn."""
        self._draws = Draws()

    def route(self, request: ArrivalView, cluster: ClusterView) -> int:
        """Return the less loaded of two replicas drawn at random."""
        count = cluster.num_replicas
        if count == 1:
            return 0
        first, second = self._draws.next(cluster.rng, (count, count - 1))
        if second >= first:
            second += 1
        load = cluster.outstanding_requests
        return second if load[second] < load[first] else first

"""Fewest outstanding requests for the replica's weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from policies.protocols import ArrivalView, ClusterView, PolicyError, RoutingPolicy, param


@dataclass
class WeightedLeastOutstanding(RoutingPolicy):
    """Fewest outstanding requests for its weight: for replicas that are not equally fast.

    A request goes where (outstanding requests, itself included) / weight is least, the first of equals. With equal
    weights it is least-outstanding. HAProxy takes any idle server as equally free; here an idle one with a larger
    weight goes first.
    """

    name: ClassVar[str] = "weighted-least-outstanding"
    source: ClassVar[str] = (
        "HAProxy src/lb_fwlc.c (leastconn: (in flight + 1) / weight);"
        " NGINX ngx_http_upstream_least_conn_module (weights)"
    )

    weights: str = param("", "weights of the replicas by number, with commas: 1,1,2.5; left out: all are equal")

    def reset(self) -> None:
        """Read the weights."""
        try:
            weights = [float(text) for text in self.weights.split(",")] if self.weights.strip() else []
        except ValueError:
            weights = [-1.0]
        if not all(0 < weight < 1e12 for weight in weights):
            raise PolicyError(f"{self.name}: weights must be numbers above 0 with commas between, got {self.weights!r}")
        self._weights = np.array(weights)

    def route(self, request: ArrivalView, cluster: ClusterView) -> int:
        """Return the replica with the least load for its weight."""
        load = cluster.outstanding_requests + 1
        if not len(self._weights):
            return int(load.argmin())
        ids = cluster.replica_ids
        if ids[-1] >= len(self._weights):
            raise PolicyError(
                f"{self.name}: there are {len(self._weights)} weights, and a replica of number {ids[-1]}: give one each"
            )
        weights = self._weights if len(ids) == len(self._weights) else self._weights[list(ids)]
        return int((load / weights).argmin())

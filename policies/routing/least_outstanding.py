"""Fewest outstanding requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from policies.protocols import ArrivalView, ClusterView, RoutingPolicy


@dataclass
class LeastOutstanding(RoutingPolicy):
    """Fewest outstanding requests: the replica with the least sent and not ended, the first of equals.

    Join-the-shortest-queue with full knowledge of what the router itself sent; replicas are asked nothing.
    """

    name: ClassVar[str] = "least-outstanding"
    source: ClassVar[str] = "NGINX ngx_http_upstream_least_conn_module; Envoy LEAST_REQUEST over all hosts"

    def route(self, request: ArrivalView, cluster: ClusterView) -> int:
        """Return the first replica of those with the fewest outstanding requests."""
        return int(cluster.outstanding_requests.argmin())

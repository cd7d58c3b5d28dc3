"""Fewest outstanding tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from policies.protocols import ArrivalView, ClusterView, RoutingPolicy


@dataclass
class LeastTokens(RoutingPolicy):
    """Fewest outstanding tokens: prompts plus predicted outputs of what was sent and has not ended.

    Without a predictor prompts alone count. Ties go to the first replica. A request counts whole until it
    ends, however much of it is done.
    """

    name: ClassVar[str] = "least-tokens"
    source: ClassVar[str] = "SGLang python/sglang/srt/managers/data_parallel_controller.py (shortest queue by tokens)"

    def route(self, request: ArrivalView, cluster: ClusterView) -> int:
        """Return the first replica of those with the fewest outstanding tokens."""
        return int(cluster.outstanding_tokens.argmin())

"""vLLM's internal load balancer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from policies.protocols import ArrivalView, BalancingPolicy, RanksView, param


@dataclass
class VLLM(BalancingPolicy):
    """Least 4 x waiting + running, the first of equals, by counts that ranks report now and then.

    Between two reports the balancer counts what it sends itself as waiting. One API server; its coordinator's first
    report (after 50 ms) and slower reports while nothing changes are not modelled.
    """

    name: ClassVar[str] = "vllm"
    source: ClassVar[str] = (
        "vLLM 0.19 DPLBAsyncMPClient.get_core_engine_for_request (vllm/v1/engine/core_client.py), DPCoordinator "
        "(vllm/v1/engine/coordinator.py)"
    )

    report_interval_s: float = param(0.1, "time between two reports of the ranks", unit="s", ge=0)

    def reset(self) -> None:
        """Begin without a report."""
        self._scores: list[int] = []
        self._reported_s = 0.0

    def choose(self, request: ArrivalView, ranks: RanksView) -> int:
        """Return the rank with the least score, and count the request there."""
        now = ranks.now_s
        if not self._scores or now - self._reported_s >= self.report_interval_s:
            self._scores = [4 * ranks.waiting(rank) + ranks.running(rank) for rank in range(ranks.num_ranks)]
            self._reported_s = now
        chosen = self._scores.index(min(self._scores))
        self._scores[chosen] += 4
        return chosen

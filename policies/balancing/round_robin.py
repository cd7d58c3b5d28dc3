"""Each rank in turn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from policies.protocols import ArrivalView, BalancingPolicy, RanksView


@dataclass
class RoundRobin(BalancingPolicy):
    """Each rank in turn, whatever it has to do."""

    name: ClassVar[str] = "round-robin"
    source: ClassVar[str] = "SGLang 0.5 --load-balance-method round_robin (managers/data_parallel_controller.py)"

    def reset(self) -> None:
        """Begin with the first."""
        self._next = 0

    def choose(self, request: ArrivalView, ranks: RanksView) -> int:
        """Return the rank after the one before."""
        chosen = self._next % ranks.num_ranks
        self._next = chosen + 1
        return chosen

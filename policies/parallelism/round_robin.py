"""Experts dealt to ranks in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from policies.protocols import ParallelismPolicy


@dataclass
class RoundRobin(ParallelismPolicy):
    """Experts dealt to ranks in turn: expert i on rank i mod n.

    Spreads the groups of models with grouped routing. vLLM has it for such models without redundant experts; copies
    are dealt on in the same way here.
    """

    name: ClassVar[str] = "round-robin"
    source: ClassVar[str] = (
        "vLLM 0.19 ParallelConfig.expert_placement_strategy 'round_robin' (vllm/config/parallel.py, "
        "determine_expert_map in model_executor/layers/fused_moe/layer.py)"
    )

    def place(self, loads: Sequence[float], num_ranks: int, num_nodes: int, redundant: int) -> list[list[int]]:
        """Return the experts of each rank, every n-th."""
        experts = [place % len(loads) for place in range(len(loads) + redundant)]
        return [experts[rank::num_ranks] for rank in range(num_ranks)]

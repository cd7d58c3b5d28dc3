"""Experts one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from policies.protocols import ParallelismPolicy


@dataclass
class Linear(ParallelismPolicy):
    """Experts one after the other: the first E / n on the first rank, the next on the second.

    Copies, where there are any, are of the first experts, put behind the last: without load balancing vLLM fills the
    redundant places so.
    """

    name: ClassVar[str] = "linear"
    source: ClassVar[str] = (
        "vLLM 0.19 ParallelConfig.expert_placement_strategy 'linear' (vllm/config/parallel.py, determine_expert_map in "
        "model_executor/layers/fused_moe/layer.py)"
    )

    def place(self, loads: Sequence[float], num_ranks: int, num_nodes: int, redundant: int) -> list[list[int]]:
        """Return the experts of each rank, consecutive ones."""
        experts = [place % len(loads) for place in range(len(loads) + redundant)]
        each = len(experts) // num_ranks
        return [experts[rank * each : (rank + 1) * each] for rank in range(num_ranks)]

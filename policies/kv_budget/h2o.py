"""Heavy hitters and recent tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from policies.budget import Cap, KVBudget, ModelFacts, Work, uniform
from policies.protocols import KVBudgetPolicy, param

_SCORE_BYTES = 12.0
"""Bytes a head and token read moves for the accumulated scores: the probability written and read in 16 bits, the sum
read and written in 32. An assumption; the paper's code keeps them in PyTorch tensors."""


@dataclass
class H2o(KVBudgetPolicy):
    """Keep a fixed number of tokens: those with the largest accumulated attention, and the latest ones.

    From the paper: a budget of the prompt's length times (heavy_ratio + recent_ratio), half and half, fixed once the
    prompt is computed (its FlexGen code sizes the cache by ``hh_ratio`` x prompt); before that the prompt is
    attended to in full. Each decoded token takes the place of the evicted one. Accumulating scores and choosing the
    token to evict are three small kernels a layer and step.

    ``score_pass`` adds the arithmetic of the scores once more for the prompt, as fused attention kernels don't hand
    out the probabilities that the method sums (an assumption; the paper's unfused attention has them).

    Not seen here: the accuracy of the answers, which is what limits the budget; that heads evict different tokens.
    """

    name: ClassVar[str] = "h2o"
    source: ClassVar[str] = "H2O, NeurIPS 2023, arXiv:2306.14048; FMInference/H2O h2o_flexgen, h2o_hf"

    heavy_ratio: float = param(0.1, "heavy hitters kept, share of the prompt", ge=0, le=1)
    recent_ratio: float = param(0.1, "latest tokens kept, share of the prompt", gt=0, le=1)
    score_pass: bool = param(True, "compute the prompt's attention scores a second time, to sum them up")

    def budget(self, model: ModelFacts) -> KVBudget:
        """Return a budget that is the same in all layers."""
        cap = Cap(prompt_share=min(1.0, self.heavy_ratio + self.recent_ratio))
        heads = model.num_layers * model.num_heads
        return KVBudget(
            groups=uniform(model, cap),
            token_bits=model.token_bits,
            read_bits=model.token_bits,
            step_kernels=3,
            per_read=Work(memory_bytes=heads * _SCORE_BYTES),
            per_pair=Work(flops=2.0 * heads * model.head_dim) if self.score_pass else Work(),
        )

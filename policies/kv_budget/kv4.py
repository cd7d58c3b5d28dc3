"""A cache in 4 bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from policies.budget import KVBudget, ModelFacts, Work, uniform
from policies.protocols import KVBudgetPolicy, param

_DEQUANTISE_FLOPS = 2.0
"""FLOPs to widen an element: its scale and its offset."""


@dataclass
class Kv4(KVBudgetPolicy):
    """Store keys and values in 4 bits, each group of elements with a 16-bit scale and a 16-bit minimum.

    As FlexGen compresses its cache: groups of 64 along the hidden dimension, asymmetric, so 4.5 bits an element. With
    ``fused`` the attention kernel widens what it reads; without, a kernel of its own reads 4 bits and writes the
    cache's own datatype, which attention reads (FlexGen's way). Widening is counted at the rate of matrix products,
    which is more than vector units reach: it seldom shows.

    Not seen here: the accuracy of the answers.
    """

    name: ClassVar[str] = "kv4"
    source: ClassVar[str] = "FlexGen, ICML 2023, arXiv:2303.06865, section 5 (group-wise quantisation, groups of 64)"

    group: int = param(64, "elements that share a scale and a minimum", unit="elements", ge=8)
    fused: bool = param(True, "the attention kernel reads 4 bits itself")

    def budget(self, model: ModelFacts) -> KVBudget:
        """Return a budget of all tokens."""
        bits = (4.0 + 32.0 / self.group) * model.kv_elements
        flops = _DEQUANTISE_FLOPS * model.num_layers * model.kv_elements
        moved = 0.0 if self.fused else model.num_layers * (bits + model.token_bits) / 8
        widen = Work(flops=flops, memory_bytes=moved)
        return KVBudget(
            groups=uniform(model),
            token_bits=bits,
            read_bits=bits if self.fused else model.token_bits,
            step_kernels=0 if self.fused else 1,
            per_read=widen,
            per_cached=widen,
        )

"""A cache in 8 bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from policies.budget import KVBudget, ModelFacts, Work, uniform
from policies.protocols import KVBudgetPolicy, param


@dataclass
class Kv8(KVBudgetPolicy):
    """Store keys and values in 8 bits, with one scale a tensor.

    As vLLM's FP8 cache: half the memory of 16 bits, and half the traffic where the attention kernel reads 8 bits itself
    (``fused``, as FlashAttention 3 does). Without it a kernel of its own widens what a step reads: it reads 8 bits and
    writes the cache's own datatype, which attention reads.

    Arithmetic stays that of the activations' datatype: attention in FP8 isn't counted as faster. Where the kernels'
    times are measured or fitted for an 8-bit cache, ``dtypes.kv: fp8`` says more.

    Not seen here: the accuracy of the answers.
    """

    name: ClassVar[str] = "kv8"
    source: ClassVar[str] = "vLLM documentation, Quantized KV Cache (per-tensor scales)"

    fused: bool = param(True, "the attention kernel reads 8 bits itself")

    def budget(self, model: ModelFacts) -> KVBudget:
        """Return a budget of all tokens."""
        bits = 8.0 * model.kv_elements
        widen = Work(memory_bytes=model.num_layers * (bits + model.token_bits) / 8)
        return KVBudget(
            groups=uniform(model),
            token_bits=bits,
            read_bits=bits if self.fused else model.token_bits,
            step_kernels=0 if self.fused else 1,
            per_read=Work() if self.fused else widen,
            per_cached=Work() if self.fused else widen,
        )

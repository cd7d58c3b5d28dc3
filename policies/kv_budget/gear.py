"""Quantisation, a low rank and a sparse part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from policies.budget import KVBudget, ModelFacts, Work, uniform
from policies.protocols import KVBudgetPolicy, param

_OUTLIER_BITS = 16.0 + 32.0
"""Bits of an outlier: its value and its index."""


@dataclass
class Gear(KVBudgetPolicy):
    """Store keys and values in few bits, their error as a matrix of low rank, and outliers apart.

    From the paper: outliers (``sparsity`` of the entries) are taken out as a sparse matrix, the rest is quantised, and
    the quantisation error of each head is approximated by a product of rank ``rank``, of which a token holds ``rank``
    numbers of 16 bits a head for keys and as many for values; the other factor belongs to the whole sequence and is not
    counted. Values have a scale and a minimum a token, keys a channel (not counted either). The last ``buffer`` tokens
    wait uncompressed until they are compressed together.

    Reading adds the low-rank product (2 x rank FLOPs a query head for scores, as many for values) and widening; making
    it, power iterations over the buffer, 4 x rank FLOPs an element and iteration, of which ``iterations`` are done.

    Not seen here: the accuracy of the answers; the sparse part's irregular reads, which count as plain traffic.
    """

    name: ClassVar[str] = "gear"
    source: ClassVar[str] = "GEAR, arXiv:2403.05527 (sections 3 and 4; 4 bits, rank 4, 2 % outliers, buffer of 20)"

    bits: int = param(4, "bits of a quantised element", unit="bits", ge=1, le=8)
    rank: int = param(4, "rank of the error's approximation, a head", ge=0)
    sparsity: float = param(0.02, "share of the entries stored apart", ge=0, le=0.5)
    buffer: int = param(20, "latest tokens, uncompressed", unit="tokens", ge=0)
    iterations: int = param(2, "power iterations", ge=0)

    def budget(self, model: ModelFacts) -> KVBudget:
        """Return a budget of all tokens."""
        elements, layers = model.kv_elements, model.num_layers
        low_rank = 2.0 * model.num_kv_heads * self.rank * 16.0
        scales = 2.0 * 16.0
        bits = self.bits * elements + self.sparsity * elements * _OUTLIER_BITS + low_rank + scales
        make = Work(
            flops=layers * elements * (4.0 * self.rank * self.iterations + 4.0),
            memory_bytes=layers * (model.token_bits + bits) / 8,
        )
        read = Work(flops=layers * (2.0 * elements + 4.0 * model.num_heads * self.rank))
        return KVBudget(
            groups=uniform(model),
            token_bits=bits,
            read_bits=bits,
            residual_tokens=self.buffer,
            step_kernels=2,
            per_decode=make,
            per_read=read,
            per_prefill=make,
            per_cached=read,
        )

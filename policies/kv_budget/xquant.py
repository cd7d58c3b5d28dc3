"""The layers' inputs in place of keys and values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from policies.budget import KVBudget, ModelFacts, Work, uniform
from policies.protocols import KVBudgetPolicy, PolicyError, param

_GROUP_BITS = 20.0
"""Bits of a group's scale and zero point, 16 and 4: with groups of 128 and 4 bits an element, X takes 1 / 7.70 of keys
and values in 16 bits, which is the paper's 7.7."""


@dataclass
class Xquant(KVBudgetPolicy):
    """Store each layer's quantised input and compute keys and values from it whenever they are read.

    From the paper: X takes half the elements of keys and values where every head has its own (MHA), and stands a
    coarser quantisation. With grouped queries (GQA) keys and values are smaller than X; then X's projections on the
    singular vectors of their weights are stored, as many elements as keys and values have. A decode step multiplies
    every token that it reads with the projections: 4 x hidden x keys FLOPs a layer, 4 x keys x keys with grouped
    queries; a prefill chunk multiplies all tokens before it. The last ``group`` tokens wait uncompressed.

    The product is taken as fused with attention: what it makes doesn't cross the memory. It shows in time where a batch
    attends to many tokens. Over tensor parallel ranks what is stored is taken as divided; the gathering of X that this
    would need isn't counted.

    Not seen here: the accuracy of the answers; the variant across layers (XQuant-CL).
    """

    name: ClassVar[str] = "xquant"
    source: ClassVar[str] = "XQuant, arXiv:2508.10395"

    bits: int = param(4, "bits of an element of X", unit="bits", ge=1, le=8)
    group: int = param(128, "elements that share a scale, and latest tokens uncompressed", unit="elements", ge=8)

    def budget(self, model: ModelFacts) -> KVBudget:
        """Return a budget of all tokens."""
        keys, layers = model.kv_width, model.num_layers
        if model.kv_elements != 2 * keys:
            raise PolicyError(f"policy {self.name!r} is for models with keys and values; a latent is small already")
        whole = model.hidden_size <= model.kv_elements
        width = model.hidden_size if whole else model.kv_elements
        bits = (self.bits + _GROUP_BITS / self.group) * width
        product = 4.0 * keys * (model.hidden_size if whole else keys)
        quantise = Work(memory_bytes=layers * (width * model.activation_bits + bits) / 8)
        remake = Work(flops=layers * (product + 2.0 * width))
        return KVBudget(
            groups=uniform(model),
            token_bits=bits,
            read_bits=bits,
            residual_tokens=self.group,
            step_kernels=1,
            per_decode=quantise,
            per_read=remake,
            per_prefill=quantise,
            per_cached=remake,
        )

"""Operators that depend on the number of tokens only: seconds on one rank, for many token counts at once.

Only elementwise additions, products, quotients and comparisons are used, each of which every processor rounds alike, so
that the tables made of them are the same everywhere; no power, no sum whose order NumPy chooses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hardware_profiles import Accelerator
from simulator.cost.efficiency import Efficiency
from simulator.cost.links import CollectiveLink
from simulator.errors import InputError
from simulator.models.dtypes import DTYPE_BYTES, WEIGHT_FORMATS
from simulator.models.spec import ModelSpec
from simulator.sharding import (
    Matrix,
    attention_matrices,
    expert_elements,
    kv_elements_per_token_layer,
    mlp_matrices,
    rank_heads,
    rank_kv_heads,
    rank_vocab,
    share,
)

Floats = npt.NDArray[np.float64]

_WEIGHT_ONLY = ("int4", "mxfp4")
"""Formats that kernels widen to the activations' datatype before they multiply (AWQ, GPTQ, gpt-oss)."""


def math_dtype(accelerator: Accelerator, weight_format: str, activation_dtype: str) -> str:
    """Return the datatype in which products with weights of a format are computed.

    8-bit weights and NVFP4 are multiplied in their own datatype where the accelerator has it, else widened, as Marlin
    kernels do; weights in 16 bits or more, in that of the activations.
    """
    bits = WEIGHT_FORMATS[weight_format].element_bits
    if bits >= 16 or weight_format in _WEIGHT_ONLY or weight_format not in accelerator.peak_flops:
        return activation_dtype
    return weight_format


def check_activation_dtype(accelerator: Accelerator, dtype: str) -> None:
    """Raise unless the accelerator computes in a datatype."""
    if dtype in accelerator.peak_flops:
        return
    wide = [name for name in ("bf16", "fp16", "fp32") if name in accelerator.peak_flops]
    raise InputError(
        f"{accelerator.name} does not compute in {dtype}; set activation_dtype to one of: {', '.join(wide)}"
    )


@dataclass(frozen=True, slots=True)
class OperatorTimes:
    """Times of the operators of one model on one rank.

    Attributes
    ----------
    formats
        Weight format by operator family.
    activation_dtype
        Datatype of activations, 16 bits or more.
    kv_bytes
        Bytes of an element of the cache.
    link
        Of the tensor parallel group; None for one rank.
    """

    model: ModelSpec
    accelerator: Accelerator
    tp: int
    formats: Mapping[str, str]
    activation_dtype: str
    kv_bytes: float
    link: CollectiveLink | None
    efficiency: Efficiency

    @property
    def activation_bytes(self) -> float:
        """Bytes of an element of activations."""
        return DTYPE_BYTES[self.activation_dtype]

    def peak_flops(self, family: str) -> tuple[float, bool]:
        """Return the peak of a family's products, FLOP/s, and whether they are in fewer than 16 bits."""
        dtype = math_dtype(self.accelerator, self.formats[family], self.activation_dtype)
        return self.accelerator.peak_flops[dtype], WEIGHT_FORMATS[dtype].element_bits < 16

    def gemm(self, matrix: Matrix, rows: Floats) -> Floats:
        """Return the seconds of one matrix product, by rows: weights, input and output cross the memory once."""
        efficiency = self.efficiency
        peak, narrow = self.peak_flops(matrix.family)
        rate = peak * (efficiency.gemm_flops_narrow if narrow else efficiency.gemm_flops)
        bandwidth = self.accelerator.memory_bandwidth * efficiency.gemm_bytes
        weights = WEIGHT_FORMATS[self.formats[matrix.family]].bytes_of(matrix.elements)
        per_row = (matrix.inputs + matrix.outputs) * self.activation_bytes
        arithmetic = rows * (2 * matrix.elements / rate)
        memory = (weights + rows * per_row) / bandwidth
        return np.asarray(efficiency.gemm_latency_s + np.maximum(arithmetic, memory))

    def elementwise(self, elements_per_row: float, rows: Floats, kernels: int) -> Floats:
        """Return the seconds of kernels that only move memory; elements read and written for each row, all together."""
        efficiency = self.efficiency
        bandwidth = self.accelerator.memory_bandwidth * efficiency.elementwise_bytes
        moved = rows * (elements_per_row * self.activation_bytes)
        return np.asarray(kernels * efficiency.elementwise_latency_s + moved / bandwidth)

    def experts(self, tokens: Floats, idle: Floats) -> Floats:
        """Return the seconds of a layer's routed experts.

        Parameters
        ----------
        tokens
            Tokens of the step.
        idle
            Share of the experts that none of them visits, see `idle_experts`.
        """
        moe = self.model.moe
        assert moe is not None
        efficiency = self.efficiency
        held = expert_elements(self.model, self.tp)
        peak, narrow = self.peak_flops("experts")
        # A narrow product loses by as much here as it does in a plain one.
        scale = efficiency.gemm_flops_narrow / efficiency.gemm_flops if narrow else 1.0
        rate = peak * efficiency.experts_flops * scale
        bandwidth = self.accelerator.memory_bandwidth * efficiency.experts_bytes
        weights = WEIGHT_FORMATS[self.formats["experts"]].bytes_of(held * moe.num_experts)
        inner = self.model.mlp_matrices * share(moe.expert_intermediate_size, self.tp)
        per_row = (2 * self.model.hidden_size + inner) * self.activation_bytes
        rows = tokens * moe.experts_per_token
        arithmetic = rows * (2 * held / rate)
        memory = ((1.0 - idle) * weights + rows * per_row) / bandwidth
        return np.asarray(efficiency.experts_latency_s + np.maximum(arithmetic, memory))

    def all_reduce(self, tokens: Floats) -> Floats:
        """Return the seconds of one all-reduce of the hidden states; 0 for one rank."""
        if self.link is None:
            return np.zeros_like(tokens)
        return self.link.all_reduce_s(tokens * (self.model.hidden_size * self.activation_bytes), self.tp)

    def layer(self, tokens: Floats, idle: Floats, moe_layer: bool) -> dict[str, Floats]:
        """Return the seconds of one decoder layer by family, but for what depends on contexts.

        ``attention`` is the part of its kernels that does not. Two norms, each reading and writing the residual beside
        the hidden states; rotary embedding of queries and keys; the write of the cache; the activation.
        """
        model = self.model
        zero = np.zeros_like(tokens)
        seconds: dict[str, Floats] = {}
        for matrix in attention_matrices(model, self.tp) + mlp_matrices(model, self.tp, moe_layer):
            seconds[matrix.family] = seconds.get(matrix.family, zero) + self.gemm(matrix, tokens)
        rotary = 2 * (rank_heads(model, self.tp) + rank_kv_heads(model, self.tp)) * model.head_dim
        if model.mla is not None:
            rotary = 2 * (rank_heads(model, self.tp) + 1) * model.mla.qk_rope_head_dim
        cached = kv_elements_per_token_layer(model, self.tp) * (1 + self.kv_bytes / self.activation_bytes)
        seconds["norms_rotary_cache"] = self.elementwise(8 * model.hidden_size + rotary + cached, tokens, 4)
        if moe_layer and model.moe is not None:
            seconds["experts"] = self.experts(tokens, idle)
            inner = share(model.moe.shared_intermediate_size, self.tp)
        else:
            inner = share(model.intermediate_size, self.tp)
        if inner:
            seconds["activation"] = self.elementwise(model.mlp_matrices * inner, tokens, 1)
        seconds["attention"] = zero + self.efficiency.attention_latency_s
        seconds["collectives"] = 2 * self.all_reduce(tokens)
        return seconds

    def first_stage(self, tokens: Floats) -> dict[str, Floats]:
        """Return the seconds before the layers: rows of the embedding, summed over the ranks that hold them."""
        return {
            "embedding": self.elementwise(2 * self.model.hidden_size, tokens, 1),
            "collectives": self.all_reduce(tokens),
        }

    def last_stage(self, tokens: Floats) -> dict[str, Floats]:
        """Return the seconds after the layers that depend on tokens: the final norm."""
        return {"norms_rotary_cache": self.elementwise(4 * self.model.hidden_size, tokens, 1)}

    def head(self, rows: Floats, sampler_bytes_per_logit: float) -> dict[str, Floats]:
        """Return the seconds of rows of logits: LM head, gathering them from the ranks, sampling."""
        model = self.model
        matrix = Matrix("lm_head", model.hidden_size, rank_vocab(model, self.tp))
        per_row = model.vocab_size * sampler_bytes_per_logit / self.activation_bytes
        seconds = {"lm_head": self.gemm(matrix, rows), "sampler": self.elementwise(per_row, rows, 1)}
        if self.link is not None:
            size = rows * (model.vocab_size * self.activation_bytes)
            seconds["collectives"] = self.link.all_gather_s(size, self.tp)
        return seconds

    def send(self, tokens: Floats, link: CollectiveLink, latency_s: float) -> Floats:
        """Return the seconds of handing hidden states and residual to the next stage.

        Each rank sends its share to its counterpart, and the ranks there gather them (``send_tensor_dict`` in
        ``vllm/distributed/parallel_state.py``).
        """
        size = tokens * (2 * self.model.hidden_size * self.activation_bytes)
        seconds = latency_s + size / (self.tp * link.bandwidth)
        if self.link is not None:
            seconds = seconds + self.link.all_gather_s(size, self.tp)
        return np.asarray(seconds)


def idle_experts(model: ModelSpec, max_tokens: int) -> Floats:
    """Return the expected share of experts that 0 ... ``max_tokens`` tokens leave idle, shape (max_tokens + 1,).

    With uniform, independent routing a token passes an expert by with probability 1 - k/E, so T tokens leave
    (1 - k/E)^T of them idle and touch E (1 - (1 - k/E)^T). The power is a running product, whose rounding is the same
    on every processor, unlike that of ``pow``.
    """
    factors = np.ones(max_tokens + 1)
    if model.moe is not None:
        factors[1:] = 1.0 - model.moe.experts_per_token / model.moe.num_experts
    return np.multiply.accumulate(factors)

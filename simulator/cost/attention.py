"""Attention of one layer on one rank: seconds from the sums that a batch shape has.

Decodes are a curve over the tokens that they attend to, one for each number of decodes. For chunks each function stands
twice, on numbers for one step and on arrays for a run of steps; both do the same floating-point operations in the same
order, so that a run equals its steps to the last bit. Counts of tokens are exact integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from simulator.cost.efficiency import Efficiency
from simulator.cost.piecewise import Piecewise
from simulator.models.spec import ModelSpec
from simulator.sharding import kv_elements_per_token_layer, rank_heads, rank_kv_heads

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class Attention(Protocol):
    """Seconds of one layer's attention on one rank, its decodes and its chunks apart."""

    def decode(self, decodes: int) -> Piecewise:
        """Return the seconds of so many decodes, at least 1, over the tokens that they attend to altogether."""
        ...

    def prefill_s(self, chunks: int, new: int, cached: int, pairs: int, context: int) -> float:
        """Return the seconds of the prefill chunks of a step.

        Parameters
        ----------
        chunks
            How many, at least 1.
        new, cached
            Tokens of the chunks, and before them, altogether.
        pairs
            Sum over the new tokens of the tokens that each attends to.
        context
            Sum over the chunks of the tokens that any of its tokens attends to.
        """
        ...

    def prefill_run_s(self, chunks: int, new: int, cached: Ints, pairs: Ints, context: Ints) -> Floats:
        """Return the same for each step of a run."""
        ...


@dataclass(frozen=True, slots=True)
class RooflineAttention:
    """Seconds by what they grow with; the time of a kernel is the larger of arithmetic and memory.

    Attributes
    ----------
    latency_s
        Of the decodes' kernels, and of the chunks'.
    decode_flops_s, decode_bytes_s
        For each token that a decode attends to.
    decode_row_s
        Memory: query read and output written, for each decode.
    prefill_flops_s
        For each pair of a new token and one that it attends to.
    prefill_kv_s, prefill_row_s
        Memory, for each token in the chunk's context, and for each new one.
    expand_flops_s, expand_bytes_s
        For each cached token of a chunk, whose latent is expanded to keys and values again (MLA; else 0).
    """

    latency_s: float
    decode_flops_s: float
    decode_bytes_s: float
    decode_row_s: float
    prefill_flops_s: float
    prefill_kv_s: float
    prefill_row_s: float
    expand_flops_s: float = 0.0
    expand_bytes_s: float = 0.0

    def decode(self, decodes: int) -> Piecewise:
        """Return the seconds of so many decodes: memory first, arithmetic from where that takes longer."""
        rows = decodes * self.decode_row_s
        memory, arithmetic = (self.latency_s + rows, self.decode_bytes_s), (self.latency_s, self.decode_flops_s)
        if self.decode_flops_s <= self.decode_bytes_s:
            return Piecewise([], memory[:1], memory[1:])
        equal = rows / (self.decode_flops_s - self.decode_bytes_s)
        return Piecewise([equal], [memory[0], arithmetic[0]], [memory[1], arithmetic[1]])

    def prefill_s(self, chunks: int, new: int, cached: int, pairs: int, context: int) -> float:
        """Return the seconds of the prefill chunks of one step."""
        arithmetic = pairs * self.prefill_flops_s
        memory = context * self.prefill_kv_s + new * self.prefill_row_s
        kernel = arithmetic if arithmetic > memory else memory
        arithmetic = cached * self.expand_flops_s
        memory = cached * self.expand_bytes_s
        return self.latency_s + (kernel + (arithmetic if arithmetic > memory else memory))

    def prefill_run_s(self, chunks: int, new: int, cached: Ints, pairs: Ints, context: Ints) -> Floats:
        """Return the same for each step of a run."""
        arithmetic = pairs * self.prefill_flops_s
        memory = context * self.prefill_kv_s + new * self.prefill_row_s
        kernel = np.maximum(arithmetic, memory)
        expand = np.maximum(cached * self.expand_flops_s, cached * self.expand_bytes_s)
        return np.asarray(self.latency_s + (kernel + expand))


def window_pairs(new: int, cached: int, window: int) -> tuple[int, int]:
    """Return pairs and context of a chunk whose tokens attend to at most ``window`` tokens each, their own included."""
    end = cached + new
    inside_end = end if end < window else window
    inside = cached if cached < window else window
    pairs = inside_end * (inside_end + 1) // 2 - inside * (inside + 1) // 2
    pairs += (end - inside_end - (cached - inside)) * window
    reach = new + window - 1
    return pairs, end if end < reach else reach


def window_pairs_run(new: int, cached: Ints, window: int) -> tuple[Ints, Ints]:
    """Return the same for each step of a run."""
    end = cached + new
    inside_end = np.minimum(end, window)
    inside = np.minimum(cached, window)
    pairs = inside_end * (inside_end + 1) // 2 - inside * (inside + 1) // 2
    pairs += (end - inside_end - (cached - inside)) * window
    return pairs, np.minimum(end, new + window - 1)


def roofline_attention(
    model: ModelSpec,
    tp: int,
    *,
    peak_flops: float,
    memory_bandwidth: float,
    activation_bytes: float,
    kv_bytes: float,
    efficiency: Efficiency,
) -> RooflineAttention:
    """Return the costs of one rank's attention.

    Products are computed in the activations' datatype, whatever the cache is stored in. Latent attention (MLA) decodes
    in its absorbed form, on the latent itself, and prefills in its plain form, on keys and values expanded from it
    (DeepSeek-V2, arXiv:2405.04434, section 2.1.2 and appendix C); it expands cached tokens again for every chunk.

    Parameters
    ----------
    peak_flops, memory_bandwidth
        Data sheet, FLOP/s and bytes/s.
    activation_bytes, kv_bytes
        Bytes of an element of activations, and of the cache.
    """
    heads = rank_heads(model, tp)
    cache = kv_elements_per_token_layer(model, tp) * kv_bytes
    decode_peak = peak_flops * efficiency.decode_flops
    decode_bandwidth = memory_bandwidth * efficiency.decode_bytes
    prefill_peak = peak_flops * efficiency.prefill_flops
    prefill_bandwidth = memory_bandwidth * efficiency.prefill_bytes
    if model.mla is None:
        flops = 4 * heads * model.head_dim
        keys_values = 2 * rank_kv_heads(model, tp) * model.head_dim * kv_bytes
        row = 2 * heads * model.head_dim * activation_bytes
        return RooflineAttention(
            latency_s=efficiency.attention_latency_s,
            decode_flops_s=flops / decode_peak,
            decode_bytes_s=cache / decode_bandwidth,
            decode_row_s=row / decode_bandwidth,
            prefill_flops_s=flops / prefill_peak,
            prefill_kv_s=keys_values / prefill_bandwidth,
            prefill_row_s=row / prefill_bandwidth,
        )
    mla = model.mla
    query_dim = mla.qk_nope_head_dim + mla.qk_rope_head_dim
    absorbed = 2 * heads * (2 * mla.kv_lora_rank + mla.qk_rope_head_dim)
    absorbed_row = heads * (2 * mla.kv_lora_rank + mla.qk_rope_head_dim) * activation_bytes
    expanded = heads * (query_dim + mla.v_head_dim) * activation_bytes
    expand_flops = 2 * mla.kv_lora_rank * heads * (mla.qk_nope_head_dim + mla.v_head_dim)
    return RooflineAttention(
        latency_s=efficiency.attention_latency_s,
        decode_flops_s=absorbed / decode_peak,
        decode_bytes_s=cache / decode_bandwidth,
        decode_row_s=absorbed_row / decode_bandwidth,
        prefill_flops_s=2 * heads * (query_dim + mla.v_head_dim) / prefill_peak,
        prefill_kv_s=expanded / prefill_bandwidth,
        prefill_row_s=expanded / prefill_bandwidth,
        expand_flops_s=expand_flops / (peak_flops * efficiency.gemm_flops),
        expand_bytes_s=(cache + expanded) / (memory_bandwidth * efficiency.gemm_bytes),
    )

"""FLOPs and bytes that a model's tokens need, in closed form from request rows: for MFU and MBU.

Model FLOPs are those that the tokens need once, whatever an engine spent (no recompute after a preemption, no
padding), as in PaLM (arXiv:2204.02311, appendix B). A request with ``c`` cached and ``P`` prompt tokens that produced
``O`` output tokens computed positions ``c + 1 ... P + O - 1``; position ``p`` attends to ``p`` tokens, to ``min(p, w)``
in layers with a sliding window ``w``. A request without a first token counts nothing, as the part of its prompt that
was computed isn't in the rows.

- dense: 2 x (active parameters without embedding and LM head) a token, 2 x vocabulary x hidden a row of logits (one an
  output token);
- attention: 4 x heads x head_dim x layers x attended tokens; for latent attention (MLA) 2 x heads x (qk_nope + qk_rope
  + v) dimensions, its plain form (the absorbed form that decoding kernels use spends more).

Bytes are steps x weights + KV read by decodes (every decode reads what it attends to). Not counted: KV that later
prefill chunks read, writes, activations. Mixtures of experts have no MBU: which experts a step reads isn't recorded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from simulator.metrics import Ints, Rows

if TYPE_CHECKING:
    from simulator.models.spec import ModelSpec

Floats = npt.NDArray[np.float64]


def attended_until(position: Ints, window: int | None = None) -> Ints:
    """Return the sum over positions 1 ... ``position`` of the tokens attended to, at most ``window`` each."""
    if window is None:
        return position * (position + 1) // 2
    inside = np.minimum(position, window)
    attended: Ints = inside * (inside + 1) // 2 + (position - inside) * window
    return attended


def attention_flops_per_token(model: ModelSpec) -> int:
    """Return FLOPs of one layer's attention for each token attended to (scores and values, all heads)."""
    if model.mla is not None:
        mla = model.mla
        return 2 * model.num_heads * (mla.qk_nope_head_dim + mla.qk_rope_head_dim + mla.v_head_dim)
    return 4 * model.num_heads * model.head_dim


def body_parameters(model: ModelSpec) -> int:
    """Return the parameters that every token is multiplied with: active ones without embedding and LM head."""
    tables = 1 if model.tied_embeddings else 2
    return model.active_parameter_count() - tables * model.vocab_size * model.hidden_size


def model_flops(rows: Rows, model: ModelSpec) -> Floats:
    """Return the model FLOPs of each request, shape (n,)."""
    served = rows.first >= 0
    end = np.where(served, rows.prompt + rows.output - 1, 0)
    begin = np.where(served, rows.cached, 0).astype(np.int64)
    full = attended_until(end) - attended_until(begin)
    flops = 2.0 * body_parameters(model) * (end - begin)
    flops += 2.0 * model.vocab_size * model.hidden_size * np.where(served, rows.output, 0)
    per_token = float(attention_flops_per_token(model))
    flops += per_token * model.full_attention_layers * full
    if model.num_sliding_layers:
        window = model.sliding_window
        flops += per_token * model.num_sliding_layers * (attended_until(end, window) - attended_until(begin, window))
    return np.asarray(flops, dtype=np.float64)


def decode_kv_tokens(rows: Rows, model: ModelSpec) -> Floats:
    """Return, for each request, the tokens whose KV its decodes read, weighed by the share of layers that read them."""
    served = rows.first >= 0
    end = np.where(served, rows.prompt + rows.output - 1, 0)
    begin = np.where(served, rows.prompt, 0)
    reads = (attended_until(end) - attended_until(begin)) * (model.full_attention_layers / model.num_layers)
    if model.num_sliding_layers:
        window = model.sliding_window
        reads += (attended_until(end, window) - attended_until(begin, window)) * (
            model.num_sliding_layers / model.num_layers
        )
    return np.asarray(reads, dtype=np.float64)


def sum_by_replica(values: Floats, rows: Rows, num_replicas: int) -> Floats:
    """Return the sum of a figure over the requests of each replica; added in the order of the rows."""
    sent = rows.replica >= 0
    sums: Floats = np.bincount(rows.replica[sent], weights=values[sent], minlength=num_replicas).astype(np.float64)
    return sums

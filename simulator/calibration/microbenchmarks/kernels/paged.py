"""The paged KV cache as the attention kernels see it, and attention in plain PyTorch to compare them with.

A page holds ``page_size`` tokens of all key-value heads, (pages, page_size, kv_heads, head_dim), as vLLM's
FlashAttention backend lays it out. A table says which pages hold a sequence, in order.
"""
# mypy: disable-error-code="import-not-found,import-untyped"

from __future__ import annotations

import torch


def gathered(cache: torch.Tensor, table: torch.Tensor, length: int) -> torch.Tensor:
    """Return the first ``length`` tokens of one sequence, (length, kv_heads, head_dim), fp32.

    Parameters
    ----------
    cache
        (pages, page_size, kv_heads, head_dim).
    table
        Pages of the sequence.
    """
    return cache[table.long()].float().flatten(0, 1)[:length]


def attention_reference(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, window: int | None = None
) -> torch.Tensor:
    """Return causal attention of the last tokens of one sequence to all of it, fp32.

    Parameters
    ----------
    q
        (new, heads, head_dim): queries of the last ``new`` tokens.
    k, v
        (length, kv_heads, head_dim): of the whole sequence.
    scale
        Of the scores.
    window
        Tokens that a token attends to at most, itself counted; None: all before it.
    """
    new, heads, _ = q.shape
    length, kv_heads, _ = k.shape
    groups = heads // kv_heads
    k, v = k.float().repeat_interleave(groups, 1), v.float().repeat_interleave(groups, 1)
    scores = torch.einsum("qhd,khd->hqk", q.float(), k) * scale
    position = torch.arange(length - new, length, device=q.device)[:, None]
    key = torch.arange(length, device=q.device)[None, :]
    seen = key <= position
    if window is not None:
        seen &= key > position - window
    weights = scores.masked_fill(~seen, float("-inf")).softmax(-1)
    return torch.einsum("hqk,khd->qhd", weights, v)

"""Rotary position embedding of queries and keys in place; the halves of a head rotate against each other (NeoX)."""
# ruff: noqa: N803  # constexpr parameters are written in capitals, as Triton's own kernels do
# mypy: disable-error-code="import-not-found,import-untyped,no-untyped-def,untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl

from simulator.calibration.microbenchmarks.kernels.tiles import power_of_two

HEADS = (4, 8, 16)
"""Heads of a program that are tried on a GPU."""


@triton.jit
def _rotary(
    q_ptr, k_ptr, table_ptr, positions_ptr, heads, kv_heads, head_dim,
    HALF: tl.constexpr, HEADS_BLOCK: tl.constexpr,
):  # fmt: skip
    """Rotate some heads of one token: the query's first, then the key's."""
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * HEADS_BLOCK + tl.arange(0, HEADS_BLOCK)
    half = head_dim // 2
    i = tl.arange(0, HALF)
    position = tl.load(positions_ptr + token).to(tl.int64)
    cos = tl.load(table_ptr + position * head_dim + i, mask=i < half, other=0.0).to(tl.float32)
    sin = tl.load(table_ptr + position * head_dim + half + i, mask=i < half, other=0.0).to(tl.float32)

    is_query = (head < heads)[:, None] & (i < half)[None, :]
    q = q_ptr + (token * heads + head)[:, None] * head_dim + i[None, :]
    _rotate(q, half, cos, sin, is_query)
    is_key = ((head >= heads) & (head < heads + kv_heads))[:, None] & (i < half)[None, :]
    k = k_ptr + (token * kv_heads + head - heads)[:, None] * head_dim + i[None, :]
    _rotate(k, half, cos, sin, is_key)


@triton.jit
def _rotate(first, half, cos, sin, mask):
    """Rotate pairs of elements that lie half a head apart."""
    x = tl.load(first, mask=mask, other=0.0).to(tl.float32)
    y = tl.load(first + half, mask=mask, other=0.0).to(tl.float32)
    kept = first.dtype.element_ty
    tl.store(first, (x * cos[None, :] - y * sin[None, :]).to(kept), mask=mask)
    tl.store(first + half, (y * cos[None, :] + x * sin[None, :]).to(kept), mask=mask)


def rotary(
    q: torch.Tensor, k: torch.Tensor, table: torch.Tensor, positions: torch.Tensor, *, heads_block: int = 4
) -> None:
    """Rotate ``q`` and ``k`` in place.

    Parameters
    ----------
    q, k
        (tokens, heads, head_dim) and (tokens, kv_heads, head_dim), contiguous.
    table
        (positions, head_dim): cosines of a position, then sines.
    positions
        (tokens,), whole numbers.
    heads_block
        Heads that a program rotates, a power of two.
    """
    tokens, heads, head_dim = q.shape
    kv_heads = k.shape[1]
    _rotary[(tokens, triton.cdiv(heads + kv_heads, heads_block))](
        q, k, table, positions, heads, kv_heads, head_dim,
        HALF=power_of_two(head_dim // 2), HEADS_BLOCK=heads_block, num_warps=4,
    )  # fmt: skip


def rotary_table(length: int, head_dim: int, base: float = 10000.0) -> torch.Tensor:
    """Return cosines and sines of positions up to ``length``, (length, head_dim), fp32."""
    frequencies = base ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    angles = torch.outer(torch.arange(length, dtype=torch.float64), frequencies)
    return torch.cat((angles.cos(), angles.sin()), dim=-1).float()


def rotary_reference(x: torch.Tensor, table: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Return ``x`` (tokens, heads, head_dim) rotated, in fp32."""
    cos, sin = table[positions.long()].float()[:, None, :].chunk(2, dim=-1)
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)

"""Causal flash attention of prompt chunks whose keys and values, old and new, lie in a paged cache.

Online softmax in base 2 with fp32 sums (FlashAttention-2, Dao 2023, arXiv:2307.08691). Blocks of keys that every
query of a program sees need no mask; those at the diagonal, and all under a sliding window, have one. Programs with
the most keys start first, so that the last wave is short. The keys of the chunk itself are expected in the cache,
where engines put them before they call attention.
"""
# ruff: noqa: N803  # constexpr parameters are written in capitals, as Triton's own kernels do
# mypy: disable-error-code="import-not-found,import-untyped,no-untyped-def,untyped-decorator"

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl

from simulator.calibration.microbenchmarks.kernels.tiles import Tile, operand_type, power_of_two

TILES = (
    Tile(128, 128, warps=8, stages=2),
    Tile(128, 64, warps=8, stages=3),
    Tile(64, 64, warps=4, stages=3),
    Tile(64, 128, warps=4, stages=2),
)
"""Queries and keys of a program, tried on a GPU. 128 queries with 4 warps would spill registers on Hopper."""

SMALL = Tile(16, 16, warps=4, stages=2)
"""The one in the interpreter."""


@triton.jit
def _attend(
    q, sums, total, most, k_ptr, v_ptr, table_ptr, start, end, position, scale, window,
    stride_page, stride_slot, kv_head_offset,
    HEAD_DIM: tl.constexpr, DIM_BLOCK: tl.constexpr, PAGE: tl.constexpr, BLOCK_N: tl.constexpr,
    MASKED: tl.constexpr, WINDOWED: tl.constexpr, OPERANDS: tl.constexpr,
):  # fmt: skip
    """Add one block of keys to the running softmax."""
    key = start + tl.arange(0, BLOCK_N)
    dim = tl.arange(0, DIM_BLOCK)
    here = dim < HEAD_DIM
    if MASKED:
        page = tl.load(table_ptr + key // PAGE, mask=key < end, other=0).to(tl.int64)
    else:
        page = tl.load(table_ptr + key // PAGE).to(tl.int64)
    slot = page * stride_page + (key % PAGE) * stride_slot + kv_head_offset
    if MASKED:
        k = tl.load(k_ptr + slot[None, :] + dim[:, None], mask=here[:, None] & (key < end)[None, :], other=0.0)
        v = tl.load(v_ptr + slot[:, None] + dim[None, :], mask=here[None, :] & (key < end)[:, None], other=0.0)
    elif HEAD_DIM == DIM_BLOCK:
        k = tl.load(k_ptr + slot[None, :] + dim[:, None])
        v = tl.load(v_ptr + slot[:, None] + dim[None, :])
    else:
        k = tl.load(k_ptr + slot[None, :] + dim[:, None], mask=here[:, None], other=0.0)
        v = tl.load(v_ptr + slot[:, None] + dim[None, :], mask=here[None, :], other=0.0)
    scores = tl.dot(q.to(OPERANDS), k.to(OPERANDS)) * scale
    if MASKED:
        seen = (key[None, :] <= position[:, None]) & (key < end)[None, :]
        if WINDOWED:
            seen = seen & (key[None, :] > position[:, None] - window)
        scores = tl.where(seen, scores, float("-inf"))
    new_most = tl.maximum(most, tl.max(scores, axis=1))
    # A query that has seen no key yet (a window that starts further on) has no largest score: 0 keeps exp2 finite.
    reference = tl.where(new_most == float("-inf"), 0.0, new_most)
    weights = tl.exp2(scores - reference[:, None])
    kept = tl.exp2(most - reference)
    total = total * kept + tl.sum(weights, axis=1)
    sums = tl.dot(weights.to(OPERANDS), v.to(OPERANDS), sums * kept[:, None])
    return sums, total, new_most


@triton.jit(do_not_specialize=["table_width", "window"])
def _prefill(
    q_ptr, k_ptr, v_ptr, out_ptr, table_ptr, starts_ptr, cached_ptr, scale, out_scale, window, heads, table_width,
    stride_page, stride_slot, stride_head,
    GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, DIM_BLOCK: tl.constexpr, PAGE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, WINDOWED: tl.constexpr, OPERANDS: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Attend for a block of queries of one head of one sequence."""
    block = tl.num_programs(0) - 1 - tl.program_id(0)
    head = tl.program_id(1)
    sequence = tl.program_id(2)
    begin = tl.load(starts_ptr + sequence)
    new = tl.load(starts_ptr + sequence + 1) - begin
    first = block * BLOCK_M
    if first < new:
        cached = tl.load(cached_ptr + sequence)
        row = first + tl.arange(0, BLOCK_M)
        dim = tl.arange(0, DIM_BLOCK)
        inside = (row < new)[:, None] & (dim < HEAD_DIM)[None, :]
        element = ((begin + row).to(tl.int64) * heads + head)[:, None] * HEAD_DIM + dim[None, :]
        q = tl.load(q_ptr + element, mask=inside, other=0.0)
        position = cached + row
        end = min(cached + first + BLOCK_M, cached + new)
        # Every query of the block sees the keys up to the first query's own.
        unmasked = (cached + first + 1) // BLOCK_N * BLOCK_N
        begin_key = 0
        if WINDOWED:
            begin_key = max(cached + first - window + 1, 0) // BLOCK_N * BLOCK_N
            unmasked = begin_key
        table = table_ptr + sequence.to(tl.int64) * table_width
        kv_head_offset = (head // GROUP).to(tl.int64) * stride_head
        most = tl.full((BLOCK_M,), float("-inf"), dtype=tl.float32)
        total = tl.zeros((BLOCK_M,), dtype=tl.float32)
        sums = tl.zeros((BLOCK_M, DIM_BLOCK), dtype=tl.float32)
        for start in tl.range(begin_key, unmasked, BLOCK_N, num_stages=STAGES):
            sums, total, most = _attend(
                q, sums, total, most, k_ptr, v_ptr, table, start, end, position, scale, window,
                stride_page, stride_slot, kv_head_offset,
                HEAD_DIM, DIM_BLOCK, PAGE, BLOCK_N, False, WINDOWED, OPERANDS,
            )  # fmt: skip
        for start in tl.range(unmasked, end, BLOCK_N, num_stages=STAGES):
            sums, total, most = _attend(
                q, sums, total, most, k_ptr, v_ptr, table, start, end, position, scale, window,
                stride_page, stride_slot, kv_head_offset,
                HEAD_DIM, DIM_BLOCK, PAGE, BLOCK_N, True, WINDOWED, OPERANDS,
            )  # fmt: skip
        made = sums / tl.where(total > 0, total, 1.0)[:, None] * out_scale
        tl.store(out_ptr + element, made.to(out_ptr.dtype.element_ty), mask=inside)


def prefill_attention(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    out: torch.Tensor,
    table: torch.Tensor,
    starts: torch.Tensor,
    cached: torch.Tensor,
    longest: int,
    *,
    scale: float,
    window: int | None = None,
    k_scale: float = 1.0,
    v_scale: float = 1.0,
    tile: Tile = SMALL,
) -> torch.Tensor:
    """Attend causally for the new tokens of each sequence.

    Parameters
    ----------
    q, out
        (new tokens of all sequences, heads, head_dim), contiguous.
    k_cache, v_cache
        (pages, page_size, kv_heads, head_dim), contiguous; keys of the new tokens included. Also fp8.
    table
        (sequences, pages of the longest), int32.
    starts
        (sequences + 1,), int32: where each sequence's new tokens begin in ``q``, and the end.
    cached
        (sequences,), int32: tokens in the cache before the new ones.
    longest
        New tokens of the longest sequence (known to the host, so that nothing waits for the GPU).
    scale
        Of the scores, usually ``head_dim ** -0.5``.
    window
        Tokens that a token attends to at most, itself counted; None: all before it.
    k_scale, v_scale
        What an fp8 cache's elements are multiplied by.
    """
    _, heads, head_dim = q.shape
    _, page_size, kv_heads, _ = k_cache.shape
    _prefill[(triton.cdiv(longest, tile.rows), heads, len(cached))](
        q, k_cache, v_cache, out, table, starts, cached, scale * k_scale * math.log2(math.e), v_scale,
        window or 0, heads, table.shape[1], k_cache.stride(0), k_cache.stride(1), k_cache.stride(2),
        GROUP=heads // kv_heads, HEAD_DIM=head_dim, DIM_BLOCK=power_of_two(head_dim, 16), PAGE=page_size,
        BLOCK_M=tile.rows, BLOCK_N=tile.columns, WINDOWED=window is not None, OPERANDS=operand_type(q.dtype),
        STAGES=tile.stages, num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
    return out

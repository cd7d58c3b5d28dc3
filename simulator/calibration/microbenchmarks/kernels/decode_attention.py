"""Attention of one new token a sequence over a paged cache, keys split over programs: partial results, then their sum.

One program takes all query heads that share a key-value head, so that keys are read once (GQA), padded to the 16 rows
that the tensor cores take. Splits are what keeps a GPU busy when there are few sequences (Flash-Decoding, Dao et al.
2023); their results are joined by their log-sum-exp, in fp32.
"""
# ruff: noqa: N803  # constexpr parameters are written in capitals, as Triton's own kernels do
# mypy: disable-error-code="import-not-found,import-untyped,no-untyped-def,untyped-decorator"

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from simulator.calibration.microbenchmarks.kernels.tiles import Tile, operand_type, power_of_two

TILES = (
    Tile(16, 64, warps=4, stages=3),
    Tile(16, 128, warps=4, stages=3),
    Tile(16, 128, warps=8, stages=2),
    Tile(16, 32, warps=4, stages=4),
    Tile(16, 32, warps=2, stages=4),
)
"""Keys of a step of a program (``columns``), tried on a GPU; the rows are the query heads of a group."""

SMALL = Tile(16, 16, warps=4, stages=2)
"""The one in the interpreter."""

_MOST_SPLITS = 128
"""Bound of the joining kernel's block; 128 splits of one head keep any GPU of today busy."""

_WAVES = 4
"""Programs a processor that splits aim at: enough to hide latency, few enough for partial results to stay small (an
engineering choice, not a measurement)."""


@triton.jit(do_not_specialize=["table_width", "window", "splits"])
def _partial(
    q_ptr, k_ptr, v_ptr, sums_ptr, lse_ptr, table_ptr, lengths_ptr, scale, window, heads, table_width, splits,
    stride_page, stride_slot, stride_head,
    GROUP: tl.constexpr, ROWS: tl.constexpr, HEAD_DIM: tl.constexpr, DIM_BLOCK: tl.constexpr, PAGE: tl.constexpr,
    BLOCK_N: tl.constexpr, WINDOWED: tl.constexpr, OPERANDS: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Attend for one group of heads of one sequence to one split of its keys."""
    split = tl.program_id(0)
    kv_head = tl.program_id(1)
    sequence = tl.program_id(2)
    length = tl.load(lengths_ptr + sequence)
    oldest = 0
    if WINDOWED:
        oldest = max(length - window, 0)
    share = tl.cdiv(tl.cdiv(length - oldest, splits), BLOCK_N) * BLOCK_N
    begin = oldest + split * share
    end = min(begin + share, length)

    row = tl.arange(0, ROWS)
    dim = tl.arange(0, DIM_BLOCK)
    head = sequence.to(tl.int64) * heads + kv_head * GROUP + row
    here = dim < HEAD_DIM
    inside = (row < GROUP)[:, None] & here[None, :]
    q = tl.load(q_ptr + head[:, None] * HEAD_DIM + dim[None, :], mask=inside, other=0.0).to(OPERANDS)
    table = table_ptr + sequence.to(tl.int64) * table_width
    most = tl.full((ROWS,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((ROWS,), dtype=tl.float32)
    sums = tl.zeros((ROWS, DIM_BLOCK), dtype=tl.float32)
    for start in tl.range(begin, end, BLOCK_N, num_stages=STAGES):
        key = start + tl.arange(0, BLOCK_N)
        page = tl.load(table + key // PAGE, mask=key < end, other=0).to(tl.int64)
        slot = page * stride_page + (key % PAGE) * stride_slot + kv_head * stride_head
        k = tl.load(k_ptr + slot[None, :] + dim[:, None], mask=here[:, None] & (key < end)[None, :], other=0.0)
        v = tl.load(v_ptr + slot[:, None] + dim[None, :], mask=here[None, :] & (key < end)[:, None], other=0.0)
        scores = tl.dot(q, k.to(OPERANDS)) * scale
        scores = tl.where((key < end)[None, :], scores, float("-inf"))
        # Each step has at least one key that counts, so the largest score is finite.
        new_most = tl.maximum(most, tl.max(scores, axis=1))
        weights = tl.exp2(scores - new_most[:, None])
        kept = tl.exp2(most - new_most)
        total = total * kept + tl.sum(weights, axis=1)
        sums = tl.dot(weights.to(OPERANDS), v.to(OPERANDS), sums * kept[:, None])
        most = new_most
    # A split without keys leaves -inf, and nothing of its sums is read.
    place = head * splits + split
    tl.store(lse_ptr + place, most + tl.log2(tl.where(total > 0, total, 1.0)), mask=row < GROUP)
    if begin < end:
        tl.store(sums_ptr + place[:, None] * HEAD_DIM + dim[None, :], sums / total[:, None], mask=inside)


@triton.jit(do_not_specialize=["splits"])
def _join(
    sums_ptr, lse_ptr, out_ptr, splits, out_scale,
    HEAD_DIM: tl.constexpr, DIM_BLOCK: tl.constexpr, SPLITS_BLOCK: tl.constexpr,
):  # fmt: skip
    """Weigh the splits of one head by their share of the softmax."""
    head = tl.program_id(0).to(tl.int64)
    split = tl.arange(0, SPLITS_BLOCK)
    dim = tl.arange(0, DIM_BLOCK)
    lse = tl.load(lse_ptr + head * splits + split, mask=split < splits, other=float("-inf"))
    share = tl.exp2(lse - tl.max(lse, axis=0))
    made = (lse > float("-inf"))[:, None] & (dim < HEAD_DIM)[None, :]
    sums = tl.load(sums_ptr + (head * splits + split)[:, None] * HEAD_DIM + dim[None, :], mask=made, other=0.0)
    joined = tl.sum(sums * share[:, None], axis=0) / tl.sum(share, axis=0) * out_scale
    tl.store(out_ptr + head * HEAD_DIM + dim, joined.to(out_ptr.dtype.element_ty), mask=dim < HEAD_DIM)


def decode_splits(sequences: int, kv_heads: int, longest: int, processors: int, block: int) -> int:
    """Return over how many programs the keys of a sequence are spread, at least 1.

    Parameters
    ----------
    longest
        Tokens that the longest sequence attends to.
    processors
        Streaming multiprocessors of the GPU.
    block
        Keys of a step of a program.
    """
    wanted = -(-_WAVES * processors // (sequences * kv_heads))
    return max(1, min(wanted, -(-longest // block), _MOST_SPLITS))


@dataclass(frozen=True, slots=True)
class Scratch:
    """Room for partial results: ``sums`` (sequences, heads, splits, head_dim) and ``lse`` without the last, fp32."""

    sums: torch.Tensor
    lse: torch.Tensor

    @classmethod
    def make(cls, sequences: int, heads: int, splits: int, head_dim: int, device: str) -> Scratch:
        """Allocate it."""
        return cls(
            torch.empty((sequences, heads, splits, head_dim), dtype=torch.float32, device=device),
            torch.empty((sequences, heads, splits), dtype=torch.float32, device=device),
        )


def decode_attention(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    out: torch.Tensor,
    table: torch.Tensor,
    lengths: torch.Tensor,
    scratch: Scratch,
    *,
    scale: float,
    window: int | None = None,
    k_scale: float = 1.0,
    v_scale: float = 1.0,
    tile: Tile = SMALL,
) -> torch.Tensor:
    """Attend for one token of each sequence.

    Parameters
    ----------
    q, out
        (sequences, heads, head_dim), contiguous.
    k_cache, v_cache
        (pages, page_size, kv_heads, head_dim), contiguous; the new tokens' own keys included. Also fp8.
    table
        (sequences, pages of the longest), int32.
    lengths
        (sequences,), int32: tokens in the cache, the new one counted; at least 1.
    scratch
        Its shape says the number of splits.
    scale, window, k_scale, v_scale
        As in `prefill_attention`.
    """
    sequences, heads, head_dim = q.shape
    _, page_size, kv_heads, _ = k_cache.shape
    splits, group = scratch.lse.shape[2], heads // kv_heads
    dim_block = power_of_two(head_dim, 16)
    _partial[(splits, kv_heads, sequences)](
        q, k_cache, v_cache, scratch.sums, scratch.lse, table, lengths, scale * k_scale * math.log2(math.e),
        window or 0, heads, table.shape[1], splits, k_cache.stride(0), k_cache.stride(1), k_cache.stride(2),
        GROUP=group, ROWS=power_of_two(group, 16), HEAD_DIM=head_dim, DIM_BLOCK=dim_block, PAGE=page_size,
        BLOCK_N=tile.columns, WINDOWED=window is not None, OPERANDS=operand_type(q.dtype), STAGES=tile.stages,
        num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
    _join[(sequences * heads,)](
        scratch.sums, scratch.lse, out, splits, v_scale,
        HEAD_DIM=head_dim, DIM_BLOCK=dim_block, SPLITS_BLOCK=power_of_two(splits),
        num_warps=4 if power_of_two(splits) * dim_block <= 8192 else 8,  # fp32 sums of at most 64 registers a thread
    )  # fmt: skip
    return out

"""Routed experts of a layer: tokens sorted by expert, a grouped GEMM for gate and up, SwiGLU, one for down, their sum.

The way of vLLM's ``fused_moe``: pairs of token and expert are sorted by expert, each expert's pairs padded to whole
blocks of rows, so that a block of rows has one expert and an expert without tokens costs nothing. Sorting is done in
two small kernels (a program an expert), with no word to the host; buffers have the size of the worst routing.
"""
# ruff: noqa: N803  # constexpr parameters are written in capitals, as Triton's own kernels do
# mypy: disable-error-code="import-not-found,import-untyped,no-untyped-def,untyped-decorator"

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from simulator.calibration.microbenchmarks.kernels.activation import swiglu
from simulator.calibration.microbenchmarks.kernels.tiles import Tile, operand_type, power_of_two

TILES = (
    Tile(16, 64, 128, warps=4, stages=4),
    Tile(16, 128, 128, warps=4, stages=3),
    Tile(32, 128, 64, warps=4, stages=4),
    Tile(64, 128, 64, warps=4, stages=4),
    Tile(128, 128, 64, warps=8, stages=4),
    Tile(128, 256, 64, warps=8, stages=3),
)
"""Tried on a GPU, the quickest taken. Rows of a block are padding where an expert has fewer."""

SMALL = Tile(16, 32, 16, warps=4, stages=2)
"""The one in the interpreter."""

_GROUP = 8
"""Rows of tiles that are walked together, as in the GEMM."""

_SORT_BLOCK = 1024
"""Pairs that a sorting program looks at together: 8 a thread of its 4 warps."""


@triton.jit(do_not_specialize=["pairs", "first_expert"])
def _count(ids_ptr, counts_ptr, pairs, first_expert, BLOCK: tl.constexpr):
    """Count the pairs of one expert of this rank."""
    expert = tl.program_id(0)
    counted = tl.zeros((BLOCK,), dtype=tl.int32)
    for start in range(0, pairs, BLOCK):
        pair = start + tl.arange(0, BLOCK)
        chosen = tl.load(ids_ptr + pair, mask=pair < pairs, other=-1)
        counted += (chosen == first_expert + expert).to(tl.int32)
    tl.store(counts_ptr + expert, tl.sum(counted, axis=0))


@triton.jit(do_not_specialize=["pairs", "first_expert"])
def _place(
    ids_ptr, counts_ptr, sorted_ptr, block_experts_ptr, blocks_ptr, pairs, first_expert, experts,
    BLOCK: tl.constexpr, EXPERTS_BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Write the pairs of one expert in order, the padding behind them, and whose its blocks are."""
    expert = tl.program_id(0)
    other = tl.arange(0, EXPERTS_BLOCK)
    counts = tl.load(counts_ptr + other, mask=other < experts, other=0)
    blocks = (counts + ROWS - 1) // ROWS
    first_block = tl.sum(tl.where(other < expert, blocks, 0), axis=0)
    if expert == 0:
        tl.store(blocks_ptr, tl.sum(blocks, axis=0))
    count = tl.load(counts_ptr + expert)
    own_blocks = (count + ROWS - 1) // ROWS
    place = first_block * ROWS
    for start in range(0, pairs, BLOCK):
        pair = start + tl.arange(0, BLOCK)
        mine = (tl.load(ids_ptr + pair, mask=pair < pairs, other=-1) == first_expert + expert).to(tl.int32)
        rank = tl.cumsum(mine, axis=0) - mine
        tl.store(sorted_ptr + place + rank, pair, mask=mine > 0)
        place += tl.sum(mine, axis=0)
    row = tl.arange(0, ROWS)
    padding = first_block * ROWS + count + row
    tl.store(sorted_ptr + padding, pairs + row * 0, mask=padding < (first_block + own_blocks) * ROWS)
    for block in range(0, own_blocks):
        tl.store(block_experts_ptr + first_block + block, expert)


@triton.jit(do_not_specialize=["pairs"])
def _grouped_gemm(
    a_ptr, b_ptr, c_ptr, weights_ptr, sorted_ptr, block_experts_ptr, blocks_ptr, pairs, N, K,
    PAIRS_A_ROW: tl.constexpr, WEIGHTED: tl.constexpr, OPERANDS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Make one tile: rows are sorted pairs, columns the outputs of their expert."""
    pid = tl.program_id(0)
    tiles_m = tl.load(blocks_ptr)
    tiles_n = tl.cdiv(N, BLOCK_N)
    if pid < tiles_m * tiles_n:
        in_group = GROUP * tiles_n
        first_m = (pid // in_group) * GROUP
        group_m = min(tiles_m - first_m, GROUP)
        pid_m = first_m + (pid % in_group) % group_m
        pid_n = (pid % in_group) // group_m
        expert = tl.load(block_experts_ptr + pid_m).to(tl.int64)
        pair = tl.load(sorted_ptr + pid_m * BLOCK_M + tl.arange(0, BLOCK_M))
        real = pair < pairs
        columns = pid_n * BLOCK_N + tl.arange(0, BLOCK_N)
        depth = tl.arange(0, BLOCK_K)
        a = a_ptr + (pair // PAIRS_A_ROW).to(tl.int64)[:, None] * K + depth[None, :]
        b = b_ptr + expert * N * K + (columns % N).to(tl.int64)[None, :] * K + depth[:, None]
        sums = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
        for start in tl.range(0, K, BLOCK_K, num_stages=STAGES):
            inside = depth < K - start
            a_tile = tl.load(a, mask=real[:, None] & inside[None, :], other=0.0)
            b_tile = tl.load(b, mask=inside[:, None], other=0.0)
            sums = tl.dot(a_tile.to(OPERANDS), b_tile.to(OPERANDS), sums)
            a += BLOCK_K
            b += BLOCK_K
        if WEIGHTED:
            sums = sums * tl.load(weights_ptr + pair, mask=real, other=0.0)[:, None]
        c = c_ptr + pair.to(tl.int64)[:, None] * N + columns[None, :]
        tl.store(c, sums.to(c_ptr.dtype.element_ty), mask=real[:, None] & (columns < N)[None, :])


@triton.jit(do_not_specialize=["first_expert"])
def _sum_pairs(x_ptr, ids_ptr, out_ptr, first_expert, experts, width, TOP_K: tl.constexpr, BLOCK: tl.constexpr):
    """Add up what a token's experts on this rank made."""
    token = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < width
    sums = tl.zeros((BLOCK,), dtype=tl.float32)
    for i in tl.static_range(TOP_K):
        expert = tl.load(ids_ptr + token * TOP_K + i)
        there = (expert < first_expert) | (expert >= first_expert + experts)
        made = tl.where(there, 0, width)  # what another rank's experts should have made is not read
        sums += tl.load(x_ptr + (token * TOP_K + i) * width + columns, mask=columns < made, other=0.0).to(tl.float32)
    tl.store(out_ptr + token * width + columns, sums.to(out_ptr.dtype.element_ty), mask=inside)


@dataclass(frozen=True, slots=True)
class Sorting:
    """Pairs sorted by expert.

    Attributes
    ----------
    pairs
        Index of the pair in each row; the number of pairs where the row is padding. What lies behind the last block
        is unspecified.
    block_experts
        Expert of each block of rows, counted on this rank.
    blocks
        One number: blocks that there are.
    counts
        Pairs of each expert.
    """

    pairs: torch.Tensor
    block_experts: torch.Tensor
    blocks: torch.Tensor
    counts: torch.Tensor

    @classmethod
    def make(cls, pairs: int, experts: int, rows: int, device: str) -> Sorting:
        """Allocate it for the worst routing: every expert's last block holds one pair."""
        blocks = most_blocks(pairs, experts, rows)
        return cls(*(torch.empty(n, dtype=torch.int32, device=device) for n in (blocks * rows, blocks, 1, experts)))


def most_blocks(pairs: int, experts: int, rows: int) -> int:
    """Return how many blocks of rows any routing needs at most."""
    busy = min(pairs, experts)
    return busy + (pairs - busy) // rows


def sort_pairs(ids: torch.Tensor, sorting: Sorting, experts: int, first_expert: int, rows: int) -> None:
    """Sort pairs of token and expert by expert, in the order of tokens within each.

    Parameters
    ----------
    ids
        (tokens, top_k), int32, contiguous: experts of each token.
    experts, first_expert
        Experts of this rank, and the first of them; pairs of others are left out.
    rows
        Rows of a block.
    """
    pairs = ids.numel()
    _count[(experts,)](ids, sorting.counts, pairs, first_expert, BLOCK=_SORT_BLOCK, num_warps=4)
    _place[(experts,)](
        ids, sorting.counts, sorting.pairs, sorting.block_experts, sorting.blocks, pairs, first_expert, experts,
        BLOCK=_SORT_BLOCK, EXPERTS_BLOCK=power_of_two(experts), ROWS=rows, num_warps=4,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Room:
    """Intermediate results: sorting, and what each pair's gate and up, SwiGLU and down make."""

    sorting: Sorting
    gate_up: torch.Tensor
    inner: torch.Tensor
    down: torch.Tensor

    @classmethod
    def make(
        cls, pairs: int, experts: int, hidden: int, inner: int, dtype: torch.dtype, device: str, tile: Tile = SMALL
    ) -> Room:
        """Allocate it, zeros: SwiGLU runs over pairs of other ranks too, which nothing writes."""
        return cls(
            Sorting.make(pairs, experts, tile.rows, device),
            *(torch.zeros((pairs, width), dtype=dtype, device=device) for width in (2 * inner, inner, hidden)),
        )


def fused_experts(
    x: torch.Tensor,
    gate_up: torch.Tensor,
    down: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    out: torch.Tensor,
    room: Room,
    *,
    first_expert: int = 0,
    tile: Tile = SMALL,
) -> torch.Tensor:
    """Compute a layer's routed experts that lie on this rank.

    Parameters
    ----------
    x, out
        (tokens, hidden), contiguous.
    gate_up, down
        (experts, 2 inner, hidden) and (experts, hidden, inner), contiguous: of this rank.
    ids, weights
        (tokens, top_k), int32 and fp32: experts of each token, over all ranks, and their weights.
    room
        Made for the same tile.
    first_expert
        The first expert of this rank.
    """
    tokens, hidden = x.shape
    experts, top_k, pairs = len(gate_up), ids.shape[1], ids.numel()
    sorting = room.sorting
    sort_pairs(ids, sorting, experts, first_expert, tile.rows)
    _product(x, gate_up, room.gate_up, None, sorting, pairs, top_k, tile)
    swiglu(room.gate_up, room.inner)
    _product(room.inner, down, room.down, weights, sorting, pairs, 1, tile)
    block = 1024
    _sum_pairs[(tokens, triton.cdiv(hidden, block))](
        room.down, ids, out, first_expert, experts, hidden, TOP_K=top_k, BLOCK=block, num_warps=4
    )
    return out


def _product(
    a: torch.Tensor,
    b: torch.Tensor,
    c: torch.Tensor,
    weights: torch.Tensor | None,
    sorting: Sorting,
    pairs: int,
    pairs_a_row: int,
    tile: Tile,
) -> None:
    """Multiply each pair's row of ``a`` by its expert's matrix of ``b``."""
    experts, n, k = b.shape
    grid = (most_blocks(pairs, experts, tile.rows) * triton.cdiv(n, tile.columns),)
    _grouped_gemm[grid](
        a, b, c, c if weights is None else weights, sorting.pairs, sorting.block_experts, sorting.blocks, pairs, n, k,
        PAIRS_A_ROW=pairs_a_row, WEIGHTED=weights is not None, OPERANDS=operand_type(a.dtype),
        BLOCK_M=tile.rows, BLOCK_N=tile.columns, BLOCK_K=tile.depth, GROUP=_GROUP, STAGES=tile.stages,
        num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip


def experts_reference(
    x: torch.Tensor,
    gate_up: torch.Tensor,
    down: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    first_expert: int = 0,
) -> torch.Tensor:
    """Return the same in fp32, expert by expert."""
    out = torch.zeros(x.shape, dtype=torch.float32, device=x.device)
    for expert in range(len(gate_up)):
        token, place = torch.nonzero(ids == first_expert + expert, as_tuple=True)
        gate, up = (x[token].float() @ gate_up[expert].float().T).chunk(2, dim=-1)
        made = (torch.nn.functional.silu(gate) * up) @ down[expert].float().T
        out.index_add_(0, token, made * weights[token, place][:, None])
    return out

"""GEMM: C = A Bᵀ, A of tokens and B the weights of a linear layer (a row an output); bf16, fp16, fp8 with scales.

Programs walk C in groups of rows of tiles, so that those that run together share tiles of A and B in L2; loads of the
next tiles overlap the products (``num_stages``). There is no split along K: with few tokens and few outputs, fewer
programs than processors run.
"""
# ruff: noqa: N803  # constexpr parameters and tile sizes are written in capitals, as Triton's own kernels do
# mypy: disable-error-code="import-not-found,import-untyped,no-untyped-def,untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl

from simulator.calibration.microbenchmarks.kernels.tiles import Tile, operand_type

TILES = (
    Tile(128, 256, 64, warps=8, stages=3),
    Tile(128, 256, 128, warps=8, stages=2),
    Tile(128, 128, 64, warps=8, stages=4),
    Tile(128, 128, 128, warps=8, stages=3),
    Tile(64, 128, 64, warps=4, stages=4),
    Tile(64, 64, 128, warps=4, stages=4),
    Tile(16, 64, 128, warps=4, stages=5),
    Tile(16, 32, 256, warps=4, stages=4),
    Tile(16, 128, 128, warps=4, stages=4),
)
"""Tried on a GPU, the quickest taken: wide ones for many tokens, 16 rows for decodes (least of the tensor cores)."""

SMALL = Tile(16, 32, 16, warps=4, stages=2)
"""The one in the interpreter: edges are reached with small shapes."""

_GROUP = 8
"""Rows of tiles that are walked together (the value of Triton's matrix multiplication tutorial)."""


@triton.jit(do_not_specialize=["M"])  # one compilation for all numbers of tokens
def _gemm(
    a_ptr, b_ptr, c_ptr, a_scale_ptr, b_scale_ptr, M, N, K,
    stride_am, stride_bn, stride_cm,
    SCALED: tl.constexpr, OPERANDS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Make one tile of C; A, B and C are contiguous along their last axis."""
    pid = tl.program_id(0)
    tiles_m = tl.cdiv(M, BLOCK_M)
    tiles_n = tl.cdiv(N, BLOCK_N)
    in_group = GROUP * tiles_n
    first_m = (pid // in_group) * GROUP
    group_m = min(tiles_m - first_m, GROUP)
    pid_m = first_m + (pid % in_group) % group_m
    pid_n = (pid % in_group) // group_m

    rows = pid_m * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = pid_n * BLOCK_N + tl.arange(0, BLOCK_N)
    # Rows beyond the edge wrap around: they are computed and not stored, and the loop's masks stay one-dimensional.
    a_row = (rows % M).to(tl.int64)
    b_row = (columns % N).to(tl.int64)
    depth = tl.arange(0, BLOCK_K)
    a = a_ptr + a_row[:, None] * stride_am + depth[None, :]
    b = b_ptr + b_row[None, :] * stride_bn + depth[:, None]
    sums = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for start in tl.range(0, K, BLOCK_K, num_stages=STAGES):
        inside = depth < K - start
        a_tile = tl.load(a, mask=inside[None, :], other=0.0)
        b_tile = tl.load(b, mask=inside[:, None], other=0.0)
        sums = tl.dot(a_tile.to(OPERANDS), b_tile.to(OPERANDS), sums)
        a += BLOCK_K
        b += BLOCK_K
    if SCALED:
        sums = sums * (tl.load(a_scale_ptr) * tl.load(b_scale_ptr))
    c = c_ptr + rows.to(tl.int64)[:, None] * stride_cm + columns[None, :]
    tl.store(c, sums.to(c_ptr.dtype.element_ty), mask=(rows < M)[:, None] & (columns < N)[None, :])


def gemm(
    a: torch.Tensor,
    b: torch.Tensor,
    out: torch.Tensor,
    a_scale: torch.Tensor | None = None,
    b_scale: torch.Tensor | None = None,
    *,
    tile: Tile = SMALL,
) -> torch.Tensor:
    """Compute ``out = a @ b.T``, times the scales where they are given.

    Parameters
    ----------
    a, b
        (tokens, k) and (n, k), contiguous along k.
    out
        (tokens, n).
    a_scale, b_scale
        One fp32 number each (per-tensor scales of fp8), or both None.
    """
    (tokens, k), n = a.shape, b.shape[0]
    scaled = a_scale is not None
    _gemm[(triton.cdiv(tokens, tile.rows) * triton.cdiv(n, tile.columns),)](
        a, b, out, a_scale if scaled else a, b_scale if scaled else b, tokens, n, k,
        a.stride(0), b.stride(0), out.stride(0),
        SCALED=scaled, OPERANDS=operand_type(a.dtype), BLOCK_M=tile.rows, BLOCK_N=tile.columns, BLOCK_K=tile.depth,
        GROUP=_GROUP, STAGES=tile.stages, num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
    return out


def gemm_reference(
    a: torch.Tensor, b: torch.Tensor, a_scale: torch.Tensor | None = None, b_scale: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the product in fp32."""
    product = a.float() @ b.float().T
    return product if a_scale is None or b_scale is None else product * (a_scale * b_scale)

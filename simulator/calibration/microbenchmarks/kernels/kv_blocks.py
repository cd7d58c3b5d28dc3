"""Blocks of the KV cache gathered into one piece and scattered back, as swapping and sending them needs."""
# ruff: noqa: N803  # constexpr parameters are written in capitals, as Triton's own kernels do
# mypy: disable-error-code="import-not-found,import-untyped,no-untyped-def,untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl

BLOCKS = (1024, 2048, 4096)
"""Elements of a program that are tried on a GPU."""


@triton.jit
def _copy_blocks(cache_ptr, piece_ptr, indices_ptr, stride_cache, elements, GATHER: tl.constexpr, BLOCK: tl.constexpr):
    """Copy a part of one block, out of the cache or into it."""
    block = tl.program_id(0).to(tl.int64)
    element = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = element < elements
    cached = cache_ptr + tl.load(indices_ptr + block).to(tl.int64) * stride_cache + element
    piece = piece_ptr + block * elements + element
    if GATHER:
        tl.store(piece, tl.load(cached, mask=inside), mask=inside)
    else:
        tl.store(cached, tl.load(piece, mask=inside), mask=inside)


def kv_gather(cache: torch.Tensor, indices: torch.Tensor, out: torch.Tensor, *, block: int = 1024) -> torch.Tensor:
    """Copy blocks of ``cache`` to ``out``, in the order of ``indices``.

    Parameters
    ----------
    cache
        (blocks, elements), contiguous along elements.
    indices
        Blocks, int32; each at most once where they are scattered to.
    out
        (len(indices), elements), contiguous.
    block
        Elements that a program copies.
    """
    _launch(cache, indices, out, True, block)
    return out


def kv_scatter(cache: torch.Tensor, indices: torch.Tensor, piece: torch.Tensor, *, block: int = 1024) -> torch.Tensor:
    """Copy ``piece`` to blocks of ``cache``; as `kv_gather`, the other way."""
    _launch(cache, indices, piece, False, block)
    return cache


def _launch(cache: torch.Tensor, indices: torch.Tensor, piece: torch.Tensor, gather: bool, block: int) -> None:
    count, elements = piece.shape
    _copy_blocks[(count, triton.cdiv(elements, block))](
        cache, piece, indices, cache.stride(0), elements, GATHER=gather, BLOCK=block, num_warps=4
    )

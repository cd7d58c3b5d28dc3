"""RMSNorm with the residual's addition fused, as engines run it between the blocks of a layer."""
# ruff: noqa: N803  # constexpr parameters are written in capitals, as Triton's own kernels do
# mypy: disable-error-code="import-not-found,import-untyped,no-untyped-def,untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl

from simulator.calibration.microbenchmarks.kernels.tiles import power_of_two

WARPS = (4, 8, 16)
"""Warps of a program that are tried on a GPU."""


@triton.jit
def _add_rms_norm(x_ptr, residual_ptr, weight_ptr, out_ptr, width, eps, BLOCK: tl.constexpr):
    """Normalise one row; the row fits in a block, so that it is read once."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    x = tl.load(x_ptr + row * width + columns, mask=inside, other=0.0).to(tl.float32)
    residual = tl.load(residual_ptr + row * width + columns, mask=inside, other=0.0).to(tl.float32)
    summed = x + residual
    tl.store(residual_ptr + row * width + columns, summed.to(residual_ptr.dtype.element_ty), mask=inside)
    scale = tl.rsqrt(tl.sum(summed * summed, axis=0) / width + eps)
    weight = tl.load(weight_ptr + columns, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + row * width + columns, (summed * scale * weight).to(out_ptr.dtype.element_ty), mask=inside)


def add_rms_norm(
    x: torch.Tensor,
    residual: torch.Tensor,
    weight: torch.Tensor,
    out: torch.Tensor,
    *,
    eps: float = 1e-6,
    warps: int = 4,
) -> torch.Tensor:
    """Add ``x`` to ``residual`` in place, and write the normalised sum times ``weight`` to ``out``.

    Parameters
    ----------
    x, residual, out
        (tokens, width), contiguous.
    weight
        (width,).
    eps
        Added to the mean of squares.
    """
    tokens, width = x.shape
    _add_rms_norm[(tokens,)](x, residual, weight, out, width, eps, BLOCK=power_of_two(width), num_warps=warps)
    return out


def add_rms_norm_reference(
    x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, eps: float = 1e-6
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the normalised sum and the sum, in fp32."""
    summed = x.float() + residual.float()
    return summed * torch.rsqrt(summed.square().mean(-1, keepdim=True) + eps) * weight.float(), summed

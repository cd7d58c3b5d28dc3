"""SwiGLU: silu(gate) times up, where one matrix product made both halves side by side."""
# ruff: noqa: N803  # constexpr parameters are written in capitals, as Triton's own kernels do
# mypy: disable-error-code="import-not-found,import-untyped,no-untyped-def,untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl

BLOCKS = (1024, 2048, 4096)
"""Elements of a program that are tried on a GPU."""


@triton.jit
def _swiglu(x_ptr, out_ptr, width, BLOCK: tl.constexpr):
    """Make one block of one row."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < width
    gate = tl.load(x_ptr + row * 2 * width + columns, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(x_ptr + row * 2 * width + width + columns, mask=inside, other=0.0).to(tl.float32)
    made = gate / (1.0 + tl.exp(-gate)) * up
    tl.store(out_ptr + row * width + columns, made.to(out_ptr.dtype.element_ty), mask=inside)


def swiglu(x: torch.Tensor, out: torch.Tensor, *, block: int = 1024) -> torch.Tensor:
    """Write ``silu(x[:, :width]) * x[:, width:]`` to ``out``.

    Parameters
    ----------
    x, out
        (tokens, 2 width) and (tokens, width), contiguous.
    block
        Elements that a program makes.
    """
    tokens, width = out.shape
    _swiglu[(tokens, triton.cdiv(width, block))](x, out, width, BLOCK=block, num_warps=4)
    return out


def swiglu_reference(x: torch.Tensor) -> torch.Tensor:
    """Return the same in fp32."""
    gate, up = x.float().chunk(2, dim=-1)
    return torch.nn.functional.silu(gate) * up

"""What the kernels share: how a kernel is cut into programs, and what differs in Triton's interpreter.

The interpreter (``TRITON_INTERPRET=1``) runs kernels on the CPU with NumPy, which has no bfloat16: there it is held as
16-bit whole numbers, and arithmetic on it is nonsense. So kernels load, convert, and only then reckon: elementwise
ones in fp32 (on every machine), products in `operand_type`.
"""
# mypy: disable-error-code="import-not-found,import-untyped"

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
import triton.language as tl

_TYPES = {
    torch.float32: tl.float32,
    torch.float16: tl.float16,
    torch.bfloat16: tl.bfloat16,
    torch.float8_e4m3fn: tl.float8e4nv,
}


@dataclass(frozen=True, slots=True)
class Tile:
    """How a kernel is cut into programs, and how each runs.

    Attributes
    ----------
    rows, columns, depth
        Elements of the result that a program makes, and elements it reduces over at a time; 0 where a kernel has none.
        Powers of two, 16 at least where they enter a matrix product.
    warps
        Warps of a program (32 threads each).
    stages
        Iterations whose loads are in flight together (software pipelining).
    """

    rows: int
    columns: int
    depth: int = 0
    warps: int = 4
    stages: int = 2

    @property
    def label(self) -> str:
        """The tile in a word, for notes."""
        return f"{self.rows}x{self.columns}x{self.depth} w{self.warps} s{self.stages}"


def interpreting() -> bool:
    """Tell whether kernels run in Triton's interpreter: the same variable, read the same way as Triton reads it."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes", "y")


def operand_type(dtype: torch.dtype) -> Any:
    """Return the Triton type in which a kernel multiplies elements of a PyTorch type.

    Their own; fp32 for bfloat16 in the interpreter, which can't multiply it (products of bfloat16 are exact in fp32,
    which accumulates them on a GPU as well).
    """
    if interpreting() and dtype is torch.bfloat16:
        return tl.float32
    return _TYPES[dtype]


def power_of_two(value: int, least: int = 1) -> int:
    """Return the least power of two that is not below ``value`` nor ``least``."""
    return max(least, 1 << max(0, value - 1).bit_length())

"""What the operators share: the limits of a grid, and the GPU that a case is made ready on."""
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MEMORY_SHARE = 0.6
"""Share of a GPU's memory that the inputs of a case may take: the rest is for copies, scratch and the allocator."""

TOKENS = (1, 4, 16, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
"""Tokens of a step, up to twice the 8192 that vLLM's server takes by default on large GPUs."""

QUICK_TOKENS = (1, 16, 128, 1024, 8192)


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds a grid.

    Attributes
    ----------
    quick
        True: the small grid.
    fp8
        True: the GPU multiplies fp8 (compute capability 8.9 and later).
    memory_bytes
        Memory of the GPU.
    """

    quick: bool
    fp8: bool
    memory_bytes: float

    def fits(self, held_bytes: float) -> bool:
        """Tell whether inputs of that many bytes are measured."""
        return held_bytes <= MEMORY_SHARE * self.memory_bytes


@dataclass(frozen=True, slots=True)
class Gpu:
    """The GPU that cases are made ready on.

    Attributes
    ----------
    device
        As PyTorch names it.
    cache_bytes
        Of its L2 cache.
    processors
        Streaming multiprocessors.
    """

    device: str
    cache_bytes: int
    processors: int


def torch_type(dtype: str) -> Any:
    """Return PyTorch's type of a name of the schema."""
    import torch

    return {"bf16": torch.bfloat16, "fp16": torch.float16, "fp8": torch.float8_e4m3fn, "fp32": torch.float32}[dtype]


def filled(gpu: Gpu, dtype: str, *shape: int) -> Any:
    """Return normally distributed numbers: constant ones draw less power, and so run at higher clocks."""
    import torch

    drawn = "bf16" if dtype == "fp8" else dtype  # PyTorch draws no fp8
    return torch.empty(shape, dtype=torch_type(drawn), device=gpu.device).normal_().to(torch_type(dtype))


def vacant(gpu: Gpu, dtype: str, *shape: int) -> Any:
    """Return room for results."""
    import torch

    return torch.empty(shape, dtype=torch_type(dtype), device=gpu.device)

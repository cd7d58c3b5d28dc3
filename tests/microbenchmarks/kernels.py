"""What the tests of kernels share. They run in Triton's interpreter unless TRITON_INTERPRET=0 says there is a GPU."""

from __future__ import annotations

import os
from typing import Any

import pytest

os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is first imported

torch: Any = pytest.importorskip("torch", reason="needs torch and triton (extra 'calibrate')")
pytest.importorskip("triton", reason="needs torch and triton (extra 'calibrate')")

DEVICE = "cpu" if os.environ["TRITON_INTERPRET"] == "1" else "cuda"

HALVES = [torch.float16, torch.bfloat16]
"""Types of 16 bits, and how far a result may lie from fp32's: three units of the last place, and as much of 1."""

_UNIT = {torch.float32: 2.0**-20, torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7}


def random(*shape: int, dtype: Any = torch.float32, seed: int = 0) -> Any:
    """Return normally distributed numbers."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).to(dtype).to(DEVICE)


def poisoned(*shape: int, dtype: Any) -> Any:
    """Return a tensor of NaN: what a kernel forgets to write shows."""
    return torch.full(shape, float("nan"), dtype=dtype, device=DEVICE)


def assert_near(made: Any, wanted: Any, units: float = 3.0) -> None:
    """Compare with fp32's result, in units of the last place of the made one's type."""
    unit = _UNIT[made.dtype] * units
    assert torch.isfinite(made.float()).all()
    torch.testing.assert_close(made.float(), wanted.float(), rtol=unit, atol=unit)

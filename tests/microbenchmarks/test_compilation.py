"""Kernels compile for real GPUs, which needs none: Triton brings its compiler and NVIDIA's assembler.

What the machine code holds is the only thing known here of speed: tensor-core instructions and asynchronous copies.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def compiled(capability: int) -> dict[str, str]:
    """Return what the compiler made of each kernel, by name, in a process without the interpreter."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TRITON_INTERPRET": "0", "TRITON_DEFAULT_FP_FUSION": "1"}
    command = [sys.executable, "-m", "tests.microbenchmarks.compiling", str(capability)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(line.split(": ", 1) for line in done.stdout.splitlines())


@pytest.mark.parametrize(("capability", "products"), [(80, "mma.sync"), (90, "wgmma")])
def test_kernels_compile_with_tensor_cores_and_pipelined_loads(capability: int, products: str) -> None:
    pytest.importorskip("torch", reason="needs torch and triton (extra 'calibrate')")
    pytest.importorskip("triton", reason="needs torch and triton (extra 'calibrate')")
    made = compiled(capability)
    assert set(made) == {"gemm", "prefill", "decode", "join", "count", "place", "grouped", "sum", "norm", "swiglu",
                         "rotary", "copy", "empty"}  # fmt: skip
    for name in ("gemm", "prefill", "grouped"):
        assert products in made[name].split(), name
    assert "mma.sync" in made["decode"].split()  # 16 rows are too few for wgmma
    for name in ("gemm", "prefill", "grouped", "decode"):
        assert "cp.async" in made[name].split(), name

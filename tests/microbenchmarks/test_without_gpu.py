"""What `simulate calibrate run` says where it can't measure."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def simulate(out: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "simulator", "calibrate", "run", "--out", str(out)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_a_gpu_it_says_so_in_one_line(tmp_path: Path) -> None:
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("triton") is None:
        pytest.skip("needs torch and triton (extra 'calibrate')")
    done = simulate(tmp_path / "gpu.parquet", TRITON_INTERPRET="0")
    assert done.returncode == 2
    assert done.stderr == "error: simulate calibrate run needs an NVIDIA GPU that PyTorch can see; none was found\n"
    assert not list(tmp_path.iterdir())


def test_without_torch_it_names_the_extra(tmp_path: Path) -> None:
    # A module that isn't there, also where torch is installed.
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')\n")
    done = simulate(tmp_path / "gpu.parquet", PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    assert done.returncode == 2
    assert done.stderr == (
        "error: simulate calibrate run needs torch and triton: pip install 'llm-cluster-simulator[calibrate]'\n"
    )

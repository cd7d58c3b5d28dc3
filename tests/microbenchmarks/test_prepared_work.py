"""Cases made ready and launched, every tile and every set of inputs, in the interpreter; and a run from end to end.

Only the device itself is faked: its timer (the host's clock), NVML, and CUDA graphs.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hardware_profiles import load_accelerator
from simulator import cli
from simulator.calibration.microbenchmarks import device, gpu_bench
from simulator.calibration.microbenchmarks import run as runs
from simulator.calibration.microbenchmarks.case import Case, Variant, Work, shape
from simulator.calibration.microbenchmarks.operators import attention, copies, elementwise, experts, gemm
from simulator.calibration.microbenchmarks.operators.base import Gpu
from simulator.calibration.microbenchmarks.sampling import Batch, Plan, Reading
from simulator.calibration.schema import read_measurements
from tests.microbenchmarks.kernels import DEVICE

GPU = Gpu(DEVICE, cache_bytes=2000, processors=4)
HEADS = (4, 2, 16)

CASES = [
    gemm._case("triton", 3, 20, 24, "bf16"),
    gemm._case("triton", 3, 32, 32, "fp8"),
    gemm._case("cublas", 3, 20, 24, "bf16"),
    elementwise._norm(3, 40),
    elementwise._activation(3, 40),
    elementwise._rotary(3, *HEADS),
    attention._prefill(HEADS, 2, 5, 0),
    attention._prefill(HEADS, 1, 5, 30, window=8),
    attention._prefill(HEADS, 1, 5, 30, kv_dtype="fp8"),
    attention._decode(HEADS, 3, 40),
    attention._decode(HEADS, 1, 40, window=8),
    attention._decode(HEADS, 1, 40, kv_dtype="fp8"),
    experts._case((32, 32, 4, 2), (1, 1), "uniform", 5),
    experts._case((32, 32, 4, 2), (2, 1), "balanced", 5),
    experts._case((32, 32, 4, 2), (1, 2), "balanced", 5),
    Case("copy", "hbm", shape(message_bytes=300), bytes=600.0),
    Case("copy", "h2d pageable", shape(message_bytes=300), bytes=300.0),
    Case("copy", "d2h pageable", shape(message_bytes=300), bytes=300.0),
    Case("kv_gather", "triton, blocks of 64 bytes", shape(message_bytes=192), "bf16", bytes=384.0),
    Case("kv_scatter", "triton, blocks of 64 bytes", shape(message_bytes=192), "bf16", bytes=384.0),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
def test_every_variant_launches_on_every_set(case: Case) -> None:
    work = runs.PREPARE[case.operator](case, GPU)
    assert work.variants
    assert len({variant.label for variant in work.variants}) == len(work.variants)
    first, *others = work.variants
    for i in range(work.sets):
        first.launch(i)
    for variant in others:
        try:
            variant.launch(work.sets - 1)
        except Exception as error:  # a tile too large for this GPU: it drops out when tiles are tried
            assert (DEVICE, "resource" in str(error)) == ("cuda", True)


def test_blocks_of_a_set_are_copied_to_their_own_piece() -> None:
    # A gather and a scatter of the same blocks give back what was there; the pool holds twice what is copied.
    case = Case("kv_gather", "triton, blocks of 64 bytes", shape(message_bytes=192), "bf16", bytes=1e9)
    assert copies.block_bytes_of(case) == 64
    assert runs.PREPARE["kv_gather"](case, GPU).sets == 1


def test_few_tokens_are_not_tried_with_wide_tiles() -> None:
    labels = {
        tokens: len(gemm.prepare(gemm._case("triton", tokens, 16, 16, "bf16"), GPU).variants) for tokens in (1, 64)
    }
    assert labels == {1: 3, 64: 9}


class _NoMeter:
    def read(self) -> Reading:
        return Reading(sm_mhz=1980.0)


def _host_batch(work: Work, variant: Variant) -> Batch:
    def run(launches: int) -> float:
        began = time.perf_counter()
        for i in range(launches):
            variant.launch(i % work.sets)
        return time.perf_counter() - began

    return run


@pytest.fixture
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the host play an H200 of two GPUs, with short samples and small shapes."""
    machine = device.Machine(GPU, "NVIDIA H200", "h200", load_accelerator("h200"), 150 * 10**9, True, 1, "torch x")
    monkeypatch.setattr(device, "find_machine", lambda: machine)
    monkeypatch.setattr(device, "NvmlMonitor", _NoMeter)
    monkeypatch.setattr(device, "batch_of", _host_batch)
    monkeypatch.setattr(device, "release", lambda: None)
    short = Plan(batch_s=0.0, repeats=2, window_s=0.0, warmup_s=0.0, tune_s=0.0)
    monkeypatch.setattr("simulator.calibration.microbenchmarks.sampling.QUICK", short)

    def small(limits: Any, gpus: int, operators: Sequence[str]) -> list[Case]:
        return [case for case in CASES if case.operator in operators]

    monkeypatch.setattr(runs, "grid", small)


def simulate(*args: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(["calibrate", "run", *args])
    return int(ended.value.code or 0)


@pytest.mark.usefixtures("fake_gpu")
def test_a_run_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "gpu.parquet"
    args = ["--out", str(path), "--quick", "--only", "norm", "--only", "kv_gather", "--only", "all_reduce"]
    assert simulate(*args) == 0
    said = capsys.readouterr()
    assert "2 of 2 cases to measure" in said.err
    assert "collectives skipped: they need at least 2 GPUs, this machine has 1" in said.err
    assert "2 measured, 0 kept from before" in said.out
    assert "% of memory" in said.out
    table = read_measurements(path)
    assert sorted(table["operator"]) == ["kv_gather", "norm"]
    assert set(table["hardware"]) == {"h200"}
    assert (table["time_s"] > 0).all()
    assert table["power_w"].isna().all()
    assert table["source"].str.contains("SM clock 1980 MHz").all()

    assert simulate(*args) == 2
    assert "exists; add --resume" in capsys.readouterr().err
    assert simulate(*args, "--resume", "--only", "activation") == 0
    assert "1 measured, 2 kept from before" in capsys.readouterr().out


@pytest.mark.usefixtures("fake_gpu")
def test_a_case_that_cannot_run_is_said_and_leaves_no_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(case: Case, gpu: Gpu) -> Work:
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setitem(gpu_bench.PREPARE, "norm", no_memory)
    path = tmp_path / "gpu.parquet"
    assert simulate("--out", str(path), "--quick", "--only", "norm") == 1
    assert "not measured: norm triton add_rms_norm bf16 tokens=3 n=40: CUDA out of memory" in capsys.readouterr().out
    assert not path.exists()

"""Rows of cases, and the file: written whole, read back, resumed on the same machine only."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulator.calibration.microbenchmarks.case import Case, shape
from simulator.calibration.microbenchmarks.operators.base import Limits
from simulator.calibration.microbenchmarks.run import OPERATORS, grid
from simulator.calibration.microbenchmarks.sampling import Sample
from simulator.calibration.microbenchmarks.store import Provenance, Store, row
from simulator.calibration.schema import read_measurements
from simulator.errors import InputError

ORIGIN = Provenance("h200", "torch 2.13.0, triton 3.9.0", "2026-11-21")
GEMM = Case("gemm", "triton", shape(tokens=16, n=4096, k=1024), "bf16", weight_dtype="bf16", flops=1.0, bytes=2.0)
LAUNCH = Case("launch", "torch operator", ())


def test_a_row_says_what_ran_and_how_it_was_measured() -> None:
    taken = Sample(1e-5, 0.02, False, 412.0, (1755.0, 1980.0), ("power cap",), "16x64x128 w4 s5")
    made = row(GEMM, taken, ORIGIN)
    assert (made["operator"], made["kernel"], made["tokens"], made["n"], made["k"]) == (
        "gemm",
        "triton",
        16,
        4096,
        1024,
    )
    assert (made["time_s"], made["spread"], made["power_w"], made["hardware"]) == (1e-5, 0.02, 412.0, "h200")
    assert made["software"] == "llm-cluster-simulator microbenchmarks"
    assert made["source"] == (
        "simulate calibrate run; SM clock 1755 to 1980 MHz; clocks held down: power cap; unsteady; tile 16x64x128 w4 s5"
    )


def test_rows_are_written_and_found_again(tmp_path: Path) -> None:
    path = tmp_path / "gpu.parquet"
    store = Store(path, resume=False, origin=ORIGIN)
    store.add([(GEMM, Sample(1e-5, 0.02))])
    store.add([(LAUNCH, Sample(4e-6, 0.1, power_w=90.0))])
    assert [each.name for each in tmp_path.iterdir()] == ["gpu.parquet"]  # nothing partial is left
    table = read_measurements(path)
    assert list(table["operator"]) == ["gemm", "launch"]
    assert list(table["power_w"].isna()) == [True, False]
    assert Store(path, resume=True, origin=ORIGIN).times_s == {GEMM.key: 1e-5, LAUNCH.key: 4e-6}


def test_every_case_of_the_grids_is_found_again_in_its_row(tmp_path: Path) -> None:
    cases = grid(Limits(quick=False, fp8=True, memory_bytes=141e9), 8, OPERATORS)
    path = tmp_path / "gpu.parquet"
    Store(path, resume=False, origin=ORIGIN).add((case, Sample(1e-5, 0.0)) for case in cases)
    assert set(Store(path, resume=True, origin=ORIGIN).times_s) == {case.key for case in cases}


def test_a_file_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "gpu.parquet"
    Store(path, resume=False, origin=ORIGIN).add([(GEMM, Sample(1e-5, 0.02))])
    with pytest.raises(InputError, match="exists; add --resume"):
        Store(path, resume=False, origin=ORIGIN)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (Provenance("l40s", ORIGIN.version, ORIGIN.date), "hardware 'h200', this machine has 'l40s'"),
        (Provenance("h200", "torch 2.14.0", ORIGIN.date), "software_version 'torch 2.13.0, triton 3.9.0', this"),
    ],
)
def test_other_machines_and_versions_are_not_mixed(tmp_path: Path, other: Provenance, said: str) -> None:
    path = tmp_path / "gpu.parquet"
    Store(path, resume=False, origin=ORIGIN).add([(GEMM, Sample(1e-5, 0.02))])
    with pytest.raises(InputError, match=said):
        Store(path, resume=True, origin=other)


def test_resuming_on_another_day_keeps_both_dates(tmp_path: Path) -> None:
    path = tmp_path / "gpu.parquet"
    Store(path, resume=False, origin=ORIGIN).add([(GEMM, Sample(1e-5, 0.02))])
    later = Store(path, resume=True, origin=Provenance("h200", ORIGIN.version, "2026-11-22"))
    later.add([(LAUNCH, Sample(4e-6, 0.1))])
    assert list(read_measurements(path)["date"]) == ["2026-11-21", "2026-11-22"]


def test_a_missing_directory_is_said_before_anything_is_measured(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no directory"):
        Store(tmp_path / "no" / "gpu.parquet", resume=False, origin=ORIGIN)

"""A run with a bench that measures nothing: what is measured, kept, left over, failed, and written when."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from simulator.calibration.microbenchmarks import run as runs
from simulator.calibration.microbenchmarks.budget import Budget
from simulator.calibration.microbenchmarks.case import Case, shape
from simulator.calibration.microbenchmarks.sampling import Sample
from simulator.calibration.microbenchmarks.store import Provenance, Store
from simulator.calibration.schema import read_measurements

ORIGIN = Provenance("h200", "torch 2.13.0", "2026-11-21")


def norm(tokens: int) -> Case:
    return Case("norm", "triton add_rms_norm", shape(tokens=tokens, n=64), "bf16", bytes=1.0)


def reduce(ranks: int) -> Case:
    return Case("all_reduce", "nccl", shape(message_bytes=1024, ranks=ranks), "bf16")


LAUNCH = Case("launch", "torch operator", ())


class FakeBench:
    """Takes a second a case."""

    def __init__(self, path: Path, fails: dict[Case, BaseException] | None = None) -> None:
        self.path, self.fails, self.now_s = path, fails or {}, 0.0
        self.measured: list[Case] = []
        self.rows_before: list[int] = []

    def measure(self, case: Case) -> Sample:
        self.rows_before.append(len(read_measurements(self.path)) if self.path.exists() else 0)
        self.now_s += 1.0
        if case in self.fails:
            raise self.fails[case]
        self.measured.append(case)
        return Sample(1e-5, 0.0, steady=case != norm(2))

    def measure_collectives(self, cases: Sequence[Case], ranks: int) -> list[Sample]:
        assert {case["ranks"] for case in cases} == {ranks}
        return [self.measure(case) for case in cases]


def go(path: Path, cases: list[Case], bench: FakeBench, limit_s: float | None = None) -> runs.Outcome:
    store = Store(path, resume=True, origin=ORIGIN)
    return runs.run(cases, bench, store, Budget(limit_s, now=lambda: bench.now_s))


def test_groups_are_written_one_by_one_and_what_the_file_has_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "gpu.parquet"
    cases = [LAUNCH, norm(1), norm(2), reduce(2), reduce(4)]
    first = FakeBench(path)
    outcome = go(path, cases[:3], first)
    assert (outcome.measured, outcome.kept, outcome.unsteady) == (3, 0, [norm(2)])
    assert first.rows_before == [0, 1, 1]  # written after the launch, and not between the norms
    second = FakeBench(path)
    outcome = go(path, cases, second)
    assert (outcome.measured, outcome.kept) == (2, 3)
    assert second.measured == [reduce(2), reduce(4)]
    assert len(read_measurements(path)) == 5


def test_what_cannot_run_is_said_and_the_rest_measured(tmp_path: Path) -> None:
    fails: dict[Case, BaseException] = {norm(1): RuntimeError("CUDA out\nof memory"), reduce(2): RuntimeError("x")}
    bench = FakeBench(tmp_path / "gpu.parquet", fails)
    outcome = go(bench.path, [norm(1), norm(2), reduce(2)], bench)
    assert outcome.failed == [(reduce(2), "x"), (norm(1), "CUDA out of memory")]
    assert bench.measured == [norm(2)]


def test_a_run_that_is_interrupted_keeps_what_was_measured(tmp_path: Path) -> None:
    bench = FakeBench(tmp_path / "gpu.parquet", {norm(3): KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt):
        go(bench.path, [norm(1), norm(2), norm(3), norm(4)], bench)
    assert list(read_measurements(bench.path)["tokens"]) == [1, 2]


def test_no_case_is_started_when_time_is_up(tmp_path: Path) -> None:
    bench = FakeBench(tmp_path / "gpu.parquet")
    outcome = go(bench.path, [LAUNCH, norm(1), norm(2), norm(3), reduce(2), reduce(4)], bench, limit_s=2.0)
    assert bench.measured == [reduce(2), reduce(4)]  # these first: the start of their processes is not to come late
    assert (outcome.measured, outcome.left) == (2, 4)
    outcome = go(bench.path, [LAUNCH, norm(1), norm(2), norm(3), reduce(2), reduce(4)], bench, limit_s=2.0)
    assert bench.measured[2:] == [LAUNCH, norm(1)]
    assert (outcome.measured, outcome.kept, outcome.left) == (2, 2, 2)
    assert len(read_measurements(bench.path)) == 4


def test_without_a_limit_nothing_is_left(tmp_path: Path) -> None:
    bench = FakeBench(tmp_path / "gpu.parquet")
    assert go(bench.path, [norm(i) for i in range(1, 50)], bench).left == 0

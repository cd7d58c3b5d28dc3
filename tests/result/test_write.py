"""Results on disk: what comes back is what was written, and nothing is ever half written."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

import simulator.write as write
from simulator.errors import InputError
from simulator.run_data import Objectives
from simulator.write import check_out_dir, load_result, plain, write_result
from tests.result.support import MS, TWO, Request, result


def varied() -> Any:
    """A result with every kind of null in it."""
    requests = [*TWO, Request(14 * MS, 5000, 1), Request(15 * MS, 30, 50, code=1), Request(None, 1, 1)]
    return result(
        requests,
        class_names=["", 'code, "big"'],
        objectives=[Objectives(ttft_s=1.0), Objectives()],
        stop_at=90 * MS,
        keep_batches=True,
    )


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_round_trip(tmp_path: Path, form: write.Format) -> None:
    run = varied()
    out = write_result(run, tmp_path / "a" / "b", format=form)
    assert out == (tmp_path / "a" / "b").resolve()
    assert sorted(p.name for p in out.iterdir()) == sorted(
        [f"requests.{form}", "scenario.yaml", "summary.json", f"timeseries.{form}"]
    )
    back = load_result(out)
    pd.testing.assert_frame_equal(back.requests, run.requests, check_categorical=False)
    pd.testing.assert_frame_equal(back.timeseries, run.timeseries)
    assert {k: str(v) for k, v in back.requests.dtypes.items()} == {k: str(v) for k, v in run.requests.dtypes.items()}
    assert back.requests["class"].tolist() == ["", "", "", 'code, "big"']
    assert back.summary == run.summary
    assert back.summary_without_timing == run.summary_without_timing
    assert back.scenario == dict(run.scenario)
    assert back.summary["simulator"]["write_s"] > 0


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_a_run_without_requests_comes_back(tmp_path: Path, form: write.Format) -> None:
    run = result([])
    back = load_result(write_result(run, tmp_path / "out", format=form))
    pd.testing.assert_frame_equal(back.requests, run.requests, check_categorical=False)
    pd.testing.assert_frame_equal(back.timeseries, run.timeseries)


def test_files_are_readable_without_this_project(tmp_path: Path) -> None:
    out = write_result(varied(), tmp_path / "out", format="csv")
    frame = pd.read_csv(out / "requests.csv")
    assert frame["first_token_s"].isna().sum() == 1
    assert json.loads((out / "summary.json").read_text())["schema_version"] == 1
    assert yaml.safe_load((out / "scenario.yaml").read_text())["model"] == "tiny"


def test_the_same_run_writes_the_same_files(tmp_path: Path) -> None:
    first = write_result(varied(), tmp_path / "1", perfetto=True)
    second = write_result(varied(), tmp_path / "2", perfetto=True)
    for name in ("requests.parquet", "timeseries.parquet", "scenario.yaml", "trace.perfetto.json.gz"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_an_earlier_result_is_kept_unless_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_result(result(TWO), out, perfetto=True)
    with pytest.raises(InputError, match=r"it holds an earlier result; choose another directory or overwrite it"):
        write_result(result(TWO[:1]), out)
    assert load_result(out).summary["requests"]["arrived"] == 2
    write_result(result(TWO[:1]), out, overwrite=True, format="csv")
    assert load_result(out).summary["requests"]["arrived"] == 1
    assert not (out / "requests.parquet").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_an_empty_directory_is_fine_and_others_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write_result(result(TWO), tmp_path / "empty")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(InputError, match=r"holds files that are no result \(thesis.txt\); choose another"):
            write_result(result(TWO), tmp_path / "mine", overwrite=overwrite)
    (tmp_path / "empty" / "notes.txt").write_text("beside an earlier result")
    with pytest.raises(InputError, match=r"no result \(notes.txt\)"):
        write_result(result(TWO), tmp_path / "empty", overwrite=True)


@pytest.mark.parametrize("below", ["", "deeper/still"])
def test_a_file_in_the_way(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file is a file; choose another directory"):
        write_result(result(TWO), tmp_path / "file" / below)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_no_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(InputError, match="Permission denied; choose a directory that you may write to"):
            write_result(result(TWO), tmp_path / "out")
    finally:
        tmp_path.chmod(0o700)


def test_no_permission_is_found_before_a_long_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InputError, match="Permission denied; choose a directory that you may write to"):
        check_out_dir(tmp_path / "out")


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "No space left on device; free some space or choose another disk"),
        (errno.EACCES, "Permission denied; choose a directory that you may write to"),
        (errno.EIO, "choose another directory"),
    ],
)
@pytest.mark.parametrize("step", ["_write_table", "_put_in_place", "_write_scenario"])
def test_what_the_system_refuses_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, number: int, message: str
) -> None:
    out = tmp_path / "out"
    write_result(result(TWO[:1]), out)

    def refuse(*_: object) -> None:
        raise OSError(number, "refused")

    monkeypatch.setattr(write, step, refuse)
    with pytest.raises(InputError, match=message) as raised:
        write_result(result(TWO), out, overwrite=True)
    assert "\n" not in str(raised.value)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert load_result(out).summary["requests"]["arrived"] == 1


def test_an_interruption_while_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(write, "_write_table", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_result(result(TWO), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_result_comes_back_when_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    write_result(result(TWO[:1]), out)
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self.name.endswith(".partial"):
            raise OSError(errno.EIO, "refused")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(InputError, match="cannot write results"):
        write_result(result(TWO), out, overwrite=True)
    assert load_result(out).summary["requests"]["arrived"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_new_directories_have_ordinary_permissions(tmp_path: Path) -> None:
    ordinary = tmp_path / "ordinary"
    ordinary.mkdir()
    assert write_result(result(TWO), tmp_path / "out").stat().st_mode == ordinary.stat().st_mode


def test_the_check_before_a_run_makes_nothing(tmp_path: Path) -> None:
    assert check_out_dir(tmp_path / "a" / "b") == (tmp_path / "a" / "b").resolve()
    assert list(tmp_path.iterdir()) == []


def test_unknown_format(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown format 'xlsx'; known: parquet, csv"):
        write_result(result(TWO), tmp_path / "out", format="xlsx")  # type: ignore[arg-type]


def test_what_is_no_result_cannot_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no result in .*: there is no summary.json"):
        load_result(tmp_path / "nowhere")
    out = write_result(result(TWO), tmp_path / "out")
    (out / "timeseries.parquet").unlink()
    with pytest.raises(InputError, match=r"there is no timeseries.parquet or timeseries.csv"):
        load_result(out)
    (out / "timeseries.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"timeseries has columns a, b; wanted: t_s, replica"):
        load_result(out)
    (out / "summary.json").write_text('{"schema_version": 99}')
    with pytest.raises(
        InputError, match=r"its schema_version is 99, this version reads 1; run its scenario.yaml again"
    ):
        load_result(out)
    (out / "summary.json").write_text("{")
    with pytest.raises(InputError, match=r"cannot read the result in .*Expecting property name"):
        load_result(out)


def test_plain_values_only() -> None:
    value = {"a": (1, np.int64(2)), "b": Path("x/y"), "c": np.array([1.5]), 3: {"z", "y"}, "n": None, "t": True}
    assert plain(value) == {"a": [1, 2], "b": "x/y", "c": [1.5], "3": ["y", "z"], "n": None, "t": True}
    with pytest.raises(TypeError, match="object can't be written to a scenario file"):
        plain({"a": object()})

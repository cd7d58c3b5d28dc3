"""What a study leaves in a directory: all of it or what was there, and nothing of an earlier one."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulator.errors import InputError
from simulator.studies.directories import check_own, csv_text, json_text, write_all


def names(place: Path) -> dict[str, str]:
    return {str(path.relative_to(place)): path.read_text() for path in place.rglob("*") if path.is_file()}


def is_own(name: str) -> bool:
    return name in ("a.csv", "b.csv", "runs")


def test_a_table_has_the_columns_of_all_rows_and_lists_as_json() -> None:
    rows = [{"a": 1, "c": [1, 2]}, {"b": None, "c": {"x": 1.5}}]
    assert csv_text(rows, ["b"]) == 'b,a,c\n,1,"[1, 2]"\n,,"{""x"": 1.5}"\n'
    assert csv_text([], ["plan"]) == "plan\n"
    assert json_text({"seeds": (1, 2)}) == '{\n  "seeds": [\n    1,\n    2\n  ]\n}\n'


def test_a_study_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    write_all(tmp_path, {"a.csv": "1", "runs/1.yaml": "x", "runs/2.yaml": "y"}, is_own)
    write_all(tmp_path, {"a.csv": "2", "runs/1.yaml": "z"}, is_own)
    assert names(tmp_path) == {"a.csv": "2", "runs/1.yaml": "z"}


def test_what_somebody_else_put_there_meanwhile_stays(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    write_all(tmp_path, {"a.csv": "1"}, is_own)
    assert names(tmp_path) == {"a.csv": "1", "notes.txt": "mine"}


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_all(tmp_path, {"a.csv": "1", "b.csv": "1"}, is_own)
    write = Path.write_text

    def full(path: Path, *given: object, **more: object) -> int:
        if path.name.startswith("b.csv"):
            raise OSError(28, "No space left on device")
        return write(path, *given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(InputError, match="No space left on device; choose another directory, or make room"):
        write_all(tmp_path, {"a.csv": "2", "b.csv": "2"}, is_own)
    assert names(tmp_path) == {"a.csv": "1", "b.csv": "1"}


def test_what_a_killed_study_left_is_its_own(tmp_path: Path) -> None:
    (tmp_path / "a.csv.partial").write_text("")
    assert check_own(tmp_path, "sweep", {"a.csv"}.__contains__, overwrite=True) == tmp_path
    with pytest.raises(InputError, match="it holds other files"):
        check_own(tmp_path, "sweep", {"b.csv"}.__contains__, overwrite=True)
    with pytest.raises(InputError, match="it is a file, or lies in one"):
        check_own(tmp_path / "a.csv.partial", "sweep", {"b.csv"}.__contains__, overwrite=True)

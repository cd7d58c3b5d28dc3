"""The measurement schema: what it refuses, in words, and that a table comes back as it was written."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from simulator.calibration.load import load_measurements
from simulator.calibration.schema import COLUMNS, OPERATORS, frame, read_measurements, validate, write_measurements
from simulator.errors import InputError

PROVENANCE = {"hardware": "h200", "software": "ours", "software_version": "1", "date": "2026-01-02", "source": "test"}


def table(**columns: object) -> pd.DataFrame:
    return frame({"operator": "qkv", "tokens": 8, "time_s": 1e-5, **PROVENANCE, **columns}, 2)


def test_a_table_comes_back_as_it_was_written(tmp_path):
    written = validate(table(power_w=300.0, tp=2), "here")
    write_measurements(written, tmp_path / "m.parquet")
    pd.testing.assert_frame_equal(read_measurements(tmp_path / "m.parquet"), written)
    assert list(written.columns) == list(COLUMNS)


def test_every_column_that_an_operator_needs_is_a_column():
    assert {name for needed in OPERATORS.values() for name in needed} <= set(COLUMNS)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"operator": "qvk"}, "here, row 1: unknown operator 'qvk'; did you mean 'qkv'"),
        ({"tokens": None}, "here, row 1: qkv needs tokens"),
        ({"time_s": 0.0}, r"here, row 1: time_s must be a number above 0 \(seconds\), got 0"),
        ({"time_s": [1e-5, float("inf")]}, "here, row 2: time_s must be a number above 0"),
        ({"power_w": -1.0}, "here, row 1: power_w must be a number of at least 0, got -1"),
        ({"source": None}, "here, row 1: source is empty; it is needed: who measured it"),
        ({"hardware": 7}, "here, row 1: hardware must be a text, got 7"),
        ({"kernel": ["a", ""]}, "here, row 2: kernel must be a text, got ''"),
        ({"kernel": [None, ["a"]]}, r"here, row 2: kernel must be a text, got \['a'\]"),
        ({"kernel": [3.0, "a"]}, r"here, row 1: kernel must be a text, got 3\.0"),
        ({"tokens": [8, -3]}, r"here, row 2: tokens must be a whole number of at least 0, got -3$"),
        ({"operator": ["qkv", "gemm"], "n": 1}, "here, row 2: gemm needs k"),
    ],
)
def test_a_bad_value_is_named_with_its_row(columns, message):
    with pytest.raises(InputError, match=message):
        validate(table(**columns), "here")


def test_counts_are_whole():
    with pytest.raises(InputError, match=r"row 1: tokens must be a whole number of at least 0, got 8\.5"):
        validate(table().astype({"tokens": "float64"}).assign(tokens=8.5), "here")


def test_columns_are_known_and_there():
    with pytest.raises(InputError, match="unknown column 'tokns'; did you mean 'tokens'"):
        validate(table().rename(columns={"tokens": "tokns"}), "here")
    with pytest.raises(InputError, match="has no column 'date'"):
        validate(table().drop(columns="date"), "here")
    with pytest.raises(InputError, match="has no rows"):
        validate(table()[:0], "here")


def test_files_that_are_not_measurements(tmp_path):
    with pytest.raises(InputError, match=r"none\.parquet: no such file"):
        read_measurements(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("no")
    with pytest.raises(InputError, match="can't be read as a Parquet file of measurements"):
        read_measurements(tmp_path / "text.parquet")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(InputError, match="says no version of the measurement schema"):
        read_measurements(tmp_path / "other.parquet")
    later = pa.table({"a": [1]}).replace_schema_metadata({"measurements_schema_version": "9"})
    pq.write_table(later, tmp_path / "later.parquet")
    with pytest.raises(InputError, match="has version 9 of the measurement schema; this simulator reads version 2"):
        read_measurements(tmp_path / "later.parquet")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("aiconfigurator:h200_sxm", "must be aiconfigurator:SYSTEM/BACKEND"),
        ("nowhere/at_all", "no such file or directory; give a Parquet file"),
    ],
)
def test_names_that_mean_no_measurements(name, message):
    with pytest.raises(InputError, match=message):
        load_measurements(name)

"""Designs in files."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulator.errors import InputError
from simulator.studies.design_files import read_points, read_sweep


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_csv_has_a_column_a_key_and_empty_cells_set_nothing(tmp_path: Path) -> None:
    path = written(tmp_path, "points.csv", "name,tp,policy,workload.trace\nbig, 2,sarathi,t.csv\n\n7,1,,bundled:x\n")
    assert read_points(path) == [
        {"name": "big", "tp": 2, "policy": "sarathi", "workload.trace": str(tmp_path / "t.csv")},
        {"name": "7", "tp": 1, "workload.trace": "bundled:x"},
    ]


def test_a_yaml_list_has_a_mapping_a_point(tmp_path: Path) -> None:
    path = written(tmp_path, "points.yaml", "- {tp: 1, cluster.pools.1.accelerator: my.yaml}\n- name: b\n  tp: 2\n")
    assert read_points(path) == [
        {"tp": 1, "cluster.pools.1.accelerator": str(tmp_path / "my.yaml")},
        {"name": "b", "tp": 2},
    ]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("p.txt", "", "is a file .csv or .yaml"),
        ("p.csv", "tp\n", "holds no points"),
        ("p.csv", "tp,tp\n1,2\n", "line 1: names of keys, each once"),
        ("p.csv", "tp,pp\n1\n", "line 2: 1 cells, and line 1 has 2"),
        ("p.csv", "tpp\n1\n", "unknown key 'tpp'; did you mean 'tp'?"),
        ("p.yaml", "a: 1", "holds no points"),
        ("p.yaml", "- 3", "must be a mapping of keys, got 3"),
        ("p.yaml", "[", "p.yaml: "),
    ],
)
def test_a_list_that_is_none_is_refused(tmp_path: Path, name: str, text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_points(written(tmp_path, name, text))


def test_a_file_says_a_whole_sweep(tmp_path: Path) -> None:
    text = """
scenario: {workload: {trace: t.csv}}
over: {tp: [1, 2], policy: ["mine.py:Mine"], rate_scale: 0.5..2:4}
variants: {a: {workload.limit: 5}}
points: [{model: ./config.json}]
seeds: [3, 4]
by: ttft_p99
"""
    found = read_sweep(written(tmp_path, "sweep.yaml", text))
    assert found.scenario == {"workload": {"trace": str(tmp_path / "t.csv")}}
    assert found.design == {
        "over": {"tp": [1, 2], "policy": [str(tmp_path / "mine.py:Mine")], "rate_scale": "0.5..2:4"},
        "variants": {"a": {"workload.limit": 5}},
        "points": [{"model": str(tmp_path / "config.json")}],
    }
    assert found.others == {"seeds": [3, 4], "by": "ttft_p99"}
    other = read_sweep(written(tmp_path, "other.yaml", "scenario: base.yaml\nover: {tp: [1]}\n"))
    assert other.scenario == tmp_path / "base.yaml"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sceario: x", "sweep.yaml: line 1: unknown key 'sceario'; did you mean 'scenario'?"),
        ("over: [1]", "over: must be values by key"),
        ("seeds: many", "seeds: must be a number of seeds"),
        ("variants: {a: 3}", "variants.a: must be a mapping of keys, got 3"),
        ("- 1", "must hold a mapping"),
    ],
)
def test_a_file_that_says_something_else_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_sweep(written(tmp_path, "sweep.yaml", text))

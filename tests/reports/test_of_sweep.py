"""The report of a sweep: the best point, intervals, failures, and a plot that suits the design."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import simulator
from simulator.studies.sweep import run_sweep
from tests.reports.page import Element, faults, read
from tests.studies.test_sweep import scenario


def page(directory: Path, **design: Any) -> tuple[str, Element]:
    more = {"model": "llama-3.1-8b", **design.pop("scenario", {})}
    run_sweep(scenario(**more), **design, store=directory / "kept", workers=1, out=directory / "out")
    report = simulator.report(directory / "out")
    html = report.path.read_text(encoding="utf-8")
    assert faults(html) == []
    return report.answer, read(html)


def captions(found: Element) -> str:
    return " ".join(each.whole_text for each in found.all("figcaption"))


def test_the_answer_is_the_best_point_with_its_interval_and_what_failed(tmp_path: Path) -> None:
    answer, found = page(tmp_path, over={"max_num_seqs": [1, 32], "tp": [1, 3]}, seeds=3, by="e2e_mean")
    assert answer.startswith("4 points with 3 seeds each. The best by e2e_mean is max_num_seqs=32, tp=1: ")
    assert " ± " in answer and answer.endswith(" s. 6 runs of 12 failed.")
    text = found.whole_text
    assert "6 runs (max_num_seqs=1, tp=3; max_num_seqs=32, tp=3): parallel plan: tp=3 does not split" in text
    assert "simulate run --scenario scenarios/0003.yaml --seed 0" in text
    assert "12 simulated" not in text and "6 simulated, 0 kept from earlier" in text


@pytest.mark.parametrize(
    ("design", "words"),
    [
        ({"over": {"max_num_seqs": [1, 2, 4]}}, "TTFT p99 (s) against max num seqs."),
        ({"over": {"max_num_seqs": [1, 2], "policy": ["vllm-v1", "sarathi"]}}, "a line each value of policy"),
        ({"over": {"max_num_seqs": "1..8:8", "rate_scale": "1..2:8"}}, "by max num seqs and rate scale"),
        ({"over": {"max_num_seqs": "1..64:log:int", "rate_scale": "1..2"}, "lhs": 4}, "a dot a point"),
        ({"variants": {"a <b>": {"max_num_seqs": 1}, "c": {"policy": "sarathi"}}}, "against the points"),
    ],
)
def test_plots_suit_the_design(tmp_path: Path, design: dict[str, Any], words: str) -> None:
    answer, found = page(tmp_path, **design)
    assert words in captions(found)
    assert "goes from" in answer


def test_notes_that_differ_by_numbers_are_told_once(tmp_path: Path) -> None:
    workload = {"trace": "bundled:burstgpt-style", "limit": 30}
    _, found = page(tmp_path, scenario={"workload": workload}, over={"rate_scale": [1, 2, 3]})
    assert found.whole_text.count("as fast as in the source") == 1
    assert "others with other numbers" in found.whole_text


def test_a_sweep_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text('{"schema_version": 99}')
    with pytest.raises(simulator.InputError, match="its schema_version is 99"):
        simulator.report(tmp_path)

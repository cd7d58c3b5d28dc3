"""The report of a comparison says what its files say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import simulator
from simulator import InputError, Scenario
from simulator.reports.document import Plot, Table
from simulator.reports.making import document_of
from tests.reports.page import faults, read

KEY = "cluster.pools.*.engine.max_num_seqs"
PARAMS = {"rate": 10, "requests": 40, "prompt": "constant:value=300", "output": "lognormal:median=30,sigma=1"}
BASE = Scenario.from_mapping(
    {
        "workload": {"generator": {"kind": "poisson", "params": PARAMS}},
        "cluster": {"pools": [{"accelerator": "h100-sxm", "cost": "roofline"}]},
        "objectives": {"e2e_s": 1.0},
    }
)


def made(place: Path, variants: dict[str, dict[str, Any]], **more: Any) -> Path:
    simulator.compare(BASE, variants=variants, workers=1, out=place, **more)
    return place


def page(place: Path) -> str:
    html = simulator.report(place).path.read_text(encoding="utf-8")
    assert faults(html) == []
    read(html)
    return html


def test_answer_table_and_figures_say_what_the_comparison_found(tmp_path: Path) -> None:
    place = made(tmp_path / "out", {"wide": {KEY: 64}, "narrow": {KEY: 2}}, seeds=3)
    report = document_of(place)
    assert report.answer.startswith("narrow against wide: worse in TTFT p99 (x ")
    sections = {section.title: section.blocks for section in report.sections}
    table = sections["Figures"][0]
    assert isinstance(table, Table)
    rows = {(row[0], row[1]): row for row in table.rows}
    assert rows["E2E mean (s)", "narrow"][3] == "worse" and rows["E2E mean (s)", "wide"][4] == "baseline"
    (plot,) = sections["Differences"]
    assert isinstance(plot, Plot) and "Off the scale: " in plot.caption and "throughput (higher)" in str(plot.data)
    assert [type(block) for block in sections["Request by request"]] == [Table, Plot, Plot, Plot]
    html = page(place)
    assert "simulate compare side-1-wide.yaml side-2-narrow.yaml --seeds 0,1,2" in html
    again = simulator.report(place).path.read_text(encoding="utf-8")
    assert again == html  # and it stands in the directory, which may be compared into again
    made(place, {"wide": {KEY: 64}, "narrow": {KEY: 2}}, seeds=3, overwrite=True)


def test_one_seed_failed_sides_and_hostile_names_make_a_page_too(tmp_path: Path) -> None:
    variants = {"<b>one</b>": {KEY: 8}, "two & $x$": {KEY: 8}, "too large": {"model": "llama-3.1-405b"}}
    place = made(tmp_path / "out", variants, seeds=1, requests=False)
    report = document_of(place)
    assert report.answer.startswith("two & $x$ against <b>one</b>: TTFT p99 0.0 %")
    assert "too large failed: llama-3.1-405b does not fit on h100-sxm" in report.answer
    assert "Request by request" not in [section.title for section in report.sections]
    assert "<b>one" not in page(place)


def test_a_comparison_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "compare.json").write_text(json.dumps({"schema_version": 99}))
    with pytest.raises(InputError, match="its schema_version is 99, this version reads 1; compare again"):
        simulator.report(tmp_path)

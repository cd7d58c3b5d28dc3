"""The report of a search: the best plan and the heuristic, plans that can't run, fronts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import simulator
from tests.reports.page import Element, faults, read

FIGURES = (
    "attainment", "output_tokens_per_s", "goodput_requests_per_s", "ttft_s_p99", "tpot_s_mean", "itl_s_p99",
    "e2e_s_mean", "cost_per_million_output_tokens", "energy_j_per_output_token", "peak_kv_utilization",
)  # fmt: skip


def plan(name: str, rank: int | None, **more: Any) -> dict[str, Any]:
    found = {"plan": name, "rank": rank, "gpus": 8, "baseline": False, "screened_only": False, "kind": None}
    return {**found, **dict.fromkeys(FIGURES), "reason": None, "overloaded": False, "unserved": 0, **more}


def search(directory: Path, *plans: dict[str, Any], **more: Any) -> None:
    """Write what ``simulate search --out`` does."""
    found = {
        "schema_version": 1,
        "model": "m",
        "nodes": 1,
        "node": "dgx<b>",
        "gpus": 8,
        "by": {"target": "ttft_p50", "figure": "ttft_s_p50", "unit": "s"},
        "best": {"plan": "one", "value": 0.5},
        "baseline": {"plan": "two", "value": 1.0},
        "gain_over_baseline": 2.0,
        "stages": ["2 of 2 plans"],
        "notes": [],
        "interrupted": False,
        "infeasible": {},
        "plans": plans,
        "scenario": None,
        "took_s": 1.0,
    }
    (directory / "search.json").write_text(json.dumps({**found, **more}), encoding="utf-8")


def page(directory: Path) -> Element:
    html = simulator.report(directory).path.read_text(encoding="utf-8")
    assert faults(html) == []
    return read(html)


ONE = plan("one", 1, ttft_s_p50=0.5, tpot_s_mean=0.02, output_tokens_per_s=10.0)
TWO = plan("two", 2, ttft_s_p50=1.0, tpot_s_mean=0.01, output_tokens_per_s=5.0, baseline=True)
OFF = plan("off", 3, ttft_s_p50=2.0, tpot_s_mean=0.03, output_tokens_per_s=4.0, unserved=3)


def test_the_best_plan_stands_beside_the_heuristic(tmp_path: Path) -> None:
    search(tmp_path, ONE, TWO, OFF)
    assert simulator.report(tmp_path).answer == (
        "Of 3 plans for m on 1 x dgx<b>, 8 GPUs, one is the best by ttft_p50: 0.500 s. That is 2.00 times as good as "
        "the heuristic plan of engines' guides, two: 1.00."
    )


def test_plans_are_ranked_and_the_front_is_drawn(tmp_path: Path) -> None:
    search(tmp_path, ONE, TWO, OFF, plan("bad", None, kind="memory", reason="needs 90 GB"), infeasible={"memory": 1})
    root = page(tmp_path)
    ranked = root.all("table")[0]
    assert [each.whole_text for each in ranked.all("th") if each.attributes["scope"] == "row"] == ["one", "two", "off"]
    assert ranked.all("th")[3].whole_text == "TTFT p50 (s)"  # what plans are ranked by comes first
    assert [each.attributes.get("class") for each in ranked.all("tr")] == [None, "marked", "marked", None]
    (svg,) = root.all("svg")
    assert svg.attributes["aria-label"] == "2 plans of 3 on the Pareto front, from the lowest TPOT mean (s): two, one."
    assert "bad: memory: needs 90 GB" in root.whole_text and "3 not served" in root.whole_text


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"baseline": {"plan": "one", "value": 0.5}}, "It is the heuristic plan of engines' guides."),
        ({"baseline": None}, "can't run or was not simulated."),
        ({"best": None}, "No plan of m on 1 x dgx<b>, 8 GPUs was simulated to its end."),
        ({"gain_over_baseline": None}, "two, has no such figure."),
    ],
)
def test_what_there_is_to_say_of_the_heuristic(tmp_path: Path, more: dict[str, Any], said: str) -> None:
    search(tmp_path, ONE, **more)
    assert simulator.report(tmp_path).answer.endswith(said)


def test_a_search_can_be_reported_and_repeated_in_its_directory(tmp_path: Path) -> None:
    scenario = {
        "workload": {"trace": "bundled:burstgpt-style", "limit": 20},
        "cluster": {"pools": [{"node": "dgx-h100", "cost": {"kind": "constant", "step_s": 0.01}}]},
    }
    only = {"tp": [8], "cp": [1], "pp": [1]}
    for _ in range(2):
        simulator.search(scenario, only=only, out=tmp_path, workers=1, overwrite=True)
        assert "simulate run --scenario best.yaml" in page(tmp_path).whole_text


def test_one_of_another_version_is_refused(tmp_path: Path) -> None:
    search(tmp_path, plan("one", 1), schema_version=99)
    with pytest.raises(simulator.InputError, match="its schema_version is 99, this version reads 1; search again"):
        simulator.report(tmp_path)

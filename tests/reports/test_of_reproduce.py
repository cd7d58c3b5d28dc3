"""The report of a study: the paper's figures beside the simulator's, and what they are made of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import simulator
from tests.reports.page import faults, read


def row(what: str, paper: float | None, simulated: float | None, **more: Any) -> dict[str, Any]:
    return {"what": what, "paper": paper, "simulated": simulated, "unit": "x", "source": "", "remark": "", **more}


def study(directory: Path, *rows: dict[str, Any]) -> None:
    """Write what ``simulate reproduce --out`` does."""
    details = {"name": "n", "paper": "A. Author, *T<i>tle*", "claim": "It is 2 times as fast.", "setup": "s"}
    details |= {"differences": "d", "quick": False, "trace": "a trace.csv", "rows": rows, "took_s": 1.0}
    (directory / "study.json").write_text(json.dumps(details), encoding="utf-8")


def test_the_figure_furthest_off_is_in_the_answer(tmp_path: Path) -> None:
    study(tmp_path, row("near", 2.0, 2.1), row("far", 2.0, 1.0), row("alone", None, 9.0), row("none", 3.0, None))
    assert simulator.report(tmp_path).answer == (
        "It is 2 times as fast. Of 2 figures that the simulator gives beside it, the furthest off: 1.00 times, where "
        "the paper has 2.00 times (far)."
    )


def test_figures_lead_to_the_runs_that_made_them(tmp_path: Path) -> None:
    study(tmp_path, row("a", 2.0, 2.1, runs="runs/a.yaml runs/b.yaml"), row("b", None, 2.0, runs=""))
    html = simulator.report(tmp_path).path.read_text(encoding="utf-8")
    assert faults(html) == []
    said = read(html).whole_text
    assert "simulate run --scenario runs/a.yaml" in said and "runs/a.yaml; runs/b.yaml" in said
    assert "simulate reproduce n --trace 'a trace.csv'" in said and "T<i>tle" in said


def test_a_study_without_figures_says_so(tmp_path: Path) -> None:
    study(tmp_path)
    assert simulator.report(tmp_path).answer.endswith("No figure of the paper's stands beside a simulated one here.")

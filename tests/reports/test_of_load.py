"""The report of a search for the highest load: the bracket, the loads, and commands that make them again."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

import simulator
from simulator import Scenario, highest_load
from simulator.figures import load_attainment
from tests.reports.page import Element, faults, read


def scenario(**workload: Any) -> Scenario:
    generator = {"kind": "poisson", "params": {"requests": 300, "rate": 5, "output": "constant:value=1"}}
    pool = {"cost": {"kind": "constant", "step_s": 0.1}, "engine": {"max_num_seqs": 1}}
    data = {
        "workload": {"generator": generator, **workload},
        "cluster": {"pools": [pool]},
        "objectives": {"ttft_s": 0.4},
    }
    return Scenario.from_mapping(data)


def page(directory: Path) -> Element:
    html = simulator.report(directory).path.read_text(encoding="utf-8")
    assert faults(html) == []
    return read(html)


def test_the_bracket_comes_first_and_every_load_is_there(tmp_path: Path) -> None:
    found = highest_load(scenario(), tolerance=0.3, workers=1, store=False, out=tmp_path)
    assert simulator.report(tmp_path).answer == found.answer
    assert found.sustained is not None and found.missed is not None
    shown = page(tmp_path)
    rows = shown.all("table")[0].all("tr")
    assert len(rows) == 1 + len(found.probes)
    assert found.sustained.text in found.answer and found.missed.text in found.answer
    assert len(shown.all("figure")) >= 2


def test_the_command_of_a_replication_makes_its_scenario(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    lines = [f"{0.15 * i},10,1" for i in range(300)]
    trace.write_text("\n".join(["arrival_s,prompt_tokens,output_tokens", *lines]) + "\n")
    base = scenario().updated({"workload.generator": None, "workload.trace": str(trace)})
    found = highest_load(base, tolerance=0.3, workers=1, store=False, out=tmp_path / "out")
    assert found.sustained is not None and found.sustained.resample is not None
    text = page(tmp_path / "out").whole_text
    command = next(line for line in text.splitlines() if "--seed 1" in line)
    words = shlex.split(command)
    changes = [word.split("=") for word in words if "=" in word]
    assert {key.rpartition(".")[2]: float(value) for key, value in changes} == found.sustained.resample
    assert "seeds are other days" in text


def test_clients_have_no_rate(tmp_path: Path) -> None:
    highest_load(scenario(loop={"clients": 2}), workers=1, store=False, out=tmp_path)
    shown = page(tmp_path)
    assert simulator.report(tmp_path).answer.endswith("4 clients is not.")
    assert len(shown.all("figure")) == 1
    assert "clients" in shown.all("table")[0].whole_text


def test_nothing_sustained_is_said(tmp_path: Path) -> None:
    found = highest_load(scenario(), tolerance=0.3, workers=1, store=False, out=tmp_path)
    told = json.loads((tmp_path / "load.json").read_text())
    told |= {"sustained": None, "scenario": None, "interrupted": True, "loads": []}
    (tmp_path / "load.json").write_text(json.dumps(told))
    assert simulator.report(tmp_path).answer == f"INTERRUPTED: of the loads that were tried until then. {found.answer}"
    assert "no scenario at the highest" in page(tmp_path).whole_text


def test_the_figure_names_what_it_draws() -> None:
    import pandas as pd

    row = {"attainment": 0.95, "attainment_low": 0.93, "attainment_high": 0.97, "given_up": 0}
    bound = {**row, "attainment": 0.8, "attainment_low": 0.0, "attainment_high": 0.82, "given_up": 2}
    frame = pd.DataFrame([{"load": 1.0, "answer": "sustained", **row}, {"load": 2.0, "answer": "missed", **bound}])
    (axes,) = load_attainment(frame, "load", share=0.9).axes
    drawn = {str(line.get_label()): list(line.get_ydata()) for line in axes.lines}
    assert drawn["sustained"] == [0.95] and drawn["missed, at most"] == [0.82]
    assert axes.get_ylim()[0] > 0.5
    with pytest.raises(simulator.InputError, match="no column 'rate'"):
        load_attainment(frame, "rate", share=0.9)

"""The frame of reproduced results: studies are found, run, shown beside the paper's figures, and written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from simulator.errors import InputError
from simulator.reproduce import Options, PaperFigure, Row, Study, load_study, reproduce, running, study_names


def _rows(options: Options) -> Sequence[Row]:
    options.progress("half done")
    return [
        Row("gain", 1.5 if options.quick else 2.0, "x", "gain"),
        Row("load", 3.25, "requests/s"),
        Row("worst case", None, "s", remark="nobody finished"),
    ]


STUDY = Study(
    name="made-up",
    paper="Somebody, Something, Nowhere 2000",
    claim="It is twice as fast.",
    figures={"gain": PaperFigure(2.5, "x", "abstract")},
    setup="One of each.",
    differences="None is known.",
    run=_rows,
)


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "load_study", lambda name: STUDY)


@pytest.mark.parametrize("name", study_names())
def test_every_study_says_where_its_figures_are_from(name: str) -> None:
    study = load_study(name)
    assert study.name == name
    assert all((study.paper, study.claim, study.setup, study.differences))
    assert study.figures
    assert all(figure.source and figure.unit for figure in study.figures.values())


def test_an_unknown_study_names_the_nearest() -> None:
    with pytest.raises(InputError, match="unknown study 'sarathi-serv'; did you mean 'sarathi-serve'"):
        load_study("sarathi-serv")


@pytest.mark.usefixtures("made_up")
def test_the_paper_stands_beside_what_was_simulated(tmp_path: Path) -> None:
    said: list[str] = []
    done = reproduce("made-up", quick=True, out=tmp_path / "new" / "out", progress=said.append)
    assert said == ["half done"]
    table = done.table()
    assert [(row["what"], row["paper"], row["simulated"]) for row in table] == [
        ("gain", 2.5, 1.5),
        ("load", None, 3.25),
        ("worst case", None, None),
    ]
    assert table[0]["source"] == "abstract"
    written = (tmp_path / "new" / "out" / "figures.csv").read_text().splitlines()
    assert written[:2] == ["what,paper,simulated,unit,source,remark,runs", "gain,2.5,1.5,x,abstract,,"]
    stored = json.loads((tmp_path / "new" / "out" / "study.json").read_text())
    assert stored["rows"] == table and stored["quick"] is True


@pytest.mark.usefixtures("made_up")
def test_a_study_without_a_trace_refuses_one() -> None:
    with pytest.raises(InputError, match="study 'made-up' takes no trace"):
        reproduce("made-up", trace="trace.csv")

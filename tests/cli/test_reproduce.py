"""``simulate reproduce`` at the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulator.reproduce import running
from simulator.reproduce.study import Options, PaperFigure, Row, Study
from tests.cli.conftest import Cli, one_line


def test_without_a_name_it_lists_every_study(cli: Cli) -> None:
    said = cli("reproduce")
    assert said.code == 0
    assert {line.split()[0] for line in said.out.splitlines()} == set(running.study_names())


def test_an_unknown_study_is_bad_input(cli: Cli) -> None:
    assert one_line(cli("reproduce", "nobody")).startswith("unknown study 'nobody'; known: ")


def test_figures_stand_side_by_side_with_the_explanation(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(options: Options) -> list[Row]:
        options.progress("one part")
        return [Row("gain", 1.25, "x", "gain")]

    study = Study("s", "P", "C.", {"gain": PaperFigure(2.5, "x", "table 9")}, "Set up so.", "Because.", run)
    monkeypatch.setattr(running, "load_study", lambda name: study)
    said = cli("reproduce", "s", "--quick")
    assert said.code == 0
    assert "one part" in said.err
    row = next(line for line in said.out.splitlines() if line.startswith("gain"))
    assert row.split() == ["gain", "2.50", "1.25", "x", "table", "9"]
    assert "Why they differ. Because." in said.out


def test_it_says_how_to_repeat_a_figure(cli: Cli, tmp_path: Path) -> None:
    assert "With --out DIR the scenario of each figure" in " ".join(cli("reproduce", "h2o", "--quick").out.split())
    said = cli("reproduce", "h2o", "--quick", "-q", "--out", str(tmp_path))
    assert "'simulate run --scenario FILE' repeats" in " ".join(said.out.split())
    file = next((tmp_path / "runs").glob("*all-kv.yaml"))
    assert cli("run", "--scenario", str(file)).code == 0

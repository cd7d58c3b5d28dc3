"""``simulate plan`` at the command line."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Cli, one_line

ASKED = ("plan", "trace.csv", "--gpus", "h100-sxm", "--max-gpus", "1", "--no-what-ifs", "--workers", "1")


def test_a_plan_is_told_with_its_proof_and_runs_again(cli: Cli) -> None:
    said = cli(*ASKED, "--ttft-p99", "1", "--seeds", "1", "--no-progress", "--out", "found")
    assert said.code == 0, said.err
    words = " ".join(said.out.split())
    assert "1 GPU for $" in words and "On seed 1: meets TTFT p99 <= 1 s" in words
    assert cli("run", "--scenario", "found/fleet.yaml", "-q").code == 0
    again = cli(*ASKED, "--ttft-p99", "1", "--out", "found")
    assert one_line(again).startswith("cannot write to") and "--overwrite" in again.err


def test_an_interrupted_plan_says_that_it_goes_on_from_there(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("simulator.planning.planner.plan", interrupted)
    said = cli(*ASKED, "--ttft-p99", "1")
    assert said.code == 130 and said.out == ""
    assert said.err.startswith("interrupted: no plan yet; ") and "the same command goes on from there" in said.err
    assert cli(*ASKED, "--ttft-p99", "1", "--no-store").err == "interrupted: no plan yet\n"

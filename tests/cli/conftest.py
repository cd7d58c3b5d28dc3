"""What the tests of the command line share: a trace, and the command in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from simulator.cli import main


@dataclass
class Said:
    code: int
    out: str
    err: str


Cli = Callable[..., Said]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    """Runs ``simulate`` with some arguments, in an empty directory with ``trace.csv``."""
    monkeypatch.chdir(tmp_path)
    write_trace(tmp_path / "trace.csv")

    def call(*args: str) -> Said:
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main(args)
        said = capsys.readouterr()
        return Said(int(caught.value.code or 0), said.out, said.err)

    return call


def write_trace(path: Path, rows: int = 40, gap_s: float = 0.25) -> None:
    lines = [f"{i * gap_s:.3f},{100 + 37 * (i % 7)},{20 + 11 * (i % 5)}" for i in range(rows)]
    path.write_text("\n".join(["arrival_s,prompt_tokens,output_tokens", *lines]) + "\n")


def one_line(said: Said) -> str:
    """Check that a command ended with bad input, said in one line, and return the line."""
    assert said.code == 2, said
    lines = said.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), said.err
    return lines[0].removeprefix("error: ")

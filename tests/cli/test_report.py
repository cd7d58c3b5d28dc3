"""``simulate report`` and ``simulate run --report``: where the page is, what it says first, what is refused."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Cli


def test_a_run_leaves_a_report_and_report_makes_it_again(cli: Cli, tmp_path: Path) -> None:
    said = cli("run", "trace.csv", "--out", "result", "--report", "--quiet")
    assert said.code == 0 and said.out == ""
    page = tmp_path / "result" / "report.html"
    first = page.read_bytes()
    page.unlink()
    said = cli("report", "result")
    assert said.code == 0
    answer, where = said.out.splitlines()
    assert answer.startswith("1 x a100-80gb served ") and where == f"wrote {page}"
    assert page.read_bytes() == first
    assert cli("report", "result", "--out", "other.html").out.endswith(f"wrote {tmp_path / 'other.html'}\n")


def test_a_report_needs_a_directory_of_a_result(cli: Cli) -> None:
    said = cli("run", "trace.csv", "--report")
    assert said.code == 2 and "add --out DIR" in said.err
    said = cli("report", ".")
    assert said.code == 2 and "error: no result in" in said.err and "simulate run --out" in said.err
    assert cli("report", "trace.csv").code == 2

"""The commands of ``simulate trace``: what they print, what they write, and that an error is one line."""

import json

import pytest
from typer.testing import CliRunner

from simulator.cli.trace import app
from workloads import read_trace

BURST = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_generate_inspect_convert_fit(tmp_path):
    made = tmp_path / "a.parquet"
    result = run(
        "generate", "gamma", "--requests", 500, "--rate", 4, "--param", "burstiness=0.5", "--seed", 3, "--out", made
    )
    assert result.exit_code == 0, result.output
    assert "wrote 500 requests" in result.stdout
    shown = run("inspect", made, "--plot", tmp_path / "a.svg")
    assert shown.exit_code == 0, shown.output
    for word in ("requests", "500", "CV of gaps", "prompt", "p99"):
        assert word in shown.stdout
    assert (tmp_path / "a.svg").read_text().startswith("<?xml")
    assert run("convert", made, tmp_path / "b.csv", "--limit", 100, "--rate-scale", 2).exit_code == 0
    assert len(read_trace(tmp_path / "b.csv")) == 100
    fitted = run("fit", made, "--out", tmp_path / "d.yaml")
    assert fitted.exit_code == 0, fitted.output
    assert (
        run(
            "generate", "gamma", "--fit", tmp_path / "d.yaml", "--requests", 9, "--out", tmp_path / "c.csv.gz"
        ).exit_code
        == 0
    )
    found = json.loads(run("inspect", tmp_path / "c.csv.gz", "--json").stdout)
    assert found["requests"] == 9


def test_png_is_drawn(tmp_path):
    assert run("inspect", "bundled:shared-prefix", "--plot", tmp_path / "a.png").exit_code == 0
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("kind", ["closed-loop", "regular"])
@pytest.mark.parametrize("requests", [1, 2, 30])
def test_traces_without_burstiness_or_span_are_shown(tmp_path, kind, requests):
    assert run("generate", kind, "--requests", requests, "--out", tmp_path / "a.csv").exit_code == 0
    shown = run("inspect", tmp_path / "a.csv", "--plot", tmp_path / "a.png")
    assert shown.exit_code == 0, shown.output
    assert json.loads(run("inspect", tmp_path / "a.csv", "--json").stdout)["requests"] == requests


def test_generators_are_listed():
    assert "shared-prefix" in run("generate", "--list").stdout
    assert "conversation_share" in run("generate", "burstgpt", "--list").stdout


def test_bad_rows_can_be_skipped(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(BURST + "5,ChatGPT,x,2,3,API log\n6,ChatGPT,1,2,3,API log\n")
    assert run("inspect", path).exit_code == 2
    result = run("inspect", path, "--on-bad-row", "skip")
    assert result.exit_code == 0
    assert "skipped 1 bad row (line 2: Request tokens is 'x', not a number)" in result.stdout.replace("\n", " ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspect", "{}/none.csv"], "none.csv: no such file"),
        (["inspect", "{}"], "is a directory"),
        (["inspect", "{}/bad.csv"], "bad.csv:2: Request tokens is 'x', not a number"),
        (["inspect", "{}/good.csv", "--format", "azurre"], "unknown trace format 'azurre'; did you mean 'azure'?"),
        (["inspect", "{}/good.csv", "--model", "GPT"], "no request has model 'GPT'"),
        (["inspect", "{}/good.csv", "--sample", "2"], "sample must be above 0 and at most 1, got 2"),
        (["inspect", "{}/good.csv", "--plot", "{}/a.bmp"], "unknown suffix for a picture"),
        (["inspect", "bundled:burst"], "no bundled trace is called 'burst'"),
        (["convert", "{}/good.csv", "{}/out.txt"], "unknown suffix for a trace"),
        (["convert", "{}/good.csv", "{}/none/out.csv"], "there is no folder"),
        (["convert", "{}/bad.csv", "{}/out.csv"], "bad.csv:2"),
        (["generate", "gama", "--out", "{}/out.csv"], "unknown generator 'gama'; did you mean 'gamma'?"),
        (["generate", "gamma"], "name a file with --out"),
        (["generate"], "which kind of trace? known: burstgpt"),
        (
            ["generate", "gamma", "--param", "rat=2", "--out", "{}/out.csv"],
            "has no parameter 'rat'; did you mean 'rate'?",
        ),
        (["generate", "gamma", "--param", "rate", "--out", "{}/out.csv"], "--param takes name=value"),
        (["generate", "gamma", "--rate", "2", "--param", "rate=2", "--out", "{}/out.csv"], "'rate' is given twice"),
        (["generate", "poisson", "--burstiness", "2", "--out", "{}/out.csv"], "has no parameter 'burstiness'"),
        (["generate", "gamma", "--rate", "-2", "--out", "{}/out.csv"], "must be above 0 requests/s, got -2"),
        (["generate", "gamma", "--fit", "{}/good.csv", "--out", "{}/out.csv"], "good.csv: is no"),
        (["fit", "{}/good.csv", "--out", "{}/out.yaml"], "2 requests are too few to fit"),
    ],
)
def test_every_error_is_one_line_and_leaves_no_file(tmp_path, arguments, message):
    (tmp_path / "good.csv").write_text(BURST + "5,ChatGPT,1,2,3,API log\n6,ChatGPT,1,2,3,API log\n")
    (tmp_path / "bad.csv").write_text(BURST + "5,ChatGPT,x,2,3,API log\n")
    result = run(*(a.replace("{}", str(tmp_path)) for a in arguments))
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
    assert result.stdout == ""
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.csv", "good.csv"]

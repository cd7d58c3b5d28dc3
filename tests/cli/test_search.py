"""``simulate search`` at the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulator.studies import stages as module
from simulator.studies.points import Outcome, Task
from tests.cli.conftest import Cli, one_line

NODE = ("--node", "hgx-h200", "--gpus", "4", "--workers", "1")


def test_it_prints_the_best_plan_with_the_heuristic_beside(cli: Cli, tmp_path: Path) -> None:
    said = cli("search", "trace.csv", *NODE, "--by", "tpot_mean", "--out", "found")
    assert said.code == 0
    first = said.out.splitlines()[0]
    assert first.startswith("llama-3.1-8b on part of a hgx-h200 with 4 GPUs: best by tpot_mean is 1 x (tp 4): ")
    assert first.endswith("it is the heuristic plan.")
    assert "TPOT" in said.out and "heuristic" in said.out
    assert {path.name for path in (tmp_path / "found").iterdir()} == {"plans.csv", "search.json", "best.yaml"}
    again = cli("run", "--scenario", "found/best.yaml", "-q")
    assert again.code == 0


def test_plans_that_miss_the_objectives_say_by_how_much(cli: Cli) -> None:
    said = cli("search", "trace.csv", *NODE, "--by", "goodput", "--tpot", "1e-9", "--only", "tp=4")
    assert said.code == 0
    assert "SLO 0.0" in said.out
    assert "SLO" not in cli("search", "trace.csv", *NODE, "--by", "tpot_mean", "--only", "tp=4").out


def test_all_lists_every_plan_that_can_not_run(cli: Cli) -> None:
    said = cli("search", "trace.csv", "--model", "llama-3.1-70b", *NODE, "--by", "e2e_mean", "--all")
    assert said.code == 0
    assert "Can't run" in said.out
    assert "4 x (tp 1): memory: llama-3.1-70b does not fit on h200 with tp=1 pp=1" in " ".join(said.out.split())
    short = cli("search", "trace.csv", "--model", "llama-3.1-70b", *NODE, "--by", "e2e_mean")
    assert "--all lists them" in short.out and "does not fit" not in short.out


def test_no_feasible_plan_is_exit_code_2_with_what_would_do(cli: Cli) -> None:
    said = one_line(cli("search", "trace.csv", "--model", "llama-3.1-405b", "--node", "dgx-h100"))
    assert said.startswith("no plan of llama-3.1-405b can run on 1 x dgx-h100 (8 GPUs)")
    assert said.endswith("2 x dgx-h100 would do (1 x (tp 8, pp 2))")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("search",), "which requests? name a trace"),
        (("search", "trace.csv"), "on how many GPUs? name a node type with --node"),
        (("search", "trace.csv", *NODE, "--by", "speed"), "unknown target 'speed'"),
        (("search", "trace.csv", *NODE, "--only", "tp"), "--only tp: write a dimension and whole numbers"),
        (("search", "trace.csv", *NODE, "--only", "tp=0"), "--only tp=0: write a dimension and whole numbers"),
        (
            ("search", "trace.csv", *NODE, "--tp", "4"),
            "--tp gives a layout, and the layout is searched; to keep that size: --only",
        ),
    ],
)
def test_misuse_is_bad_input_in_one_line(cli: Cli, arguments: tuple[str, ...], words: str) -> None:
    assert one_line(cli(*arguments)).startswith(words)


def test_an_interrupted_search_ends_with_130_and_prints_what_it_has(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = module.evaluate, []

    def evaluate(task: Task) -> Outcome:
        calls.append(task)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(task)

    monkeypatch.setattr(module, "evaluate", evaluate)
    said = cli("search", "trace.csv", *NODE, "--by", "e2e_mean", "--out", "found")
    assert said.code == 130
    assert said.out.startswith("INTERRUPTED")
    assert Path("found/plans.csv").exists()


def test_a_failed_plan_is_exit_code_1_and_the_rest_is_printed(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    real = module.evaluate

    def evaluate(task: Task) -> Outcome:
        tp = task.scenario["cluster"]["pools"][0]["parallel"]["tp"]
        return Outcome(failure="it broke", is_defect=True) if tp == 2 else real(task)

    monkeypatch.setattr(module, "evaluate", evaluate)
    said = cli("search", "trace.csv", *NODE, "--by", "e2e_mean")
    assert said.code == 1
    assert "it broke" in said.out and "best by e2e_mean" in said.out


def test_the_highest_load_is_a_bracket_with_every_load_that_was_tried(cli: Cli, tmp_path: Path) -> None:
    asked = ("search", "trace.csv", "--by", "load", "--ttft", "0.5", "--tolerance", "0.5", "--seeds", "3")
    said = cli(*asked, "--workers", "1", "--out", "found")
    assert said.code == 0
    first = " ".join(said.out.split())
    assert first.startswith("llama-3.1-8b, 90 % of requests within TTFT 500 ms: ")
    assert "--rate-scale" in first and "sustained" in said.out
    assert {path.name for path in (tmp_path / "found").iterdir()} >= {"loads.csv", "load.json"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--by", "load"), "the highest load within which objectives? give one of --ttft"),
        (("--by", "load", "--ttft", "1", "--only", "tp=2"), "--only is for a search of plans"),
        (("--by", "load", "--ttft", "1", "--all"), "--all is for a search of plans"),
        (("--gpus", "2", "--attain", "0.99"), "--attain is for --by load"),
        (("--by", "load", "--ttft", "1", "--store", "x", "--no-store"), "give --store or --no-store, not both"),
    ],
)
def test_options_of_the_other_search_are_refused(cli: Cli, arguments: tuple[str, ...], words: str) -> None:
    assert one_line(cli("search", "trace.csv", *arguments)).startswith(words)


def test_limits_and_the_pareto_front_are_shown(cli: Cli) -> None:
    asked = ("--only", "tp=1,4", "--vary", "max_num_seqs=2,64", "--price", "2", "--pareto", "tpot_mean,cost")
    said = cli("search", "trace.csv", *NODE, "--by", "cost", *asked, "--only", "replicas=1")
    assert said.code == 0
    assert "best by cost is 1 x (tp 1), max_num_seqs" in said.out.splitlines()[0]
    assert "max num" in said.out
    assert "on the front of tpot_mean, cost: marked" in said.out and "Pareto" in said.out


def test_limit_is_of_the_requests_as_in_every_command(cli: Cli) -> None:
    said = cli("search", "trace.csv", *NODE, "--only", "tp=1", "--limit", "3")
    assert said.code == 0 and "on all 3 requests" in said.out


def test_limits_are_refused_without_values(cli: Cli) -> None:
    assert one_line(cli("search", "trace.csv", *NODE, "--vary", "max_num_seqs")).startswith(
        "--vary max_num_seqs: write"
    )


def test_a_narrow_terminal_leaves_figures_out_and_cuts_none_off(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rich.console.Console.width", 80)
    asked = ("--only", "tp=1,4", "--vary", "max_num_seqs=2,64", "--pareto", "ttft_p99,throughput,energy")
    plans = cli("search", "trace.csv", *NODE, "--ttft", "1", "--by", "goodput", *asked)
    assert plans.code == 0 and "goodput/s*" in plans.out and "…" not in plans.out
    assert "heuristic" in plans.out and "Pareto" in plans.out
    loads = cli("search", "trace.csv", "--by", "load", "--ttft", "2", "--attain", "0.5")
    assert loads.code == 0 and "within (95 % interval)" in loads.out and "…" not in loads.out

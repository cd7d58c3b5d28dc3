"""``simulate compare`` at the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulator.studies import compare_runs as module
from tests.cli.conftest import Cli, one_line

FEW = ("--workers", "1", "--seeds", "2")
TWO = ("compare", "trace.csv", "--policies", "vllm-v1,sarathi", *FEW)


def test_the_baseline_stands_first_and_each_side_has_a_sentence(cli: Cli, tmp_path: Path) -> None:
    said = cli(*TWO, "--out", "found")
    assert said.code == 0, said.err
    lines = said.out.splitlines()
    assert lines[0].split() == ["metric", "side", "mean", "±", "95", "%", "against", "vllm-v1"]
    assert lines[1].split()[:4] == ["TTFT", "mean", "(ms)", "vllm-v1"] and lines[1].rstrip().endswith("baseline")
    assert lines[2].split()[0] == "sarathi" and "%" in lines[2]
    assert "TTFT p99 (ms)*" in said.out  # what sides are ordered by
    assert "\nsarathi against vllm-v1: " in said.out
    words = " ".join(said.out.split())
    assert "Seeds 2 (0 to 1): the trace is drawn anew for each" in words
    assert "Also differs sarathi: cluster.pools.0.engine.max_num_seqs: 256 -> 128" in words
    assert "sooner for" in words and "4 simulations" in words
    again = cli(*TWO)
    assert "0 simulations, 4 kept from earlier" in again.out
    assert cli("run", "--scenario", "found/side-2-sarathi.yaml", "-q").code == 0


def test_a_narrow_terminal_cuts_nothing_off(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rich.console.Console.width", 80)
    long = ("--variant", "sixteen-requests", "max-num-seqs=16", "--variant", "a-single-request", "max-num-seqs=1")
    lines = cli("compare", "trace.csv", *long, *FEW).out.splitlines()
    assert lines[0].split()[:2] == ["side", "mean"] and lines[1].split()[:2] == ["TTFT", "mean"]
    assert lines[2].startswith("  sixteen-requests ") and lines[3].startswith("  a-single-request ")
    table = lines[: lines.index("")]
    assert len(table) > 20 and not any("…" in line for line in table)


def test_objectives_and_prices_bring_their_figures_and_all_brings_every_one(cli: Cli) -> None:
    said = cli(*TWO, "--ttft", "1", "--price", "2", "--all", "--seeds", "1", "--no-requests")
    assert said.code == 0
    for label in ("goodput (requests/s)", "attainment (%)", "cost (per million output tokens)", "E2E p50 (ms)"):
        assert label in said.out
    assert "of one replication" in " ".join(said.out.split()) and "±" not in said.out and "sooner" not in said.out


def test_variants_are_written_as_a_name_and_keys(cli: Cli) -> None:
    said = cli(
        "compare", "trace.csv", "--variant", "one slot", "max-num-seqs=1", "--variant", "two", "max-num-seqs=2", *FEW
    )
    assert said.code == 0, said.err
    assert "two against one slot: better in" in said.out
    with_base = cli("compare", "trace.csv", "--variant", "two", "max-num-seqs=2", *FEW)
    assert "two against base: " in with_base.out


def test_scenario_files_are_sides_under_their_own_names(cli: Cli, tmp_path: Path) -> None:
    text = "workload: {{trace: trace.csv}}\ncluster: {{pools: [{{batching: {}}}]}}\n"
    (tmp_path / "a.yaml").write_text(text.format("vllm-v1"))
    (tmp_path / "b.yaml").write_text(text.format("orca"))
    said = cli("compare", "a.yaml", "b.yaml", *FEW)
    assert said.code == 0, said.err
    assert "b against a: " in said.out
    assert "b: cluster.pools.0.engine.max_num_batched_tokens: 2048 ->" in " ".join(said.out.split())
    (tmp_path / "b.yaml").write_text("workload: {trace: trace.csv, limit: 5}\n")
    assert one_line(cli("compare", "a.yaml", "b.yaml", *FEW)).startswith(
        "a and b don't ask the same: workload.limit (not set and 5)"
    )
    both = cli("compare", "a.yaml", "--policies", "orca,sarathi", *FEW)
    assert "sarathi against orca: " in both.out


def test_a_gpu_that_can_not_hold_the_model_is_told_and_the_others_compared(cli: Cli) -> None:
    said = cli("compare", "trace.csv", "--gpus", "l4,h100-sxm,h200", "--model", "qwen3-32b", *FEW)
    assert said.code == 1
    assert "l4 FAILED: qwen3-32b does not fit on l4" in said.out and "h200 against h100-sxm: " in said.out


def test_seeds_that_are_all_alike_are_said_to_be(cli: Cli) -> None:
    said = cli(*TWO, "--no-resample")
    assert said.code == 0
    words = " ".join(said.out.split())
    assert "all 2 seeds gave the same figures" in words and "(no --no-resample)" in words and "±" not in said.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("compare", "--policies", "orca,sarathi"), "which requests? name a trace"),
        (("compare", "trace.csv"), "compare what with what?"),
        (("compare", "a.csv", "b.csv", "--policies", "orca"), "one trace for all sides, got 2 (a.csv, b.csv)"),
        (("compare", "trace.csv", "--policies", "orca,,x"), "--policies orca,,x: write names with commas"),
        (("compare", "trace.csv", "--policies", "orca,x", "--policy", "sjf"), "--policies says what is compared"),
        (("compare", "trace.csv", "--policies", "orca,x", "--policy-param", "a=1"), "--policy-param is of one policy"),
        (("compare", "none.yaml", "--scenario", "other.yaml"), "name scenario files as arguments or with --scenario"),
        (
            ("compare", "none.yaml", "other.yaml", "--gpus", "l4,h200"),
            "policies, GPUs, routers and variants are changes of one",
        ),
        (("compare", "none.yaml", "other.yaml"), "none.yaml: no such file"),
        (("compare", "trace.csv", "--gpus", "l4,h2000"), "h2000: cluster.pools.0.accelerator: unknown accelerator"),
        (("compare", "trace.csv", "--seeds", "few"), "--seeds few: write how many"),
        (("compare", "trace.csv", "--variant", "a"), "--variant a: write a name and keys"),
        ((*TWO, "--baseline", "orca"), "no side is called 'orca', which is to be the baseline"),
        ((*TWO, "--by", "ttft"), "unknown metric 'ttft'"),
    ],
)
def test_misuse_is_bad_input_in_one_line(cli: Cli, arguments: tuple[str, ...], words: str) -> None:
    assert one_line(cli(*arguments)).startswith(words)


def test_an_interrupted_comparison_ends_with_130_and_prints_what_it_has(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*args: object, **more: object) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "run_kept", stopped)  # after the first seed
    said = cli(*TWO, "--out", "found")
    assert said.code == 130
    assert said.out.startswith("INTERRUPTED")
    assert Path("found/compare.csv").exists()

"""``simulate sweep``: what it prints, its exit codes, its options."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from simulator.cli import _run
from simulator.cli.sweep_command import _axes
from simulator.errors import InputError

SMALL = [
    "sweep",
    "bundled:burstgpt-style",
    "--limit",
    "30",
    "--set",
    "cluster.pools.*.cost={kind: constant, step_s: 0.01}",
]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    def call(*args: str) -> tuple[int, str, str]:
        code = _run([*SMALL, "--workers", "1", "--store", str(tmp_path / "kept"), *args], debug=False)
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_axes_are_lists_of_yaml_or_ranges() -> None:
    assert _axes(["tp=1,2", "--max-num-seqs=8..64:*2", "workload.loop=open,{clients: 4}"]) == {
        "tp": [1, 2],
        "max_num_seqs": "8..64:*2",
        "workload.loop": ["open", {"clients": 4}],
    }
    for text, words in (("tp", "write a key and values"), ("tp=[", "--vary tp: ")):
        with pytest.raises(InputError, match=words):
            _axes([text])
    with pytest.raises(InputError, match="given twice"):
        _axes(["max-num-seqs=1", "max_num_seqs=2"])


def test_it_prints_a_row_a_point_the_best_and_where_everything_is(
    cli: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    args = [
        "--vary",
        "max-num-seqs=1,64",
        "--vary",
        "tp=1..2:2",
        "--by",
        "ttft_p99",
        "--out",
        str(tmp_path / "o"),
    ]
    code, out, err = cli(*args)
    assert (code, err) == (0, "")
    assert out.startswith("4 points, 1 seed: 4 runs. Best by ttft_p99: max_num_seqs=64, tp=1: ")
    assert re.search(r"#\s+max_num_seqs\s+tp\s+TTFT p99 \(s\)\*", out)
    assert re.search(r"^1\s+64\s+1\s", out, re.MULTILINE)
    words = " ".join(out.split())  # long paths wrap
    assert "4 simulated, 0 there already; results are kept in" in words
    assert re.search(r"simulate run --scenario \S*scenarios/0003.yaml --seed 0", words)
    again, _, _ = cli(*args, "--overwrite", "--quiet")
    assert again == 0
    assert json.loads((tmp_path / "o" / "sweep.json").read_text())["kept"] == 4


def test_seeds_give_intervals_and_points_that_fail_their_reason(cli: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = cli("--vary", "tp=1,3", "--seeds", "2", "--set", "workload.resample={block_s: 1}")
    assert code == 1
    assert "2 points, 2 seeds: 4 runs, 2 failed." in out
    assert "±" in out and "95 %, Student's t over 2 seeds" in out
    assert re.search(r"Failed\s+2 runs: parallel plan: tp=3 does not split the 32 heads", out)


def test_variants_lists_and_hypercubes(cli: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    code, out, _ = cli("--variant", "two big", "policy=sarathi", "max-num-seqs=2", "--variant", "plain", "tp=2")
    assert code == 0 and re.search(r"^two big\s", out, re.MULTILINE) and re.search(r"^plain\s", out, re.MULTILINE)
    (tmp_path / "points.csv").write_text("name,max_num_seqs\nfirst,1\nsecond,2\n")
    code, out, _ = cli("--list", str(tmp_path / "points.csv"), "--lhs", "2", "--vary", "rate-scale=0.5..2:log")
    assert code == 0 and "4 points" in out and "first, rate_scale=" in out


def test_a_file_says_the_whole_sweep_and_flags_go_before_it(
    cli: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    scenario = {"model": "llama-3.1-8b", "workload": {"limit": 10}}
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump({"scenario": scenario, "over": {"tp": [1, 2]}, "seeds": 1, "by": "e2e_mean"}))
    code, out, _ = cli("--design", str(file), "--out", str(tmp_path / "o"))
    assert code == 0 and "Best by e2e_mean" in out
    written = yaml.safe_load((tmp_path / "o" / "scenarios" / "0002.yaml").read_text())
    assert written["workload"]["limit"] == 30 and written["cluster"]["pools"][0]["parallel"]["tp"] == 2
    code, _, err = cli("--design", str(file), "--vary", "tp=1")
    assert (code, err) == (2, "error: --design says what varies; leave out --vary, or write it there\n")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--vary", "max-num-sqs=1"], "unknown key 'max_num_sqs'; did you mean 'max_num_seqs'?"),
        (["--vary", "cluster.pools.*.replicass=1"], "unknown key 'replicass'; did you mean 'replicas'?"),
        (["--vary", "tp="], "tp: no value to try"),
        (["--vary", "tp=4..1:*2"], "--vary tp: 4..1:*2: the range is empty"),
        (["--vary", "tp=1,x"], "point tp=x: cluster.pools.0.parallel.tp: must be a whole number, got 'x'"),
        (["--lhs", "4", "--vary", "tp=1,2"], "a Latin hypercube needs a range"),
        (["--vary", "tp=1,2", "--vary", "cluster.pools.0.parallel.tp=4"], "are set by two parts of the sweep"),
        (["--variant", "a", "tp=1", "--variant", "a", "tp=2"], "two variants are called 'a'"),
        (["--vary", "tp=1", "--no-store"], "give --store or --no-store, not both"),
        (["--vary", "tp=1", "--cluster", "tcp://x:1"], "or workers of this machine, not both"),
        (["--vary", "tp=1", "--by", "speed"], "unknown target 'speed'"),
        (["--vary", "tp=3"], "no point can run; point tp=3: parallel plan"),
        ([], "nothing varies"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    cli: Callable[..., tuple[int, str, str]], args: list[str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simulator.runner.run", lambda *_, **__: pytest.fail("simulated"))
    code, out, err = cli(*args)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err


def test_an_interrupt_prints_what_is_done(
    cli: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from simulator.studies import store

    def interrupted(*args: object, **kwargs: object) -> object:
        yield from list(genuine(*args, **kwargs))[:1]  # type: ignore[arg-type]
        raise KeyboardInterrupt

    genuine = store.run_tasks
    monkeypatch.setattr(store, "run_tasks", interrupted)
    code, out, _ = cli("--vary", "max-num-seqs=1,2,3")
    assert code == 130
    assert out.startswith("INTERRUPTED") and re.search(r"Left out\s+2 points, not begun", out)

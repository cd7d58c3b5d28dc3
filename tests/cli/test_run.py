from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import Cli, one_line, write_trace

POLICY = '''
from dataclasses import dataclass
from typing import ClassVar

from policies.protocols import BatchingPolicy, param


@dataclass
class Mine(BatchingPolicy):
    """One request at a time."""

    name: ClassVar[str] = "mine"
    source: ClassVar[str] = "this test"
    fails: bool = param(False, "raise in the fifth step")
    refuses_budget: bool = param(False, "ask for too many tokens")
    steps = 0

    def compose(self, view, plan):
        self.steps += 1
        if self.fails and self.steps == 5:
            raise KeyError("what?")
        if view.num_decoding:
            plan.decode_all()
        elif view.waiting:
            request = view.waiting.first
            plan.prefill(request, 10**6 if self.refuses_budget else plan.uncached_tokens(request))
'''


def test_a_trace_alone_is_enough_and_the_defaults_are_printed(cli: Cli) -> None:
    said = cli("run", "trace.csv", "--policy", "sarathi")
    assert said.code == 0 and said.err == ""
    for text in ("llama-3.1-8b", "1 x a100-80gb", "sarathi", "max_num_seqs 128", "max_num_batched_tokens 512"):
        assert text in said.out
    for text in ("max_model_len 131072", "tokens of KV", "round-robin", "40 of 40 requests finished"):
        assert text in said.out


def test_quiet_prints_nothing(cli: Cli) -> None:
    said = cli("run", "trace.csv", "--quiet")
    assert (said.code, said.out, said.err) == (0, "", "")


def test_the_result_is_written_and_its_scenario_makes_it_again(cli: Cli, tmp_path: Path) -> None:
    assert cli("run", "trace.csv", "--out", "one", "-q", "--replicas", "2", "--router", "random").code == 0
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == [
        "requests.parquet",
        "scenario.yaml",
        "summary.json",
        "timeseries.parquet",
    ]
    assert cli("run", "--scenario", "one/scenario.yaml", "--out", "two", "-q").code == 0
    first, second = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("one", "two"))
    assert first.pop("simulator") != second.pop("simulator")
    assert first == second
    assert (tmp_path / "one/requests.parquet").read_bytes() == (tmp_path / "two/requests.parquet").read_bytes()
    assert (tmp_path / "one/scenario.yaml").read_bytes() == (tmp_path / "two/scenario.yaml").read_bytes()


def test_csv_and_perfetto_on_request(cli: Cli, tmp_path: Path) -> None:
    assert cli("run", "trace.csv", "--out", "one", "-q", "--format", "csv", "--perfetto").code == 0
    names = {p.name for p in (tmp_path / "one").iterdir()}
    assert {"requests.csv", "timeseries.csv", "trace.perfetto.json.gz"} <= names


def test_an_earlier_result_is_replaced_only_when_asked(cli: Cli) -> None:
    assert cli("run", "trace.csv", "--out", "one", "-q").code == 0
    assert "--overwrite" in one_line(cli("run", "trace.csv", "--out", "one", "-q"))
    assert cli("run", "trace.csv", "--out", "one", "-q", "--overwrite").code == 0


def test_flags_go_before_the_scenario_file_and_that_before_the_engine(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(
        "workload: {trace: trace.csv}\n"
        "cluster: {pools: [{engine: {name: vllm, max_num_seqs: 64, block_size: 32}, parallel: {tp: 2}}]}\n"
    )
    said = cli("run", "--scenario", "s.yaml", "--max-num-seqs", "9", "--print-scenario")
    assert said.code == 0
    pool = yaml.safe_load(said.out)["cluster"]["pools"][0]
    assert pool["engine"]["max_num_seqs"] == 9  # flag
    assert pool["engine"]["block_size"] == 32  # file
    assert pool["engine"]["max_num_batched_tokens"] == 2048  # engine, on an A100
    assert pool["parallel"].items() >= {"tp": 2, "pp": 1, "ep": 1}.items()
    assert pool["batching"]["name"] == "vllm-v1"


def test_set_reaches_every_key_and_goes_last(cli: Cli) -> None:
    said = cli("run", "trace.csv", "--seed", "1", "--set", "seed=5", "--set", "predictor={kind: noisy, sigma: 0.3}")
    assert said.code == 0
    said = cli("run", "trace.csv", "--seed", "1", "--set", "seed=5", "--print-scenario")
    assert yaml.safe_load(said.out)["seed"] == 5


def test_a_flag_holds_for_every_pool(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("cluster: {pools: [{name: a}, {name: b, replicas: 2}]}\n")
    said = cli("run", "trace.csv", "--scenario", "s.yaml", "--tp", "2", "--print-scenario")
    assert [pool["parallel"]["tp"] for pool in yaml.safe_load(said.out)["cluster"]["pools"]] == [2, 2]


def test_clients_mean_a_closed_loop(cli: Cli) -> None:
    said = cli("run", "trace.csv", "--clients", "4")
    assert said.code == 0 and "closed loop of 4 clients" in said.out


def test_the_paths_of_a_scenario_file_are_relative_to_it(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    write_trace(tmp_path / "deep" / "own.csv")
    (tmp_path / "deep" / "mine.py").write_text(POLICY)
    (tmp_path / "deep" / "s.yaml").write_text(
        "workload: {trace: own.csv}\ncluster: {pools: [{batching: 'mine.py:Mine'}]}\n"
    )
    said = cli("run", "--scenario", "deep/s.yaml")
    assert said.code == 0, said
    assert "mine" in said.out


# ---------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("args", "texts"),
    [
        (["--policy", "sarathy"], ["--policy", "unknown batching policy 'sarathy'", "did you mean 'sarathi'?"]),
        (["--router", "randon"], ["--router", "did you mean 'random'?"]),
        (["--model", "llama-3.1-8bb"], ["--model", "did you mean 'llama-3.1-8b'?"]),
        (["--gpu", "h100-sxmm"], ["--gpu", "did you mean 'h100-sxm'?"]),
        (["--node", "dgx-h10"], ["--node", "did you mean 'dgx-h100'?"]),
        (["--model", "llama-3.1-70b"], ["does not fit on a100-80gb", "would fit: tp=2"]),
        (["--tp", "3"], ["tp=3", "nearest: tp=2"]),
        (["--max-num-seqs", "0"], ["--max-num-seqs", "at least 1", "got 0"]),
        (["--max-num-seqs", "-5"], ["--max-num-seqs", "at least 1", "got -5"]),
        (["--rate-scale", "nan"], ["--rate-scale", "finite", "got nan"]),
        (["--rate-scale", "inf"], ["--rate-scale", "finite", "got inf"]),
        (["--rate-scale", "1e300"], ["--rate-scale", "at most 1e+06"]),
        (["--limit", "99999999999999"], ["--limit", "at most 2147483648"]),
        (["--seed", "-1"], ["--seed", "at least 0"]),
        (["--ttft", "0"], ["--ttft", "above 0"]),
        (["--sample", "1.5"], ["--sample", "at most 1"]),
        (["--tpp", "2"], ["unknown option --tpp", "did you mean '--tp'?"]),
        (["--block-size", "32"], ["--block-size", "--engine vllm@0.19"]),
        (["--engine", "vlm"], ["unknown engine 'vlm'", "did you mean 'vllm'?"]),
        (["--engine", "vllm@0.3"], ["unknown version '0.3'", "0.6, 0.19"]),
        (["--engine", "vllm", "--enable-lora"], ["--enable-lora", "vllm@0.19", "not modelled"]),
        (["--engine", "vllm", "--blok-size", "8"], ["--blok-size", "did you mean '--block-size'?"]),
        (["--engine", "vllm", "--kv-cache-dtype", "fp3"], ["--kv-cache-dtype fp3", "not modelled", "fp8_e4m3"]),
        (["--engine", "vllm", "--block-size", "many"], ["--block-size", "whole number", "'many'"]),
        (["--engine", "vllm", "--block-size"], ["--block-size needs a value"]),
        (["--policy-param", "watermark=7"], ["watermark", "at most 1", "got 7"]),
        (["--policy-param", "watermark"], ["--policy-param takes key=value"]),
        (["--set", "cluster.pools.0.replcas=3"], ["unknown key 'replcas'", "did you mean 'replicas'?"]),
        (["--set", "cluster.pools.3.replicas=3"], ["--set cluster.pools.3.replicas", "1 entry"]),
        (["--set", "seed=[1"], ["--set seed", "not a YAML value"]),
        (["--loop", "clsed"], ["--loop", "did you mean 'closed'?"]),
        (["--loop", "sessions"], ["no sessions", "'open' or 'closed'"]),
        (["--format", "xml"], ["unknown format 'xml'", "parquet, csv"]),
        (["--engine", "trtllm", "--predictor", "none"], ["predict", "max_utilization"]),
        (["--set", "cluster.pools.0.engine.max_model_len=1000000"], ["max_model_len = 1000000", "131072", "auto"]),
        (["--strict", "--num-kv-blocks", "12"], ["request", "rejected", "max_model_len = 192"]),
        (["--set", "objectives.classes.chat.ttft_s=1"], ["no class 'chat'", "no classes"]),
    ],
    ids=lambda value: " ".join(value) if value and value[0].startswith("--") else "",
)
def test_bad_input_is_one_line_with_the_remedy(cli: Cli, tmp_path: Path, args: list[str], texts: list[str]) -> None:
    line = one_line(cli("run", "trace.csv", "--out", "out", "-q", *args))
    for text in texts:
        assert text in line
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("arrival_s,prompt_tokens\n0,1\n", "output_tokens"),
        ("arrival_s,prompt_tokens,output_tokens\n", "holds no requests"),
        ("", "empty"),
        ("arrival_s,prompt_tokens,output_tokens\n2,10,10\n1,10,10\n", "--sort"),
        ("arrival_s,prompt_tokens,output_tokens\n0,10,10\nnan,10,10\n", "bad.csv:3"),
        ("arrival_s,prompt_tokens,output_tokens\n0,10,10\n1,-4,10\n", "at least 1"),
        ("arrival_s,prompt_tokens,output_tokens\n0,10,10\n1,99999999999,10\n", "at most"),
        ("arrival_s,prompt_tokens,output_tokens\n0,10,10\n1,1", "bad.csv:3"),
    ],
)
def test_a_bad_trace_is_one_line(cli: Cli, tmp_path: Path, content: str, text: str) -> None:
    (tmp_path / "bad.csv").write_text(content)
    assert text in one_line(cli("run", "bad.csv", "--out", "out", "-q"))
    assert not (tmp_path / "out").exists()


def test_no_trace_and_a_missing_one(cli: Cli) -> None:
    assert "name a trace" in one_line(cli("run"))
    assert "no such file" in one_line(cli("run", "nowhere.csv"))
    assert "no such file" in one_line(cli("run", "--scenario", "nowhere.yaml"))


def test_no_permission_to_write_is_said_before_the_run(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "closed").mkdir()
    monkeypatch.setattr("simulator.write.os.access", lambda *_: False)  # which root always may
    line = one_line(cli("run", "trace.csv", "--out", "closed/out", "-q"))
    assert "cannot write results" in line and "choose a directory that you may write to" in line


def test_a_file_in_the_way_is_said_before_the_run(cli: Cli, tmp_path: Path) -> None:
    assert "is a file" in one_line(cli("run", "trace.csv", "--out", "trace.csv/out"))


def test_a_scenario_file_shows_all_errors_with_their_lines(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("seed: -1\ncluster:\n  pools:\n  - replcas: 2\nmodle: x\n")
    said = cli("run", "trace.csv", "--scenario", "s.yaml", "--tp", "0")
    assert said.code == 2
    assert said.err.splitlines() == [
        "error: s.yaml: 4 errors",
        "  - --tp: must be at least 1, got 0",
        "  - line 1, seed: must be at least 0, got -1",
        "  - line 4, cluster.pools.0: unknown key 'replcas'; did you mean 'replicas'?",
        "  - line 5: unknown key 'modle'; did you mean 'model'?",
    ]


# ------------------------------------------------------------------------------------------------ users' policies


def test_a_users_policy_file_runs(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(POLICY)
    said = cli("run", "trace.csv", "--policy", "mine.py:Mine", "--out", "out")
    assert said.code == 0 and "40 of 40 requests finished" in said.out
    stored = yaml.safe_load((tmp_path / "out" / "scenario.yaml").read_text())
    assert stored["cluster"]["pools"][0]["batching"]["name"] == f"{tmp_path / 'mine.py'}:Mine"


def test_an_exception_in_a_users_policy_names_its_file_and_line(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(POLICY)
    line = one_line(cli("run", "trace.csv", "--policy", "mine.py:Mine", "--policy-param", "fails=true", "-q"))
    at = POLICY.splitlines().index('            raise KeyError("what?")') + 1
    assert line == f"policy 'mine' failed at {tmp_path / 'mine.py'}, line {at}: KeyError: 'what?'"


def test_a_refused_decision_of_a_users_policy_names_its_file_and_line(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(POLICY)
    args = ("--policy", "mine.py:Mine", "--policy-param", "refuses_budget=true", "-q")
    assert f"policy 'mine' ({tmp_path / 'mine.py'}, line " in one_line(cli("run", "trace.csv", *args))


def test_a_defect_of_our_own_says_how_to_report_it(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("oh\nno")

    monkeypatch.setattr("simulator.runner.build", broken)
    said = cli("run", "trace.csv", "-q")
    assert said.code == 1
    assert said.err.splitlines()[0].startswith("error: RuntimeError: oh no (")
    assert "report it" in said.err and "Traceback" not in said.err
    assert "Traceback" in cli("run", "trace.csv", "-q", "--debug").err


# ------------------------------------------------------------------------------------------------- the process


def _start(*args: str, cwd: Path) -> subprocess.Popen[str]:
    root = Path(__file__).parents[2]
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "from simulator.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *args],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_interrupting_keeps_the_rows(tmp_path: Path) -> None:
    """Ctrl-C ends the run after the event in hand; what was done is written, and the exit code is 130."""
    write_trace(tmp_path / "long.csv", rows=200_000, gap_s=0.2)
    process = _start("run", "long.csv", "--out", "out", "--no-progress", cwd=tmp_path)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("Router"):  # the last line before the simulation begins
            break
    time.sleep(0.7)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert err == ""
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["interrupted"]
    assert 0 < summary["requests"]["finished"] < 200_000
    assert (tmp_path / "out" / "requests.parquet").stat().st_size > 1000


def test_help_answers_at_once(tmp_path: Path) -> None:
    """Help imports nothing heavy (Typer itself may load pydantic)."""
    code = (
        "import sys\nfrom simulator.cli import main\n"
        "try: main(['run', '--help'])\nexcept SystemExit: pass\n"
        "heavy = {'numpy', 'pandas', 'rich', 'simpy', 'scipy', 'yaml', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--max-num-batched-tokens" in done.stdout


def test_an_exception_while_a_users_policy_is_made_is_its_own(cli: Cli, tmp_path: Path) -> None:
    broken = POLICY + "\n    def reset(self):\n        self.x = {}['nothing']\n"
    (tmp_path / "mine.py").write_text(broken)
    line = one_line(cli("run", "trace.csv", "--policy", "mine.py:Mine"))
    assert line.startswith(f"--policy: policy 'mine' failed at {tmp_path / 'mine.py'}, line ")
    assert line.endswith("KeyError: 'nothing'")


def test_warnings_are_one_line(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    import warnings

    import simulator.runner

    inner = simulator.runner.build

    def warning(*args: object, **kwargs: object) -> object:
        warnings.simplefilter("always")
        warnings.warn("take\ncare", UserWarning, stacklevel=1)
        return inner(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(simulator.runner, "build", warning)
    assert cli("run", "trace.csv", "-q").err == "warning: take care\n"


def test_an_engine_in_the_scenario_file_brings_its_own_flags_too(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(
        "cluster: {pools: [{engine: {name: vllm, block_size: 32, args: {max-num-seqs: 7}}}]}\n"
    )
    said = cli("run", "trace.csv", "--scenario", "s.yaml", "--block-size", "64", "-tp", "2", "--print-scenario")
    assert said.code == 0, said
    pool = yaml.safe_load(said.out)["cluster"]["pools"][0]
    assert (pool["engine"]["block_size"], pool["engine"]["max_num_seqs"], pool["parallel"]["tp"]) == (64, 7, 2)
    said = cli("run", "trace.csv", "--scenario", "s.yaml", "--max-num-seqs", "9", "--print-scenario")
    assert yaml.safe_load(said.out)["cluster"]["pools"][0]["engine"]["max_num_seqs"] == 9


def test_an_engines_own_flags_are_taken_under_their_own_names(cli: Cli) -> None:
    said = cli(
        *("run", "--engine", "vllm@0.19", "--no-enable-prefix-caching", "-tp", "2", "--max-num-seqs", "64"),
        *("--kv-cache-dtype=fp8", "--long-prefill-token-threshold", "256", "--port", "8000", "trace.csv"),
        "--print-scenario",
    )
    assert said.code == 0, said
    pool = yaml.safe_load(said.out)["cluster"]["pools"][0]
    assert pool["engine"]["prefix_caching"] is False
    assert pool["engine"]["max_num_seqs"] == 64
    assert pool["parallel"]["tp"] == 2
    assert pool["dtypes"]["kv"] == "fp8"
    assert pool["batching"]["params"]["long_prefill_token_threshold"] == 256

"""Sweeps: the table, replications, failures, interruption, kept results, files."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from simulator import InputError, Scenario, intervals, run, sweep
from simulator.studies import sweep as module
from simulator.studies.identity import addressed, digest_of
from simulator.studies.points import Outcome, Task, evaluate
from simulator.studies.store import Store
from simulator.studies.sweep import NOT_RUN, run_sweep


def scenario(**more: Any) -> dict[str, Any]:
    params = {"requests": 40, "rate": 20, "prompt": "constant:value=300", "output": "constant:value=20"}
    pool = {"accelerator": "h100-sxm", "cost": {"kind": "constant", "step_s": 0.01}}
    return {"workload": {"generator": {"kind": "poisson", "params": params}}, "cluster": {"pools": [pool]}, **more}


def test_a_table_has_a_row_a_run_as_if_each_had_been_run_alone(tmp_path: Path) -> None:
    frame = sweep(scenario(), {"max_num_seqs": [2, 8], "policy": ["vllm-v1", "sarathi"]}, seeds=2, store=tmp_path)
    assert list(frame.columns[:4]) == ["point", "max_num_seqs", "policy", "seed"]
    assert frame.max_num_seqs.tolist() == [2] * 4 + [8] * 4
    assert frame.seed.tolist() == [0, 1] * 4
    assert frame.reason.isna().all() and frame.digest.nunique() == 8
    assert set(intervals(frame).figure) == set(frame.columns) - {
        "point",
        "max_num_seqs",
        "policy",
        "seed",
        "reason",
        "digest",
    }
    alone = Scenario.from_mapping(scenario(seed=1)).updated(
        {"cluster.pools.0.engine.max_num_seqs": 8, "cluster.pools.0.batching": "vllm-v1"}
    )
    row = frame[(frame.max_num_seqs == 8) & (frame.policy == "vllm-v1") & (frame.seed == 1)].iloc[0]
    assert row.e2e_s_p99 == run(alone).summary["e2e_s"]["p99"]


def test_the_table_does_not_depend_on_where_runs_take_place(tmp_path: Path) -> None:
    over = {"max_num_seqs": [1, 2, 4]}
    tables = [sweep(scenario(), over, seeds=2, workers=workers, store=False) for workers in (1, 2)]
    with ThreadPoolExecutor(2) as executor:
        tables.append(sweep(scenario(), over, seeds=2, executor=executor, store=tmp_path))
    tables.append(sweep(scenario(), over, seeds=2, store=tmp_path))  # all kept
    for each in tables[1:]:
        pd.testing.assert_frame_equal(tables[0], each, check_exact=True)


def test_a_repeated_sweep_simulates_nothing_and_a_larger_one_only_what_is_new(tmp_path: Path) -> None:
    first = run_sweep(scenario(), {"max_num_seqs": [1, 2]}, seeds=2, store=tmp_path, workers=1)
    again = run_sweep(scenario(), {"max_num_seqs": [1, 2]}, seeds=2, store=tmp_path, workers=1)
    more = run_sweep(scenario(), {"max_num_seqs": [1, 2, 3]}, seeds=3, store=tmp_path, workers=1)
    assert [(each.simulated, each.kept) for each in (first, again, more)] == [(4, 0), (0, 4), (5, 4)]


def test_seeds_are_replications_with_intervals() -> None:
    frame = sweep(scenario(), {"max_num_seqs": [2]}, seeds=[5, 6, 7], store=False, workers=1)
    found = intervals(frame, figures=["e2e_s_mean"]).iloc[0]
    assert found.n == 3 and found.low < frame.e2e_s_mean.mean() < found.high


def test_seeds_without_effect_are_said_to_be() -> None:
    still = {**scenario(), "workload": {"trace": "bundled:burstgpt-style", "limit": 100}}
    with pytest.warns(UserWarning, match=r"the seeds made no difference: nothing .* workload.resample draws"):
        sweep(still, {"max_num_seqs": [2, 4]}, seeds=2, store=False, workers=1)
    still["workload"]["resample"] = {"block_s": 2}
    frame = sweep(still, {"max_num_seqs": [2]}, seeds=2, store=False, workers=1)  # warns of nothing
    assert frame.e2e_s_mean.nunique() == 2
    result = run_sweep(
        still, variants={"as recorded": {"workload.resample": None}, "drawn": {}}, seeds=2, store=False, workers=1
    )
    assert "no difference to 1 points (the first: as recorded)" in result.notes[0]


def test_a_point_that_can_not_run_is_a_row_with_its_reason_and_is_tried_again(tmp_path: Path) -> None:
    result = run_sweep(scenario(), {"tp": [1, 3, 2]}, seeds=2, store=tmp_path, workers=1)
    frame = result.frame()
    assert [run.seed for run in result.failed] == [0, 1]
    assert frame[frame.tp == 3].reason.str.contains("tp=3 does not split the 32 heads").all()
    assert frame[frame.tp == 3].e2e_s_mean.isna().all()
    assert frame[frame.tp != 3].e2e_s_mean.notna().all()
    assert (result.simulated, len(result.failed)) == (4, 2)
    assert run_sweep(scenario(), {"tp": [1, 3, 2]}, seeds=2, store=tmp_path, workers=1).kept == 4


def test_a_sweep_of_which_nothing_can_run_is_refused() -> None:
    with pytest.raises(InputError, match="no point can run; point tp=3: parallel plan: tp=3 does not split"):
        sweep(scenario(), {"tp": [3, 5]}, store=False)
    long = {"cluster.pools.0.engine.max_model_len": [10**6], "workload.trace": ["nosuch.csv", "other.csv"]}
    with pytest.raises(InputError, match=r"all 2 runs failed; point .*nosuch.csv: no such file"):
        sweep({"cluster": {"pools": [{}]}}, {"workload.trace": long["workload.trace"]}, store=False, workers=1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"over": {"tp": [1, "x"]}}, "point tp=x: .*must be a whole number, got 'x'"),
        ({"over": {"tp": [1]}, "seeds": 0}, "seeds: from 1 to"),
        ({"over": {"limit": "1..200:200"}, "seeds": 100}, "200 points with 100 seeds are 20,000 runs"),
        ({"over": {"tp": [1]}, "cluster": "tcp://x:1", "workers": 2}, "not both"),
        ({"over": {"tp": [1]}, "workers": 0}, "workers must be at least 1"),
        ({"over": {"workload.generator": [None]}}, "point generator=null: which requests?"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_simulated(
    arguments: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simulator.runner.run", lambda *_, **__: pytest.fail("simulated"))
    with pytest.raises(InputError, match=words):
        sweep(scenario(), store=False, **arguments)


@pytest.mark.parametrize(("by", "words"), [("goodput", "goodput needs objectives"), ("cost", "cost needs a price")])
def test_a_ranking_by_a_figure_that_no_point_has_is_refused(by: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        run_sweep(scenario(), {"max_num_seqs": [1, 2]}, by=by, store=False, workers=1)


def test_defects_are_rows_even_where_every_run_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulator.runner.run", lambda *_, **__: 1 / 0)
    frame = sweep(scenario(), {"tp": [1, 2]}, store=False, workers=1)
    assert frame.reason.str.contains("a defect of the simulator: ZeroDivisionError").all()


def test_the_engines_own_flags_do_not_go_before_what_varies() -> None:
    pool = {**scenario()["cluster"]["pools"][0], "engine": {"name": "vllm", "args": {"max-num-seqs": 1}}}
    frame = sweep(scenario(cluster={"pools": [pool]}), {"max_num_seqs": [1, 32]}, store=False, workers=1)
    assert frame.e2e_s_mean[0] > frame.e2e_s_mean[1]


def test_points_are_ranked_by_the_mean_and_those_that_flatter_come_last() -> None:
    slow = {"variants": {"one": {"max_num_seqs": 1}, "many": {"max_num_seqs": 32}, "none": {"tp": 3}}}
    result = run_sweep(scenario(), **slow, by="e2e_mean", seeds=2, store=False, workers=1)
    assert [point.name for point in result.ranked()] == ["many", "one", "none"]
    mean = result.mean_figures(result.points[1])["e2e_s_mean"]
    assert mean == pytest.approx(result.frame().query("point == 'many'").e2e_s_mean.mean())
    # the cheapest cluster can't keep up; what it can't serve in time makes it no better
    more = {"cluster.pools.*.price_per_gpu_hour": 1.0, "max_num_seqs": 2}
    cheap = {"small": {"replicas": 1, **more}, "large": {"replicas": 8, **more}}
    objectives = {"e2e_s": 0.5}
    ranked = run_sweep(scenario(objectives=objectives), variants=cheap, by="cost", store=False, workers=1)
    cost = {point.name: ranked.mean_figures(point)["cost_per_million_output_tokens"] for point in ranked.points}
    assert cost["small"] < cost["large"]  # type: ignore[operator]
    assert [point.name for point in ranked.ranked()] == ["large", "small"]


# ----------------------------------------------------------------------------------------------------- interrupted


def test_an_interrupt_keeps_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def told(done: int, total: int, name: str) -> None:
        if done == 2:
            raise KeyboardInterrupt

    result = run_sweep(
        scenario(), {"max_num_seqs": [1, 2, 3]}, store=tmp_path / "kept", out=tmp_path / "out", workers=1, progress=told
    )
    assert result.interrupted and result.simulated == 2
    frame = result.frame()
    assert frame.reason.tolist()[2] == NOT_RUN and frame.e2e_s_mean.notna().tolist() == [True, True, False]
    assert json.loads((tmp_path / "out" / "sweep.json").read_text())["interrupted"]
    assert run_sweep(scenario(), {"max_num_seqs": [1, 2, 3]}, store=tmp_path / "kept", workers=1).kept == 2


KILLED = """
import sys, time
from simulator.studies import sweep as module
from simulator.studies.points import evaluate

# each run takes a while, so that the test can kill in the middle
def slowly(task):
    time.sleep(0.3)
    return evaluate(task)

if __name__ == "__main__":
    import functools
    from simulator.studies.store import run_kept
    module.run_kept = functools.partial(run_kept, work=slowly)
    module.run_sweep({scenario}, {{"max_num_seqs": list(range(1, 13))}}, store=sys.argv[1], workers=2,
                     progress=lambda done, total, name: print(done, flush=True))
"""


def test_a_sweep_killed_midway_repeats_nothing_that_was_finished_and_leaves_no_process(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(KILLED).format(scenario=scenario()))
    env = {**os.environ, "PYTHONPATH": os.getcwd()}  # noqa: PTH109
    with subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "kept")],
        stdout=subprocess.PIPE,
        text=True,
        env=env,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) == 5:
                process.kill()
                break
        process.wait()
    finished = len(list((tmp_path / "kept").rglob("*.json")))
    assert 5 <= finished < 12
    result = run_sweep(scenario(), {"max_num_seqs": list(range(1, 13))}, store=tmp_path / "kept", workers=1)
    assert (result.kept, result.simulated) == (finished, 12 - finished)
    pd.testing.assert_frame_equal(
        result.frame(), sweep(scenario(), {"max_num_seqs": list(range(1, 13))}, store=False), check_exact=True
    )
    until = time.monotonic() + 30
    while _alive(process.pid) and time.monotonic() < until:
        time.sleep(0.1)
    assert not _alive(process.pid)


def _alive(group: int) -> bool:
    """Tell whether a process of a group is still there; it is the group of the killed one's children."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def fatal_once(task: Task) -> Outcome:
    """Kill the process that first gets one of the tasks, as the kernel does for want of memory."""
    marker = Path(os.environ["SWEEP_TEST_MARKER"])
    if task.scenario["cluster"]["pools"][0]["engine"]["max_num_seqs"] == 2 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return evaluate(task)


def test_a_worker_killed_midway_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import functools

    monkeypatch.setenv("SWEEP_TEST_MARKER", str(tmp_path / "killed"))
    monkeypatch.setattr(module, "run_kept", functools.partial(module.run_kept, work=fatal_once))
    frame = sweep(scenario(), {"max_num_seqs": "1..12:12"}, store=False, workers=2)
    assert (tmp_path / "killed").exists() and frame.reason.isna().all() and frame.e2e_s_mean.notna().all()


def test_another_machine_with_other_files_or_another_program_refuses(tmp_path: Path) -> None:
    trace = tmp_path / "t.csv"
    trace.write_text("arrival_s,prompt_tokens,output_tokens\n0,10,2\n1,10,2\n")
    given = {"workload": {"trace": str(trace)}, "cluster": scenario()["cluster"]}
    task = addressed(Task(given), digest_of(Task(given)))
    assert not evaluate(task).failure
    assert "its version of the simulator, of NumPy" in evaluate(Task(given, None, task.digest, "other")).failure
    trace.write_text("arrival_s,prompt_tokens,output_tokens\n0,10,2\n1,10,3\n")
    assert "a file that the scenario names (trace, model, profile, policy) is another there" in evaluate(task).failure
    trace.unlink()
    assert "or can't be read" in evaluate(task).failure


# ----------------------------------------------------------------------------------------------------------- files


def test_files_have_every_run_and_a_scenario_that_makes_it_again(tmp_path: Path) -> None:
    result = run_sweep(
        scenario(),
        {"max_num_seqs": [1, 4], "workload.loop": [{"kind": "open"}]},
        seeds=2,
        by="ttft_p99",
        store=tmp_path / "kept",
        out=tmp_path / "out",
    )
    rows = list(csv.DictReader((tmp_path / "out" / "sweep.csv").read_text().splitlines()))
    assert [(row["max_num_seqs"], row["seed"]) for row in rows] == [("1", "0"), ("1", "1"), ("4", "0"), ("4", "1")]
    assert rows[0]["workload.loop"] == '{"kind": "open"}'
    data = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert (data["simulated"], data["kept"], data["failed"], data["seeds"]) == (4, 0, 0, [0, 1])
    assert data["ranked"][0] == result.ranked()[0].name
    again = yaml.safe_load((tmp_path / "out" / data["points"][1]["scenario"]).read_text())
    assert float(rows[3]["ttft_s_p99"]) == run({**again, "seed": 1}).summary["ttft_s"]["p99"]
    assert rows[3]["digest"] in {path.stem for path in (tmp_path / "kept").rglob("*.json")}
    means = pd.read_csv(tmp_path / "out" / "points.csv")
    mean = means[(means.max_num_seqs == 4) & (means.figure == "ttft_s_p99")].iloc[0]
    assert mean["mean"] == pytest.approx((float(rows[2]["ttft_s_p99"]) + float(rows[3]["ttft_s_p99"])) / 2)
    assert (mean["n"], mean["runs"]) == (2, 2)


def test_a_directory_is_replaced_only_where_it_holds_a_sweep(tmp_path: Path) -> None:
    over = {"max_num_seqs": [1, 4]}
    run_sweep(scenario(), over, store=tmp_path / "kept", out=tmp_path / "out")
    before = (tmp_path / "out" / "sweep.csv").read_bytes()
    with pytest.raises(InputError, match="it holds an earlier sweep"):
        run_sweep(scenario(), over, store=tmp_path / "kept", out=tmp_path / "out")
    run_sweep(scenario(), {"max_num_seqs": [1]}, store=tmp_path / "kept", out=tmp_path / "out", overwrite=True)
    assert len(list((tmp_path / "out" / "scenarios").iterdir())) == 1
    run_sweep(scenario(), over, store=tmp_path / "kept", out=tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "sweep.csv").read_bytes() == before
    (tmp_path / "out" / "mine.txt").touch()
    with pytest.raises(InputError, match=r"it holds other files \(mine.txt\)"):
        run_sweep(scenario(), over, store=tmp_path / "kept", out=tmp_path / "out", overwrite=True)


def test_a_sweeps_file_says_it_all(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump({"scenario": scenario(), "over": {"max_num_seqs": [1, 4]}, "seeds": 2}))
    pd.testing.assert_frame_equal(
        sweep(file, store=Store(tmp_path / "kept").root), sweep(scenario(), {"max_num_seqs": [1, 4]}, seeds=2)
    )
    with pytest.raises(InputError, match="says what varies; give no 'over'"):
        sweep(file, {"tp": [1]})
    file.write_text("over: {tp: [1]}\n")
    with pytest.raises(InputError, match="unknown key 'over'"):
        sweep(file)

"""The highest load within objectives: against answers that theory gives, and what is said where there is none."""

from __future__ import annotations

import json
import math
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import brentq

from simulator import Scenario, highest_load, run
from simulator.errors import InputError
from simulator.studies import judging
from simulator.studies.verdict import Judged
from workloads import Trace

STEP_S = 0.1
QUIET: dict[str, Any] = {"workers": 1, "store": False}


def scenario(requests: int = 400, rate: float = 5.0, output: int = 1, **more: Any) -> Scenario:
    lengths = {"prompt": "constant:value=10", "output": f"constant:value={output}"}
    generator = {"kind": "poisson", "params": {"requests": requests, "rate": rate, **lengths}}
    pool = {"cost": {"kind": "constant", "step_s": STEP_S}, "engine": {"max_num_seqs": 1}}
    workload = {"generator": generator, **more.pop("workload", {})}
    data = {"model": "llama-3.1-8b", "workload": workload, "cluster": {"pools": [pool]}, **more}
    return Scenario.from_mapping(data)


# ---------------------------------------------------------------------------------------------------- known answers


def test_clients_of_one_server_wait_for_each_other() -> None:
    # With N clients everybody waits for the N - 1 others: the first token comes after N steps.
    base = scenario(workload={"loop": {"clients": 2}}, objectives={"ttft_s": 5.5 * STEP_S})
    found = highest_load(base, **QUIET)
    assert (found.key, found.bracket.sustained, found.bracket.missed) == ("workload.loop.clients", 5, 6)
    assert found.sustained is not None and found.sustained.offered_requests_per_s is None
    assert found.best_scenario is not None and found.best_scenario.workload.loop.clients == 5


def waits_at_most(rate: float, time_s: float) -> float:
    """Return the share of customers of an M/D/1 queue that wait at most so long (A. K. Erlang, 1909)."""
    terms = (
        (-rate * (time_s - k * STEP_S)) ** k / math.factorial(k) * math.exp(rate * (time_s - k * STEP_S))
        for k in range(int(time_s / STEP_S) + 1)
    )
    return (1 - rate * STEP_S) * sum(terms)


def test_the_bracket_of_an_m_d_1_queue_holds_the_rate_of_theory() -> None:
    wait_s = 2.5 * STEP_S
    theory = brentq(lambda rate: waits_at_most(rate, wait_s) - 0.9, 0.1, 9.9)
    found = highest_load(scenario(3000, 2.0, objectives={"ttft_s": wait_s + STEP_S}), tolerance=0.1, **QUIET)
    assert found.sustained is not None and found.missed is not None
    low, high = found.sustained.offered_requests_per_s, found.missed.offered_requests_per_s
    assert low is not None and high is not None
    assert low < theory < high < 1.5 * low
    assert any(each.given_up for each in found.probes)


def test_the_best_scenario_runs_again_with_the_figures_of_its_load() -> None:
    found = highest_load(scenario(objectives={"e2e_s": 0.5}), tolerance=0.3, **QUIET)
    assert found.best_scenario is not None and found.sustained is not None
    summary = run(found.best_scenario).summary
    assert summary["objectives"]["attainment"] >= 0.85  # one of its replications
    assert found.best_scenario.workload.rate_scale == found.sustained.load


# -------------------------------------------------------------------------------------------------- what may happen


def test_blocks_that_are_drawn_are_as_many_requests_at_every_load() -> None:
    requests = Trace(np.arange(200) / 5.0, np.full(200, 10), np.ones(200, np.int64))
    base = scenario(objectives={"ttft_s": 0.35}).updated(
        {"workload.generator": None, "workload.resample": {"block_s": 8.0, "within_s": 16.0}}
    )
    found = highest_load(base, trace=requests, **QUIET)
    for probe in found.probes:
        assert probe.resample == {"block_s": 8.0 / probe.load, "within_s": 16.0 / probe.load}
    assert found.sustained is not None and found.best_scenario is not None
    assert found.best_scenario.to_mapping(everything=True)["workload"]["resample"] == found.sustained.resample


def test_processes_and_this_process_find_the_same_and_it_is_kept(tmp_path: Path) -> None:
    class NoMore(Executor):
        def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
            raise AssertionError("this was kept")

    base = scenario(200, objectives={"ttft_s": 0.4})
    how: dict[str, Any] = {"tolerance": 0.3, "seeds": 3}
    first = highest_load(base, workers=2, store=tmp_path / "store", **how)
    again = highest_load(base, executor=NoMore(), store=tmp_path / "store", **how)
    alone = highest_load(base, workers=1, store=False, **how)
    assert first.probes == again.probes == alone.probes
    assert first.bracket == again.bracket == alone.bracket


def test_objectives_that_no_load_meets_are_refused_with_what_would_do() -> None:
    with pytest.raises(
        InputError,
        match=r"at any load: with one request at a time 90 % of the requests have a TTFT of at most 0\.1 s, and the "
        r"objective is 0\.05 s; nearest is a TTFT objective of 0\.1 s$",
    ):
        highest_load(scenario(100, objectives={"ttft_s": 0.05, "e2e_s": 1.0}), **QUIET)


def test_more_ranks_are_the_nearest_choice_where_they_would_do() -> None:
    pool = {"accelerator": "a100-80gb"}
    base = scenario(50, 20.0, output=20).updated({"cluster.pools": [pool], "objectives.tpot_s": 0.01})
    alone = {"workload.loop": {"clients": 1}, "cluster.pools.0.parallel.tp": 2}
    assert run(base.updated(alone)).summary["objectives"]["attainment"] == 1.0
    with pytest.raises(InputError, match=r"tensor parallelism over 2 GPUs \(tp=2\) would do$"):
        highest_load(base, **QUIET)


def test_a_trace_too_short_to_fill_the_cluster_is_said_to_be() -> None:
    found = highest_load(scenario(50, objectives={"ttft_s": 1e5}), **QUIET)
    assert found.missed is None
    assert any("50 requests are too few to fill the cluster" in note for note in found.notes)
    assert any("a burst more than a load" in note for note in found.notes)


def test_too_few_requests_for_the_share_leave_it_open() -> None:
    found = highest_load(scenario(20, 0.5, objectives={"ttft_s": 0.35}), attain=0.99, seeds=3, **QUIET)
    assert found.sustained is None
    assert any("to show a share of 0.99 takes 381 requests over all replications" in note for note in found.notes)


def test_requests_that_arrive_at_once_have_no_load(tmp_path: Path) -> None:
    trace = tmp_path / "burst.csv"
    trace.write_text("arrival_s,prompt_tokens,output_tokens\n" + "0,10,1\n" * 20)
    burst = scenario(objectives={"ttft_s": 1}).updated({"workload": {"trace": str(trace)}})
    with pytest.raises(InputError, match=r"all requests arrive at one time, at any rate; give .* a closed loop"):
        highest_load(burst, **QUIET)


def test_ctrl_c_keeps_what_was_done(monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = judging.judge, []

    def judge(*args: Any, **kwargs: Any) -> Judged:
        calls.append(1)
        if len(calls) > 7:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(judging, "judge", judge)
    found = highest_load(scenario(objectives={"ttft_s": 0.4}), **QUIET)
    assert found.interrupted
    assert [each.runs for each in found.probes] == [3, 3]


def test_a_generator_s_own_seed_gives_way() -> None:
    base = scenario(100, objectives={"ttft_s": 0.4}).updated({"workload.generator.params.seed": 5})
    found = highest_load(base, tolerance=0.5, **QUIET)
    assert any("the generator's own seed, 5, was not used" in note for note in found.notes)
    assert all(each.estimate.low < each.estimate.high for each in found.probes)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"attain": 1.0}, "must be above 0 and below 1"),
        ({"tolerance": 0.0}, "tolerance must be above 0"),
        ({"seeds": 2}, "at least 3 replications"),
    ],
)
def test_misuse_is_refused(how: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        highest_load(scenario(objectives={"ttft_s": 1.0}), **how, **QUIET)


def test_no_objectives_is_refused() -> None:
    with pytest.raises(InputError, match="within which objectives"):
        highest_load(scenario(), **QUIET)


def test_files_hold_every_load(tmp_path: Path) -> None:
    found = highest_load(scenario(objectives={"ttft_s": 0.4}), tolerance=0.5, out=tmp_path / "out", **QUIET)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"loads.csv", "load.json", "best.yaml"}
    told = json.loads((tmp_path / "out" / "load.json").read_text())
    assert told["sustained"] == found.bracket.sustained and len(told["loads"]) == len(found.probes)
    assert list(found.frame()["load"]) == sorted(each.load for each in found.probes)
    with pytest.raises(InputError, match="holds an earlier search"):
        highest_load(scenario(objectives={"ttft_s": 0.4}), out=tmp_path / "out", **QUIET)

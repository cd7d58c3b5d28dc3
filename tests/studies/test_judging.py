"""Verdicts that are kept: found again without a simulation, and never a run that was given up as a whole one."""

from __future__ import annotations

from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import pytest

from simulator.scenario import Slos
from simulator.studies.identity import addressed, digest_of
from simulator.studies.judging import run_judged
from simulator.studies.points import Task, evaluate
from simulator.studies.store import Store
from simulator.studies.verdict import Demand, Judged, judge


class NoMore(Executor):
    """Nothing may be simulated."""

    def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
        raise AssertionError("this was kept")


def task(rate: float) -> Task:
    generator = {"kind": "poisson", "params": {"requests": 100, "rate": rate, "output": "constant:value=8", "seed": 1}}
    pool = {"cost": {"kind": "constant", "step_s": 0.1}, "engine": {"max_num_seqs": 2}}
    return Task({"model": "llama-3.1-8b", "workload": {"generator": generator}, "cluster": {"pools": [pool]}})


def judged(tasks: list[Task], demand: Demand, store: Store | None, **more: Any) -> list[Judged]:
    found = dict(run_judged(tasks, [demand], store, **more))
    return [found[place] for place in range(len(tasks))]


def test_verdicts_are_found_again(tmp_path: Path) -> None:
    store, demand = Store(tmp_path), Demand(Slos(ttft_s=1.0), 0.9)
    tasks = [task(1.0), task(50.0)]
    first = judged(tasks, demand, store, workers=1)
    assert [each.verdict.is_met for each in first if each.verdict] == [True, False]
    assert judged(tasks, demand, store, executor=NoMore()) == first == judged(tasks, demand, None, workers=1)


def test_a_run_that_was_given_up_is_kept_as_no_result(tmp_path: Path) -> None:
    store, demand = Store(tmp_path), Demand(Slos(ttft_s=1.0), 0.9)
    fine, hopeless = task(1.0), task(50.0)
    judged([fine, hopeless], demand, store, workers=1)
    assert store.get(digest_of(fine)) == evaluate(fine)
    assert not store.path(digest_of(hopeless)).exists()
    # Of another demand it is judged again, to its end if need be.
    (whole,) = judged([hopeless], Demand(Slos(ttft_s=1e6)), store, workers=1)
    assert whole.verdict is not None and whole.verdict.is_whole
    assert store.get(digest_of(hopeless)) == whole.outcome


def test_another_machine_refuses_a_task_that_means_something_else_there(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = addressed(task(1.0), digest_of(task(1.0)))
    demands = [Demand(Slos(ttft_s=1.0))]
    assert judge(sent, demands) == judge(task(1.0), demands)
    monkeypatch.setattr("simulator.studies.identity.program_digest", lambda: "another program")
    assert "refused by" in judge(sent, demands).outcome.failure


def test_failures_are_not_kept(tmp_path: Path) -> None:
    store = Store(tmp_path)
    broken = [Task({"model": "llama-3.1-8b"}), Task({"modell": 1})]
    for found in judged(broken, Demand(Slos(ttft_s=1.0)), store, workers=1):
        assert found.verdict is None and found.outcome.failure
    assert not list(tmp_path.rglob("*.json"))

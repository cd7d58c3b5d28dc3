"""Faults, clients and admission as a user writes them: scenarios to results, words for the terminal, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from simulator import InputError, Scenario, run
from simulator.engine.recorder import Outcome
from simulator.resolve import resolve
from simulator.terminal import details
from tests.engine.support import MS, Request
from tests.faults.support import run as run_parts
from workloads import Trace


def a_trace(n: int = 60, **columns: Any) -> Trace:
    return Trace(
        arrival_s=np.arange(n) * 0.2,
        prompt_tokens=np.full(n, 300),
        output_tokens=np.full(n, 20),
        source="a test",
        **columns,
    )


EVERYTHING = {
    "cluster": {
        "pools": [{"replicas": 4, "node": "dgx-h100", "parallel": {"tp": 4}, "cost": {"constant": {"step_s": 0.05}}}]
    },
    "admission": {"name": "queue-limit", "params": {"per_replica": 20}},
    "clients": {"timeout_s": 4.0, "retries": 1},
    "faults": {
        "script": [
            {"at_s": 2.0, "what": "node", "which": 0, "until_s": 3.0},
            {"at_s": 1.0, "what": "gpu", "which": "node1/gpu6", "for_s": 1.0},
            {"at_s": 1.0, "what": "link", "which": "storage/read", "factor": 0.5, "for_s": 10.0},
        ],
        "random": {"nic": {"mttr_s": 1.0}},
        "health": {"interval_s": 0.5, "timeout_s": 0.1, "failures": 1},
        "restart": {"weights": "storage", "init_s": 1.0},
    },
}


def test_a_scenario_from_end_to_end() -> None:
    result = run(Scenario.from_mapping(EVERYTHING), trace=a_trace())
    summary = result.summary
    faults, clients, admission = (summary[name] for name in ("faults", "clients", "admission"))
    by_time = [(each["at_s"], each["component"], each["replicas"]) for each in faults["events"]]
    # Two replicas of 4 GPUs in each server of 8.
    assert by_time == [(1.0, "node1/gpu6", [3]), (1.0, "storage/read", []), (2.0, "node0", [0, 1])]
    assert [each["replica"] for each in faults["outage_list"]] == [3, 0, 1]
    # Llama 3.1 8B has 16.06 GB of weights. At 40 GB/s it takes 0.4 s, over a link at half of that 0.8 s.
    gpu = faults["outage_list"][0]
    assert gpu["ready_s"] == pytest.approx(2.0 + 16.06 / 20 + 1.0, abs=0.01)
    assert gpu["noticed_s"] == 1.1
    assert 0 < faults["availability"] < 1
    assert clients["requests"] == 60
    assert admission["attempts"] >= 60
    assert result.requests["attempts"].sum() == 60 + clients["retries"] + faults["lost_requests"]["retried"]
    told = {label: text for label, text, _ in details(summary)}
    assert told["Admission"].startswith("queue-limit rejected 0 of")
    assert "attempts at 60 requests" in told["Clients"]
    assert told["Faults"].startswith("1 gpu, 1 link, 1 node, replicas available")
    again = run(Scenario.from_mapping(dict(result.scenario)), trace=a_trace())
    assert again.summary_without_timing == result.summary_without_timing
    stepwise = run(Scenario.from_mapping(EVERYTHING), trace=a_trace(), stepwise=True)
    assert stepwise.requests.equals(result.requests)
    assert stepwise.summary["faults"] == faults


def test_parts_that_are_left_out_cost_nothing_and_are_null() -> None:
    result = run(
        Scenario.from_mapping({"cluster": {"pools": [{"cost": {"constant": {"step_s": 0.05}}}]}}), trace=a_trace(5)
    )
    assert [result.summary[name] for name in ("faults", "clients", "admission")] == [None, None, None]
    assert result.data.cluster.control is None
    assert not {"Faults", "Clients", "Admission"} & {label for label, _, _ in details(result.summary)}


def test_deadlines_of_the_trace() -> None:
    trace = a_trace(3, deadline_s=np.array([0.3, np.nan, 5.0]))
    pool = {"cluster": {"pools": [{"cost": {"constant": {"step_s": 0.1}}}]}}
    unheeded = run(Scenario.from_mapping(pool), trace=trace)
    assert any("deadlines, which nobody heeds" in note for note in unheeded.summary["notes"])
    heeded = run(Scenario.from_mapping({**pool, "clients": {"deadlines": True}}), trace=trace)
    assert heeded.requests["outcome"].tolist() == ["timed_out", "finished", "finished"]
    assert heeded.requests["reason"].tolist()[0] == "its client gave up: not done by its deadline"
    assert not any("deadlines" in note for note in heeded.summary["notes"])


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"what": "replica", "which": 4}, "there is no replica 4; they are numbered 0 to 3"),
        ({"what": "node", "which": 2}, "there is no node 2; they are numbered 0 to 1"),
        ({"what": "gpu", "which": "node0/gpu8"}, "there is no GPU 'node0/gpu8'; they are called as 'node0/gpu0'"),
        ({"what": "nic", "which": "nic0"}, "there is no interface 'nic0'; they are called as 'node0/nic0'"),
        ({"what": "link", "which": "node0/nic99/tx"}, "there is no link 'node0/nic99/tx'"),
    ],
)
def test_what_there_is_none_of(fault: dict[str, Any], said: str) -> None:
    scenario = {**EVERYTHING, "faults": [{"at_s": 1.0, **fault}]}
    with pytest.raises(InputError, match=r"faults\.script\.0\.which: " + said):
        run(Scenario.from_mapping(scenario), trace=a_trace(3))


def test_everything_is_written_out_and_read_back() -> None:
    resolved = resolve(Scenario.from_mapping(EVERYTHING)).scenario
    stored = resolved.to_mapping(everything=True)
    assert stored["faults"]["health"]["kind"] == "probes"
    assert stored["admission"]["params"] == {"per_replica": 20, "in_all": 0}
    assert resolve(Scenario.from_mapping(stored)).scenario == resolved
    short = Scenario.from_mapping({"faults": {"health": "immediate"}})
    assert short.updated({"faults.health.timeout_s": 2.0}).faults.health.kind == "immediate"  # type: ignore[union-attr]


def test_a_storm_of_retries_outlives_its_cause_and_a_budget_ends_it() -> None:
    # One place, requests of 30 ms every 40 ms: 75 % busy. The replica is dead for 0.4 s, and ten requests gather.
    # Clients wait 60 ms for their first token; those who come back find others before them, and what has begun
    # for one who gives up meanwhile is lost.
    requests = [Request(i * 40 * MS, 20, 3) for i in range(250)]
    faults = {
        "script": [{"at_s": 0.5, "what": "replica", "which": 0, "for_s": 0.4}],
        "restart": {"init_s": 0.0, "weights": "none"},
    }
    retries = {"max": 12, "backoff": "fixed", "base_s": 0.02, "jitter": "full"}
    clients: dict[str, Any] = {"ttft_timeout_s": 0.06, "retries": retries}
    parts = {"faults": {**faults, "health": "immediate"}, "clients": clients}
    options = {"seqs": 1}
    calm, _ = run_parts(requests, {"clients": clients}, **options)
    assert (calm.recorder.columns["attempts"] == 1).all()
    storm, sections = run_parts(requests, parts, **options)
    bounded = {**clients, "retries": {**retries, "budget": {"size": 3, "ratio": 0.1}}}
    _, with_budget = run_parts(requests, {**parts, "clients": bounded}, **options)
    attempts = storm.recorder.columns["attempts"]
    after = storm.recorder.columns["arrival_ns"] > 1400 * MS  # long after it was back
    assert (attempts[after] > 1).sum() > 5
    assert sections["clients"]["retries"] > 3 * with_budget["clients"]["retries"]
    assert (storm.recorder.columns["outcome"] == Outcome.UNFINISHED).sum() == 0

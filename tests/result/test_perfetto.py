"""The Perfetto trace: well formed, and the same story as the tables."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator import Scenario, run
from simulator.perfetto import trace_events, write_perfetto
from simulator.perfetto_format import Threads, microseconds
from simulator.perfetto_links import MAX_AT_A_TIME, link_events, track_names
from simulator.power.model import PowerModel
from simulator.power.step_energy import NO_ENERGY
from tests.result.perfetto_rules import READINGS, check_trace
from tests.result.support import MS, TWO, Request, pool, result


def read(run: Any, path: Path) -> dict[str, Any]:
    write_perfetto(run, path)
    with gzip.open(path, "rt", encoding="utf-8") as file:
        loaded: dict[str, Any] = json.load(file)
    return loaded


def test_two_requests(tmp_path: Path) -> None:
    trace = read(result(TWO, keep_batches=True), tmp_path / "t.gz")
    events = trace["traceEvents"]
    check_trace(events)
    slices = [(e["name"], e["ts"], e["dur"], e["args"]["steps"]) for e in events if e["ph"] == "X"]
    assert slices == [
        ("prefill", 0, 10_000, 1),
        ("decode", 10_000, 10_000, 1),
        ("prefill + decode", 20_000, 10_000, 1),
        ("decode", 30_000, 10_000, 1),
    ]
    spans = [(e["id"], e["ph"], e["name"], e["ts"]) for e in events if e["ph"] in "be"]
    assert spans == [
        (0, "b", "request", 0),
        (0, "b", "prefill", 0),
        (0, "e", "prefill", 10_000),
        (0, "b", "decode", 10_000),
        (0, "e", "decode", 40_000),
        (0, "e", "request", 40_000),
        (1, "b", "request", 13_000),
        (1, "b", "queued", 13_000),
        (1, "e", "queued", 20_000),
        (1, "b", "prefill", 20_000),
        (1, "e", "prefill", 30_000),
        (1, "b", "decode", 30_000),
        (1, "e", "decode", 40_000),
        (1, "e", "request", 40_000),
    ]
    assert trace["otherData"]["notes"] == []


@pytest.mark.parametrize("stages", [1, 2])
def test_structure_of_a_varied_run(tmp_path: Path, stages: int) -> None:
    requests = [Request(i * 3 * MS, 20 + i, 1 + i % 7) for i in range(50)] + [Request(5 * MS, 5000, 2)]
    made = result(requests, replicas=2, stages=stages, seqs=4, stop_at=200 * MS, keep_batches=True)
    assert made.summary["requests"]["unfinished"] > 0
    events = read(made, tmp_path / "t.gz")["traceEvents"]
    check_trace(events)
    assert sum(e["ph"] == "b" and e["name"] == "request" for e in events) == 51
    steps = sum(e["args"]["steps"] for e in events if e["ph"] == "X")
    assert steps == made.summary["simulator"]["iterations"]


def test_huge_runs_are_cut_with_a_note() -> None:
    made = result([Request(i * 30 * MS, 20, 3) for i in range(100)], keep_batches=True)
    iterator, notes = trace_events(made, max_batches=150, max_requests=10, max_samples=20)
    events = list(iterator)
    check_trace(events)
    assert sum(e["ph"] == "X" for e in events) <= 150
    assert sum(e["ph"] == "b" and e["name"] == "request" for e in events) <= 10
    assert sum(e["ph"] == "C" for e in events) <= 3 * 20
    assert "cut after 150 of" in notes[0]
    assert "is shown" in notes[1]
    assert "counters: one sample in" in notes[2]


def test_without_batches_there_are_still_requests_and_a_note(tmp_path: Path) -> None:
    trace = read(result(TWO), tmp_path / "t.gz")
    check_trace(trace["traceEvents"])
    assert "batches were not kept" in trace["otherData"]["notes"][0]


def test_a_run_without_requests(tmp_path: Path) -> None:
    check_trace(read(result([], keep_batches=True), tmp_path / "t.gz")["traceEvents"])


@given(st.integers(0, 2**51))
def test_times_are_read_as_they_were(ns: int) -> None:
    """1.001 us as a double times 1,000, cut to whole ns, would be 1,000 ns."""
    assert [read(microseconds(ns)) for read in READINGS] == [ns, ns]


def test_power_where_it_is_known(tmp_path: Path) -> None:
    power = PowerModel(100.0, 700.0, 700.0, 0.0, NO_ENERGY, ())
    made = result([Request(0, 20, 3)], keep_batches=True, pools=[pool(power=power)])
    events = read(made, tmp_path / "t.gz")["traceEvents"]
    found = [event["args"] for event in events if event["name"] == "power"]
    assert found
    assert all(each == {"W": 100.0} for each in found)  # idle: its steps draw nothing more


SPLIT = {
    "workload": {"trace": "bundled:burstgpt-style", "limit": 60, "rate_scale": 4.0},
    "model": "llama-3.1-8b",
    "cluster": {
        "pools": [
            {"name": "prompt", "role": "prefill", "engine": "vllm@0.19", "accelerator": "a100-80gb"},
            {"name": "token", "role": "decode", "engine": "vllm@0.19", "accelerator": "a100-80gb"},
        ]
    },
    "network": {"nic_gbit_per_s": 10.0, "placement": "separate"},
}
MOVING = {
    "workload": {"trace": "bundled:burstgpt-style", "limit": 120, "rate_scale": 12.0},
    "model": "llama-3.1-8b",
    "router": "llumnix",
    "cluster": {
        "pools": [
            {
                "replicas": 3,
                "accelerator": "a100-80gb",
                "batching": "vllm-v1",
                "engine": {"num_kv_blocks": 500, "max_model_len": 8000},
            }
        ],
        "rescheduler": {"name": "llumnix", "params": {"threshold": 3.0}},
    },
}


def test_transfers_between_prompt_and_tokens() -> None:
    found = run(Scenario.from_mapping(SPLIT), perfetto=True)
    iterator, notes = trace_events(found)
    events = list(iterator)
    check_trace(events)
    assert notes == []
    network = found.data.cluster.network
    assert network is not None
    flows = [event for event in events if event.get("cat") == "flow"]
    moved = sum(event["args"]["bytes_moved"] for event in flows)
    assert moved == sum(network.network.use(link).bytes for link in range(len(network.network.links)))
    links = {event["args"]["path"] for event in flows}
    tracks = thread_names(events)
    assert {tracks[event["tid"]].split(" (")[0] for event in flows} == {
        name for path in links for name in path.split(" > ")
    }
    sent = found.rows.prefill_replica >= 0
    assert sum(event["ph"] == "f" for event in events) == sent.sum() > 0
    # Each of them waits for its KV between the two replicas: in that time there is a phase of that name.
    phases = [event for event in events if event["name"] == "transfer" and event["ph"] == "b"]
    assert {event["id"] for event in phases} == set(found.rows.row[sent].tolist())
    use = [event["args"]["%"] for event in events if event["ph"] == "C" and "%" in event["args"]]
    assert max(use) == 100.0
    assert use[-1] == 0.0
    assert min(use) >= 0.0


def test_a_run_that_was_cut_off_draws_what_was_under_way() -> None:
    scenario = Scenario.from_mapping(SPLIT).updated({"measure": {"until_s": 9.0, "drain": False}})
    found = run(scenario, perfetto=True)
    assert found.summary["requests"]["unfinished"] > 0
    events = list(trace_events(found)[0])
    check_trace(events)
    end = found.data.cluster.end_ns
    assert max(READINGS[1](e["ts"]) + READINGS[1](e.get("dur", 0)) for e in events if e["ph"] in "Xbe") <= end


def test_migrations_and_preemptions() -> None:
    found = run(Scenario.from_mapping(MOVING), perfetto=True)
    events = list(trace_events(found)[0])
    check_trace(events)
    begun = [event["name"] for event in events if event["ph"] == "b"]
    assert begun.count("transfer") == found.rows.migrations.sum() > 0
    assert begun.count("preempted") > 0
    assert sum(event["ph"] == "s" for event in events) == found.rows.migrations.sum()
    assert {event["name"] for event in events if event.get("cat") == "flow"} == {"migration"}


def test_many_links_share_tracks() -> None:
    names = [f"node{node}/nic{nic}/tx" for node in range(3) for nic in range(4)]
    assert track_names(names, 12) == names
    assert track_names(names, 3) == [f"node{node}/nic*/tx" for node in range(3) for _ in range(4)]
    assert set(track_names(names, 2)) == {"node*/nic*/tx"}


def test_flows_of_a_shared_track_do_not_cross() -> None:
    """All links on two tracks: each flow stands there once, beside those that were under way when it began."""
    found = run(Scenario.from_mapping(SPLIT), perfetto=True)
    network = found.data.cluster.network
    assert network is not None
    threads, notes = Threads(), list[str]()
    events = [*link_events(network.network, 9, found.data.cluster.end_ns, threads, notes, max_tracks=2)]
    check_trace([*events, *threads.names])
    assert any("share" in note for note in notes)
    assert max(Counter(name.split(" (")[0] for name in thread_names(threads.names).values()).values()) <= MAX_AT_A_TIME


def thread_names(events: list[dict[str, Any]]) -> dict[int, str]:
    return {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}

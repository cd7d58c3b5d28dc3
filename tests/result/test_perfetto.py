"""The Perfetto trace: well formed, and the same story as the tables."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from simulator.perfetto import trace_events, write_perfetto
from tests.result.support import MS, TWO, Request, result


def read(run: Any, path: Path) -> dict[str, Any]:
    write_perfetto(run, path)
    with gzip.open(path, "rt", encoding="utf-8") as file:
        loaded: dict[str, Any] = json.load(file)
    return loaded


def check_structure(events: list[dict[str, Any]]) -> None:
    """Assert what the format asks for: fields by phase, spans that nest and end, slices that don't overlap."""
    open_spans: dict[tuple[str, int], list[str]] = defaultdict(list)
    last: dict[tuple[str, int], float] = {}
    busy_until: dict[tuple[int, int], float] = defaultdict(float)
    processes = {e["pid"] for e in events if e["ph"] == "M" and e["name"] == "process_name"}
    for event in events:
        assert event["pid"] in processes
        assert isinstance(event["name"], str)
        if event["ph"] == "M":
            continue
        assert event["ts"] >= 0
        if event["ph"] == "X":
            track = (event["pid"], event["tid"])
            assert event["dur"] >= 0
            assert event["ts"] >= busy_until[track] - 1e-3
            busy_until[track] = event["ts"] + event["dur"]
        elif event["ph"] == "C":
            assert all(isinstance(v, int) for v in event["args"].values())
        else:
            key = (event["cat"], event["id"])
            assert event["ts"] >= last.get(key, 0.0)
            last[key] = event["ts"]
            if event["ph"] == "b":
                open_spans[key].append(event["name"])
            else:
                assert event["ph"] == "e"
                assert open_spans[key].pop() == event["name"]
    assert not any(open_spans.values())


def test_two_requests(tmp_path: Path) -> None:
    trace = read(result(TWO, keep_batches=True), tmp_path / "t.gz")
    events = trace["traceEvents"]
    check_structure(events)
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
    run = result(requests, replicas=2, stages=stages, seqs=4, stop_at=200 * MS, keep_batches=True)
    assert run.summary["requests"]["unfinished"] > 0
    events = read(run, tmp_path / "t.gz")["traceEvents"]
    check_structure(events)
    assert sum(e["ph"] == "b" and e["name"] == "request" for e in events) == 51
    steps = sum(e["args"]["steps"] for e in events if e["ph"] == "X")
    assert steps == run.summary["simulator"]["iterations"]


def test_huge_runs_are_cut_with_a_note() -> None:
    run = result([Request(i * 30 * MS, 20, 3) for i in range(100)], keep_batches=True)
    iterator, notes = trace_events(run, max_batches=150, max_requests=10, max_samples=20)
    events = list(iterator)
    check_structure(events)
    assert sum(e["ph"] == "X" for e in events) <= 150
    assert sum(e["ph"] == "b" and e["name"] == "request" for e in events) <= 10
    assert sum(e["ph"] == "C" for e in events) <= 3 * 20
    assert "cut after 150 of" in notes[0]
    assert "is shown" in notes[1]
    assert "counters: one sample in" in notes[2]


def test_without_batches_there_are_still_requests_and_a_note(tmp_path: Path) -> None:
    trace = read(result(TWO), tmp_path / "t.gz")
    check_structure(trace["traceEvents"])
    assert "batches were not kept" in trace["otherData"]["notes"][0]


def test_a_run_without_requests(tmp_path: Path) -> None:
    check_structure(read(result([], keep_batches=True), tmp_path / "t.gz")["traceEvents"])

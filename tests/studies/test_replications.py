"""What seeds stand for: a replayed trace is drawn anew where it can be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from simulator.build import load_trace
from simulator.errors import InputError
from simulator.scenario import Resample, Scenario
from simulator.studies.replications import replications
from workloads import Ragged, Trace


def trace(**columns: Any) -> Trace:
    n = 100
    return Trace(np.arange(n) * 2.0, np.arange(1, n + 1), np.full(n, 5), source="made up", **columns)


def scenario(**workload: Any) -> Scenario:
    return Scenario.from_mapping({"workload": {"trace": "given.csv", **workload}})


def test_a_replayed_trace_is_cut_into_ten_blocks_at_least() -> None:
    found = replications(scenario(), trace())  # 198 s
    assert found.resample == Resample(block_s=20.0, within_s=300.0)
    assert "drawn anew for each, in blocks of 20 s from within 300 s" in found.text
    long = replace(trace(), arrival_s=np.arange(100) * 100.0)
    assert replications(scenario(), long).resample == Resample()


def test_what_the_scenario_says_goes_before_it() -> None:
    assert replications(scenario(resample={"block_s": 7.0}), trace()).resample == Resample(block_s=7.0)
    assert replications(scenario(resample={"block_s": 7.0}), trace(), wanted=False).resample == Resample(block_s=7.0)
    assert replications(scenario(), trace(), wanted=False).resample is None


def test_a_trace_that_can_not_be_drawn_anew_is_replayed_and_that_is_said() -> None:
    hashes = Ragged.of([[i] for i in range(100)])
    whole = trace(block_hashes=hashes, block_size_tokens=16)
    found = replications(scenario(), whole)
    assert found.resample is None and "identities of blocks can't be resampled" in found.text
    with pytest.raises(InputError, match="identities of blocks can't be resampled"):
        replications(scenario(), whole, wanted=True)
    at_once = replace(trace(), arrival_s=np.zeros(100))
    assert "all arrive at once" in replications(scenario(), at_once).text


def test_turns_belong_together_in_the_loop_of_sessions_only() -> None:
    turns = trace(session_id=np.arange(100) // 2, parent_id=np.where(np.arange(100) % 2, np.arange(100) - 1, -1))
    found = replications(scenario(), turns)
    assert found.resample is not None
    drawn = load_trace(scenario(resample=found.resample.model_dump()), turns)
    assert drawn.parent_id is None and not np.array_equal(drawn.arrival_s, turns.arrival_s)
    of_sessions = replications(scenario(loop="sessions"), turns)
    assert of_sessions.resample is None and "turns of sessions belong together" in of_sessions.text


def test_a_generator_makes_other_requests_with_each_seed() -> None:
    made = Scenario.from_mapping(
        {"workload": {"generator": {"kind": "poisson", "params": {"rate": 1, "requests": 10}}}}
    )
    assert replications(made, trace()).resample is None
    with pytest.raises(InputError, match="only a replayed trace is resampled"):
        replications(made, trace(), wanted=True)

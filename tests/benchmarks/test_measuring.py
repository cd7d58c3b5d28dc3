from __future__ import annotations

import dataclasses
import time

import pytest

from benchmarks import measuring
from benchmarks.measuring import Measurement, MeasuringError, median, repeated

ONE = Measurement(
    requests=100,
    simulated_s=50.0,
    iterations=4000,
    events=200,
    load_s=1.0,
    loop_s=0.5,
    loop_cpu_s=0.5,
    write_s=0.1,
    peak_memory_bytes=1 << 20,
    digest="a",
)


def test_rates_are_of_the_loop_alone() -> None:
    assert ONE.requests_per_s == 200
    assert ONE.iterations_per_s == 8000
    assert ONE.s_per_request == 0.005


def test_median_takes_each_figure_by_itself() -> None:
    others = [dataclasses.replace(ONE, loop_s=9.0, load_s=0.5), dataclasses.replace(ONE, loop_s=0.7, load_s=3.0)]
    found = median([ONE, *others])
    assert (found.loop_s, found.load_s, found.write_s) == (0.7, 1.0, 0.1)
    assert found.requests == 100


def test_median_of_what_was_not_measured_is_unknown() -> None:
    assert median([dataclasses.replace(ONE, write_s=None)] * 3).write_s is None


def test_runs_that_recorded_different_results_are_no_median() -> None:
    with pytest.raises(MeasuringError, match="different results"):
        median([ONE, dataclasses.replace(ONE, digest="b")])


def test_repeats_until_the_budget_is_spent_but_at_least_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))
    assert repeated(lambda: "x", runs=5, budget_s=25) == ["x", "x", "x"]  # looked at after 10 and 20 s, not at 30 s
    assert repeated(lambda: "x", runs=5, budget_s=0) == ["x"]
    assert repeated(lambda: "x", runs=2, budget_s=1e9) == ["x", "x"]


def test_what_a_process_says_is_the_error() -> None:
    with pytest.raises(MeasuringError, match="routing policy 'nobody'"):
        measuring.measure({"workload": {"trace": "bundled:burstgpt-style", "limit": 1}, "router": "nobody"})
    with pytest.raises(MeasuringError, match=r"^error: .*no-such-trace"):
        measuring.command_s("run", "no-such-trace.csv")

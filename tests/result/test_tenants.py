"""Figures by tenant, against timetables that a reader can add up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from simulator import summary_sections
from simulator.engine.recorder import Outcome
from simulator.metrics import Rows
from simulator.scenario import Scenario
from simulator.tenants import describe_tenants, jain_index, service_until, waiting_at
from tests.result.support import SECOND
from workloads.trace import Categorical, Trace


def rows_of(table: list[tuple[int, int, int, int, int, int]]) -> Rows:
    """Return rows of (arrival, scheduled, first, last in s; prompt, output), all finished."""
    arrival, scheduled, first, last, prompt, output = np.array(table, dtype=np.int64).T
    n = len(table)
    ns = {"arrival": arrival, "queued": arrival, "scheduled": scheduled, "first": first, "last": last, "ended": last}
    zeros = np.zeros(n, dtype=np.int64)
    return Rows(
        row=np.arange(n),
        **{name: values * SECOND for name, values in ns.items()},
        itl_max=zeros,
        prompt=prompt,
        output=output,
        cached=zeros,
        preemptions=zeros,
        replica=zeros,
        outcome=np.full(n, Outcome.FINISHED),
        code=zeros,
        attempts=np.ones(n, dtype=np.int64),
        migrations=zeros,
        prefill_replica=zeros - 1,
    )


def test_service_grows_by_the_prompt_when_scheduled_and_evenly_over_the_output() -> None:
    # Prompt of 10 at 1 s; 5 tokens, at 2, 3, 4, 5 and 6 s.
    rows = rows_of([(0, 1, 2, 6, 10, 5)])
    at = np.array([0, 1, 2, 3, 6, 9]) * SECOND
    assert service_until(rows, at).tolist() == pytest.approx([0, 10, 12, 14, 20, 20])


def test_who_waits_when() -> None:
    rows = rows_of([(0, 1, 2, 6, 10, 5), (0, 3, 4, 6, 10, 2)])
    assert waiting_at(rows, np.array([0, 1, 2, 3]) * SECOND).tolist() == [2, 1, 1, 0]


def test_jains_index() -> None:
    assert jain_index(np.array([3.0, 3.0, 3.0])) == pytest.approx(1)
    assert jain_index(np.array([5.0, 0.0, 0.0, 0.0])) == pytest.approx(0.25)
    assert jain_index(np.zeros(3)) is None


def test_the_difference_counts_only_while_both_wait() -> None:
    """a is given 100 tokens before b comes, which is no wrong; then 30 while b waits and gets nothing."""
    rows = rows_of([(0, 1, 2, 2, 98, 1), (0, 15, 16, 16, 28, 1), (0, 30, 31, 31, 8, 1), (10, 30, 31, 31, 8, 1)])
    tenants = Categorical.of(["a", "a", "a", "b"])
    found = describe_tenants(rows, tenants, 0, 40 * SECOND)
    assert found["by_tenant"]["a"]["service"] == 100 + 30 + 10 and found["by_tenant"]["b"]["service"] == 10
    assert found["backlogged"]["max_service_difference"] == pytest.approx(30)
    assert found["backlogged"]["between"] == ["a", "b"]
    assert found["backlogged"]["longest_shared_s"] == pytest.approx(20, abs=0.1)
    assert found["jain_index"] == pytest.approx(150**2 / (2 * (140**2 + 10**2)))


def test_without_tenants_it_says_so() -> None:
    data: Any = SimpleNamespace(trace=SimpleNamespace(tenant=None))
    found = summary_sections.tenants(data, rows_of([(0, 1, 2, 6, 10, 5)]), 0, SECOND)
    assert found["by_tenant"] is None and "no tenants" in found["reason"]


def test_a_run_of_a_trace_with_tenants() -> None:
    from simulator.runner import run

    names = ["a", "b"] * 20
    trace = Trace(
        arrival_s=np.zeros(40),
        prompt_tokens=np.full(40, 50),
        output_tokens=np.full(40, 10),
        tenant=Categorical.of(names),
    )
    pool = {"queueing": "vtc", "engine": {"max_num_seqs": 2}, "cost": {"kind": "constant", "step_s": 0.01}}
    result = run(Scenario.from_mapping({"cluster": {"pools": [pool]}}), trace=trace)
    section = result.summary["tenants"]
    assert section["by_tenant"]["a"]["service"] == section["by_tenant"]["b"]["service"] == 20 * (50 + 2 * 10)
    assert section["jain_index"] == pytest.approx(1)
    assert section["backlogged"]["max_service_difference"] <= 2 * max(50, 2 * 2 * 10)

"""Settings that change nothing are said to; policies that don't go together are refused with their key."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from simulator import Scenario, run
from simulator.errors import InputError
from simulator.resolve import resolve
from workloads.trace import Categorical, Trace


def _notes(pool: dict[str, Any]) -> list[str]:
    return resolve(Scenario.from_mapping({"model": "llama-3.1-8b", "cluster": {"pools": [pool]}})).notes


@pytest.mark.parametrize(
    ("parallel", "said"),
    [
        ({"context": "ulysses"}, ["parallel.context: 'ulysses' has no effect with one context"]),
        ({"striped": False}, ["parallel.striped: false has no effect with one context"]),
        (
            {"cp": 2, "context": "ulysses", "striped": False},
            ["parallel.striped: false has no effect with context: uly"],
        ),
        ({"cp": 2, "context": "ulysses"}, []),
        ({"cp": 2, "striped": False}, []),
    ],
)
def test_a_layout_without_effect_is_noted(parallel: dict[str, Any], said: list[str]) -> None:
    found = [note for note in _notes({"parallel": parallel}) if "no effect" in note]
    assert len(found) == len(said)
    assert all(note.startswith(start) for note, start in zip(found, said, strict=True))


def test_parts_of_the_cluster_that_nothing_asks_for_are_noted() -> None:
    def found(**cluster: Any) -> list[str]:
        keys = {"model": "llama-3.1-8b", "cluster": {"pools": [{"replicas": 2, **cluster.pop("pool", {})}], **cluster}}
        return [note for note in resolve(Scenario.from_mapping(keys)).notes if "no effect" in note]

    start = {"init_s": 5.0}
    assert found() == []
    assert found(start_up=start, migration={"max_stages": 2}) == [
        "cluster.migration has no effect without a rescheduler",
        "cluster.start_up has no effect without a scaler",
    ]
    assert found(pool={"max_replicas": 3}, scaler="queue", start_up=start, drain="finish") == []


@pytest.mark.parametrize(
    ("model", "pool", "said"),
    [
        ("llama-3.1-8b", {"batching": "hygen", "kv_budget": "h2o"}, r"^cluster.pools.0.kv_budget: .*'hygen' profiles"),
        (
            "deepseek-v2-lite",
            {"kv_budget": "xquant"},
            r"^cluster.pools.0.kv_budget: policy 'xquant' is for models with",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_with_its_key(model: str, pool: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        resolve(Scenario.from_mapping({"model": model, "cluster": {"pools": [pool]}}))


def test_deadlines_that_the_trace_has_not_are_noted() -> None:
    ones = np.ones(1, dtype=np.int64)
    trace = Trace(arrival_s=np.zeros(1), prompt_tokens=ones, output_tokens=ones)
    notes = run({"model": "llama-3.1-8b", "clients": {"deadlines": True}}, trace=trace).summary["notes"]
    assert "clients.deadlines is on and changes nothing: the trace has no deadlines (deadline_s)" in notes


def test_weights_of_tenants_that_the_trace_has_not_are_noted() -> None:
    ones = np.ones(2, dtype=np.int64)
    keys = {"model": "llama-3.1-8b", "cluster": {"pools": [{"queueing": {"name": "vtc"}}]}}

    def notes(weights: str, tenants: list[str] | None) -> list[str]:
        column = None if tenants is None else Categorical.of(tenants)
        trace = Trace(arrival_s=np.zeros(2), prompt_tokens=ones * 50, output_tokens=ones * 5, tenant=column)
        changed = Scenario.from_mapping(keys).updated({"cluster.pools.0.queueing.params.tenant_weights": weights})
        return [note for note in run(changed, trace=trace).summary["notes"] if "weight" in note]

    assert notes("gold=4, silver=2", ["gold", "silver"]) == []
    assert notes("golf=4", ["gold", "silver"]) == [
        "a weight without effect: the trace has no tenant 'golf'; did you mean 'gold'?"
    ]
    assert notes("gold=4", None) == ["a weight without effect: the trace has no tenant 'gold'; it names none"]

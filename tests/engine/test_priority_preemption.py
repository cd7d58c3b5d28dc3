"""Preemption by priority as vLLM has it, by hand, and the same stepwise."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policies import registry
from policies.queueing.priority import Priority
from simulator.engine.links import Link
from simulator.errors import InputError
from simulator.resolve import resolve
from simulator.scenario import Scenario
from tests.engine.support import MS, LinearCost, Request, fingerprint, simulate, times_ms
from tests.engine.test_fast_forward import COST, workloads


def by_priority(name: str, **params: Any) -> dict[str, Any]:
    return {
        "policy": lambda: registry.make("batching", name, {"priority_preemption": True, **params}),
        "queueing": Priority,
    }


def test_vllm_v1_preempts_the_least_urgent_not_the_youngest() -> None:
    """Two requests of 16 + 20 tokens in 4 blocks: at the 17th output token both need a third block."""
    requests = [Request(0, 16, 20, priority=5), Request(1 * MS, 16, 20, priority=1)]
    common: dict[str, Any] = {"blocks": 4, "cost": LinearCost(10 * MS), "max_len": 64}
    urgent = simulate(requests, **by_priority("vllm-v1"), **common)
    assert urgent.recorder.columns["preemptions"].tolist() == [1, 0]
    youngest = simulate(requests, queueing=Priority, **common)
    assert youngest.recorder.columns["preemptions"].tolist() == [0, 1]


def test_a_waiting_request_preempts_nobody_in_vllm_v1_and_the_less_urgent_in_vllm_0_6() -> None:
    """KV memory for one of them: the urgent one that comes at 25 ms is served at once, or after the other."""
    requests = [Request(0, 40, 10, priority=5), Request(25 * MS, 40, 2, priority=1)]
    common: dict[str, Any] = {"blocks": 4, "cost": LinearCost(10 * MS), "max_len": 64}
    waits = simulate(requests, **by_priority("vllm-v1"), **common)
    assert times_ms(waits, "first_token_ns") == [10, 110]
    assert not waits.recorder.columns["preemptions"].any()
    at_once = simulate(requests, **by_priority("vllm"), **common)
    # Three steps until 30 ms; two of the urgent one; then the first again, of which 3 tokens are recomputed in a step
    # that gives the fourth: 10 tokens at 50 + 7 x 10 ms.
    assert times_ms(at_once, "first_token_ns") == [10, 40]
    assert times_ms(at_once, "ended_ns") == [120, 50]
    assert at_once.recorder.columns["preemptions"].tolist() == [1, 0]


def test_equal_priority_never_preempts_for_one_that_waits() -> None:
    requests = [Request(0, 40, 10, priority=1), Request(25 * MS, 40, 2, priority=1)]
    found = simulate(requests, **by_priority("vllm"), blocks=4, cost=LinearCost(10 * MS), max_len=64)
    assert not found.recorder.columns["preemptions"].any()


@pytest.mark.parametrize(("name", "params"), [("vllm-v1", {}), ("vllm", {}), ("vllm", {"preemption_mode": "swap"})])
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(options=workloads(), budget=st.sampled_from([16, 512]), overlap=st.booleans())
def test_fast_forward_equals_stepwise(
    name: str, params: dict[str, Any], options: dict[str, Any], budget: int, overlap: bool
) -> None:
    common: dict[str, Any] = {
        **by_priority(name, **params),
        "cost": COST,
        "budget": budget,
        "async_scheduling": overlap,
        "swap_blocks": 100,
        "link": Link("test", 1e7, 1e-4),
        **options,
    }
    assert fingerprint(simulate(**common)) == fingerprint(simulate(**common, fast_forward=False))


def pool_of(**pool: Any) -> Any:
    return resolve(Scenario.from_mapping({"cluster": {"pools": [pool]}})).scenario.cluster.pools[0]


@pytest.mark.parametrize("engine", ["vllm@0.19", "vllm@0.6"])
def test_the_engines_flag_means_order_and_preemption(engine: str) -> None:
    pool = pool_of(engine={"name": engine, "args": {"scheduling-policy": "priority"}})
    assert pool.queueing.name == "priority" and pool.batching.params["priority_preemption"] is True
    plain = pool_of(engine={"name": engine})
    assert plain.queueing.name == "fcfs" and plain.batching.params["priority_preemption"] is False


def test_the_parameter_asks_for_its_queue_and_refuses_another() -> None:
    batching = {"name": "vllm-v1", "params": {"priority_preemption": True}}
    assert pool_of(batching=batching).queueing.name == "priority"
    assert pool_of(queueing="priority").batching.params["priority_preemption"] is True
    with pytest.raises(InputError, match="needs the queueing policy 'priority', got 'fcfs'"):
        pool_of(batching=batching, queueing="fcfs")

"""Pools with models of their own: each serves as it would alone, and requests go to those that serve their model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from simulator.build import build, load_trace
from simulator.engine.recorder import Outcome
from simulator.errors import InputError
from simulator.network.cluster_network import build_network
from simulator.resolve import resolve
from simulator.runner import run
from simulator.scenario import Scenario, ScenarioError
from simulator.studies.search import search
from simulator.terminal import details
from workloads import Trace, generate
from workloads.trace import Categorical

SMALL, OTHER = "llama-3.1-8b", "mistral-7b-v0.1"
POOL = {"accelerator": "a100-40gb"}
COLUMNS = ("queued_ns", "scheduled_ns", "first_token_ns", "last_token_ns", "ended_ns", "output_tokens", "outcome")


def trace(names: tuple[str, ...] = (SMALL, OTHER), requests: int = 80) -> Trace:
    """Return requests for the models in turn, the first of each round for none."""
    plain = generate("poisson", rate=8.0, requests=requests, prompt=700, output=120, seed=2)
    codes = np.resize(np.arange(-1, len(names), dtype=np.int32), requests)
    return replace(plain, model=Categorical(codes, names))


def scenario(**changes: Any) -> dict[str, Any]:
    pools = [{**POOL, "name": "own", "replicas": 2}, {**POOL, "name": "other", "model": OTHER}]
    return {"model": SMALL, "router": "least-outstanding", "cluster": {"pools": pools}, **changes}


def columns(result: Any, rows: Any = slice(None)) -> list[list[int]]:
    return [result.data.cluster.recorder.columns[name][rows].tolist() for name in COLUMNS]


def test_each_model_is_served_as_it_would_be_alone() -> None:
    requests = trace()
    both = run(scenario(), trace=requests)
    assert requests.model is not None
    replica = both.data.cluster.recorder.columns["replica"]
    others = requests.model.codes == 1
    assert set(replica[others].tolist()) == {2}
    assert set(replica[~others].tolist()) == {0, 1}
    flops = 0.0
    for rows, model, replicas in ((others, OTHER, 1), (~others, SMALL, 2)):
        keys = {
            "model": model,
            "router": "least-outstanding",
            "cluster": {"pools": [{**POOL, "replicas": replicas}]},
        }
        alone = run(keys, trace=requests.select(np.flatnonzero(rows)))
        assert columns(alone) == columns(both, rows)
        flops += alone.summary["efficiency"]["model_flops"]
    assert both.summary["efficiency"]["model_flops"] == pytest.approx(flops, rel=1e-12)
    told = both.summary["models"]
    assert told["requests"] == {SMALL: int((~others).sum()), OTHER: int(others.sum())}
    assert told["not_served"] == {}
    assert [pool["model"] for pool in both.summary["pools"]] == [SMALL, OTHER]
    assert "Models" in {label for label, _, _ in details(both.summary)}


def test_memory_and_steps_are_the_models_own() -> None:
    resolved = resolve(Scenario.from_mapping(scenario()))
    alone = [resolve(Scenario.from_mapping({"model": model, "cluster": {"pools": [POOL]}})) for model in (SMALL, OTHER)]
    assert [each.memory for each in resolved.pools] == [each.pools[0].memory for each in alone]
    assert resolved.pools[0].memory.kv_tokens != resolved.pools[1].memory.kv_tokens
    built = build(resolved, load_trace(resolved.scenario, trace()))
    assert [pool.weight_bytes for pool in built.pools] == [build(each, trace()).pools[0].weight_bytes for each in alone]
    assert built.scenario["cluster"]["pools"][1]["model"] == OTHER
    network = build_network(built.cluster.env, resolve(Scenario.from_mapping(scenario(model="qwen2.5-7b"))))
    with pytest.raises(ValueError, match="KV differs"):
        network.parts("gpu", "gpu", 0, 1000, to=2)


def test_names_of_the_trace_and_models_that_nobody_serves() -> None:
    keys = scenario(workload={"models": {"GPT-4": OTHER}}, clients={"timeout_s": 60.0, "retries": {"max": 3}})
    result = run(keys, trace=trace(("GPT-4", "mistralai/mistral-7b-v0.1", "gone")))
    recorder = result.data.cluster.recorder
    replica, outcome = recorder.columns["replica"].reshape(-1, 4), recorder.columns["outcome"].reshape(-1, 4)
    assert set(replica[:, 1].tolist()) == {2}
    assert set(replica[:, 0].tolist()) == {0, 1}
    gone = [Outcome.REJECTED] * 20
    assert outcome[:, 3].tolist() == gone
    assert recorder.columns["attempts"].reshape(-1, 4)[:, 3].tolist() == [1] * 20
    assert result.summary["models"]["not_served"]["gone"] == 20
    assert result.summary["requests"]["arrived"] == 80
    assert "Not served" in {label for label, _, _ in details(result.summary)}


def test_without_the_column_requests_ask_for_the_scenarios_model() -> None:
    plain = generate("poisson", rate=8.0, requests=30, prompt=700, output=20, seed=2)
    result = run(scenario(), trace=plain)
    assert result.summary["models"]["requests"] == {SMALL: 30, OTHER: 0}
    assert run(scenario(cluster={"pools": [POOL]}), trace=trace()).summary["models"] is None  # names mean nothing
    with pytest.raises(InputError, match=r"no pool serves llama-3\.1-70b, the scenario's 'model'"):
        run(scenario(model="llama-3.1-70b", cluster={"pools": [{**POOL, "model": SMALL}]}), trace=plain)


def test_stepwise_is_the_same() -> None:
    requests = replace(
        generate(
            "gamma",
            rate=20.0,
            requests=200,
            burstiness=0.3,
            prompt="lognormal:median=400,sigma=1,max=3000",
            output="lognormal:median=100,sigma=0.8,max=800",
            seed=3,
        ),
        model=trace(requests=200).model,
    )
    keys = scenario(
        router="power-of-two",
        faults={"script": [{"at_s": 3.0, "what": "replica", "which": 2, "for_s": 2.0}]},
        clients={"timeout_s": 20.0},
    )
    fast, slow = (run(keys, trace=requests, stepwise=stepwise) for stepwise in (False, True))
    assert fast.summary_without_timing == slow.summary_without_timing
    assert columns(fast) == columns(slow)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cluster": {"pools": [{**POOL, "model": "llama-9"}]}}, "llama-9"),
        ({"workload": {"models": {"GPT-4": "llama-3.1-70b"}}}, "workload.models.GPT-4: no pool serves 'llama-3.1-70b'"),
        (
            {
                "cluster": {
                    "pools": [
                        {**POOL, "name": "p", "role": "prefill"},
                        {**POOL, "name": "d", "role": "decode", "model": OTHER},
                    ]
                }
            },
            "disaggregation: not modelled with pools of several models",
        ),
        (
            {
                "cluster": {
                    "pools": [{**POOL, "max_replicas": 2}, {**POOL, "name": "b", "model": OTHER}],
                    "scaler": "queue",
                }
            },
            "cluster.scaler: not modelled with pools of several models",
        ),
    ],
)
def test_what_would_be_wrong_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises((InputError, ScenarioError), match=said):
        run(scenario(**changes), trace=trace())


def test_a_trace_whose_models_nobody_serves_and_a_search_are_refused() -> None:
    requests = trace(("GPT-4",))
    assert requests.model is not None
    named = requests.select(np.flatnonzero(requests.model.codes == 0))
    with pytest.raises(InputError, match=r"no pool serves any model of the trace \(GPT-4\); pools serve"):
        run(scenario(), trace=named)
    with pytest.raises(InputError, match="search plans one model"):
        search({"model": SMALL, "cluster": {"pools": [{**POOL, "model": OTHER}]}}, trace=requests)

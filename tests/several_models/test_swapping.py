"""Models that take turns: swaps by hand, one loaded on each machine at all times, fast-forward equal to stepwise."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.batching.sarathi import Sarathi
from policies.batching.vllm_v1 import VllmV1
from simulator.engine.recorder import Outcome
from simulator.errors import InputError
from simulator.models import load_model, weight_bytes
from simulator.runner import run
from simulator.scenario import ScenarioError
from simulator.several_models.swapping import State
from simulator.terminal import details
from tests.engine.support import MS, LinearCost, Request, fingerprint, times_ms
from tests.engine.test_control import REQUESTS
from tests.several_models.support import WEIGHTS, serve
from workloads import Trace, generate
from workloads.trace import Categorical


def test_a_swap_drains_then_reads_weights_then_initialises() -> None:
    # Steps take 10 ms. Model 0 runs until 40 ms; model 1 is asked for at 15 ms: 50 MB over 1 GB/s, 30 ms, a step.
    cluster, feature = serve([Request(0, 20, 4), Request(15 * MS, 20, 4)], [0, 1])
    assert times_ms(cluster, "first_token_ns") == [10, pytest.approx(130, abs=0.01)]
    told = feature.describe()
    assert told["swaps"] == 1
    assert told["bytes"] == {"storage": WEIGHTS, "host": 0}
    assert told["drain_s"]["max"] == pytest.approx(0.025, abs=1e-6)
    assert told["weight_load_s"]["max"] == pytest.approx(0.05, abs=1e-5)
    assert told["swap_s"]["max"] == pytest.approx(0.105, abs=1e-5)
    assert told["requests_that_waited"] == 1
    assert told["wait_s"]["max"] == pytest.approx(0.105, abs=1e-5)
    assert told["pools"]["pool0"]["machine_s"] == pytest.approx(0.04, abs=1e-6)
    assert [(state, loaded) for _, _, state, loaded in feature.changes] == [
        (State.SERVING, 0),
        (State.DRAINING, 0),
        (State.LOADING, 1),
        (State.SERVING, 1),
    ]


def test_a_model_that_was_loaded_before_comes_from_host_memory() -> None:
    # Back to model 0 at 300 ms: over PCIe 4.0 x16 (32 GB/s here) 50 MB take 1.6 ms; `storage` reads 50 ms again.
    requests, codes = [Request(0, 20, 1), Request(20 * MS, 20, 1), Request(300 * MS, 20, 1)], [0, 1, 0]
    cluster, feature = serve(requests, codes)
    assert feature.describe()["bytes"] == {"storage": WEIGHTS, "host": WEIGHTS}
    assert times_ms(cluster, "first_token_ns")[2] == pytest.approx(300 + 50 / 32 + 30 + 10, abs=0.1)
    cluster, feature = serve(requests, codes, part={"weights": "storage"})
    assert times_ms(cluster, "first_token_ns")[2] == pytest.approx(390, abs=0.01)
    cluster, feature = serve(requests, codes, part={"weights": "host"})
    assert feature.describe()["bytes"] == {"storage": 0, "host": 2 * WEIGHTS}


def test_machines_that_load_together_share_the_storage() -> None:
    # Models 2 and 3 are asked for at once, and two machines are idle.
    requests = [Request(0, 20, 1), Request(0, 20, 1)]
    cluster, _ = serve(requests, [2, 3], machines=2, models=4)
    assert times_ms(cluster, "first_token_ns") == [pytest.approx(140, abs=0.01)] * 2
    assert sorted(cluster.recorder.columns["replica"].tolist()) == [4, 7]


def test_the_loaded_model_goes_on_for_max_wait() -> None:
    # Model 1 waits since 15 ms: until 115 ms model 0's machine takes requests (that of 50 ms), then it ends them: the
    # first until 200 ms. That of 150 ms waits for model 0 to come back, which model 1's request delays until 700 ms.
    requests = [Request(0, 20, 20), Request(15 * MS, 20, 42), Request(50 * MS, 20, 2), Request(150 * MS, 20, 2)]
    cluster, feature = serve(requests, [0, 1, 0, 0], part={"max_wait_s": 0.1})
    draining = [at / MS for at, _, state, _ in feature.changes if state is State.DRAINING]
    assert draining == [pytest.approx(115, abs=0.01), pytest.approx(380, abs=0.01)]
    times = times_ms(cluster, "first_token_ns")
    assert times[1] == pytest.approx(290, abs=0.01)
    assert times[2] == 60
    assert times[3] == pytest.approx(280 + 42 * 10 + 50 / 32 + 30 + 10, abs=0.1)
    # A machine that is idle before that changes at once.
    cluster, _ = serve([Request(0, 20, 4), Request(15 * MS, 20, 4)], [0, 1], part={"max_wait_s": 5.0})
    assert times_ms(cluster, "first_token_ns")[1] == pytest.approx(130, abs=0.01)


def test_the_machine_with_the_least_work_changes_and_the_longest_idle_one_before() -> None:
    # Machines 0, 1 and 2 have models 0, 1 and 2, and begin one request each; tokens outstanding are those of prompts.
    requests = [Request(0, 60, 30), Request(0, 20, 10), Request(0, 40, 20), Request(5 * MS, 20, 2)]
    cluster, _ = serve(requests, [0, 1, 2, 3], machines=3, models=4)
    assert cluster.recorder.columns["replica"].tolist()[3] == 10  # machine 1
    late = [Request(0, 20, 6), Request(0, 20, 3), Request(0, 20, 8), Request(500 * MS, 20, 2)]
    cluster, _ = serve(late, [0, 1, 2, 3], machines=3, models=4)
    assert cluster.recorder.columns["replica"].tolist()[3] == 10  # idle since 30 ms


def test_an_idle_machine_helps_a_model_whose_machines_are_full() -> None:
    # One request at a time: the second for model 0 at 200 ms finds its machine full and that of model 1 long idle. It
    # is sent before; what comes at 310 ms finds two machines.
    requests = [Request(0, 20, 60), Request(200 * MS, 20, 2), Request(310 * MS, 20, 2)]
    cluster, feature = serve(requests, [0, 0, 0], machines=2, seqs=1, part={"idle_s": 0.1})
    assert feature.describe()["swaps"] == 1
    assert cluster.recorder.columns["replica"].tolist() == [0, 0, 1]
    cluster, feature = serve(requests, [0, 0, 0], machines=2, seqs=1, part={"idle_s": 0.25})
    assert feature.describe()["swaps"] == 1  # at 310 ms
    cluster, feature = serve(requests, [0, 0, 0], machines=2, seqs=1)
    assert feature.describe()["swaps"] == 0


@pytest.mark.parametrize("policy", [VllmV1, Sarathi])
@given(
    requests=REQUESTS,
    codes=st.lists(st.integers(0, 2), min_size=12, max_size=12),
    machines=st.integers(1, 3),
    max_wait_s=st.sampled_from([0.0, 0.02, 0.15]),
    idle_s=st.sampled_from([None, 0.05]),
    weights=st.sampled_from(["auto", "storage", "host"]),
    constant=st.booleans(),
    async_scheduling=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_stepwise_is_the_same_and_nothing_is_lost(
    policy: Any,
    requests: list[Request],
    codes: list[int],
    machines: int,
    max_wait_s: float,
    idle_s: float | None,
    weights: str,
    constant: bool,
    async_scheduling: bool,
) -> None:
    if constant:
        requests = [replace(request, arrival=(request.arrival or 0) // (10 * MS) * 10 * MS) for request in requests]
    options: dict[str, Any] = {
        "machines": machines,
        "models": 3,
        "policy": policy,
        "seqs": 2,
        "cost": LinearCost(10 * MS) if constant else LinearCost(9 * MS, 1_003, 101),
        "part": {"max_wait_s": max_wait_s, "idle_s": idle_s, "weights": weights},
        "async_scheduling": async_scheduling,
    }
    fast, told = serve(requests, codes, **options)
    slow, stepwise = serve(requests, codes, fast_forward=False, **options)
    assert fingerprint(fast) == fingerprint(slow)
    assert told.changes == stepwise.changes
    assert told.describe() == stepwise.describe()
    assert fast.recorder.columns["outcome"].tolist() == [Outcome.FINISHED] * len(requests)
    for row, replica in enumerate(fast.recorder.columns["replica"].tolist()):
        assert replica // machines == codes[row]


# ------------------------------------------------------------------------------------------------- by scenario keys

MODELS = ("llama-3.1-8b", "mistral-7b-v0.1", "qwen2.5-7b")
POOL = {"accelerator": "a100-40gb", "price_per_gpu_hour": 3.6}


def scenario(swap: dict[str, Any] | None = None, pool: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    pools = [{**POOL, "name": name, "model": model} for name, model in zip("abc", MODELS, strict=True)]
    pools[2] |= pool or {}
    cluster = {"pools": pools, "model_swap": {"pools": ["a", "b", "c"], **(swap or {})}}
    return {"model": MODELS[0], "cluster": cluster, **changes}


def trace(requests: int = 60) -> Trace:
    plain = generate("poisson", rate=1.0, requests=requests, prompt=600, output=80, seed=5)
    codes = np.random.default_rng(3).integers(0, 3, requests).astype(np.int32)
    return replace(plain, model=Categorical(codes, MODELS))


def test_one_gpu_serves_three_models_and_is_paid_for_once() -> None:
    keys = scenario({"max_wait_s": 1.0}, clients={"timeout_s": 30.0})
    result = run(keys, trace=trace())
    summary = result.summary
    told = summary["model_swap"]
    assert told["swaps"] > 5
    assert summary["cost"]["gpu_hours"] == pytest.approx(summary["window"]["duration_s"] / 3600, rel=1e-9)
    duration_s = result.data.cluster.end_ns / 1e9
    assert sum(pool["machine_s"] for pool in told["pools"].values()) == pytest.approx(duration_s)
    sizes = {name: weight_bytes(load_model(model), None) for name, model in zip("abc", MODELS, strict=True)}
    read = sum(sizes[name] * pool["loaded"] for name, pool in told["pools"].items())
    assert told["bytes"] == {"storage": sizes["b"] + sizes["c"], "host": read - sizes["b"] - sizes["c"]}
    # No faster than PCIe 4.0 x16 lets it, and then 0.1 s.
    assert told["weight_load_s"]["p50"] >= min(sizes.values()) / 32e9
    assert told["swap_s"]["max"] >= told["weight_load_s"]["max"] + 0.1 - 1e-9
    assert summary["energy"]["by_phase_j"]["idle"] == pytest.approx(
        summary["energy"]["pools"][0]["idle_w"] * duration_s, rel=1e-6
    )
    lines = {label: text for label, text, _ in details(summary)}
    assert f"{told['swaps']} on 1 machine in " in lines["Model swaps"]
    assert lines["GPUs"].startswith("1 x a100-40gb in 1 replica, busy")
    again = run(keys, trace=trace(), stepwise=True)
    assert again.summary_without_timing == result.summary_without_timing


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"swap": {"pools": ["a", "d"]}}, "cluster.model_swap.pools: there is no pool 'd'"),
        ({"swap": {"pools": ["a", "a"]}}, "names a pool twice"),
        ({"pool": {"model": MODELS[0]}}, "two pools serve llama-3.1-8b"),
        ({"pool": {"replicas": 2}}, "differ in their number of replicas: 1 and 2"),
        ({"pool": {"parallel": {"tp": 2}}}, "differ in their number of GPUs a replica: 1 and 2"),
        ({"pool": {"accelerator": "h100-sxm"}}, "differ in their accelerator: a100-40gb and h100-sxm"),
        ({"faults": {"script": []}}, "faults: not modelled with cluster.model_swap"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises((InputError, ScenarioError), match=said):
        run(scenario(**changes), trace=trace())

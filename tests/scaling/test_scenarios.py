"""Rescheduling and scaling by scenario keys: what is refused, what is paid for, what the terminal says."""

from __future__ import annotations

from typing import Any

import pytest

from simulator.errors import InputError
from simulator.models import kv_bytes_per_token, load_model, weight_bytes
from simulator.runner import run
from simulator.scenario import Scenario, ScenarioError
from simulator.terminal import details
from workloads import Trace, generate

POOL = {"accelerator": "a100-40gb", "engine": {"num_kv_blocks": 400}, "price_per_gpu_hour": 3.6}


def scenario(pool: dict[str, Any], **cluster: Any) -> dict[str, Any]:
    return {"model": "llama-3.1-8b", "router": "llumnix", "cluster": {"pools": [{**POOL, **pool}], **cluster}}


def trace(requests: int = 60, rate: float = 6.0) -> Trace:
    return generate("poisson", rate=rate, requests=requests, prompt=800, output=200, seed=2)


def test_a_rescheduler_moves_what_the_links_carry() -> None:
    varied = generate(
        "poisson", rate=20.0, requests=120, prompt="lognormal:median=500,sigma=1,max=4000", output=200, seed=2
    )
    keys = {**scenario({"replicas": 2}, rescheduler="llumnix"), "router": "round-robin"}
    result = run(keys, trace=varied)
    told = result.summary["rescheduling"]
    assert told["moved"] > 0
    assert told["policies"] == {"default": "llumnix"}
    token = kv_bytes_per_token(load_model("llama-3.1-8b"), "bf16")
    assert told["bytes"] >= told["moved"] * token
    assert told["bytes"] % token == 0
    assert result.summary["links"]["links"]
    assert result.scenario["cluster"]["rescheduler"]["params"]["threshold"] == 3.0
    assert "Migration" in {label for label, _, _ in details(result.summary)}


def test_only_the_time_that_replicas_are_up_is_paid_for() -> None:
    start = {"init_s": 2.0}
    keys = scenario(
        {"replicas": 1, "max_replicas": 3},
        scaler={"name": "queue", "params": {"target": 1.0, "interval_s": 1.0, "stabilization_s": 3.0}},
        start_up=start,
    )
    result = run(keys, trace=trace(200, 20.0))
    summary = result.summary
    pool = summary["scaling"]["pools"]["default"]
    assert pool["started"] > 0
    assert summary["cost"]["gpu_hours"] == pytest.approx(pool["replica_s"] / 3600, rel=0.05)  # less before the first
    assert summary["cost"]["total"] == pytest.approx(3.6 * summary["cost"]["gpu_hours"])
    for told in summary["replicas"]:
        busy_ns = result.data.cluster.replicas[told["replica"]].counters.busy_ns
        control = result.data.cluster.control
        assert control is not None
        up_ns = control.up_ns(told["replica"], 0, result.data.cluster.end_ns)
        assert told["utilization"] == (busy_ns / up_ns if up_ns else None)
        assert up_ns >= busy_ns
    samples = result.timeseries
    interval_s = result.scenario["measure"]["sample_interval_s"]
    sampled_j = samples.groupby("replica")["power_w"].sum() * interval_s
    for replica, told in enumerate(summary["energy"]["replicas"]):  # less the end, which is shorter than an interval
        assert told["accelerators_j"] - 700 * interval_s <= sampled_j[replica] <= told["accelerators_j"] + 1e-6
    assert samples["power_w"][(samples["replica"] == 2) & (samples["t_s"] <= 1.0)].eq(0).all()
    always = run(scenario({"replicas": 3}), trace=trace(200, 20.0)).summary
    assert summary["cost"]["gpu_hours"] / summary["window"]["duration_s"] < (
        always["cost"]["gpu_hours"] / always["window"]["duration_s"]
    )
    # The weights come from the storage, alone on its way: 16 GB over PCIe or the interface, then 2 s.
    least = weight_bytes(load_model("llama-3.1-8b"), None) / 40e9
    assert pool["weight_load_s"]["max"] >= least
    assert pool["cold_start_s"]["max"] >= pool["weight_load_s"]["max"] + 2.0 - 1e-6
    assert "Scaling" in {label for label, _, _ in details(summary)}
    again = run(keys, trace=trace(200, 20.0), stepwise=True).summary
    assert {k: v for k, v in again.items() if k != "simulator"} == {
        k: v for k, v in summary.items() if k != "simulator"
    }


def test_a_preset_and_a_scaler_together() -> None:
    keys = scenario({"replicas": 2, "max_replicas": 4, "min_replicas": 1}, scaler="llumnix")
    result = run({**keys, "preset": "llumnix"}, trace=trace(20))
    assert result.summary["rescheduling"] is not None
    assert result.summary["scaling"]["pools"]["default"]["max_replicas"] == 4


@pytest.mark.parametrize("scaler", ["llumnix", "slo"])
def test_with_faults_and_clients_beside_it_stepwise_is_the_same(scaler: str) -> None:
    script = [
        {"at_s": 3.0, "what": "replica", "which": 0, "for_s": 4.0},  # serves
        {"at_s": 6.5, "what": "replica", "which": 2, "for_s": 2.0},  # starts, or has just begun to serve
        {"at_s": 7.0, "what": "replica", "which": 4, "for_s": 2.0},  # down
        {"at_s": 12.0, "what": "straggler", "which": 1, "for_s": 5.0, "factor": 2.0},
    ]
    keys = {
        **scenario(
            {"replicas": 2, "max_replicas": 5},
            rescheduler="llumnix",
            scaler={"name": scaler, "params": {"interval_s": 1.0}},
            start_up={"init_s": 2.0, "provisioning_s": 0.5},
        ),
        "faults": {"script": script},
        "clients": {"timeout_s": 20.0},
        "objectives": {"ttft_s": 2.0, "tpot_s": 0.1},
    }
    varied = generate(
        "gamma",
        rate=30.0,
        requests=500,
        burstiness=0.3,
        prompt="lognormal:median=400,sigma=1,max=3000",
        output="lognormal:median=150,sigma=0.8,max=1500",
        seed=3,
    )
    fast, slow = (run(keys, trace=varied, stepwise=stepwise).summary for stepwise in (False, True))
    for summary in (fast, slow):
        del summary["simulator"]
    assert fast == slow
    assert fast["scaling"]["pools"]["default"]["started"] > 0
    assert fast["rescheduling"]["moved"] > 0
    assert sum(fast["requests"][name] for name in ("finished", "rejected", "failed", "timed_out")) == 500


@pytest.mark.parametrize(
    ("pool", "cluster", "said"),
    [
        ({"max_replicas": 3}, {}, "is for clusters that scale"),
        ({"replicas": 4, "max_replicas": 3}, {"scaler": "llumnix"}, "must be at most"),
        ({"min_replicas": 1}, {"scaler": "llumnix"}, "'min_replicas' needs 'max_replicas'"),
        ({}, {"scaler": "llumnix"}, "needs a pool with 'max_replicas'"),
        ({}, {"scaler": "lumnix"}, "did you mean 'llumnix'"),
        ({}, {"rescheduler": "lumnix"}, "did you mean 'llumnix'"),
    ],
)
def test_keys_that_do_not_fit_together_are_refused(pool: dict[str, Any], cluster: dict[str, Any], said: str) -> None:
    with pytest.raises(ScenarioError, match=said):
        Scenario.from_mapping(scenario(pool, **cluster))


@pytest.mark.parametrize(
    ("pool", "cluster", "said"),
    [
        ({"replicas": 1}, {"rescheduler": "llumnix"}, "no pool that decodes has two"),
        ({"replicas": 2, "parallel": {"pp": 2}}, {"rescheduler": "llumnix"}, "pipeline stages"),
        ({"replicas": 2, "batching": "static"}, {"rescheduler": "llumnix"}, "can't take over requests that migrate"),
        ({"replicas": 2, "kv_budget": "kv8"}, {"rescheduler": "llumnix"}, "not modelled with a KV budget"),
    ],
)
def test_what_cannot_move_is_refused(pool: dict[str, Any], cluster: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        run(scenario(pool, **cluster), trace=trace(3))

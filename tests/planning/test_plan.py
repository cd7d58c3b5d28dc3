"""A small plan from end to end, on servers whose steps all take as long, so that the answer can be worked out."""

from __future__ import annotations

import json

import pytest

from simulator import Scenario, plan, run
from simulator.errors import InputError

STEP_S = 0.05
OBJECTIVES = {"ttft_p99": 1.0, "e2e_p95": 4.0}


def scenario(rate: float = 8.0, requests: int = 300, **more: object) -> dict[str, object]:
    """Return requests of 20 tokens for engines that run 8 at a time: 8 / (20 x 0.05 s) = 8 requests/s a replica."""
    params = {"requests": requests, "rate": rate, "prompt": "constant:value=100", "output": "constant:value=20"}
    pool = {"cost": {"kind": "constant", "step_s": STEP_S}, "engine": {"max_num_seqs": 8}}
    workload = {"generator": {"kind": "poisson", "params": params}}
    return {"model": "llama-3.1-8b", "workload": workload, "cluster": {"pools": [pool]}, **more}


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    out = tmp_path_factory.mktemp("plan")
    result = plan(
        scenario(20.0, 600),
        objectives=OBJECTIVES,
        gpus={"h100-sxm": {"price": 3.0}, "a100-80gb": {"price": 1.0}},
        max_gpus=1,
        what_ifs=False,
        tune=False,
        workers=1,
        out=out,
    )
    return result, out


def test_the_cheapest_gpu_is_taken_where_all_are_as_quick(planned):
    result, _ = planned
    # 20 requests/s need at least 2.5 replicas of 8 requests/s; three are busy for 83 % of the time.
    assert [(each.choice.gpu, number) for each, number in result.fleet.parts] in (
        [("a100-80gb", 3)],
        [("a100-80gb", 4)],
    )
    assert result.fleet.price == result.fleet.gpus


def test_the_proof_can_be_run_again(planned):
    result, out = planned
    again = run(out / "fleet.yaml").summary
    assert again["objectives"]["given"]["ttft_s"]["attainment"] >= 0.99
    assert again["objectives"]["given"]["e2e_s"]["attainment"] >= 0.95
    assert [run.where for run in result.runs] == ["the trace", "seed 1", "seed 2", "seed 3"]
    assert all(run.met for run in result.runs)


def test_one_replica_fewer_fails(planned):
    result, _ = planned
    ((smaller, runs),) = result.removals
    assert smaller.replicas == result.fleet.replicas - 1
    assert not all(run.met for run in runs)


def test_every_cheaper_fleet_is_there_and_fails(planned):
    result, _ = planned
    # Fleets of a x 1 $ and b x 3 $ below the plan's price, but for the empty one.
    price = result.fleet.price
    expected = {(a, b) for a in range(9) for b in range(9) if 0 < a + 3 * b < price}
    found = {
        tuple(
            next((n for each, n in tried.fleet.parts if each.choice.gpu == gpu), 0) for gpu in ("a100-80gb", "h100-sxm")
        )
        for tried in result.enumeration.tried
    }
    assert found == expected
    assert all(tried.failed_on is not None for tried in result.enumeration.tried)
    assert result.enumeration.untried == 0


def test_the_files_say_the_same(planned):
    result, out = planned
    data = json.loads((out / "plan.json").read_text())
    assert data["plan"]["usd_per_hour"] == result.fleet.price
    assert data["proof"]["cheaper_fleets"]["failed"] == len(result.enumeration.tried)
    assert len((out / "fleets.csv").read_text().splitlines()) == 2 + len(result.enumeration.tried)
    Scenario.from_yaml(out / "fleet.yaml")
    with pytest.raises(InputError, match="earlier plan"):
        plan(scenario(), objectives=OBJECTIVES, gpus=["h200"], out=out)


def asked(**more):
    given = {"objectives": OBJECTIVES, "gpus": {"h100-sxm": {"price": 3.0}}, "max_gpus": 1, "tune": False, "workers": 1}
    return plan(more.pop("scenario", scenario()), what_ifs=False, **{**given, **more})


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"gpus": ["h1000"]}, "h1000"),
        ({"gpus": ["t4"]}, "no price for t4.*--price t4="),
        ({"gpus": ["h100-sxm"], "provider": "nobody"}, "unknown provider 'nobody'; known: nebius, runpod"),
        ({"gpus": []}, "which GPUs"),
        ({"objectives": {}}, "a plan needs objectives"),
        ({"objectives": {"tfft_p99": 1}}, "unknown objective 'tfft_p99'; did you mean 'ttft_p99'"),
        ({"objectives": {"ttft_p99": -1}}, "above 0"),
        ({"objectives": {"classes": {"chat": {"ttft_p99": 1}}}}, "class 'chat'.*no classes"),
        (
            {"objectives": {"ttft_p99": 0.001}},
            "out of reach: the best that any does is 50 ms.* nearest objective is 50 ms",
        ),
        ({"gpus": {"h100-sxm": {"price": 0}}}, "must be a number above 0"),
        ({"scenario": scenario(20.0), "at_most": {"h100-sxm": 1}}, "at most 1 h100-sxm.* [34] h100-sxm would do"),
        ({"scenario": {**scenario(), "model": "llama-3.1-70b"}}, "no replica of llama-3.1-70b.* would hold it"),
        ({"prices": {"l40s": 2}}, "price for l40s, which is not among the GPUs"),
    ],
)
def test_what_can_not_be_is_said_in_a_sentence(more, said):
    with pytest.raises(ValueError, match=said) as error:
        asked(**more)
    assert "\n" not in str(error.value)


def test_a_burst_for_dozens_of_replicas_has_a_plan_too(tmp_path):
    """Where no replica serves 100 requests in time, capacities come of fewer; that none does is not said of those."""
    burst = {"scenario": scenario(100.0, 300), "objectives": {"ttft_p99": 0.25, "e2e_p99": 2.0}}
    found = asked(**burst, seeds=1, store=tmp_path)
    assert found.fleet.replicas > 3
    assert all(run.met for run in found.runs)
    with pytest.raises(ValueError, match=r"serves no more than 10 of 300 requests: E2E p99 <= 500 ms is out of reach"):
        asked(scenario=scenario(100.0, 300), objectives={"e2e_p99": 0.5})

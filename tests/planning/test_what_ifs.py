"""What else might be asked: transformations by hand, and answers on servers whose steps all take as long."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator import plan
from simulator.planning.what_ifs import BURST_WINDOW_S, FROM_CAPACITIES, SIMULATED, bursts, variation
from tests.planning.test_plan import OBJECTIVES, scenario
from workloads import Trace


def requests(arrivals) -> Trace:
    number = len(arrivals)
    return Trace(np.array(arrivals, dtype=float), np.full(number, 100), np.full(number, 20))


def test_gaps_are_raised_to_a_power_and_windows_keep_their_requests():
    # Gaps of 10, 20 and 30 s to the end of the window's stretch become as 1 to 4 to 9.
    moved = bursts(requests([0, 10, 30, 60, 70])).arrival_s
    assert moved.tolist() == pytest.approx([0, 60 / 14, 300 / 14, 60, 70])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 600), min_size=1, max_size=60).map(sorted))
def test_bursts_lose_nobody_and_move_nobody_to_another_window(arrivals):
    before = np.array(arrivals)
    after = bursts(requests(arrivals)).arrival_s
    assert len(after) == len(before)
    assert (np.diff(after) >= 0).all()
    # A window may end where the next one's first request is.
    assert (after >= np.floor(before / BURST_WINDOW_S) * BURST_WINDOW_S).all()
    following = np.append(before[1:], before[-1])
    assert after[-1] <= before[-1] + 1e-9 or following[-1] == before[-1]


def test_poisson_arrivals_become_burstier():
    arrivals = np.cumsum(np.random.default_rng(1).exponential(0.1, 5000))
    assert variation(requests(arrivals)) == pytest.approx(1, abs=0.1)
    assert variation(bursts(requests(arrivals))) > 1.8


@pytest.fixture(scope="module")
def answered():
    gpus = {"a100-80gb": {"price": 1.0}, "h100-sxm": {"price": 1.3}}
    return plan(scenario(20.0, 400), objectives=OBJECTIVES, gpus=gpus, max_gpus=1, tune=False, workers=1, seeds=1)


def test_each_question_has_an_answer(answered):
    names = [each.name for each in answered.what_ifs]
    assert names == [
        "traffic x1.5",
        "traffic x2",
        "traffic x3",
        "burstier",
        "outputs x1.5",
        "one node lost (N+1)",
        "price of a100-80gb",
        "price of h100-sxm",
        "schedule",
    ]
    assert {each.how for each in answered.what_ifs} == {SIMULATED, FROM_CAPACITIES}


def test_more_traffic_needs_more_replicas_in_proportion(answered):
    replicas = [each.fleet.replicas for each in answered.what_ifs[:3]]
    assert replicas == sorted(replicas)
    # 8 requests/s a replica, a queue at the end excepted; and no more than three times the plan.
    assert 0.9 * 3 * answered.rate / 8 <= replicas[2] <= 3 * answered.fleet.replicas


def test_a_spare_is_one_replica_more(answered):
    lost = next(each for each in answered.what_ifs if each.name.startswith("one node"))
    assert not lost.plan_holds
    assert lost.fleet.replicas == answered.fleet.replicas + 1


def test_a_gpu_that_is_as_quick_wins_when_it_is_cheaper(answered):
    prices = {each.name: each.text for each in answered.what_ifs if each.name.startswith("price")}
    assert "at -50% " in prices["price of h100-sxm"]  # 0.65 against 1
    assert "at -20%" not in prices["price of h100-sxm"]  # 1.04 against 1
    assert "at +50% " in prices["price of a100-80gb"]  # 1.5 against 1.3
    assert "at +20%" not in prices["price of a100-80gb"]


def test_the_lower_bound_is_the_work(answered):
    # 8 requests run at a time, each takes 20 steps of 0.05 s: 8 requests/s with every step full, at any mix.
    bound = answered.bound
    assert [rate for _, rate in bound.rates] == pytest.approx([8.0, 8.0])
    assert bound.mean_gpus == pytest.approx(answered.rate / 8, rel=0.01)
    assert bound.mean_price == pytest.approx(bound.mean_gpus * 1.0)
    assert bound.mean_gpus < answered.fleet.gpus

"""Fleets of two roles: what each can do at most, and which fleets are simulated."""

from __future__ import annotations

import numpy as np
import pytest

from simulator import plan, run
from simulator.models import load_model
from simulator.planning.bound import Engine
from simulator.planning.choices import choices_of
from simulator.planning.configurations import configurations
from simulator.planning.disaggregated import candidates, decode_rate, prefill_rate
from simulator.planning.fleets import Fleet
from simulator.planning.objectives import objectives_of
from simulator.scenario import Scenario
from tests.planning.test_plan import scenario
from workloads import Trace


class Cost:
    """10 ms a step, and 0.1 ms a token of it."""

    sources = ()

    def step_ns(self, shape):
        return 10**7 + 10**5 * shape.tokens

    def stage_ns(self, shape):
        return [self.step_ns(shape)]


def test_prompts_fill_steps():
    # Steps of 1000 tokens take 110 ms: 10 prompts of 100 tokens.
    assert prefill_rate(Engine(Cost(), 1000, 8, 10**6), 100) == pytest.approx(10 / 0.110)


def test_decodes_fill_steps_as_far_as_the_gap_between_tokens_lets_them():
    engine = Engine(Cost(), 1000, 16, 10**6)
    assert decode_rate(engine, 100, 20, 1.0) == pytest.approx(16 / 20 / 0.0116)
    assert decode_rate(engine, 100, 20, 0.010) == 0.0  # one decode takes 10.1 ms


def test_fleets_can_do_the_work_and_are_cheaper():
    trace = Trace(np.linspace(0, 100, 500), np.full(500, 2000), np.full(500, 200))
    base = Scenario.from_mapping({"model": "llama-3.1-8b"})
    able, _ = configurations(base, load_model("llama-3.1-8b"), choices_of(["h100-sxm", "l40s"]), [], trace, 2)
    found = candidates(base, able, objectives_of({"tpot_p99": 0.05}), trace, 5.0, 12.0)
    assert found.fleets
    prices = [fleet.price for fleet in found.fleets]
    assert prices == sorted(prices)
    assert prices[-1] < 12.0
    for fleet in found.fleets:
        (one, n), (other, m) = fleet.parts
        assert (dict(one.changes)["role"], dict(other.changes)["role"]) == ("prefill", "decode")
        assert n * found.rates[one] >= 0.95 * 5
        assert m * found.rates[other] >= 0.95 * 5
    one = found.fleets[0]
    made = Scenario.from_mapping(one.scenario(base, {}))
    assert [pool.role for pool in made.cluster.pools] == ["prefill", "decode"]
    assert isinstance(one, Fleet)


def test_cheaper_ones_are_simulated_and_told():
    gpus = {"a100-80gb": {"price": 1.0}}
    asked = {"objectives": {"ttft_p99": 1.0, "e2e_p95": 4.0}, "gpus": gpus, "max_gpus": 1, "tune": False, "workers": 1}
    found = plan(scenario(20.0, 300), what_ifs=False, seeds=1, **asked)
    for each in found.enumeration.disaggregated:
        assert each.fleet.is_disaggregated
        assert each.fleet.price < found.fleet.price
        assert each.failed_on is not None
    assert run(found.scenario).summary["requests"]["finished"] == 300

"""The lower bound over time."""

from __future__ import annotations

import numpy as np
import pytest

from simulator.models import load_model
from simulator.planning.bound import Engine, best_rate, lower_bound
from simulator.planning.choices import choices_of
from simulator.planning.configurations import configurations
from simulator.scenario import Scenario
from workloads import Trace


class Linear:
    """A step takes 1 ms for each token that it computes, in each of two stages the second of which takes twice that."""

    sources = ()

    def stage_ns(self, shape):
        return [10**6 * shape.tokens, 2 * 10**6 * shape.tokens]


def test_a_full_step_serves_what_its_slowest_stage_lets_it():
    # A request has 100 + 20 tokens, 2 ms each: 1 / 0.24 s.
    rate = best_rate(Engine(Linear(), tokens=2048, seqs=64, kv_tokens=10**6), 100, 20)
    assert rate == pytest.approx(1 / 0.24, rel=0.02)


def test_memory_limits_the_batch():
    class Constant(Linear):
        def stage_ns(self, shape):
            return [10**6]

    # 10 requests of 110 tokens on average fit: 10 tokens a step of 1 ms, 20 tokens a request.
    assert best_rate(Engine(Constant(), 10**6, 64, 1100), 100, 20) == pytest.approx(10 / 20 / 1e-3)
    assert best_rate(Engine(Constant(), 10**6, 4, 1100), 100, 20) == pytest.approx(4 / 20 / 1e-3)


def test_no_window_needs_more_than_its_requests_and_quiet_ones_nothing():
    arrivals = np.concatenate((np.linspace(0, 59, 500), [300.0]))
    trace = Trace(arrivals, np.full(501, 1000), np.full(501, 100))
    base = Scenario.from_mapping({"model": "llama-3.1-8b"})
    choices = choices_of(["h100-sxm", "l40s"])
    able, _ = configurations(base, load_model("llama-3.1-8b"), choices, [], trace, 1)
    bound = lower_bound(base, able, trace)
    assert bound.window_s == pytest.approx(60)
    assert len(bound.gpus) == 5
    assert bound.gpus[1:4].tolist() == [0, 0, 0]
    assert bound.gpus[0] > 100 * bound.gpus[4] > 0
    assert bound.fewest.choice.gpu == "h100-sxm"
    assert (bound.price <= bound.gpus * 3.49 + 1e-12).all()

"""Objectives of classes: each has capacities of its own."""

from __future__ import annotations

import numpy as np
import pytest

from simulator import plan
from simulator.errors import InputError
from tests.planning.test_plan import scenario
from workloads import Trace
from workloads.trace import Categorical


@pytest.fixture(scope="module")
def trace() -> Trace:
    """Return chats of 10 tokens and batches of 40, ten of each a second."""
    rng = np.random.default_rng(5)
    arrivals = np.sort(rng.uniform(0, 20, 400))
    classes = rng.integers(0, 2, 400)
    return Trace(
        arrivals,
        np.full(400, 100),
        np.where(classes == 0, 10, 40),
        request_class=Categorical.of(["chat" if each == 0 else "batch" for each in classes]),
    )


def base() -> dict[str, object]:
    return {key: value for key, value in scenario().items() if key != "workload"}


def test_each_class_has_its_objective_and_capacity(trace):
    given = {"classes": {"chat": {"ttft_p95": 0.5}, "batch": {"e2e_p90": 10.0}}}
    gpus = {"a100-80gb": {"price": 1.0}}
    found = plan(base(), objectives=given, gpus=gpus, max_gpus=1, tune=False, workers=1, seeds=1, trace=trace)
    (best,) = found.candidates
    assert set(best.capacities) == {"chat", "batch"}
    # Ten chats a second take 10 x 10 x 0.05 / 8 = 0.625 of a replica, ten batches four times that.
    assert best.shares["chat"] > best.shares["batch"]
    assert found.runs[0].met
    assert any("of chat" in each for each in found.runs[0].misses)
    assert found.fleet.replicas >= 3


def test_a_class_without_an_objective_is_refused(trace):
    with pytest.raises(InputError, match="requests of class 'batch' have no objective"):
        plan(
            base(),
            objectives={"classes": {"chat": {"ttft_p95": 0.5}}},
            gpus={"a100-80gb": {"price": 1.0}},
            trace=trace,
        )

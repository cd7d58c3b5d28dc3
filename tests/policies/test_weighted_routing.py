"""Weights of replicas, by hand."""

from __future__ import annotations

import pytest

from policies.protocols import PolicyError
from policies.routing.weighted_least_outstanding import WeightedLeastOutstanding
from tests.policies.test_orders import FakeArrival, FakeCluster


def route(weights: str, load: list[int]) -> int:
    return WeightedLeastOutstanding(weights=weights).route(FakeArrival(), FakeCluster.of(load))


def test_a_request_goes_where_the_load_for_its_weight_is_least():
    assert route("1,2", [0, 0]) == 1  # 1/1 against 1/2
    assert route("1,2", [0, 1]) == 0  # 1/1 against 2/2: the first of equals
    assert route("1,2", [1, 2]) == 1  # 2/1 against 3/2
    assert route("1,2.5", [3, 9]) == 0  # 4/1 and 10/2.5 are equal


def test_without_weights_all_are_equal():
    assert route("", [2, 1, 1]) == 1


@pytest.mark.parametrize("weights", ["1,x", "1,0", "-1", "1,nan", "1,,2"])
def test_bad_weights_are_refused(weights):
    with pytest.raises(PolicyError, match="weights must be numbers above 0"):
        WeightedLeastOutstanding(weights=weights)


def test_each_replica_needs_a_weight():
    with pytest.raises(PolicyError, match="there are 1 weights, and a replica of number 1"):
        route("1", [0, 0])

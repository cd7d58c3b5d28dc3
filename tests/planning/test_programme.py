"""The integer programme beside every fleet tried one by one."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.planning.programme import cheapest

ALL = "all"


def by_trying(prices, capacities, needed, gpus, types, at_most, beyond=(), most=6):
    """Return the least price of all fleets of up to `most` replicas a configuration that do; None: none does."""
    found = None
    for counts in product(range(most + 1), repeat=len(prices)):
        if sum(n * a for n, a in zip(counts, capacities, strict=True)) < needed - 1e-9:
            continue
        if any(
            sum(n * g for n, g, t in zip(counts, gpus, types, strict=True) if t == k) > v for k, v in at_most.items()
        ):
            continue
        if any(all(n <= m for n, m in zip(counts, fleet, strict=True)) for fleet in beyond):
            continue
        price = sum(n * p for n, p in zip(counts, prices, strict=True))
        found = price if found is None else min(found, price)
    return found


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_no_fleet_is_cheaper(data):
    number = data.draw(st.integers(1, 3))
    prices = [p / 4 for p in data.draw(st.lists(st.integers(1, 60), min_size=number, max_size=number))]
    capacities = [c / 8 for c in data.draw(st.lists(st.integers(2, 16), min_size=number, max_size=number))]
    gpus = data.draw(st.lists(st.sampled_from([1, 2, 4, 8]), min_size=number, max_size=number))
    types = data.draw(st.lists(st.sampled_from(["a", "b"]), min_size=number, max_size=number))
    at_most = data.draw(st.dictionaries(st.sampled_from(["a", "b"]), st.integers(1, 20)))
    needed = data.draw(st.integers(1, 12)) / 8
    beyond = data.draw(st.lists(st.tuples(*[st.integers(0, 2)] * number), max_size=2))
    expected = by_trying(prices, capacities, needed, gpus, types, at_most, beyond)
    found = cheapest(
        prices, [{ALL: c} for c in capacities], {ALL: needed}, gpus=gpus, types=types, at_most=at_most, beyond=beyond
    )
    assert (found is None) == (expected is None)
    if found is not None:
        assert sum(n * p for n, p in zip(found, prices, strict=True)) == pytest.approx(expected)
        assert sum(n * a for n, a in zip(found, capacities, strict=True)) >= needed - 1e-6


def test_each_class_goes_where_it_is_cheap():
    # One is good at short prompts, the other at long ones; together they cost 2, either alone 4.
    capacities = [{"short": 1.0, "long": 1 / 3}, {"short": 1 / 3, "long": 1.0}]
    assert cheapest([1.0, 1.0], capacities, {"short": 1.0, "long": 1.0}) == (1, 1)
    assert cheapest([1.0, 9.0], capacities, {"short": 1.0, "long": 1.0}) == (4, 0)


def test_a_replica_is_shared_by_classes_in_time():
    assert cheapest([1.0], [{"a": 2.0, "b": 4.0}], {"a": 1.0, "b": 2.0}) == (1,)
    assert cheapest([1.0], [{"a": 2.0, "b": 4.0}], {"a": 1.0, "b": 2.1}) == (2,)


def test_a_class_that_nobody_can_serve_has_no_fleet():
    assert cheapest([1.0], [{"a": 1.0}], {"a": 1.0, "b": 1.0}) is None

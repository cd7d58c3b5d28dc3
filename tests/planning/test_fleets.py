"""Cheaper fleets: all of them, the most able first, and quickly where there are millions."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.planning.choices import Choice
from simulator.planning.configurations import Configuration
from simulator.planning.fleets import Fleet, cheaper, count_cheaper, most_able
from simulator.studies.plan_space import Plan


def configuration(gpu: str, price: float, tp: int = 1, at_most: int | None = None) -> Configuration:
    return Configuration(Choice(gpu, price, at_most=at_most), Plan((("tp", tp), ("pp", 1)), 1))


def worth(fleet: Fleet, weights: dict[Configuration, float]) -> float:
    return sum(number * weights[each] for each, number in fleet.parts)


prices = st.integers(1, 5).map(lambda cents: cents / 4)


@given(
    st.lists(st.tuples(prices, st.integers(1, 2), st.floats(0.01, 3)), min_size=1, max_size=3),
    st.integers(1, 12),
    st.none() | st.integers(1, 4),
)
def test_every_fleet_below_the_price_comes_once_and_the_most_able_can_be_had(
    parts: list[tuple[float, int, float]], money: int, at_most: int | None
) -> None:
    # The first two are of one type of GPU, so that they share its limit.
    names = ["a", "a", "b"]
    price_of = {"a": parts[0][0], "b": parts[-1][0]}
    weights = {
        configuration(name, price_of[name], tp=tp + 2 * place, at_most=at_most if name == "a" else None): weight
        for place, (name, (_, tp, weight)) in enumerate(zip(names, parts, strict=False))
    }
    configurations, below = list(weights), money / 2
    found = list(cheaper(configurations, below, weights))
    counts = product(*(range(int(below / each.price) + 2) for each in configurations))
    wanted = set()
    for numbers in counts:
        fleet = Fleet(tuple((each, n) for each, n in zip(configurations, numbers, strict=True) if n))
        of_a = sum(n * each.gpus for each, n in fleet.parts if each.choice.gpu == "a")
        if fleet.parts and fleet.price < below - 1e-9 and (at_most is None or of_a <= at_most):
            wanted.add(fleet)
    assert len(found) == len(wanted) and set(found) == wanted
    floor = max((worth(fleet, weights) for fleet in wanted), default=0.0) * 0.7
    assert set(cheaper(configurations, below, weights, floor)) == {f for f in wanted if worth(f, weights) >= floor}
    some, others_at_most = most_able(configurations, below, weights, 5)
    worths = [worth(fleet, weights) for fleet in some]
    assert set(some) <= wanted and len(some) == min(5, len(wanted))
    assert (others_at_most > 0) == (len(wanted) > 5)
    assert all(worth(fleet, weights) <= others_at_most + 1e-9 for fleet in wanted - set(some))
    if not others_at_most:
        assert all(later <= sooner + 1e-9 for sooner, later in pairwise(worths))
    if at_most is None:
        assert count_cheaper(configurations, below) == len(wanted)


def test_of_millions_some_able_ones_come_at_once() -> None:
    weights = {configuration(f"g{place}", 1 + place / 10): 0.1 + place / 100 for place in range(8)}  # all as good
    found, others_at_most = most_able(list(weights), 60.0, weights, 300)
    assert len(found) == len(set(found)) == 300
    assert count_cheaper(list(weights), 60.0) > 1e8
    assert others_at_most == pytest.approx(6.0) and worth(found[-1], weights) > 0.95 * 6.0

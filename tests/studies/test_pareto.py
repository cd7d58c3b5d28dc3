"""Pareto fronts: by hand, and what must hold of every one."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.errors import InputError
from simulator.studies.pareto import pareto_front

POINTS = st.lists(st.tuples(*[st.integers(0, 4)] * 3), max_size=25)


def dominates(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))


def test_by_hand() -> None:
    # Latency and cost: the third is worse than the first in both, the fourth equals the second.
    assert pareto_front([(1, 5), (2, 3), (2, 6), (2, 3), (9, 3), (0, 9)]) == [True, True, False, True, False, True]


def test_more_may_be_better() -> None:
    points = [(1, 5), (2, 3), (2, 6)]
    assert pareto_front(points, lower=[True, False]) == [True, False, True]


@given(POINTS)
def test_nobody_on_the_front_is_dominated_and_everybody_else_is_by_one_of_it(points: list[tuple[int, ...]]) -> None:
    front = pareto_front(points)
    of_it = [point for point, is_on in zip(points, front, strict=True) if is_on]
    assert bool(of_it) == bool(points)
    for point, is_on in zip(points, front, strict=True):
        assert any(dominates(other, point) for other in of_it) != is_on


def test_what_is_not_known_can_not_be_compared() -> None:
    with pytest.raises(InputError, match="finite"):
        pareto_front([(1.0, math.nan), (2.0, 3.0)])

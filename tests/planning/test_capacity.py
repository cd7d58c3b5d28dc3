"""Bisection of a load, and capacities of servers whose steps all take as long."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.planning.capacity import bracket, busiest
from workloads import Trace


@given(st.floats(0.02, 3.9), st.floats(0.05, 4.0))
def test_the_bracket_holds_the_edge(edge, first):
    asked = []

    def meets(load: float) -> bool:
        asked.append(load)
        return load <= edge

    low, high = bracket(meets, first, 0.01, 4.0, 1.1)
    assert low <= edge
    assert high is not None
    assert edge < high <= 1.1 * low
    assert len(asked) == len(set(asked)) <= 16


def test_a_load_that_never_does_and_one_that_always_does():
    assert bracket(lambda load: False, 0.25, 0.01, 4.0, 1.1) == (0.0, 0.01)
    assert bracket(lambda load: True, 0.25, 0.01, 4.0, 1.1) == (4.0, None)


def test_the_busiest_stretch_has_the_most_requests():
    arrivals = np.array([0.0, 100.0, 101.0, 102.0, 300.0])
    found = busiest(Trace(arrivals, np.full(5, 10), np.full(5, 10)), 10.0)
    assert found.arrival_s.tolist() == pytest.approx([0.0, 1.0, 2.0])
    whole = Trace(arrivals, np.full(5, 10), np.full(5, 10))
    assert busiest(whole, 1000.0) is whole

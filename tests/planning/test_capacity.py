"""Bisection of a load, and capacities of servers whose steps all take as long."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.planning.capacity import Capacity, Probe, bracket, busiest
from simulator.planning.choices import Choice
from simulator.planning.configurations import Configuration
from simulator.planning.planner import Candidate, dominated
from simulator.studies.plan_space import Plan
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


def candidate(gpu: str, price: float, gpus: int, low: float, high: float, at_most: int | None = None) -> Candidate:
    layout = Plan((("tp", gpus), ("pp", 1)), 1)
    return Candidate(Configuration(Choice(gpu, price, at_most=at_most), layout), {"": Capacity(low, high)})


def left_out(*candidates: Candidate) -> list[str]:
    return sorted(each.configuration.name for each in dominated(candidates) if each.dropped)


def test_what_several_of_another_do_for_no_more_money_is_left_out():
    small, large = candidate("a", 1.0, 1, 0.5, 0.55), candidate("a", 1.0, 2, 0.9, 0.99)
    assert left_out(small, large) == ["a-tp2"]  # two small ones do 1.0
    assert left_out(small, candidate("a", 1.0, 2, 0.95, 1.05)) == []  # it may do more than they
    # The best of a GPU stays, what is dearer than all else too.
    assert left_out(small, candidate("b", 5.0, 1, 0.1, 0.11)) == []
    assert left_out(small, candidate("b", 5.0, 1, 0.1, 0.11), candidate("b", 5.0, 2, 0.1, 0.11)) == ["b-tp2"]


def test_what_is_limited_makes_nothing_else_superfluous():
    limited = candidate("a", 1.0, 1, 0.5, 0.55, at_most=1)
    other = candidate("b", 2.0, 1, 0.3, 0.33)
    worse = candidate("b", 2.0, 2, 0.3, 0.33)
    assert left_out(limited, other, worse) == ["b-tp2"]  # for its own kind's sake


def test_what_serves_nothing_is_left_out_with_its_reason():
    useless = Candidate(
        candidate("a", 1.0, 1, 0, 0).configuration, {"": Capacity(0.0, 0.1, (Probe(0.1, False, "TTFT p99 <= 1 s"),))}
    )
    (found,) = dominated([useless])
    assert found.dropped == "misses TTFT p99 <= 1 s even with 10.0% of the requests"

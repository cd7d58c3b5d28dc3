"""Brackets of shares that fall with the load: against known answers, with and without noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.studies.bracketing import (
    Answer,
    Bracket,
    Replication,
    bracket_of,
    estimate,
    find_bracket,
    requests_needed,
    wilson,
)

WIDE: dict[str, Any] = {"least": 2.0**-12, "most": 2.0**12}


def exactly(limit: float, asked: list[float]) -> Callable[[float], Answer]:
    """Return answers without noise, and note what they were asked about."""

    def ask(load: float) -> Answer:
        asked.append(load)
        return "sustained" if load <= limit else "missed"

    return ask


# ------------------------------------------------------------------------------------------------- without noise


@given(limit=st.floats(0.01, 1000), start=st.floats(0.01, 1000), tolerance=st.sampled_from([0.01, 0.05, 0.3]))
def test_the_bracket_holds_the_limit_within_the_tolerance(limit: float, start: float, tolerance: float) -> None:
    asked: list[float] = []
    found = find_bracket(exactly(limit, asked), start, tolerance=tolerance, **WIDE)
    assert found.sustained is not None and found.missed is not None
    assert found.sustained <= limit < found.missed
    assert found.missed <= found.sustained * (1 + tolerance)
    assert len(asked) == len(set(asked)) < 40


@given(limit=st.integers(1, 500), start=st.integers(1, 500))
def test_of_whole_loads_the_bracket_is_two_neighbours(limit: int, start: int) -> None:
    asked: list[float] = []
    found = find_bracket(exactly(limit, asked), start, tolerance=0.0, least=1, most=10_000, whole=True)
    assert found == Bracket(limit, limit + 1)
    assert all(load == int(load) for load in asked)


def test_by_hand() -> None:
    asked: list[float] = []
    assert find_bracket(exactly(3.0, asked), 1.0, tolerance=0.2, **WIDE) == Bracket(asked[-2], asked[-1])
    # Up to 4, then 2 x 2^(1/2) is sustained, 2 x 2^(3/4) missed.
    assert asked == pytest.approx([1, 2, 4, 2 * 2**0.5, 2 * 2**0.75])


def test_nothing_sustained_or_nothing_missed_is_said() -> None:
    assert find_bracket(lambda load: "missed", 1.0, tolerance=0.1, least=0.1, most=9) == Bracket(None, 0.1)
    assert find_bracket(lambda load: "sustained", 1.0, tolerance=0.1, least=0.1, most=9) == Bracket(9, None)
    assert find_bracket(lambda load: "undecided", 1.0, tolerance=0.1, least=0.5, most=2) == Bracket(
        None, None, (0.5, 1.0, 2.0)
    )


@given(low=st.floats(0.1, 90), width=st.floats(1.0, 3.0), start=st.floats(0.1, 100))
def test_both_edges_of_what_the_noise_leaves_open_are_found(low: float, width: float, start: float) -> None:
    high = low * width

    def ask(load: float) -> Answer:
        return "sustained" if load <= low else "missed" if load >= high else "undecided"

    found = find_bracket(ask, start, tolerance=0.05, **WIDE)
    assert found.sustained is not None and found.missed is not None
    assert found.sustained <= low <= high <= found.missed
    known = [found.sustained, *found.undecided, found.missed]
    assert known[1] <= known[0] * 1.05 and known[-1] <= known[-2] * 1.05


def test_what_is_sustained_above_something_missed_does_not_count() -> None:
    answers: dict[float, Answer] = {1.0: "sustained", 2.0: "missed", 4.0: "sustained", 8.0: "missed", 1.5: "undecided"}
    assert bracket_of(answers) == Bracket(1.0, 2.0, (1.5,))


# ------------------------------------------------------------------------------------------------------ intervals


def test_wilson_as_published() -> None:
    # 95 % interval of 20 of 20: n / (n + z^2) to 1.
    assert wilson(1.0, 20) == pytest.approx((20 / (20 + 1.959964**2), 1.0))
    low, high = wilson(0.5, 100)
    assert (low, high) == pytest.approx((0.40383, 0.59617), abs=1e-5)


def test_replications_that_agree_show_no_more_than_their_requests() -> None:
    few = [Replication(1.0, 20)] * 3
    assert estimate(few, 0.9).answer == "sustained"  # 60 of 60: above 0.94
    assert estimate(few, 0.99).answer == "undecided"
    needed = requests_needed(0.99)
    assert estimate([Replication(1.0, needed), Replication(1.0, 1)], 0.99).answer == "sustained"
    assert estimate([Replication(1.0, needed - 2), Replication(1.0, 1)], 0.99).answer == "undecided"


def test_replications_that_differ_widen_the_interval() -> None:
    found = estimate([Replication(0.95, 10_000), Replication(0.97, 10_000), Replication(0.99, 10_000)], 0.9)
    half = 4.30265 * 0.02 / math.sqrt(3)  # Student's quantile of two degrees of freedom
    assert (found.mean, found.low) == pytest.approx((0.97, 0.97 - half), abs=1e-6)
    assert found.answer == "sustained"
    assert estimate([Replication(0.5, 10_000), Replication(1.0, 10_000)], 0.9).answer == "undecided"


def test_one_replication_decides_nothing() -> None:
    assert estimate([Replication(1.0, 10**6)], 0.9).answer == "undecided"
    with pytest.raises(ValueError, match="at least one replication"):
        estimate([], 0.9)


def test_runs_that_were_given_up_can_only_show_that_a_load_is_missed() -> None:
    given_up = Replication(0.8, 1000, is_whole=False)
    assert estimate([given_up] * 3, 0.9).answer == "missed"
    found = estimate([given_up, *[Replication(1.0, 1000)] * 9], 0.9)
    assert (found.low, found.answer) == (0.0, "undecided")


# ----------------------------------------------------------------------------------------------------- with noise


@pytest.mark.parametrize("threshold", [0.9, 0.99])
@pytest.mark.parametrize("spread", [0.0, 0.004])
def test_with_noise_the_bracket_seldom_misses_the_limit(threshold: float, spread: float) -> None:
    # The share falls from 1 as a logistic curve; replications of 500 requests, and a spread between days.
    limit, missed_it = 8.0, 0
    rng = np.random.default_rng(7)
    steep = math.log(threshold / (1 - threshold))

    def truth(load: float) -> float:
        return 1 / (1 + math.exp(20 * math.log(load / limit) - steep))

    def ask(load: float) -> Answer:
        seen: list[Replication] = []
        while True:
            share = min(1.0, max(0.0, truth(load) + spread * rng.standard_normal()))
            seen.append(Replication(rng.binomial(500, share) / 500, 500))
            answer = estimate(seen, threshold).answer if len(seen) > 2 else "undecided"
            if answer != "undecided" or len(seen) == 9:
                return answer

    for _ in range(100):
        found = find_bracket(ask, 1.0, tolerance=0.02, **WIDE)
        assert found.sustained is not None and found.missed is not None
        assert found.missed / found.sustained < 1.6
        missed_it += not found.sustained <= limit <= found.missed
    assert missed_it <= 25

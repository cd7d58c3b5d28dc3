"""Paired comparisons, beside ones worked out by hand and SciPy's own."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from simulator.studies.intervals import Interval
from simulator.studies.paired import Paired, holm, paired, verdict

positive = st.lists(st.tuples(st.floats(0.01, 100), st.floats(0.01, 100)), min_size=2, max_size=12)


def test_the_difference_of_three_pairs_is_the_one_of_the_tables() -> None:
    # differences 1, 2, 3: mean 2, s = 1, s / sqrt(3) = 0.57735, t(2, 97.5 %) = 4.3027; t = 3.4641, p = 0.0742
    found = paired([0.0, 10.0, 20.0], [1.0, 12.0, 23.0])
    assert found.difference.mean == 2.0
    assert found.difference.half == pytest.approx(4.3027 * 0.57735, rel=1e-4)
    assert found.p_value == pytest.approx(0.0742, abs=1e-4)
    assert found.ratio is None  # one of them is 0


def test_the_ratio_is_the_geometric_mean_of_the_pairs() -> None:
    # 2, 8 and 4 times as much: logarithms of 2, 3 and 2 doublings about 2, half a width of 4.3027 / sqrt(3) doublings
    found = paired([1.0, 1.0, 10.0], [2.0, 8.0, 40.0])
    assert found.ratio is not None and found.ratio.mean == pytest.approx(4.0)
    width = 4.3027 / math.sqrt(3)
    assert (found.ratio.low, found.ratio.high) == pytest.approx((4 / 2**width, 4 * 2**width), rel=1e-4)


@given(positive)
def test_intervals_and_p_values_are_scipys(pairs: list[tuple[float, float]]) -> None:
    first, second = np.array(pairs).T
    found = paired(first.tolist(), second.tolist(), is_share=True)
    differences = second - first
    if np.ptp(differences) < 1e-9:
        return
    wanted = stats.ttest_rel(second, first)
    assert found.p_value == pytest.approx(wanted.pvalue, rel=1e-6, abs=1e-12)
    ci = wanted.confidence_interval(0.95)
    assert (found.difference.low, found.difference.high) == pytest.approx((ci.low, ci.high), rel=1e-6, abs=1e-6)


@given(positive)
def test_the_other_way_round_a_ratio_is_its_inverse(pairs: list[tuple[float, float]]) -> None:
    first, second = ([pair[side] for pair in pairs] for side in (0, 1))
    there, back = paired(first, second), paired(second, first)
    assert there.ratio is not None and back.ratio is not None
    assert there.ratio.mean is not None and back.ratio.mean is not None
    assert there.ratio.mean * back.ratio.mean == pytest.approx(1.0)
    assert there.p_value == pytest.approx(back.p_value)


def test_a_pair_that_lacks_a_figure_is_left_out_of_both_sides() -> None:
    found = paired([1.0, None, 3.0, 5.0], [2.0, 9.0, None, 6.0])
    assert (found.n, found.baseline.mean, found.other.mean, found.difference.mean) == (2, 3.0, 4.0, 1.0)
    assert paired([None], [1.0]).difference == Interval(None, None, None, 0)


def test_holms_correction_is_the_one_of_his_steps() -> None:
    # sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1 = 0.04, 0.06, 0.06, 0.04: no value below one before it
    assert holm([0.04, 0.01, None, 0.03, 0.02]) == pytest.approx([0.06, 0.04, None, 0.06, 0.06], nan_ok=True)
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=10))
def test_holms_values_lie_between_the_given_ones_and_bonferronis(values: list[float]) -> None:
    for value, corrected in zip(values, holm(values), strict=True):
        assert corrected is not None and value <= corrected <= min(1.0, len(values) * value) + 1e-15


def of(baseline: list[float], other: list[float], *, higher: bool = False, share: bool = False) -> str:
    pair = paired(baseline, other, is_share=share)
    return verdict(pair, pair.p_value, higher_is_better=higher, is_share=share)


def test_a_verdict_knows_which_way_is_better() -> None:
    assert of([1.0, 1.1, 1.2], [0.5, 0.55, 0.601]) == "better"
    assert of([1.0, 1.1, 1.2], [0.5, 0.55, 0.601], higher=True) == "worse"
    assert of([0.90, 0.91, 0.92], [0.95, 0.96, 0.971], higher=True, share=True) == "better"


def test_what_no_interval_shows_is_unclear_and_what_is_near_is_the_same() -> None:
    assert of([1.0, 1.1, 1.2], [1.5, 0.9, 1.3]) == "unclear"
    assert of([1.0, 1.1, 1.2], [1.001, 1.1, 1.201]) == "same"  # a difference that is shown, and that nobody minds
    assert of([0.95, 0.97], [0.95, 0.97], share=True) == "same"
    assert of([0.990, 0.991, 0.992], [0.995, 0.996, 0.997], higher=True, share=True) == "better"  # half the misses
    assert of([0.0, 0.0], [0.0, 0.0]) == "same"


def test_without_an_interval_there_is_no_verdict() -> None:
    assert of([1.0], [2.0]) == ""


def test_a_correction_may_take_a_verdict_away() -> None:
    pair: Paired = paired([1.0, 1.1, 1.2], [0.5, 0.55, 0.62])
    assert verdict(pair, pair.p_value, higher_is_better=False) == "better"
    assert verdict(pair, 0.06, higher_is_better=False) == "unclear"


def test_intervals_cover_what_they_say_and_few_differences_are_seen_where_there_are_none() -> None:
    # a day's load that both sides share (30 %), and what each makes of it (5 %); the other side takes 20 % longer
    rng = np.random.default_rng(1)
    shared, own = 0.3 * rng.standard_normal((2000, 5, 1)), 0.05 * rng.standard_normal((2000, 5, 2))
    figures = np.exp(shared + own)
    covered = seen = 0
    for first, second in zip(figures[:, :, 0].tolist(), figures[:, :, 1].tolist(), strict=True):
        ratio = paired(first, [1.2 * value for value in second]).ratio
        assert ratio is not None and ratio.low is not None and ratio.high is not None
        covered += ratio.low <= 1.2 <= ratio.high
        pair = paired(first, second)
        seen += verdict(pair, pair.p_value, higher_is_better=False) in ("better", "worse")
        assert ratio.high / ratio.low < 2  # far narrower than days differ
    assert 0.94 <= covered / 2000 <= 0.96  # of 2,000 with 0.95 each: one standard deviation is 0.005
    assert seen / 2000 <= 0.06

"""Means and intervals, beside ones worked out by hand and SciPy's own."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from simulator.errors import InputError
from simulator.studies.intervals import Interval, interval, intervals


def test_the_interval_of_three_values_is_the_one_of_the_tables() -> None:
    # mean 4, s = 2, s / sqrt(3) = 1.1547, t(2, 97.5 %) = 4.3027 by the tables
    found = interval([2.0, 4.0, 6.0])
    assert (found.mean, found.n) == (4.0, 3)
    assert found.half == pytest.approx(4.3027 * 2 / math.sqrt(3), rel=1e-4)
    assert found.low == pytest.approx(4 - 4.9683, abs=1e-3)


@given(
    st.lists(st.integers(-(10**9), 10**9).map(float), min_size=2, max_size=20), st.sampled_from([0.5, 0.9, 0.95, 0.99])
)
def test_it_is_scipys(values: list[float], confidence: float) -> None:
    found = interval(values, confidence)
    spread = stats.sem(values)
    low, high = stats.t.interval(confidence, len(values) - 1, np.mean(values), spread) if spread else (values[0],) * 2
    scale = max(abs(value) for value in values)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-9, abs=1e-9 * scale)


def test_one_value_has_no_interval_none_has_no_mean_and_equal_ones_have_no_width() -> None:
    assert interval([3.0]) == Interval(3.0, None, None, 1)
    assert interval([None, math.nan]) == Interval(None, None, None, 0)
    assert interval([0.1, None, 0.1, 0.1]) == Interval(0.1, 0.1, 0.1, 3)


def test_a_confidence_is_between_0_and_1() -> None:
    with pytest.raises(InputError, match="the confidence must be above 0 and below 1, got 95"):
        interval([1.0, 2.0], 95)


def frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "point": ["b", "a", "b", "a"],
            "limits": [[1], [2], [1], [2]],  # a key whose values are lists
            "seed": [0, 0, 1, 1],
            "e2e_s_mean": [1.0, 5.0, 3.0, None],
            "overloaded": [True, False, False, False],
            "attainment": [None, None, None, None],
            "reason": [None, None, None, "too small"],
        }
    )


def test_a_table_of_runs_becomes_a_table_of_points() -> None:
    found = intervals(frame())
    assert list(found.columns) == ["point", "limits", "figure", "mean", "low", "high", "n", "runs"]
    assert list(found.point) == ["b"] * 3 + ["a"] * 3  # in the order of the first run; 'reason' is no figure
    one, overloaded, attainment = found.to_dict("records")[:3]
    assert (one["mean"], one["n"], one["runs"]) == (2.0, 2, 2)
    assert one["high"] - 2 == pytest.approx(stats.t.ppf(0.975, 1) * math.sqrt(2) / math.sqrt(2))
    assert (overloaded["mean"], math.isnan(overloaded["low"])) == (0.5, True)
    assert attainment["n"] == 0 and math.isnan(attainment["mean"])
    other = found[(found.point == "a") & (found.figure == "e2e_s_mean")].iloc[0]
    assert (other["mean"], other["n"], other["runs"], math.isnan(other["high"])) == (5.0, 1, 2, True)


def test_columns_may_be_named_and_must_be_there() -> None:
    found = intervals(frame(), by=["point"], figures=["e2e_s_mean"])
    assert list(found.figure) == ["e2e_s_mean"] * 2
    with pytest.raises(InputError, match="no column 'ttft'; it has: point, limits"):
        intervals(frame(), figures=["ttft"])
    with pytest.raises(InputError, match="which columns name a point"):
        intervals(frame().drop(columns="seed"))

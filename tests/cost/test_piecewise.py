"""Curves of straight pieces: one count, a few and many give the same bits; surfaces against their formula."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.cost.piecewise import Curves, Piecewise
from simulator.cost.table_attention import Surface

numbers = st.floats(-1e9, 1e9, allow_nan=False, allow_subnormal=False)


@st.composite
def curves(draw: st.DrawFn) -> Piecewise:
    """Draw any pieces, with jumps between them, that begin within the first few thousand counts."""
    starts = draw(st.lists(st.integers(0, 12_000).map(lambda n: n / 3), max_size=6, unique=True).map(sorted))
    pieces = len(starts) + 1
    bases = draw(st.lists(numbers, min_size=pieces, max_size=pieces))
    slopes = draw(st.lists(numbers, min_size=pieces, max_size=pieces))
    return Piecewise(starts, bases, slopes)


@given(curve=curves(), first=st.integers(0, 4200), step=st.integers(1, 300), count=st.integers(1, 60))
def test_one_count_a_few_and_many_give_the_same_bits(curve: Piecewise, first: int, step: int, count: int) -> None:
    few = range(first, first + count * step, step)
    one_by_one = [curve.at(x) for x in few]
    assert curve.many(np.array(few)).tolist() == one_by_one
    assert curve.many(np.array(few, dtype=np.float64)).tolist() == one_by_one
    assert curve.rounded(few) == [round(value) for value in one_by_one]


def test_a_piece_begins_at_its_start() -> None:
    curve = Piecewise([10.0, 20.0], [0.0, 100.0, 1000.0], [1.0, 0.0, 2.0])
    assert [curve.at(x) for x in (9, 10, 19, 20, 21)] == [9.0, 100.0, 100.0, 1040.0, 1042.0]
    assert curve.many(np.array([9, 10, 19, 20, 21])).tolist() == [9.0, 100.0, 100.0, 1040.0, 1042.0]
    assert curve.rounded(range(9, 22)) == [9, *[100] * 10, 1040, 1042]
    assert curve.rounded(range(8, 11)) == curve.many(np.array([8, 9, 10])).tolist() == [8, 9, 100]


def test_values_are_rounded_half_to_even() -> None:
    assert Piecewise([], [0.5], [1.0]).rounded(range(4)) == [0, 2, 2, 4]


@given(
    points=st.lists(st.integers(1, 10_000), min_size=1, max_size=7, unique=True).map(sorted),
    data=st.data(),
    last_slope=st.floats(-10, 10),
)
def test_lines_through_points_are_level_before_the_first_and_go_on_after_the_last(
    points: list[int], data: st.DataObject, last_slope: float
) -> None:
    values = data.draw(st.lists(st.floats(0, 1e6), min_size=len(points), max_size=len(points)))
    curve = Piecewise.through(np.array(points, dtype=float), np.array(values), last_slope, measured_to=7.0)
    assert curve.measured_to == 7.0
    assert curve.at(0) == curve.at(points[0] - 1) == values[0]
    x = np.arange(points[-1] + 1)
    np.testing.assert_allclose(curve.many(x), np.interp(x, points, values), rtol=1e-9, atol=1e-3)
    beyond = points[-1] + 12_345
    assert curve.at(beyond) == pytest.approx(values[-1] + last_slope * 12_345, rel=1e-9, abs=1e-3)


@given(curve=curves(), x=st.integers(0, 5000), factor=st.floats(0, 1e3), plus=st.floats(-1e6, 1e6))
def test_a_scaled_curve_is_that_many_times_the_curve_and_a_constant(
    curve: Piecewise, x: int, factor: float, plus: float
) -> None:
    scaled = curve.scaled(factor, plus)
    assert scaled.at(x) == pytest.approx(factor * curve.at(x) + plus, rel=1e-12, abs=1e-2)
    assert curve.scaled(2.0, 0.0).at(x) == 2.0 * curve.at(x)


def test_a_scaled_curve_was_measured_as_far() -> None:
    assert Piecewise([], [1.0], [1.0], measured_to=9.0).scaled(3.0, 4.0).measured_to == 9.0


def test_no_value_of_a_rising_curve_is_below_its_lowest_and_a_falling_one_has_none() -> None:
    rising = Piecewise.through(np.array([10.0, 20.0, 30.0]), np.array([5.0, 5.0, 9.0]), 1.0, 30.0)
    assert rising.lowest == 5.0 == rising.many(np.arange(100)).min()
    assert rising.scaled(2.0, 1.0).lowest == 11.0
    falls_between = Piecewise.through(np.array([10.0, 20.0, 30.0]), np.array([5.0, 4.0, 9.0]), 1.0, 30.0)
    falls_beyond = Piecewise.through(np.array([10.0, 20.0]), np.array([5.0, 9.0]), -1.0, 20.0)
    assert falls_between.lowest == falls_beyond.lowest == float("-inf")


def test_each_curve_is_made_once_and_only_when_asked_for() -> None:
    made: list[int] = []

    def make(count: int) -> Piecewise:
        made.append(count)
        return Piecewise([], [float(count)], [0.0])

    found = Curves(make)
    assert made == []
    assert found[3] is found[3]
    assert found[8].at(1) == 8.0
    assert made == [3, 8]


# ---------------------------------------------------------------------------------------------------------- surfaces

Measured = dict[int, dict[int, float]]
"""Seconds by count and size."""


@st.composite
def measurements(draw: st.DrawFn) -> Measured:
    """Draw times of a few counts, each measured at sizes of its own."""
    counts = draw(st.lists(st.integers(1, 64), min_size=1, max_size=4, unique=True).map(sorted))
    sizes = st.dictionaries(st.integers(1, 1000), st.floats(0.001, 100.0), min_size=1, max_size=5)
    alike = draw(st.booleans())
    first = sorted(draw(sizes))
    times = st.floats(0.001, 100.0)
    return {count: {size: draw(times) for size in first} if alike else draw(sizes) for count in counts}


def over_size(measured: dict[int, float], size: float) -> float:
    """Linear between the sizes of one count, level before the first, the last rate beyond the last."""
    sizes = sorted(measured)
    times = [measured[s] for s in sizes]
    if size > sizes[-1] and len(sizes) > 1:
        return times[-1] + (times[-1] - times[-2]) / (sizes[-1] - sizes[-2]) * (size - sizes[-1])
    return float(np.interp(size, sizes, times))


def by_formula(measured: Measured, count: int, total: float) -> float:
    """Interpolate over the mean size on the curve of each neighbouring count, then between the counts."""
    counts, size = sorted(measured), total / count
    if len(counts) == 1 or count <= counts[0]:
        return over_size(measured[counts[0]], size)
    high = next((i for i, measured_count in enumerate(counts) if measured_count >= count), len(counts) - 1)
    low, high = counts[max(high, 1) - 1], counts[max(high, 1)]
    below, above = over_size(measured[low], size), over_size(measured[high], size)
    return below + (above - below) * (count - low) / (high - low)


def surface(measured: Measured) -> Surface:
    rows = [(count, size, time) for count, times in measured.items() for size, time in times.items()]
    return Surface(*(np.array(column, dtype=np.float64) for column in zip(*rows, strict=True)))


@given(measured=measurements(), count=st.integers(1, 90), total=st.integers(1, 100_000))
def test_a_surface_is_linear_over_sizes_on_each_count_and_then_between_counts(
    measured: Measured, count: int, total: int
) -> None:
    found = surface(measured).curve(count)
    assert found.at(total) == pytest.approx(by_formula(measured, count, total), rel=1e-9, abs=1e-6)
    sizes = sorted({size for times in measured.values() for size in times})
    for size in sizes:  # where pieces meet
        expected = by_formula(measured, count, size * count)
        assert found.at(size * count) == pytest.approx(expected, rel=1e-9, abs=1e-6)


def test_a_surface_between_counts_of_other_sizes_by_hand() -> None:
    # 2 at sizes 10 and 30, 4 at sizes 20 and 30. Of 3, a mean size of 20: halfway from (1 + 3) / 2 = 2 to 8.
    found = surface({2: {10: 1.0, 30: 3.0}, 4: {20: 8.0, 30: 18.0}})
    assert found.curve(3).at(3 * 20) == 5.0
    assert found.curve(3).at(3 * 10) == 4.5  # from 1 to 8, the least of 4
    assert found.curve(3).at(3 * 40) == 16.0  # from 4 to 28, where both go on
    assert found.curve(3).measured_to == 90.0
    assert found.curve(5).measured_to == 0.0  # more than were measured

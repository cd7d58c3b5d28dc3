"""The histogram of durations: exact counts, sums and maxima; quantiles within a bin of 0.5 %."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from simulator.engine.histogram import DurationHistogram, bin_edges

durations = st.lists(st.integers(1, 10**12), min_size=1, max_size=400)


def test_bins_are_at_most_half_a_percent_wide() -> None:
    edges = bin_edges()
    widths = np.diff(edges)
    assert (widths >= 1).all()
    assert (widths[edges[:-1] >= 200] / edges[:-1][edges[:-1] >= 200] <= 0.005).all()


@given(durations, st.integers(1, 5))
def test_adding_one_by_one_and_in_bulk_is_the_same(values: list[int], count: int) -> None:
    single, bulk = DurationHistogram(), DurationHistogram()
    for value in values:
        single.add(value, count)
    bulk.add_each(np.array(values, dtype=np.int64), count)
    single.flush()
    bulk.flush()
    assert (single.counts == bulk.counts).all()
    assert (single.total, single.total_ns, single.max_ns) == (bulk.total, bulk.total_ns, bulk.max_ns)
    assert (single.total, single.total_ns, single.max_ns) == (count * len(values), count * sum(values), max(values))


@given(st.integers(1, 10**9), st.integers(256, 2000), st.integers(0, 3))
def test_a_long_nearly_constant_run_is_binned_at_once_and_right(first: int, length: int, slope: int) -> None:
    values = first + slope * np.arange(length, dtype=np.int64)
    single, bulk = DurationHistogram(), DurationHistogram()
    for value in values.tolist():
        single.add(value, 1)
    bulk.add_each(values, 1)
    single.flush()
    bulk.flush()
    assert (single.counts == bulk.counts).all()
    assert (single.total, single.total_ns, single.max_ns) == (bulk.total, bulk.total_ns, bulk.max_ns)


@given(durations, st.floats(0, 1))
def test_a_quantile_lies_within_a_bin_of_the_sample_at_its_rank(values: list[int], q: float) -> None:
    histogram = DurationHistogram()
    histogram.add_each(np.array(values, dtype=np.int64), 1)
    sample = sorted(values)[int(q * (len(values) - 1))]
    quantile = histogram.quantile_s(q)
    assert quantile is not None
    assert abs(quantile * 1e9 - sample) <= max(1, 0.005 * sample)


def test_an_empty_histogram_has_neither_mean_nor_quantiles() -> None:
    assert DurationHistogram().mean_s() is None
    assert DurationHistogram().quantile_s(0.5) is None


def test_durations_beyond_the_last_edge_are_in_the_last_bin() -> None:
    histogram = DurationHistogram()
    histogram.add_each(np.full(300, 2 * 10**15, dtype=np.int64), 1)
    histogram.flush()
    assert histogram.counts[-1] == histogram.total == 300

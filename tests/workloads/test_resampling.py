"""Traces put together anew from pieces of themselves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workloads import Categorical, Ragged, Trace, TraceError, resample_trace


def trace(arrivals: list[float], **columns: object) -> Trace:
    n = len(arrivals)
    return Trace(np.array(arrivals), np.arange(1, n + 1), np.arange(1, n + 1) * 10, **columns)  # type: ignore[arg-type]


arrival_lists = st.lists(st.floats(0, 1000), min_size=1, max_size=60).map(sorted)


@given(arrival_lists, st.floats(0.5, 200), st.floats(0.1, 500), st.integers(0, 5))
def test_rows_are_the_traces_and_stay_near_their_place(
    arrivals: list[float], block_s: float, within_s: float, seed: int
) -> None:
    one = trace(arrivals)
    try:
        drawn = resample_trace(one, block_s=block_s, within_s=within_s, seed=seed)
    except TraceError as error:
        assert "nothing was drawn" in str(error)
        return
    rows = drawn.prompt_tokens - 1
    assert (drawn.output_tokens == one.output_tokens[rows]).all()
    # a block moves by at most within_s, and at the end of the trace by less than a block more to find something
    assert (np.abs(drawn.arrival_s - one.arrival_s[rows]) <= within_s + block_s + 1e-9).all()
    assert drawn.arrival_s[-1] <= one.arrival_s[-1] + 1e-6
    again = resample_trace(one, block_s=block_s, within_s=within_s, seed=seed)
    assert (again.arrival_s == drawn.arrival_s).all()


def test_gaps_within_a_block_and_the_rates_course_stay() -> None:
    """One burst of three every 10 s in the first hour, none in the second, but for a last request."""
    bursts = [10.0 * i + gap for i in range(360) for gap in (1.0, 1.25, 1.5)]
    drawn = resample_trace(trace([*bursts, 7200.0]), block_s=10, within_s=60, seed=1)
    assert (drawn.arrival_s < 3700).sum() == len(drawn) - (drawn.arrival_s >= 7000).sum()
    assert len(drawn) == pytest.approx(1080, rel=0.1)
    gaps = np.diff(drawn.arrival_s)
    assert (np.isclose(gaps, 0.25)).mean() > 0.55  # two of three gaps, less where a seam cuts a burst


def test_seeds_differ_and_the_note_says_what_was_drawn() -> None:
    one = trace([float(i) for i in range(500)])
    first, second = (resample_trace(one, block_s=20, within_s=100, seed=seed) for seed in (1, 2))
    assert first.prompt_tokens.tolist() != second.prompt_tokens.tolist()
    assert (
        first.notes[-1]
        == f"requests were drawn from the trace in blocks of 20 s from within 100 s (seed 1): {len(first)} of 500"
    )


def test_the_mean_number_of_requests_is_the_traces() -> None:
    rng = np.random.default_rng(3)
    one = trace(np.sort(rng.uniform(0, 3600, 2000)).tolist())
    counts = [len(resample_trace(one, block_s=30, within_s=300, seed=seed)) for seed in range(40)]
    assert np.mean(counts) == pytest.approx(2000, rel=0.02)
    assert np.std(counts) > 10  # a fixed number would understate what seeds differ by


def test_every_window_within_reach_is_as_likely_at_the_ends_of_the_trace_too() -> None:
    """Of a trace shorter than the reach, each request is drawn about once a seed, not the first and last ones alone."""
    one = trace([0.05 + i / 10 for i in range(720)])
    times = np.zeros(721)
    for seed in range(200):
        rows = resample_trace(one, block_s=7.2, within_s=300, seed=seed).prompt_tokens
        times += np.bincount(rows, minlength=721)
    parts = times[1:].reshape(10, 72).mean(axis=1) / 200
    assert parts[1:-1] == pytest.approx(1.1, abs=0.2)
    assert (parts[[0, -1]] < 1).all() and (parts[[0, -1]] > 0.3).all()  # fewer windows hold them


def test_texts_come_along() -> None:
    classes = Categorical.of(["a", "b"] * 50)
    drawn = resample_trace(trace([float(i) for i in range(100)], request_class=classes), block_s=7, within_s=30)
    assert drawn.request_class is not None
    assert drawn.request_class.texts() == [classes.texts()[row - 1] for row in drawn.prompt_tokens]


def test_turns_are_drawn_one_by_one() -> None:
    one = trace([0.0, 1.0, 2.0], session_id=np.array([5, 5, 5]), parent_id=np.array([-1, 0, 1]))
    drawn = resample_trace(one, block_s=1, within_s=1)
    assert drawn.parent_id is None and drawn.session_id is None


def test_what_belongs_together_is_refused() -> None:
    one = trace([0.0, 1.0])
    hashes = Ragged(np.array([0, 1, 2]), np.array([7, 7]))
    with pytest.raises(TraceError, match="prompts would repeat"):
        resample_trace(replace(one, block_hashes=hashes, block_size_tokens=16), block_s=1, within_s=1)
    with pytest.raises(TraceError, match="block_s must be above 0"):
        resample_trace(one, block_s=0, within_s=1)

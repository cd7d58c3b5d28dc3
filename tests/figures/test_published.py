"""Simulated over published: the points are the quotients, and what can't be compared is left out."""

from __future__ import annotations

import pandas as pd
import pytest

from simulator import InputError, figures


def test_points_are_the_quotients_on_an_axis_that_is_even_around_one() -> None:
    frame = pd.DataFrame(
        {"name": ["a", "b", "c", "d"], "published": [2.0, 4.0, None, 0.0], "simulated": [3.0, 1.0, 5.0, 1.0]}
    )
    axes = figures.published(frame).axes[0]
    points = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o"]
    assert points == [1.5, 0.25]
    low, high = axes.get_xlim()
    assert low * high == pytest.approx(1.0) and low < 0.25
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.5", "1", "2"]


def test_nothing_to_compare_is_said() -> None:
    with pytest.raises(InputError, match="nothing to draw"):
        figures.published(pd.DataFrame({"name": ["a"], "published": [0.0], "simulated": [1.0]}))

"""The study's parts: its requests, and the direction of its result on a minute of them."""

from __future__ import annotations

import numpy as np
import pytest

from simulator.reproduce.studies import hygen


def test_online_requests_swing_threefold_and_are_the_same_whatever_comes_beside_them() -> None:
    alone, beside = hygen.requests(1200.0, 0.0), hygen.requests(1200.0, 2.0)
    online = beside.priority == 0
    assert beside.arrival_s[online].tolist() == alone.arrival_s.tolist()
    assert beside.prompt_tokens[online].tolist() == alone.prompt_tokens.tolist()
    assert (~online).sum() == 2400
    phase = alone.arrival_s % hygen.PERIOD_S
    quarter = hygen.PERIOD_S / 4
    slow = ((phase < quarter / 2) | (phase > 3.5 * quarter)).sum()
    fast = ((phase > 1.5 * quarter) & (phase < 2.5 * quarter)).sum()
    # Mean rates of a quarter period around the trough and the crest of 1 - cos/2: 0.55 and 1.45.
    assert fast / slow == pytest.approx(1.45 / 0.55, rel=0.2)
    assert alone.arrival_s[-1] == pytest.approx(1200, rel=0.1)
    assert not hygen.requests(60.0, 1.0, at_start=True).arrival_s[np.arange(60)].any()


def test_offline_work_fills_what_online_requests_leave_within_their_objective() -> None:
    """A minute: HyGen with a step budget does several times the work, and online tokens come as late as allowed."""
    alone = hygen.figures(hygen.described("alone", hygen.requests(60.0, 0.0), "sarathi", 60.0), 60.0)
    flood = hygen.requests(60.0, hygen.MOST_OFFLINE_RATE, at_start=True)
    found = hygen.figures(hygen.described("hygen", flood, "hygen", 60.0, 0.028), 60.0)
    careless = hygen.figures(hygen.described("careless", flood, "sarathi", 60.0), 60.0)
    assert found["gap_s"] < 1.15 * alone["gap_s"] < careless["gap_s"]
    assert found["ttft_s"] < 2 * alone["ttft_s"] < careless["ttft_s"]
    assert found["all"] > 2 * alone["all"]


def test_bisection_finds_the_largest_setting_that_keeps_the_objective() -> None:
    asked = []

    def measure(setting: float) -> dict[str, float]:
        asked.append(setting)
        return {"gap_s": setting}

    found = hygen._largest(measure, 0.3, 1.0)
    assert found["setting"] == found["gap_s"] <= 0.3 < found["setting"] + 1 / 2**hygen.BISECTIONS
    assert len(asked) == 1 + hygen.BISECTIONS

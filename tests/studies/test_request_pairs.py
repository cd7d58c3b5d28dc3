"""The same request under two scenarios."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from simulator import run
from simulator.errors import InputError
from simulator.studies.points import Task
from simulator.studies.request_pairs import (
    Latencies,
    died,
    distribution,
    keep,
    kept,
    latencies_of,
    measure,
    pair_requests,
)
from simulator.studies.store import Store

SCENARIO = {
    "workload": {
        "generator": {"kind": "poisson", "params": {"rate": 20, "requests": 50, "prompt": "constant:value=300"}}
    },
    "measure": {"warmup_s": 0.5, "until_s": 2.0},
}
NAN = float("nan")


def of(ttft: list[float], trace: str = "t") -> Latencies:
    nothing = np.full(len(ttft), NAN)
    return Latencies(trace, {"ttft": np.array(ttft), "tpot": nothing, "e2e": nothing})


def test_requests_that_both_sides_served_are_compared_one_by_one() -> None:
    # sooner by half, the same within 1 %, later by a second, not served there
    (found,) = pair_requests(of([1.0, 2.0, 1.0, 4.0]), of([0.5, 2.01, 2.0, NAN]))
    assert (found.metric, found.n) == ("ttft", 3)
    assert (found.sooner, found.later) == pytest.approx((1 / 3, 1 / 3))
    # differences -0.5, 0.01, 1.0: a tenth of the way from the first to the second, twice
    assert found.difference_s == pytest.approx((-0.398, 0.01, 0.802))
    assert found.median_ratio == pytest.approx(1.005)


def test_other_requests_are_refused() -> None:
    with pytest.raises(InputError, match="were not given the same requests"):
        pair_requests(of([1.0]), of([1.0], "u"))
    assert pair_requests(of([NAN]), of([1.0])) == []


def test_latencies_are_those_of_the_table_of_requests_in_the_measured_window() -> None:
    result = run(SCENARIO)
    found = latencies_of(result)
    frame = result.requests
    within = (frame["arrival_s"] >= 0.5) & (frame["arrival_s"] < 2.0)
    assert 0 < within.sum() < 50
    ttft = np.where(within, frame["first_token_s"] - frame["arrival_s"], NAN)
    np.testing.assert_allclose(found.seconds["ttft"], ttft, rtol=1e-9)
    e2e = np.where(within, frame["last_token_s"] - frame["arrival_s"], NAN)
    np.testing.assert_allclose(found.seconds["e2e"], e2e, rtol=1e-9)
    assert np.nanmean(found.seconds["tpot"]) == pytest.approx(result.summary["tpot_s"]["mean"])
    points = distribution(found)["ttft"]
    assert (points[0], points[-1]) == pytest.approx((np.nanmin(ttft), np.nanmax(ttft)))
    assert points == sorted(points)


def test_what_is_kept_is_what_is_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    outcome, found = measure(Task(SCENARIO))
    assert found is not None and not outcome.failure
    keep(store, "ab12", found)
    again = kept(store, "ab12")
    assert again is not None and again.trace == found.trace
    for name, seconds in found.seconds.items():
        np.testing.assert_array_equal(again.seconds[name], seconds)
    assert kept(store, "cd34") is None
    store.write(store.path("cd34").with_suffix(".requests.npz"), b"PK no more")
    assert kept(store, "cd34") is None


def test_a_task_that_fails_has_no_latencies() -> None:
    outcome, found = measure(Task({"model": "llama-3.1-405b", **SCENARIO}))
    assert found is None and "does not fit" in outcome.failure
    assert died(Task(SCENARIO))[1] is None and "process died" in died(Task(SCENARIO))[0].failure

"""The rule for overload on queues that are clearly one thing or the other."""

from __future__ import annotations

from heapq import heapify, heappop, heappush

import numpy as np
import numpy.typing as npt
import pytest

from simulator.overload import growth_and_scatter, judge_overload
from tests.result.support import MS, SECOND, Request, result

Ints = npt.NDArray[np.int64]
SERVERS = 8
RATE = 10.0


def queue(arrivals_s: npt.NDArray[np.float64], load: float, rng: np.random.Generator) -> tuple[Ints, Ints, Ints]:
    """Serve arrivals first come, first served on 8 servers, whose mean service time makes the load at 10/s."""
    services = rng.lognormal(np.log(load * SERVERS / RATE) - 0.32, 0.8, len(arrivals_s))
    free = [0.0] * SERVERS
    heapify(free)
    started = np.empty(len(arrivals_s))
    ended = np.empty(len(arrivals_s))
    for i, (arrival, service) in enumerate(zip(arrivals_s.tolist(), services.tolist(), strict=True)):
        started[i] = max(heappop(free), arrival)
        ended[i] = started[i] + service
        heappush(free, ended[i])
    arrivals, starts, ends = ((x * SECOND).astype(np.int64) for x in (arrivals_s, started, ended))
    return arrivals, starts, ends


def poisson(n: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    return np.cumsum(rng.exponential(1 / RATE, n))


def bursty(n: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Renewal arrivals with a coefficient of variation of 4."""
    return np.cumsum(rng.gamma(1 / 16, 16 / RATE, n))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("arrivals", [poisson, bursty])
@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_a_stable_queue_is_not_overloaded(arrivals: object, load: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    assert judge_overload(*queue(arrivals(5000, rng), load, rng)).overloaded is False  # type: ignore[operator]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("arrivals", [poisson, bursty])
@pytest.mark.parametrize("load", [1.6, 2.0, 5.0])
def test_a_growing_queue_is_overloaded(arrivals: object, load: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    verdict = judge_overload(*queue(arrivals(5000, rng), load, rng))  # type: ignore[operator]
    assert verdict.overloaded is True
    assert verdict.words.startswith("overloaded: the queue grew by about")


@pytest.mark.parametrize("seed", range(5))
def test_a_slight_overload_shows_in_a_long_run(seed: int) -> None:
    rng = np.random.default_rng(seed)
    assert judge_overload(*queue(poisson(20_000, rng), 1.15, rng)).overloaded is True


@pytest.mark.parametrize("at", [0.0, 0.55, 0.75])
def test_one_burst_that_drains_is_no_overload(at: float) -> None:
    # Half the capacity, and 300 requests more at one instant, which take about 60 s of 500 s to drain.
    rng = np.random.default_rng(1)
    arrivals = np.sort(np.concatenate([poisson(5000, rng), np.full(300, at * 500.0)]))
    assert judge_overload(*queue(arrivals, 0.5, rng)).overloaded is False


def test_the_drain_after_the_last_arrival_says_nothing() -> None:
    # Everything in the first second, twice the capacity: growing all along, whatever the long drain.
    rng = np.random.default_rng(1)
    arrivals, started, ended = queue(np.linspace(0, 100, 2000), 2.0, rng)
    assert judge_overload(arrivals, started, ended).overloaded is True
    assert judge_overload(arrivals, started, np.where(ended > arrivals.max(), -1, ended)).overloaded is True


def test_a_batch_that_still_fills_is_no_overload() -> None:
    # Nobody waits: each request is scheduled at once and takes longer than the whole trace.
    arrivals = np.arange(1000, dtype=np.int64) * 10 * MS
    verdict = judge_overload(arrivals, arrivals, arrivals + 60 * SECOND)
    assert verdict.overloaded is False
    assert verdict.growth == pytest.approx(500, rel=0.02)
    assert verdict.waiting_growth == 0


def test_what_cannot_be_told_is_said() -> None:
    none = np.array([], dtype=np.int64)
    assert judge_overload(none, none, none).words == "overload can't be told: no request arrived"
    together = np.zeros(100, dtype=np.int64)
    assert "at one instant" in judge_overload(together, together, together).words
    few = np.arange(40, dtype=np.int64) * SECOND
    verdict = judge_overload(few, few, few)
    assert verdict.overloaded is None
    assert "the second half has 20 of the 50 arrivals" in verdict.words


def test_growth_that_bursts_alone_could_make_is_undecided() -> None:
    # A coefficient of variation of 10: 100 requests at once, then nothing for long; 500 arrivals say little.
    verdicts = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        verdicts.append(judge_overload(*queue(np.cumsum(rng.gamma(0.01, 10.0, 1000)), 1.2, rng)))
    undecided = [v for v in verdicts if v.overloaded is None]
    assert len(undecided) >= 3
    assert any("bursty arrivals can do that by chance" in v.words for v in undecided)


def test_rejected_requests_do_not_wait() -> None:
    arrivals = np.arange(1000, dtype=np.int64) * MS
    never = np.full(1000, -1, dtype=np.int64)
    assert judge_overload(arrivals, never, arrivals).overloaded is False


def test_the_theil_sen_line_is_exact_on_a_line_and_ignores_a_short_burst() -> None:
    line = 3.0 * np.arange(101)
    assert growth_and_scatter(line) == (300.0, 0.0)
    line[40:60] += 1e6
    assert growth_and_scatter(line)[0] == pytest.approx(300.0)


def test_the_engine_under_and_over_its_capacity() -> None:
    # Two sequences at a time, 10 tokens each: 20 requests a second at most.
    def run(rate: float) -> object:
        rng = np.random.default_rng(3)
        arrivals = np.cumsum(rng.exponential(SECOND / rate, 1000)).astype(np.int64).tolist()
        return result([Request(t, 10, 10) for t in arrivals], seqs=2).summary["load"]["overloaded"]

    assert run(10) is False
    assert run(40) is True

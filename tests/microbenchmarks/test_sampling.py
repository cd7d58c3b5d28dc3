"""Samples, outliers, warm-up, power and the choice of a tile, with a timer that reads from a list."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from simulator.calibration.microbenchmarks import sampling
from simulator.calibration.microbenchmarks.sampling import Plan, Reading

PLAN = Plan(batch_s=1e-3, repeats=10, window_s=0.0, warmup_s=0.0, tune_s=3e-3)


@dataclass
class Timer:
    """A device whose launches take the seconds of a list, its last one for ever; its time is its own clock."""

    seconds: list[float]
    launches: list[int] = field(default_factory=list)
    clock_s: float = 0.0

    def batch(self, launches: int) -> float:
        each = self.seconds.pop(0) if len(self.seconds) > 1 else self.seconds[0]
        self.launches.append(launches)
        self.clock_s += launches * each
        return launches * each


class Meter:
    """Reads a device that draws constant power."""

    def __init__(self, timer: Timer, watts: float | None = 300.0, clocks: Iterator[float] | None = None) -> None:
        self.timer, self.watts, self.clocks = timer, watts, clocks

    def read(self) -> Reading:
        energy = None if self.watts is None else self.watts * self.timer.clock_s
        return Reading(energy, next(self.clocks) if self.clocks else None, ("power cap",))


def measure(timer: Timer, plan: Plan = PLAN, sets: int = 1, meter: Meter | None = None) -> sampling.Sample:
    return sampling.sample(timer.batch, plan, meter or Meter(timer), sets=sets, now=lambda: timer.clock_s)


def test_outliers_lie_more_than_five_deviations_from_the_median() -> None:
    # With a seventh above them the median is 11, the deviations are 0 1 1 2 3 3 and its own: 5 x 2 is the bound.
    times = [10.0, 9.0, 11.0, 8.0, 12.0, 14.0]
    assert sampling.kept_samples([*times, 20.9]) == [*times, 20.9]
    assert sampling.kept_samples([*times, 21.1]) == times


def test_equal_samples_are_kept_with_what_the_timer_s_resolution_adds() -> None:
    # The deviation is 0; without a floor the last one would go.
    times = [1.0] * 9 + [1.004]
    assert sampling.kept_samples(times) == times
    assert sampling.kept_samples([1.0] * 9 + [1.006]) == [1.0] * 9


def test_the_time_is_the_median_of_what_was_kept_and_the_spread_its_deviation() -> None:
    # Two launches before (compile; a rough time); ten samples, one of which is far off.
    times = [1e-3, 2e-3, 1e-3, 2e-3, 1e-3, 2e-3, 1e-3, 2e-3, 1e-3, 90e-3]
    timer = Timer([5.0, 1e-3, *times, *times])
    taken = measure(timer)
    assert taken.time_s == pytest.approx(1e-3)  # 5 x 1 ms and 4 x 2 ms
    mean = (5 * 1 + 4 * 2) / 9
    assert taken.spread == pytest.approx(((5 * (1 - mean) ** 2 + 4 * (2 - mean) ** 2) / 9) ** 0.5 / mean)
    assert not taken.steady  # so much spread, and again


def test_a_steady_measurement_is_taken_once_and_an_unsteady_one_again() -> None:
    steady = Timer([1e-3])
    assert measure(steady).steady
    assert len(steady.launches) == 2 + 10
    mended = Timer([1e-3, 1e-3, *[1e-3, 3e-3] * 5, 1e-3])
    taken = measure(mended)
    assert taken.steady
    assert taken.time_s == pytest.approx(1e-3)
    assert taken.spread == pytest.approx(0, abs=1e-9)
    assert len(mended.launches) == 2 + 10 + 10


def test_more_than_a_fifth_dropped_is_unsteady() -> None:
    for far, steady in ((2, True), (3, False)):
        times = [1e-3] * (10 - far) + [5e-3] * far
        taken = measure(Timer([1e-3, 1e-3, *times, *times, 1e-3]))
        assert taken.time_s == pytest.approx(1e-3)
        assert taken.steady == steady


@pytest.mark.parametrize(
    ("launch_s", "sets", "launches"),
    [
        (1e-3, 1, 10),
        (1e-3, 4, 8),  # 2 or 3 rounds of 4: the nearest to 10 that is even-handed
        (1.0, 4, 4),  # at least one round
        (1e-6, 1, 2000),  # bounded
        (1e-6, 64, 1984),  # the bound, in whole rounds
        (0.0, 1, 2000),  # less than the timer sees
    ],
)
def test_launches_of_a_batch(launch_s: float, sets: int, launches: int) -> None:
    assert sampling.launches_of_a_batch(launch_s, 10e-3, sets) == launches


def test_warm_up_ends_when_times_are_stable_or_time_is_up() -> None:
    # Means of three: 9, 8, 7 ... the first six batches that agree are the 1s.
    settling = Timer([9.0, 8.0, 7.0, 1.0])
    assert sampling.warm_up(settling.batch, 1, limit_s=1000.0) == 9
    restless = Timer([float(i) for i in range(1, 100)])
    assert sampling.warm_up(restless.batch, 1, limit_s=20.0) == 6  # 1 + 2 + ... + 6 = 21


def test_samples_last_as_long_as_the_window() -> None:
    timer = Timer([1e-3])
    measure(timer, Plan(batch_s=10e-3, repeats=3, window_s=0.5, warmup_s=0.0, tune_s=0.0))
    assert timer.launches[2:] == [10] * 50


def test_power_is_energy_over_a_window_that_is_long_enough() -> None:
    long = Plan(batch_s=10e-3, repeats=3, window_s=0.6, warmup_s=0.0, tune_s=0.0)
    for watts, plan, said in ((250.0, long, 250.0), (250.0, PLAN, None), (None, long, None)):
        timer = Timer([1e-3])
        taken = measure(timer, plan, meter=Meter(timer, watts))
        assert taken.power_w == (said if said is None else pytest.approx(said))


def test_clocks_and_throttling_are_read_before_and_after() -> None:
    timer = Timer([1e-3])
    taken = measure(timer, meter=Meter(timer, clocks=iter([1980.0, 1755.0])))
    assert taken.sm_mhz == (1755.0, 1980.0)
    assert taken.throttled == ("power cap",)


def broken(launches: int) -> float:
    raise RuntimeError("out of resource: shared memory")


def batch(seconds: float) -> Callable[[int], float]:
    return Timer([seconds]).batch


def test_the_quickest_variant_that_runs() -> None:
    tried = [("a", batch(3e-3)), ("b", broken), ("c", batch(1e-3)), ("d", batch(2e-3))]
    assert sampling.quickest(tried, 3e-3) == (2, {"b": "out of resource: shared memory"})
    with pytest.raises(RuntimeError, match="shared memory"):
        sampling.quickest([("b", broken)], 3e-3)

"""From launches to a time: warm-up, samples, outliers, power. Pure: what runs and what clocks say is handed in.

A *sample* is the time of a batch of launches over their number. Batches are long against the resolution of the timer.
After the warm-up, samples are taken until there are enough and the window is long enough for a reading of power;
samples that lie far from the median are dropped (`kept_samples`), the time is the median of the others and the spread
their standard deviation over their mean. Where more than a fifth was dropped, or the spread is above `MAX_SPREAD`,
all samples are taken once more, and what is still so is kept and called unsteady.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

Batch = Callable[[int], float]
"""Runs that many launches and returns the seconds that they took together."""

OUTLIER_DEVIATIONS = 5.0
"""Median absolute deviations from the median beyond which a sample is dropped."""

OUTLIER_FLOOR = 0.005
"""Share of the median within which no sample is dropped: where nearly all samples are equal, their deviation is 0."""

MAX_DROPPED = 0.2
"""Share of samples dropped above which a measurement is taken again."""

MAX_SPREAD = 0.1
"""Spread above which a measurement is taken again."""

STABLE = 0.02
"""The warm-up ends when the mean of three batches differs from that of the three before by less than this share."""

MIN_POWER_WINDOW_S = 0.5
"""Least window for a mean power, s: NVML's energy counter moves in steps of some ten milliseconds, of which this is
many."""

MAX_LAUNCHES = 2000
"""Launches of a batch at most: nodes of a CUDA graph, which is captured for each batch size."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long is measured.

    Attributes
    ----------
    batch_s
        Seconds that a batch is to last.
    repeats
        Samples at least.
    window_s
        Seconds that samples last together at least.
    warmup_s
        Seconds of the warm-up at most.
    tune_s
        Seconds a variant is tried when the quickest is sought.
    """

    batch_s: float
    repeats: int
    window_s: float
    warmup_s: float
    tune_s: float


FULL = Plan(batch_s=10e-3, repeats=20, window_s=0.55, warmup_s=0.1, tune_s=5e-3)
QUICK = Plan(batch_s=2e-3, repeats=10, window_s=0.0, warmup_s=0.05, tune_s=3e-3)
"""Choices, not measurements: full windows are long enough for power, quick ones are not."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What the device says of itself at one moment; None where it doesn't say.

    Attributes
    ----------
    energy_j
        Energy since the driver was loaded, joules.
    sm_mhz
        Clock of the multiprocessors, MHz.
    throttled
        Why clocks are held down, in words; empty: they aren't.
    """

    energy_j: float | None = None
    sm_mhz: float | None = None
    throttled: tuple[str, ...] = ()


class Monitor(Protocol):
    """Reads the device."""

    def read(self) -> Reading:
        """Return what it says now."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A measured time.

    Attributes
    ----------
    time_s
        Median seconds of one launch.
    spread
        Standard deviation over mean of the samples that were kept.
    steady
        False where too many samples were dropped or they spread too much, twice.
    power_w
        Mean power over the samples, watts; None where the window was too short or energy isn't known.
    sm_mhz
        Lowest and highest clock read before and after the samples; None where not known.
    throttled
        Why clocks were held down.
    variant
        The variant that ran, where there were several.
    """

    time_s: float
    spread: float
    steady: bool = True
    power_w: float | None = None
    sm_mhz: tuple[float, float] | None = None
    throttled: tuple[str, ...] = field(default=())
    variant: str = ""


def kept_samples(times: Sequence[float]) -> list[float]:
    """Return the samples that lie within `OUTLIER_DEVIATIONS` median absolute deviations of the median.

    Nothing within `OUTLIER_FLOOR` of the median is dropped.
    """
    values = np.asarray(times, dtype=np.float64)
    median = float(np.median(values))
    away = np.abs(values - median)
    allowed = max(OUTLIER_DEVIATIONS * float(np.median(away)), OUTLIER_FLOOR * median)
    return [float(value) for value in values[away <= allowed]]


def launches_of_a_batch(launch_s: float, batch_s: float, sets: int) -> int:
    """Return launches of a batch: as many as last ``batch_s``, each set of inputs as often as another.

    Parameters
    ----------
    launch_s
        Seconds of one launch, roughly.
    """
    rounds = max(1, round(batch_s / max(launch_s, 1e-9) / sets))
    return min(rounds, max(1, MAX_LAUNCHES // sets)) * sets


def warm_up(batch: Batch, launches: int, limit_s: float) -> int:
    """Run batches until their times are stable, and return how many ran.

    Stable: the mean of the last three batches is within `STABLE` of that of the three before; or ``limit_s`` seconds of
    batches have run.
    """
    times: list[float] = []
    while sum(times) < limit_s:
        times.append(batch(launches))
        if len(times) >= 6:
            before, last = sum(times[-6:-3]), sum(times[-3:])
            if abs(last - before) <= STABLE * before:
                break
    return len(times)


def sample(
    batch: Batch,
    plan: Plan,
    monitor: Monitor,
    *,
    sets: int = 1,
    now: Callable[[], float] = time.perf_counter,
) -> Sample:
    """Measure one way to run a case.

    Parameters
    ----------
    batch
        Runs launches.
    sets
        Sets of inputs that launches take in turn.
    now
        Clock of the host, s: for the window of the power.
    """
    batch(sets)  # the first call compiles, allocates, captures
    launches = launches_of_a_batch(batch(sets) / sets, plan.batch_s, sets)
    warm_up(batch, launches, plan.warmup_s)
    taken = _take(batch, launches, plan, monitor, now)
    return taken if taken.steady else _take(batch, launches, plan, monitor, now)


def _take(batch: Batch, launches: int, plan: Plan, monitor: Monitor, now: Callable[[], float]) -> Sample:
    first, began = monitor.read(), now()
    times: list[float] = []
    while len(times) < plan.repeats or sum(times) * launches < plan.window_s:
        times.append(batch(launches) / launches)
    last, window = monitor.read(), now() - began
    kept = kept_samples(times)
    spread = float(np.std(kept) / np.mean(kept))
    clocks = [reading.sm_mhz for reading in (first, last) if reading.sm_mhz is not None]
    return Sample(
        time_s=float(np.median(kept)),
        spread=spread,
        steady=len(kept) >= (1 - MAX_DROPPED) * len(times) and spread <= MAX_SPREAD,
        power_w=mean_power_w(first, last, window),
        sm_mhz=(min(clocks), max(clocks)) if clocks else None,
        throttled=tuple(sorted({*first.throttled, *last.throttled})),
    )


def mean_power_w(first: Reading, last: Reading, window_s: float) -> float | None:
    """Return the mean power between two readings, watts; None where it isn't known or the window is too short."""
    if window_s < MIN_POWER_WINDOW_S or first.energy_j is None or last.energy_j is None:
        return None
    return (last.energy_j - first.energy_j) / window_s


def quickest(batches: Sequence[tuple[str, Batch]], tune_s: float, sets: int = 1) -> tuple[int, dict[str, str]]:
    """Return which variant takes the least time, and why others couldn't run.

    Parameters
    ----------
    batches
        Label and batch of each variant.
    tune_s
        Seconds each is tried, after one batch that compiles it.

    Raises
    ------
    RuntimeError
        If none runs, with what the first one said.
    """
    failed: dict[str, str] = {}
    best: tuple[float, int] | None = None
    for index, (label, batch) in enumerate(batches):
        try:
            batch(sets)
            launches = launches_of_a_batch(batch(sets) / sets, tune_s / 3, sets)
            spent = float(np.median([batch(launches) for _ in range(3)])) / launches
        except Exception as error:  # a tile can need more registers or shared memory than the GPU has
            failed[label] = " ".join(str(error).split())[:200] or type(error).__name__
            continue
        if best is None or spent < best[0]:
            best = spent, index
    if best is None:
        raise RuntimeError(next(iter(failed.values())))
    return best[1], failed

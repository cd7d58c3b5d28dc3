"""Arrival processes: renewal processes of a chosen burstiness, and rates that change over the day and the week."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workloads.trace import Floats, TraceError, did_you_mean

PROCESSES = ("poisson", "gamma", "weibull", "regular")
LEAST_WEIBULL_SHAPE = 0.02
"""Smallest Weibull shape, with a CV of 3.2e14: not far below it the moments leave the range of floating point."""
HOUR_S = 3600.0
WEEK_H = 168


def gap_cv(process: str, burstiness: float) -> float:
    """Return the coefficient of variation of the gaps of a process.

    ``burstiness`` is the shape of the Gamma or Weibull distribution, as in vLLM's ``--burstiness``: 1 is Poisson, less
    is burstier. Gamma: CV = 1 / sqrt(shape). Weibull: CV² = Γ(1 + 2/k) / Γ(1 + 1/k)² - 1.

    Raises
    ------
    TraceError
        For a Weibull shape below `LEAST_WEIBULL_SHAPE`.
    """
    if process == "gamma":
        return 1 / math.sqrt(burstiness)
    if process == "weibull":
        _check_weibull(burstiness)
        return math.sqrt(math.gamma(1 + 2 / burstiness) / math.gamma(1 + 1 / burstiness) ** 2 - 1)
    return 1.0 if process == "poisson" else 0.0


def unit_gaps(rng: np.random.Generator, process: str, burstiness: float, n: int) -> Floats:
    """Draw n gaps of mean 1 between arrivals of a process (``regular``: all 1)."""
    if process == "poisson":
        return rng.standard_exponential(n)
    if process == "gamma":
        return rng.gamma(burstiness, 1 / burstiness, n)
    if process == "weibull":
        _check_weibull(burstiness)
        return rng.weibull(burstiness, n) / math.gamma(1 + 1 / burstiness)
    if process == "regular":
        return np.ones(n)
    raise TraceError(f"unknown arrival process {process!r}{did_you_mean(process, PROCESSES)}")


def _check_weibull(shape: float) -> None:
    if shape < LEAST_WEIBULL_SHAPE:
        raise TraceError(f"'burstiness' of a Weibull process must be at least {LEAST_WEIBULL_SHAPE:g}, got {shape:g}")


@dataclass(frozen=True)
class RateCurve:
    """A rate over time, constant between edges, relative to a mean.

    Attributes
    ----------
    edges_s
        Times at which the rate changes, seconds, one more than ``factors``; the first is where the curve starts.
    factors
        Rate over the mean rate between each two edges, at least 0.
    """

    edges_s: Floats
    factors: Floats

    def expected(self) -> Floats:
        """Return the integral of the factors up to each edge, in seconds of mean rate."""
        return np.concatenate(([0.0], np.cumsum(self.factors * np.diff(self.edges_s))))

    def times(self, operational_s: Floats) -> Floats:
        """Map times of a process of constant rate to times of this rate (time-rescaling, the inverse integral)."""
        busy = self.factors > 0
        begun, edges, factors = self.expected()[:-1][busy], self.edges_s[:-1][busy], self.factors[busy]
        part = np.maximum(np.searchsorted(begun, operational_s, "right") - 1, 0)
        return np.asarray(edges[part] + (operational_s - begun[part]) / factors[part])

    def normalised(self, start_s: float, end_s: float) -> RateCurve:
        """Return the curve scaled so that its mean between two times is 1."""
        at = np.interp([start_s, end_s], self.edges_s, self.expected())
        mean = (at[1] - at[0]) / (end_s - start_s)
        if not mean > 0:
            raise TraceError("the rate is 0 throughout; give a curve with some traffic")
        return RateCurve(self.edges_s, self.factors / mean)


def weekly_factors(hourly: Sequence[float], weekend: float) -> Floats:
    """Return the rate of each of the 168 hours from Monday 0:00, of mean 1.

    Parameters
    ----------
    hourly
        24 relative rates, hour by hour.
    weekend
        Rate on Saturday and Sunday relative to a weekday.
    """
    day = np.asarray(hourly, dtype=np.float64)
    if day.shape != (24,) or not np.isfinite(day).all() or day.min() < 0 or day.sum() == 0:
        raise TraceError(f"'hourly' must be 24 rates of at least 0 with some traffic, got {list(hourly)!r}")
    week = np.concatenate([day * factor for factor in (1, 1, 1, 1, 1, weekend, weekend)])
    return np.asarray(week / week.mean())


def weekly_curve(week: Floats, start_h: float, from_s: float, to_s: float) -> RateCurve:
    """Return the curve between two times, where time 0 is ``start_h`` hours after Monday 0:00."""
    first = math.floor(from_s / HOUR_S + start_h)
    last = math.ceil(to_s / HOUR_S + start_h) + 1
    hours = np.arange(first, last + 1)
    edges: Floats = np.asarray((hours - start_h) * HOUR_S, np.float64)
    return _cropped(RateCurve(edges, week[hours[:-1] % WEEK_H]), from_s)


def _cropped(curve: RateCurve, from_s: float) -> RateCurve:
    edges: Floats = np.maximum(curve.edges_s, from_s)
    keep = np.diff(edges) > 0
    return RateCurve(np.concatenate((edges[:-1][keep], edges[-1:])), curve.factors[keep])


def modulated(curve: RateCurve, rng: np.random.Generator, window_s: float, sigma: float) -> RateCurve:
    """Multiply a curve by a random factor for each window (lognormal, mean 1, ``sigma`` of the logarithm)."""
    start, end = curve.edges_s[0], curve.edges_s[-1]
    grid = start + window_s * np.arange(math.ceil((end - start) / window_s) + 1)
    edges = np.unique(np.concatenate((curve.edges_s, grid[grid < end])))
    factor = np.exp(sigma * rng.standard_normal(len(grid)) - sigma**2 / 2)
    base = curve.factors[np.clip(np.searchsorted(curve.edges_s, edges[:-1], "right") - 1, 0, len(curve.factors) - 1)]
    return RateCurve(edges, base * factor[((edges[:-1] - start) / window_s).astype(np.int64)])


def renewal(
    rng: np.random.Generator, process: str, burstiness: float, rate: float, *, requests: int | None, until_s: float
) -> Floats:
    """Draw arrivals of a renewal process from time 0: so many, or those before ``until_s``, whichever ends first."""
    drawn: list[Floats] = []
    total, at = 0, 0.0
    while at < until_s and (requests is None or total < requests):
        expected = rate * (until_s - at)
        n = requests - total if requests is not None else int(expected + 6 * math.sqrt(expected + 1) + 16)
        times = at + np.cumsum(unit_gaps(rng, process, burstiness, n)) / rate
        drawn.append(times)
        total, at = total + n, float(times[-1])
    arrivals = np.concatenate(drawn) if drawn else np.empty(0)
    return arrivals[arrivals < until_s]

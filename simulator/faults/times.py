"""When things break at random, and when a health check notices: pure functions."""

from __future__ import annotations

import math

import numpy as np

from simulator.engine.clock import to_ns
from simulator.scenario_faults import MTBF_H, HealthCheck, RandomKind

_LONGEST_NS = 2**62
"""About 146 years: what is drawn beyond it never comes."""


def time_to_failure_ns(kind: str, part: RandomKind, rng: np.random.Generator) -> int:
    """Draw the time from a repair to the next failure, ns: Weibull with the mean that is asked for."""
    mean_h = MTBF_H[kind] if part.mtbf_h is None else part.mtbf_h
    scale_s = mean_h * 3600.0 / math.gamma(1.0 + 1.0 / part.shape)
    drawn_s = scale_s * float(rng.weibull(part.shape))
    return max(1, min(_LONGEST_NS, to_ns(drawn_s)))


def time_to_repair_ns(part: RandomKind, rng: np.random.Generator) -> int:
    """Draw the time from a failure to its repair, ns."""
    drawn_s = part.mttr_s if part.repair == "fixed" else part.mttr_s * float(rng.exponential())
    return max(1, min(_LONGEST_NS, to_ns(drawn_s)))


def noticed_down_ns(health: HealthCheck, died_ns: int) -> int:
    """Return when a replica that died is marked down.

    Probes are sent at multiples of the interval. The first that it doesn't answer is the first from its death on (one
    at the same instant finds it dead); it is marked down when the last of the failures in a row has timed out.
    """
    interval, timeout = to_ns(health.interval_s), to_ns(health.timeout_s)
    first = -(-died_ns // interval) * interval
    return first + (health.failures - 1) * interval + timeout


def noticed_up_ns(health: HealthCheck, ready_ns: int) -> int:
    """Return when a replica that is ready is marked up: with the last of the answered probes in a row."""
    interval = to_ns(health.interval_s)
    first = -(-ready_ns // interval) * interval
    return first + (health.successes - 1) * interval


__all__ = ["noticed_down_ns", "noticed_up_ns", "time_to_failure_ns", "time_to_repair_ns"]

"""Independent requests: Poisson, Gamma, Weibull and regular arrivals, daily and weekly rates, closed loop."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from workloads.generators import parameters
from workloads.generators._registry import (
    BURSTINESS,
    DURATION,
    FIT,
    REQUESTS,
    SEED,
    Generator,
    Param,
    extent,
    length_params,
    rate_param,
)
from workloads.generators.arrivals import (
    HOUR_S,
    PROCESSES,
    gap_cv,
    renewal,
    weekly_curve,
    weekly_factors,
)
from workloads.streams import stream
from workloads.trace import Floats, Trace, TraceError

_LENGTHS = length_params("lognormal:median=512,sigma=0.8,max=8192", "lognormal:median=128,sigma=0.8,max=2048")
_WEEK_S = 168 * HOUR_S


def _trace(values: Mapping[str, Any], arrival: Floats, *notes: str) -> Trace:
    n = len(arrival)
    if not n:
        raise TraceError("no request falls into the trace; raise 'rate' or 'duration_s'")
    return Trace(
        arrival_s=arrival,
        prompt_tokens=values["prompt"].sample(stream(values["seed"], "prompt"), n),
        output_tokens=values["output"].sample(stream(values["seed"], "output"), n),
        notes=notes,
    )


def _renewal(process: str) -> Generator:
    def make(values: Mapping[str, Any]) -> Trace:
        requests, until = extent(values)
        shape = values.get("burstiness", 1.0)
        rng = stream(values["seed"], "arrivals")
        arrival = renewal(rng, process, shape, values["rate"], requests=requests, until_s=until)
        return _trace(
            values, arrival, f"gaps have a coefficient of variation of {gap_cv(process, shape):.4g} in theory"
        )

    burstiness = (BURSTINESS,) if process in ("gamma", "weibull") else ()
    about = {
        "poisson": "Poisson arrivals, independent lengths",
        "gamma": "Gamma gaps: CV = 1 / sqrt(burstiness), as vLLM's --burstiness",
        "weibull": "Weibull gaps of shape burstiness",
        "regular": "equal gaps",
    }[process]
    return Generator(process, about, (REQUESTS, DURATION, rate_param(1.0), *burstiness, *_LENGTHS, FIT, SEED), make)


def _diurnal(values: Mapping[str, Any]) -> Trace:
    requests, until = extent(values)
    week = weekly_factors(values["hourly"], values["weekend"])
    start_h = 24 * values["start_day"] + values["start_hour"]
    rng = stream(values["seed"], "arrivals")
    span = until
    if math.isinf(span) and requests is not None:
        span = _WEEK_S * (math.ceil(requests / values["rate"] / _WEEK_S * 1.1) + 1)
    arrival: Floats = np.empty(0)
    for _ in range(60):
        curve = weekly_curve(week, start_h, 0.0, span)
        most = float(np.interp(span, curve.edges_s, curve.expected()))
        shape, process = values["burstiness"], values["process"]
        plain = renewal(rng, process, shape, values["rate"], requests=requests, until_s=most)
        arrival = curve.times(plain)
        if requests is None or len(arrival) >= requests or math.isfinite(until):
            break
        rng, span = stream(values["seed"], "arrivals"), 2 * span
    return _trace(values, arrival, "time 0 is the given hour and day; 'rate' is the mean over a week")


def _closed_loop(values: Mapping[str, Any]) -> Trace:
    n = values["requests"] or 1000
    return _trace(
        values, np.zeros(n), "all arrivals are 0: for a closed loop, where a client sends when its last one ended"
    )


GENERATORS = (
    *(_renewal(process) for process in PROCESSES),
    Generator(
        "diurnal",
        "a rate by hour and weekday, by time-rescaling of any of the processes",
        (
            REQUESTS,
            DURATION,
            rate_param(1.0),
            Param("process", "text", "poisson", "process whose time is rescaled", choices=PROCESSES),
            BURSTINESS,
            Param("hourly", "floats", parameters.HOURLY, "24 relative rates by hour of the day", ge=0),
            Param(
                "weekend",
                "float",
                parameters.BURSTGPT["weekend"].value,
                "rate of Saturday and Sunday",
                "of a weekday",
                ge=0,
            ),
            Param("start_hour", "float", 0.0, "hour of the day at time 0", "h", ge=0, le=24),
            Param("start_day", "int", 0, "day of the week at time 0, Monday is 0", ge=0, le=6),
            *_LENGTHS,
            FIT,
            SEED,
        ),
        _diurnal,
    ),
    Generator(
        "closed-loop",
        "requests without arrival times, for N clients that send one after the other",
        (REQUESTS, *_LENGTHS, FIT, SEED),
        _closed_loop,
    ),
)

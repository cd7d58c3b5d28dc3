"""Objectives of a plan: latencies at percentiles, of all requests or of a class."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simulator.errors import InputError, did_you_mean
from simulator.scenario import Slo, Slos
from simulator.studies.verdict import Demand, Tally

METRICS = ("ttft", "tpot", "itl", "e2e")
PERCENTILES = (50, 90, 95, 99)
NAMES = tuple(f"{metric}_p{percentile}" for metric in METRICS for percentile in PERCENTILES)
"""Names that objectives are given by."""


@dataclass(frozen=True)
class Objective:
    """A latency that a share of the requests must not exceed.

    ``TTFT p99 <= 2 s`` means: of all requests that arrive at least 99 % finish and have their first token within 2 s.
    ITL is a request's largest gap between two tokens. A request that isn't served misses.

    Attributes
    ----------
    metric
        One of `METRICS`.
    percentile
        1 to 100.
    limit_s
        Seconds.
    request_class
        Whose requests; empty: everybody's.
    """

    metric: str
    percentile: int
    limit_s: float
    request_class: str = ""

    @property
    def demand(self) -> Demand:
        """What a run is judged by."""
        slo: dict[str, Any] = {f"{self.metric}_s": self.limit_s}
        slos = Slos(classes={self.request_class: Slo(**slo)}) if self.request_class else Slos(**slo)
        return Demand(slos, self.percentile / 100)

    @property
    def figure(self) -> str:
        """Its name among the figures of a run (`simulator.studies.points.figures_of`)."""
        return f"{self.metric}_s_p{self.percentile}"

    @property
    def text(self) -> str:
        """As people write it: ``TTFT p99 <= 2 s``."""
        whose = f" of {self.request_class}" if self.request_class else ""
        return f"{self.metric.upper()} p{self.percentile}{whose} <= {seconds(self.limit_s)}"


def objectives_of(given: Mapping[str, Any], request_class: str = "") -> list[Objective]:
    """Return the objectives of a mapping: ``{"ttft_p99": 2, "classes": {"chat": {"tpot_p95": 0.05}}}``; seconds.

    Raises
    ------
    InputError
        For an unknown name, or a limit that is none.
    """
    found = []
    for key, value in given.items():
        if key == "classes" and not request_class:
            if not isinstance(value, Mapping) or not all(isinstance(part, Mapping) for part in value.values()):
                raise InputError("objectives: 'classes' must map each class to its objectives")
            for name, part in value.items():
                found += objectives_of(part, str(name))
            continue
        name = str(key).replace("-", "_")
        name = name.removesuffix("_s")
        match = re.fullmatch(r"([a-z0-9]+)_p(\d+)", name)
        if match is None or match[1] not in METRICS or not 1 <= int(match[2]) <= 100:
            raise InputError(f"unknown objective {key!r}{did_you_mean(name, NAMES)}")
        limit_ok = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e6
        if not limit_ok:
            raise InputError(f"objective {key}: must be a time in seconds above 0, got {value!r}")
        found.append(Objective(match[1], int(match[2]), float(value), request_class))
    return found


def limits(objectives: Sequence[Objective]) -> dict[str, Any]:
    """Return them as a scenario's ``objectives``, for policies and figures that read those: the strictest of each."""

    def strictest(of: str) -> dict[str, float]:
        found: dict[str, float] = {}
        for each in objectives:
            if each.request_class == of:
                key = f"{each.metric}_s"
                found[key] = min(each.limit_s, found.get(key, each.limit_s))
        return found

    classes = {name: strictest(name) for name in dict.fromkeys(o.request_class for o in objectives) if name}
    return {**strictest(""), **({"classes": classes} if classes else {})}


def said(objective: Objective, tally: Tally, figures: Mapping[str, Any], *, is_whole: bool) -> str:
    """Return what became of an objective in a run: ``TTFT p99 <= 2 s: 1.16 s (10 of 19,366 requests missed it)``."""
    reached = figures.get(objective.figure) if is_whole and not objective.request_class else None
    figure = "" if reached is None else f": {seconds(float(reached))}"
    return f"{objective.text}{figure} ({tally.missed:,} of {tally.of:,} requests missed it)"


def seconds(value: float) -> str:
    """Return a latency as people write it: ms below a second."""
    return f"{value * 1e3:.3g} ms" if value < 1 else f"{value:,.3g} s" if value < 1000 else f"{value:,.0f} s"


__all__ = ["METRICS", "NAMES", "PERCENTILES", "Objective", "limits", "objectives_of", "said", "seconds"]

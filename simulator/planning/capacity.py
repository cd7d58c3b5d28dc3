"""Capacity: which share of the requests one replica of a configuration serves within the objectives.

The share is found by bisection. Each probe simulates one replica on a thinned copy of the requests, or, for more than
all of them, on all, sped up. Thinned requests come less evenly than a router of several replicas would hand them out,
so that a fleet can mostly do more than its capacities add up to; a plan relies on capacities for nothing but where to
look (`simulator.planning.planner`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.errors import InputError
from simulator.planning.configurations import Configuration
from simulator.planning.objectives import Objective
from simulator.scenario import Scenario
from simulator.studies.points import Task
from simulator.studies.verdict import Judged, judge

if TYPE_CHECKING:
    from workloads import Trace

PROBE_S = 1200.0
"""Length of the busiest stretch of the requests that probes replay, seconds: a choice."""
FIRST_SHARE = 0.25
"""First share that is tried: a choice."""
MOST = 4.0
"""Largest share that is tried: four times the requests."""
FEWEST_REQUESTS = 100
"""A probe has at least so many requests: the fewest whose p99 says something."""
FEWEST_OF_A_BURST = 10
"""The same where no configuration serves so many, such as a burst for dozens of replicas: a choice."""
MOST_REQUESTS = 4000
"""A probe has at most so many, the first ones of the stretch: a choice, for time; a p99 then is of 40 misses."""
TOLERANCE = 1.1
"""The bracket of a capacity ends when its ends are so close: a choice, about what another sample changes it by."""


@dataclass(frozen=True)
class Probe:
    """One simulation on the way to a capacity: the share, whether the objectives were met, and why not."""

    share: float
    met: bool
    why: str = ""


@dataclass(frozen=True)
class Capacity:
    """What one replica does.

    Attributes
    ----------
    share
        Largest share of the requests that was seen to be served within the objectives; 0: none.
    not_share
        Smallest share above it that was seen not to be; None: even the largest tried was.
    probes
        What was tried, in order.
    failure
        Why nothing could be simulated.
    is_defect
        Whether the simulator is to blame for that.
    """

    share: float
    not_share: float | None = None
    probes: tuple[Probe, ...] = field(default=())
    failure: str = ""
    is_defect: bool = False


@dataclass(frozen=True)
class Question:
    """A configuration whose capacity is wanted, sent to a process.

    Attributes
    ----------
    scenario
        One replica of it, as plain data; its workload has no trace and no filters.
    trace
        The busiest stretch of the requests.
    request_class
        Whose requests it serves; None: everybody's.
    worth
        Only a share of this or more is of interest: where it is not served, nothing more is asked. None: all are.
    fewest_requests
        A probe has at least so many.
    """

    scenario: Mapping[str, Any]
    trace: Trace
    objectives: tuple[Objective, ...]
    request_class: str | None = None
    worth: float | None = None
    fewest_requests: int = FEWEST_REQUESTS


def busiest(trace: Trace, length_s: float = PROBE_S) -> Trace:
    """Return the stretch of a trace with the most requests, from its first one on."""
    from workloads import filter_trace

    arrivals = trace.arrival_s
    if len(arrivals) == 0 or arrivals[-1] - arrivals[0] <= length_s:
        return trace
    ends = np.searchsorted(arrivals, arrivals + length_s, side="left")
    first = int(np.argmax(ends - np.arange(len(arrivals))))
    start_s = float(arrivals[first])
    return filter_trace(trace, start_s=start_s, end_s=start_s + length_s)


def question(
    base: Scenario,
    configuration: Configuration,
    objectives: Sequence[Objective],
    trace: Trace,
    request_class: str | None = None,
    worth: float | None = None,
    fewest_requests: int = FEWEST_REQUESTS,
) -> Question:
    """Return what a process needs to find a capacity; ``trace`` is what `busiest` returned."""
    data = base.to_mapping()
    data["workload"] = {key: value for key, value in data.get("workload", {}).items() if key == "loop"}
    pool = configuration.pool(base, 1)
    pool.pop("price_per_gpu_hour", None)  # a capacity that is kept is one at any price
    data.setdefault("cluster", {})["pools"] = [pool]
    if request_class is None:
        return Question(data, trace, tuple(objectives), None, worth, fewest_requests)
    data["workload"]["class"] = [request_class]
    own = [each for each in objectives if each.request_class in ("", request_class)]
    data["objectives"] = {key: value for key, value in data.get("objectives", {}).items() if key != "classes"}
    return Question(data, trace, tuple(own), request_class, worth, fewest_requests)


def capacity_of(asked: Question) -> Capacity:
    """Find a capacity; never raises but for Ctrl-C."""
    demands = [each.demand for each in asked.objectives]
    fewest = min(1.0, asked.fewest_requests / max(1, len(asked.trace)))
    probes: list[Probe] = []

    def meets(share: float) -> bool:
        known = next((probe.met for probe in probes if probe.share == share), None)
        if known is not None:
            return known
        judged = judge(Task(_thinned(asked.scenario, share), asked.trace), demands)
        if judged.verdict is None:
            raise _FailedError(judged)
        missed = [
            objective.text
            for objective, tally in zip(asked.objectives, judged.verdict.tallies, strict=True)
            if not tally.is_met
        ]
        probes.append(Probe(share, not missed, ", ".join(missed)))
        return not missed

    try:
        if asked.worth is not None:
            if not meets(min(asked.worth, MOST)):
                return Capacity(0.0, asked.worth, tuple(probes))
            low, high = bracket(meets, asked.worth, fewest, MOST, TOLERANCE)
        elif not meets(fewest):
            low, high = 0.0, fewest
        else:
            low, high = bracket(meets, FIRST_SHARE, fewest, MOST, TOLERANCE)
    except _FailedError as error:
        outcome = error.judged.outcome
        return Capacity(0.0, None, tuple(probes), outcome.failure, outcome.is_defect)
    return Capacity(low, high, tuple(probes))


class _FailedError(InputError):
    def __init__(self, judged: Judged) -> None:
        super().__init__(judged.outcome.failure)
        self.judged = judged


def bracket(
    meets: Callable[[float], bool], first: float, fewest: float, most: float, tolerance: float
) -> tuple[float, float | None]:
    """Return the largest load that was seen to do, and the smallest seen not to, their quotient within a tolerance.

    Parameters
    ----------
    meets
        Tells whether a load does. It needs not be monotone: then what is returned is one of the edges.
    first, fewest, most
        Load tried first, smallest and largest.

    Returns
    -------
    tuple
        0 and ``fewest`` where nothing does; ``most`` and None where everything does.
    """
    load = min(max(first, fewest), most)
    low, high = 0.0, None
    while True:
        if meets(load):
            low = load
            if load >= most:
                return low, None
        else:
            high = load
            if load <= fewest:
                return low, high
        if low and high is not None:
            if high / low <= tolerance:
                return low, high
            load = (low * high) ** 0.5
        elif low:
            load = min(2 * low, most)
        else:
            assert high is not None
            load = max(high / 2, fewest)


def _thinned(scenario: Mapping[str, Any], share: float) -> dict[str, Any]:
    key = "sample" if share <= 1 else "rate_scale"
    return {**scenario, "workload": {**scenario["workload"], key: share, "limit": MOST_REQUESTS}}


def died(asked: Question) -> Capacity:
    """Return the capacity of a configuration whose process ended without one."""
    return Capacity(0.0, failure="its process died, most often for want of memory; use fewer workers")


__all__ = ["Capacity", "Probe", "Question", "bracket", "busiest", "capacity_of", "died", "question"]

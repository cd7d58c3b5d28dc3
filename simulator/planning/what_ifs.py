"""What else might be asked of a plan: more traffic, bursts, longer answers, a server lost, other prices, a schedule.

Each answer says how it was found: by simulation of the whole trace (not on seeds, and without the enumeration that a
plan is proved by), or from capacities alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from simulator.planning.configurations import Configuration
from simulator.planning.fleets import PRICE_GRAIN, Fleet, counts_of, fleet_of
from simulator.planning.programme import Counts, cheapest
from simulator.planning.proving import Prover
from simulator.scenario import Scenario
from simulator.terminal import span

if TYPE_CHECKING:
    from simulator.planning.choices import Choice
    from workloads import Trace

SIMULATED = "simulated on the trace"
FROM_CAPACITIES = "from capacities, not simulated"
TRAFFIC = (1.5, 2.0, 3.0)
LONGER = 1.5
"""Factor on output lengths."""
BURST_POWER = 2.0
"""Gaps between arrivals are raised to this power: gaps of Poisson arrivals then vary by 2.2 times their mean, not 1."""
BURST_WINDOW_S = 60.0
"""Each window of this length keeps its number of requests, seconds: a choice."""
PRICES = (-0.5, -0.2, 0.2, 0.5)
"""Changes of a price, as shares of it."""
_ROUNDS = 8
_HOUR_S = 3600.0


@dataclass(frozen=True)
class WhatIf:
    """One question and its answer.

    Attributes
    ----------
    name
        In a few words.
    change
        What is changed, exactly.
    plan_holds
        Whether the plan as it is still meets the objectives; None: not asked.
    fleet
        The cheapest fleet found; None: none was, or the answer is no fleet.
    how
        `SIMULATED` or `FROM_CAPACITIES`.
    text
        The answer in a sentence.
    price
        An hour, of what the answer is; None: there is none.
    """

    name: str
    change: str
    plan_holds: bool | None
    fleet: Fleet | None
    how: str
    text: str
    price: float | None = None


@dataclass(frozen=True)
class Situation:
    """What what-ifs start from.

    Attributes
    ----------
    prover
        Of the plan.
    plan
        The fleet.
    able
        Configurations of fleets.
    shares
        Shares of the requests of each class that one replica serves, by configuration.
    trace
        The requests.
    """

    prover: Prover
    plan: Fleet
    able: tuple[Configuration, ...]
    shares: Mapping[Configuration, Mapping[str, float]]
    choices: tuple[Choice, ...]
    trace: Trace


def what_ifs(given: Situation) -> list[WhatIf]:
    """Answer every question, in a fixed order."""
    found = [_traffic(given, factor) for factor in TRAFFIC]
    bursty = bursts(given.trace)
    change = (
        f"gaps between arrivals raised to the power {BURST_POWER:g}, scaled so that each {BURST_WINDOW_S:g} s keep "
        f"their number of requests (gaps vary by {variation(given.trace):.2g} times their mean; then by "
        f"{variation(bursty):.2g})"
    )
    found.append(_other_requests(given, "burstier", change, bursty))
    longer = replace(given.trace, output_tokens=np.ceil(given.trace.output_tokens * LONGER).astype(np.int64))
    found.append(_other_requests(given, f"outputs x{LONGER:g}", f"every output {LONGER:g} times as long", longer))
    found.append(_one_lost(given))
    found += _prices(given)
    found.append(_schedule(given))
    return found


# ------------------------------------------------------------------------------------------------- other requests


def _traffic(given: Situation, factor: float) -> WhatIf:
    base = given.prover.base
    scaled = base.updated({"workload.rate_scale": base.workload.rate_scale * factor})
    prover = _prover(given, scaled, given.prover.trace)
    change = f"the same requests arrive {factor:g} times as fast"
    return _answered(given, f"traffic x{factor:g}", change, prover, factor)


def _other_requests(given: Situation, name: str, change: str, trace: Trace) -> WhatIf:
    data = given.prover.base.to_mapping()
    data["workload"] = {key: value for key, value in data.get("workload", {}).items() if key == "loop"}
    prover = _prover(given, Scenario.from_mapping(data), trace)
    return _answered(given, name, change, prover, 1.0)


def _prover(given: Situation, base: Scenario, trace: Trace | None) -> Prover:
    return replace(given.prover, base=base, trace=trace, seeds=(), runs={})


def _answered(given: Situation, name: str, change: str, prover: Prover, needed: float) -> WhatIf:
    """Find the cheapest fleet that simulation confirms, and say whether the plan is one."""
    holds = prover.holds(given.plan)
    fleet = _trimmed(prover, given.plan) if holds else _enough(given, prover, needed)
    if fleet is None:
        return WhatIf(name, change, holds, None, SIMULATED, "no fleet was found that meets the objectives")
    if fleet == given.plan:
        text = "the plan still does"
    else:
        text = f"{fleet.text} for ${fleet.price:,.2f} an hour ({fleet.price / given.plan.price - 1:+.0%})"
    return WhatIf(name, change, holds, fleet, SIMULATED, text, fleet.price)


def _enough(given: Situation, prover: Prover, needed: float) -> Fleet | None:
    """Return the cheaper of two fleets that do: the programme's, and more of the plan's own replicas."""
    found = [_of_programme(given, prover, needed), _more_of_plan(given, prover, needed)]
    trimmed = [_trimmed(prover, each) for each in found if each is not None]
    return min(trimmed, key=lambda each: each.price, default=None)


def _of_programme(given: Situation, prover: Prover, needed: float) -> Fleet | None:
    too_small: list[Counts] = [counts_of(given.able, given.plan)]
    for _ in range(_ROUNDS):
        counts = _solve(given, needed, too_small)
        if counts is None:
            return None
        fleet = fleet_of(given.able, counts)
        if prover.holds(fleet):
            return fleet
        too_small.append(counts)
        needed *= 1.03
    return None


def _solve(
    given: Situation, needed: float, beyond: Sequence[Counts], prices: Mapping[str, float] | None = None
) -> Counts | None:
    classes = next(iter(given.shares.values()))
    listed = {each.gpu: each.price for each in given.choices} if prices is None else prices
    return cheapest(
        [each.gpus * listed[each.choice.gpu] for each in given.able],
        [given.shares[each] for each in given.able],
        dict.fromkeys(classes, needed),
        gpus=[each.gpus for each in given.able],
        types=[each.choice.gpu for each in given.able],
        at_most={each.gpu: each.at_most for each in given.choices if each.at_most is not None},
        beyond=beyond,
    )


def _more_of_plan(given: Situation, prover: Prover, needed: float) -> Fleet | None:
    """Return the plan grown replica by replica, of the configuration with the cheapest capacity, until it does."""
    if given.plan.is_disaggregated:
        return _all_of_plan(given, prover, needed)
    best = min((each for each, _ in given.plan.parts), key=lambda each: each.price / max(prover.weights[each], 1e-12))
    least = math.ceil((needed - 1) * given.plan.replicas * 0.75)
    fleet = given.plan.changed(best, max(1, least))
    for _ in range(_ROUNDS):
        used = sum(number * each.gpus for each, number in fleet.parts if each.choice == best.choice)
        if best.choice.at_most is not None and used > best.choice.at_most:
            return None
        if prover.holds(fleet):
            return fleet
        fleet = fleet.changed(best, 1)
    return None


def _all_of_plan(given: Situation, prover: Prover, needed: float) -> Fleet | None:
    """Return the plan with more of each of its parts, in proportion, until it does; limits on GPUs are kept."""
    for more in range(_ROUNDS):
        fleet = Fleet(tuple((each, math.ceil(number * needed) + more) for each, number in given.plan.parts))
        if not _within(given, fleet):
            return None
        if prover.holds(fleet):
            return fleet
    return None


def _within(given: Situation, fleet: Fleet) -> bool:
    return all(
        choice.at_most is None
        or sum(number * each.gpus for each, number in fleet.parts if each.choice.gpu == choice.gpu) <= choice.at_most
        for choice in given.choices
    )


def _trimmed(prover: Prover, fleet: Fleet) -> Fleet:
    """Take replicas off, the dearest first, as long as what is left does."""
    while fleet.replicas > 1:
        smaller = sorted(_smaller(fleet), key=lambda each: each.price)
        found = prover.first_that_holds(smaller)
        if found is None:
            return fleet
        fleet = found
    return fleet


def _smaller(fleet: Fleet) -> list[Fleet]:
    """Return the fleet without one replica of each of its parts; of two roles, none is left without a replica."""
    keeps = fleet.is_disaggregated
    return [fleet.changed(each, -1) for each, n in fleet.parts if fleet.replicas > 1 and (n > 1 or not keeps)]


def bursts(trace: Trace) -> Trace:
    """Return the requests with burstier arrivals: see `BURST_POWER`; the first of each window keeps its time."""
    arrivals = trace.arrival_s.copy()
    window = np.floor(arrivals / BURST_WINDOW_S).astype(np.int64)
    for place in np.unique(window):
        inside = np.flatnonzero(window == place)
        first, last = inside[0], inside[-1]
        end_s = arrivals[last + 1] if last + 1 < len(arrivals) else arrivals[last]
        gaps = np.diff(np.append(arrivals[inside], end_s)) ** BURST_POWER
        if gaps.sum() > 0:
            moved = arrivals[first] + np.concatenate(([0.0], np.cumsum(gaps)[:-1])) * (
                (end_s - arrivals[first]) / gaps.sum()
            )
            arrivals[inside] = np.minimum(moved, end_s)
    return replace(trace, arrival_s=np.maximum.accumulate(arrivals))


def variation(trace: Trace) -> float:
    """Return the coefficient of variation of the gaps between arrivals."""
    gaps = np.diff(trace.arrival_s)
    return float(gaps.std() / gaps.mean()) if len(gaps) and gaps.mean() > 0 else 0.0


# -------------------------------------------------------------------------------------------------- a server lost


def _one_lost(given: Situation) -> WhatIf:
    """Return what it costs that one replica, with its server, may be away for the whole trace."""
    prover = _prover(given, given.prover.base, given.prover.trace)
    prover.runs = given.prover.runs
    change = "one replica (a server, or its part of one) is away for the whole trace, whichever it is"
    lost = _smaller(given.plan)
    prover.simulate([(each, None) for each in lost])
    survives = len(lost) == len(given.plan.parts) and all(prover.runs[each, None].met for each in lost)
    if given.plan.is_disaggregated:
        spares = [Fleet(tuple((each, number + 1) for each, number in given.plan.parts))]
    else:
        spares = sorted((given.plan.changed(each, 1) for each in given.able), key=lambda each: each.price)
    for fleet in spares:
        remaining = [fleet.changed(each, -1) for each, _ in fleet.parts]
        if not _within(given, fleet):
            continue
        prover.simulate([(each, None) for each in remaining])
        if all(prover.runs[each, None].met for each in remaining):
            spare = "a spare of either role" if fleet.is_disaggregated else "one spare"
            text = (
                f"with {spare}, {fleet.text} for ${fleet.price:,.2f} an hour "
                f"({fleet.price / given.plan.price - 1:+.0%}), any one may be away"
            )
            return WhatIf("one node lost (N+1)", change, survives, fleet, SIMULATED, text, fleet.price)
    return WhatIf(
        "one node lost (N+1)", change, survives, None, SIMULATED, "one spare replica within the limits is not enough"
    )


# --------------------------------------------------------------------------------------------------------- prices


def _prices(given: Situation) -> list[WhatIf]:
    """Return, for each GPU, which changes of its price would change the choice."""
    found = []
    failed = [counts_of(given.able, fleet) for fleet, run in _simulated(given) if not run]
    for choice in given.choices:
        if not any(each.choice == choice for each in given.able):
            continue
        flips = []
        for part in PRICES:
            prices = {each.gpu: each.price * (1 + part if each == choice else 1) for each in given.choices}
            own = _price_at(given.plan, prices)
            counts = _solve(given, 1.0, failed, prices)
            if counts is None:
                continue
            fleet = fleet_of(given.able, counts)
            price = _price_at(fleet, prices)
            if price < own - PRICE_GRAIN and fleet != given.plan:
                flips.append(f"at {part:+.0%} {fleet.text} (${price:,.2f} an hour; the plan ${own:,.2f})")
        text = "; ".join(flips) if flips else "none of these changes the choice"
        change = f"{choice.gpu} at {', '.join(f'{part:+.0%}' for part in PRICES)} of ${choice.price:g}"
        found.append(WhatIf(f"price of {choice.gpu}", change, None, None, FROM_CAPACITIES, text))
    return found


def _simulated(given: Situation) -> list[tuple[Fleet, bool]]:
    """Return the fleets that were simulated on the trace, and whether they did."""
    return [(fleet, run.met) for (fleet, seed), run in given.prover.runs.items() if seed is None]


def _price_at(fleet: Fleet, prices: Mapping[str, float]) -> float:
    return sum(number * each.gpus * prices[each.choice.gpu] for each, number in fleet.parts)


# ------------------------------------------------------------------------------------------------------- schedule


def _schedule(given: Situation) -> WhatIf:
    """Return what a schedule saves over the fixed fleet: in each window the fewest of the plan's own replicas."""
    arrivals = given.trace.arrival_s
    span_s = float(arrivals[-1]) if len(arrivals) else 0.0
    length = _HOUR_S if span_s > 2 * _HOUR_S else max(span_s / 6, 1e-3)
    windows = max(1, math.ceil(span_s / length - 1e-9))
    number = np.histogram(arrivals, np.linspace(0.0, windows * length, windows + 1))[0]
    busiest = max(1, int(number.max()))
    by_part = [
        (each, [math.ceil(replicas * count / busiest - 1e-9) for count in number])
        for each, replicas in given.plan.parts
    ]
    sizes = [sum(sizes[place] for _, sizes in by_part) for place in range(windows)]
    mean = sum(sizes) / windows
    price = sum(each.price * sum(sizes) / windows for each, sizes in by_part)
    window = "hour" if length == _HOUR_S else span(length)
    listed = ", ".join(map(str, sizes[:24])) + (" ..." if len(sizes) > 24 else "")
    text = (
        f"{listed} replicas, {mean:,.2f} on average against {given.plan.replicas}: ${price:,.2f} an hour "
        f"({price / given.plan.price - 1:+.0%})"
    )
    change = (
        f"replicas every {window} in proportion to the requests that arrive then, the plan's number in the busiest; "
        "starting and ending take no time"
    )
    return WhatIf("schedule", change, None, None, FROM_CAPACITIES, text, price)


__all__ = ["FROM_CAPACITIES", "SIMULATED", "Situation", "WhatIf", "bursts", "variation", "what_ifs"]

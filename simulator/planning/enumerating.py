"""Cheaper fleets, simulated: what makes the answer the cheapest of the enumeration by construction.

All of them up to `MOST_FLEETS`; beyond, those with the most capacity, and how many there were besides is told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from simulator.planning.configurations import Configuration
from simulator.planning.disaggregated import Candidates
from simulator.planning.fleets import PRICE_GRAIN, Fleet, count_cheaper, most_able
from simulator.planning.proving import Prover, Run

MOST_FLEETS = 300
"""Cheaper fleets that are simulated at most, those with the most capacity: a choice; the others are counted."""
AT_ONCE = 8
"""Fleets that are begun together: when one of them does, dearer ones are simulated no more. A choice."""


@dataclass(frozen=True)
class Tried:
    """A cheaper fleet, and why it isn't the plan.

    Attributes
    ----------
    nominal
        What its capacities add up to, as a share of the requests.
    runs
        It on the trace and, where it did there, on seeds; empty where it was not simulated.
    """

    fleet: Fleet
    nominal: float
    runs: tuple[Run, ...]

    @property
    def failed_on(self) -> Run | None:
        """The run that it failed on; None: it was not simulated."""
        return next((run for run in self.runs if not run.met), None)


@dataclass(frozen=True)
class Enumeration:
    """What became of every fleet that is cheaper than the plan.

    Attributes
    ----------
    fleet
        The plan: the cheapest that does.
    tried
        Cheaper fleets, all simulated, all failed; dearest first.
    untried
        How many cheaper fleets were not simulated, for want of capacity; limits on GPUs are left aside in the count.
    untried_below
        Their capacities add up to no more than this share of the requests.
    disaggregated
        Cheaper fleets of a pool that prefills and one that decodes, likewise; ``nominal`` is what their full steps do.
    disaggregated_untried
        How many more of those there are.
    """

    fleet: Fleet
    tried: tuple[Tried, ...]
    untried: int = 0
    untried_below: float = 0.0
    disaggregated: tuple[Tried, ...] = ()
    disaggregated_untried: int = 0


def enumerate_cheaper(
    prover: Prover, able: Sequence[Configuration], first: Fleet, expect: Callable[[int], None] = lambda more: None
) -> Enumeration:
    """Simulate the fleets cheaper than one that does, `MOST_FLEETS` at most; the cheapest that does is the plan.

    Parameters
    ----------
    able
        Configurations that fleets are made of.
    first
        A fleet that does.
    expect
        Told how many simulations are to come.
    """
    fleets, others_at_most = most_able(able, first.price, prover.weights, MOST_FLEETS)
    smaller = [first.changed(part, -1) for part, _ in first.parts]
    fleets += [each for each in smaller if each.parts and each not in fleets]
    best = first
    left = list(fleets)
    expect(len(left))
    while left:
        now, left = left[:AT_ONCE], left[AT_ONCE:]
        found = prover.first_that_holds(now)
        if found is not None and found.price < best.price - PRICE_GRAIN:
            best = found
            left = [each for each in left if each.price < best.price - PRICE_GRAIN]
    below = [each for each in fleets if each.price < best.price - PRICE_GRAIN]
    tried = [Tried(each, _nominal(prover, each), tuple(prover.of(each))) for each in below]
    untried = max(0, round(count_cheaper(able, best.price)) - len(below)) if others_at_most else 0
    return Enumeration(
        best,
        tuple(sorted(tried, key=lambda each: (-each.fleet.price, each.fleet.text))),
        untried,
        others_at_most if untried else 0.0,
    )


def try_disaggregated(prover: Prover, found: Enumeration, asked: Candidates, needed: float) -> Enumeration:
    """Simulate fleets of two roles that are cheaper than the plan; the cheapest that does is the plan.

    Parameters
    ----------
    needed
        Requests/s that rates are shares of.
    """
    best, done = found.fleet, []
    left = list(asked.fleets)
    while left:  # the cheapest first: what does is the cheapest of them
        now, left = left[:AT_ONCE], left[AT_ONCE:]
        done += now
        holds = prover.first_that_holds(now)
        if holds is not None:
            best = holds
            break
    below = [each for each in done if each.price < best.price - PRICE_GRAIN]
    tried = [
        Tried(each, min(n * asked.rates[part] for part, n in each.parts) / needed, tuple(prover.of(each)))
        for each in below
    ]
    if best == found.fleet:
        return replace(found, disaggregated=tuple(tried[::-1]), disaggregated_untried=asked.left)
    return replace(without_dearer(found, best), disaggregated=tuple(tried[::-1]))


def without_dearer(found: Enumeration, fleet: Fleet) -> Enumeration:
    """Return an enumeration whose plan is a cheaper fleet, with what is cheaper still."""

    def below(tried: tuple[Tried, ...]) -> tuple[Tried, ...]:
        return tuple(each for each in tried if each.fleet.price < fleet.price - PRICE_GRAIN)

    return replace(found, fleet=fleet, tried=below(found.tried), disaggregated=below(found.disaggregated))


def _nominal(prover: Prover, fleet: Fleet) -> float:
    return sum(number * prover.weights[configuration] for configuration, number in fleet.parts)


__all__ = ["Enumeration", "Tried", "enumerate_cheaper", "try_disaggregated", "without_dearer"]

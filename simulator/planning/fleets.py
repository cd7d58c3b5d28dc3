"""Fleets: so many replicas of each configuration, as one cluster; and all that are cheaper than a price."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from simulator.planning.configurations import Configuration
from simulator.planning.programme import Counts
from simulator.scenario import Scenario

PRICE_GRAIN = 1e-9
"""Prices that differ by less are equal: what is left of rounding."""
_FLOORS = (0.95, 0.9, 0.8, 0.6, 0.4, 0.2, 0.0)
"""Shares of the most that money can buy at which fleets are asked for, in turn, until there are enough: a choice."""
_PRICE_STEPS = 10_000
"""Steps of a unit of money by which fleets are counted: a choice."""


@dataclass(frozen=True)
class Fleet:
    """Replicas by configuration; configurations that it has none of are left out.

    Attributes
    ----------
    parts
        Configuration and number of replicas, in the order of the plan's configurations.
    """

    parts: tuple[tuple[Configuration, int], ...]

    @property
    def price(self) -> float:
        """For an hour."""
        return sum(number * configuration.price for configuration, number in self.parts)

    @property
    def gpus(self) -> int:
        """GPUs of all replicas."""
        return sum(number * configuration.gpus for configuration, number in self.parts)

    @property
    def replicas(self) -> int:
        """Replicas of all configurations."""
        return sum(number for _, number in self.parts)

    @property
    def text(self) -> str:
        """As people write it: ``2 x h200 x2 (tp 2) + 1 x l40s x8 (tp 4, pp 2)``."""
        return " + ".join(f"{number} x {configuration.text}" for configuration, number in self.parts) or "nothing"

    @property
    def is_disaggregated(self) -> bool:
        """Whether prompts are computed on replicas of their own."""
        return any(key == "role" for each, _ in self.parts for key, _ in each.changes)

    def changed(self, configuration: Configuration, by: int) -> Fleet:
        """Return the fleet with more, or fewer, replicas of a configuration."""
        numbers = dict(self.parts)
        numbers[configuration] = numbers.get(configuration, 0) + by
        return Fleet(tuple((each, number) for each, number in numbers.items() if number > 0))

    def scenario(self, base: Scenario, weights: Mapping[Configuration, float]) -> dict[str, Any]:
        """Return the cluster of this fleet as a scenario, in plain data.

        Where replicas differ, the router weighs them by ``weights``; where they are alike, it is the scenario's own.
        """
        data = base.to_mapping()
        data.setdefault("cluster", {})["pools"] = [each.pool(base, number) for each, number in self.parts]
        if self.is_disaggregated:  # each role has replicas that are alike
            data["disaggregation"] = {"kind": "connector", "decode_router": {"name": "least-outstanding"}}
            if "router" not in base.model_fields_set:
                data["router"] = {"name": "least-outstanding"}
            return data
        if len(self.parts) > 1 and "router" not in base.model_fields_set:
            listed = [f"{weights[each]:.4g}" for each, number in self.parts for _ in range(number)]
            data["router"] = {"name": "weighted-least-outstanding", "params": {"weights": ",".join(listed)}}
        elif "router" not in base.model_fields_set:
            data["router"] = {"name": "least-outstanding"}
        return data


def fleet_of(configurations: Sequence[Configuration], counts: Counts) -> Fleet:
    """Return the fleet of numbers by configuration."""
    return Fleet(tuple((each, number) for each, number in zip(configurations, counts, strict=True) if number))


def counts_of(configurations: Sequence[Configuration], fleet: Fleet) -> Counts:
    """Return the numbers of a fleet by configuration."""
    numbers = dict(fleet.parts)
    return tuple(numbers.get(each, 0) for each in configurations)


def cheaper(
    configurations: Sequence[Configuration],
    below: float,
    weights: Mapping[Configuration, float],
    at_least: float = 0.0,
) -> Iterator[Fleet]:
    """Yield every fleet of these configurations, within their limits, whose price is below a price.

    There are millions of them below the price of some dozens of replicas (`count_cheaper`): callers take as many as
    they can use, or ask for `most_able`.

    Parameters
    ----------
    weights
        What one replica counts for, 0 or more.
    at_least
        What the replicas of a fleet must count for together; branches that can't come to it are left out.
    """
    # What is left of the money buys most of the first of the configurations that are still to be chosen.
    order = sorted(configurations, key=lambda each: (-weights[each] / each.price, each.text))
    gains = [*(weights[each] / each.price for each in order), 0.0]

    def grown(counts: Counts, left: float, worth: float, used: Mapping[str, int]) -> Iterator[Fleet]:
        place = len(counts)
        if worth + left * gains[place] < at_least:
            return
        if place == len(order):
            numbers = dict(zip(order, counts, strict=True))
            if any(counts):
                yield fleet_of(configurations, tuple(numbers[each] for each in configurations))
            return
        each = order[place]
        gpu, limit = each.choice.gpu, each.choice.at_most
        most = math.ceil(left / each.price) - 1  # strictly below
        if limit is not None:
            most = min(most, (limit - used.get(gpu, 0)) // each.gpus)
        for number in range(max(most, 0), -1, -1):
            taken = {**used, gpu: used.get(gpu, 0) + number * each.gpus}
            yield from grown((*counts, number), left - number * each.price, worth + number * weights[each], taken)

    yield from grown((), below - PRICE_GRAIN, 0.0, {})


def most_able(
    configurations: Sequence[Configuration], below: float, weights: Mapping[Configuration, float], most: int
) -> tuple[list[Fleet], float]:
    """Return cheaper fleets, those that count for most first, and what those left out count for at most.

    Parameters
    ----------
    most
        How many at most.

    Returns
    -------
    tuple
        Fleets, and a number: no fleet that was left out counts for more. 0: none was left out.
    """

    def rank(fleet: Fleet) -> tuple[float, float, str]:
        return -sum(number * weights[each] for each, number in fleet.parts), fleet.price, fleet.text

    most_of_all = below * max(weights[each] / each.price for each in configurations)
    sure: list[Fleet] = []
    floor = most_of_all
    for share in _FLOORS:
        found = list(islice(cheaper(configurations, below, weights, share * most_of_all), most + 1))
        if len(found) > most:
            others = sorted(set(found) - set(sure), key=rank)
            return [*sorted(sure, key=rank), *others][:most], floor
        sure, floor = found, share * most_of_all
    return sorted(sure, key=rank), 0.0


def count_cheaper(configurations: Sequence[Configuration], below: float) -> float:
    """Return how many fleets of these configurations are below a price; their limits are left aside.

    Prices are rounded to a hundredth of a cent.
    """
    ways = np.zeros(max(1, math.ceil((below - PRICE_GRAIN) * _PRICE_STEPS)))
    ways[0] = 1.0
    for each in configurations:
        step = max(1, round(each.price * _PRICE_STEPS))
        for start in range(step, len(ways), step):  # one replica more
            stop = min(start + step, len(ways))
            ways[start:stop] += ways[start - step : stop - step]
    return float(ways.sum()) - 1.0  # nothing is no fleet


__all__ = ["Fleet", "cheaper", "count_cheaper", "counts_of", "fleet_of", "most_able"]

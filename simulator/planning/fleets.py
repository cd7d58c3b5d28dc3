"""Fleets: so many replicas of each configuration, as one cluster; and all that are cheaper than a price."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simulator.planning.configurations import Configuration
from simulator.planning.programme import Counts
from simulator.scenario import Scenario

PRICE_GRAIN = 1e-9
"""Prices that differ by less are equal: what is left of rounding."""


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


def cheaper(configurations: Sequence[Configuration], below: float) -> Iterator[Fleet]:
    """Yield every fleet of these configurations, within their limits, whose price is below a price."""
    limits = {each.choice.gpu: each.choice.at_most for each in configurations}

    def grown(place: int, counts: list[int], left: float, used: dict[str, int]) -> Iterator[Fleet]:
        if place == len(configurations):
            if any(counts):
                yield fleet_of(configurations, tuple(counts))
            return
        each = configurations[place]
        limit = limits[each.choice.gpu]
        number = 0
        while number * each.price < left - PRICE_GRAIN:
            taken = used.get(each.choice.gpu, 0) + number * each.gpus
            if limit is not None and taken > limit:
                return
            yield from grown(place + 1, [*counts, number], left - number * each.price, {**used, each.choice.gpu: taken})
            number += 1

    yield from grown(0, [], below, {})


__all__ = ["Fleet", "cheaper", "counts_of", "fleet_of"]

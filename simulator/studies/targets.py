"""What studies rank by: a figure, which way is better, and what must be so for the figure to mean anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from simulator.errors import InputError, did_you_mean
from simulator.studies.points import LATENCIES, STATISTICS
from simulator.studies.verdict import MIN_ATTAINMENT


@dataclass(frozen=True)
class Target:
    """What the best plan is best at.

    Attributes
    ----------
    figure
        Name among a row's figures.
    higher
        Whether more is better.
    unit
        Of the figure.
    must_sustain
        Whether plans that don't sustain the load come after all that do: they are cheap because they are too small.
    must_serve
        Whether plans that leave requests unserved come after all that serve them: their figures are of the others.
    """

    name: str
    figure: str
    higher: bool
    unit: str
    must_sustain: bool = False
    must_serve: bool = False


TARGETS: Mapping[str, Target] = {
    "goodput": Target("goodput", "goodput_requests_per_s", True, "requests/s within the objectives"),
    "goodput_per_gpu": Target(
        "goodput_per_gpu", "goodput_per_gpu", True, "requests/s within the objectives per GPU", True
    ),
    "goodput_per_price": Target(
        "goodput_per_price", "goodput_per_price", True, "requests within the objectives per unit of price", True
    ),
    "throughput": Target("throughput", "output_tokens_per_s", True, "output tokens/s"),
    "cost": Target("cost", "cost_per_million_output_tokens", False, "per million output tokens", True, True),
    "energy": Target("energy", "energy_j_per_output_token", False, "J per output token", True, True),
    **{
        f"{metric}_{statistic}": Target(f"{metric}_{statistic}", f"{metric}_s_{statistic}", False, "s", must_serve=True)
        for metric in LATENCIES
        for statistic in STATISTICS
    },
}
"""What ``by`` may name."""


def target(name: str) -> Target:
    """Return a target by its name; ``ttft_s_p99`` and ``ttft-p99`` are ``ttft_p99``."""
    wanted = name.strip().lower().replace("-", "_").replace("_s_", "_")
    if wanted not in TARGETS:
        short = [
            *(each for each in TARGETS if "_" not in each or "_per_" in each),
            "ttft_p99",
            "tpot_mean",
            "itl_p99",
            "e2e_mean",
        ]
        raise InputError(f"unknown target {name!r}{did_you_mean(wanted, short)}")
    return TARGETS[wanted]


def sustains(figures: Mapping[str, Any]) -> bool:
    """Tell whether a load is sustained: within the objectives where there are some, else without overload."""
    attainment = figures.get("attainment")
    if attainment is not None:
        return bool(attainment >= MIN_ATTAINMENT)
    return not figures.get("overloaded")


def order(figures: Mapping[str, Any], by: Target) -> tuple[bool, bool, bool, float]:
    """Return a key that sorts figures, best first.

    Those that lack the figure come last, before them those that leave requests unserved or don't sustain the load,
    where the figure flatters them.
    """
    value = figures.get(by.figure)
    return (
        value is None,
        by.must_serve and bool(figures.get("unserved")),
        by.must_sustain and not sustains(figures),
        0.0 if value is None else float(-value if by.higher else value),
    )


__all__ = ["TARGETS", "Target", "order", "sustains", "target"]

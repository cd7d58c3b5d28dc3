"""How tokens spread over routed experts, and so how much more the busiest rank has to do than the mean.

Kernel tables were measured under a distribution of their own (`DEFAULT_LOAD`), on the busiest rank of experts laid out
one after the other. For any other distribution, or another placement, the rows of the busiest rank are worked out here,
and the kernel is that measured for balanced tokens with as many rows: ``T x hottest`` tokens in place of T. What that
leaves out: the spread of a finite number of tokens around the expected loads, and that a hot expert's rows are one
large product where balanced ones are several small ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simulator.errors import InputError

Floats = npt.NDArray[np.float64]

POWER_LAW_LARGEST = 0.8 * 16384
"""Largest over smallest load that a draw from the power law may have: the tables' collectors draw the load of each
expert from a density x^-alpha between 1 and 0.8 times the tokens (``power_law_logits_v3`` of AIConfigurator's
collectors); 16,384 tokens are the most that they measure."""


@dataclass(frozen=True, slots=True)
class ExpertLoad:
    """What the kernels of routed experts are asked for.

    Attributes
    ----------
    distribution
        Measured distribution of tokens over experts, as tables name it.
    hottest
        Rows of the busiest expert parallel rank over the mean of all; 1 where the measured distribution has it.
    source
        A line for the result; empty: the kernels' own will do.
    """

    distribution: str = "power_law_1.2"
    hottest: float = 1.0
    source: str = ""


DEFAULT_LOAD = ExpertLoad()
"""A power law of exponent 1.2, the more skewed of the two that AIConfigurator measures (an assumption; its own default
for most models)."""


def popularity(
    kind: str, num_experts: int, exponent: float | None, loads: Sequence[float] | None, rng: np.random.Generator
) -> Floats:
    """Return the share of the tokens' visits that each expert has, shape (num_experts,), sum 1.

    Parameters
    ----------
    kind
        ``uniform``; ``zipf``: the i-th most popular has i^-exponent, in random places; ``power-law``: loads drawn from
        a density x^-exponent, see `POWER_LAW_LARGEST`; ``given``: ``loads``.
    exponent
        Of the two in the middle.
    loads
        One number an expert, any unit.
    rng
        Draws of places and loads.

    Raises
    ------
    InputError
        If the loads are not one for each expert, or all 0.
    """
    if kind == "uniform":
        weights = np.ones(num_experts)
    elif kind == "zipf":
        assert exponent is not None
        ranked = np.array([math.pow(place, -exponent) for place in range(1, num_experts + 1)])
        weights = ranked[rng.permutation(num_experts)]
    elif kind == "power-law":
        assert exponent is not None
        weights = _power_law(rng.random(num_experts), exponent)
    else:
        weights = np.array([] if loads is None else loads, dtype=np.float64)
        if len(weights) != num_experts:
            raise InputError(f"experts.routing.loads has {len(weights)} numbers, and the model {num_experts} experts")
        if not weights.sum() > 0:
            raise InputError("experts.routing.loads must have a number above 0")
    return np.asarray(weights / math.fsum(weights))


def _power_law(uniform: Floats, exponent: float) -> Floats:
    """Draws from a density x^-exponent between 1 and `POWER_LAW_LARGEST`, by the inverse of its distribution."""
    if exponent == 1:
        return np.array([math.pow(POWER_LAW_LARGEST, u) for u in uniform.tolist()])
    power = 1.0 - exponent
    end = math.pow(POWER_LAW_LARGEST, power)
    return np.array([math.pow((end - 1.0) * u + 1.0, 1.0 / power) for u in uniform.tolist()])


def rank_loads(shares: Floats, placement: Sequence[Sequence[int]]) -> Floats:
    """Return each rank's share of the visits, shape (ranks,), sum 1; the copies of an expert have equal parts of its.

    Parameters
    ----------
    placement
        Experts of each rank; one that is there several times has copies.

    Raises
    ------
    InputError
        If an expert is nowhere, or ranks hold unequal numbers.
    """
    copies = np.zeros(len(shares))
    for held in placement:
        for expert in held:
            copies[expert] += 1
    if not copies.all():
        raise InputError(f"expert placement: expert {int(np.flatnonzero(copies == 0)[0])} is on no rank")
    if len({len(held) for held in placement}) != 1:
        raise InputError(f"expert placement: ranks hold {sorted({len(held) for held in placement})} experts; not equal")
    return np.array([math.fsum(shares[expert] / copies[expert] for expert in held) for held in placement])


def hottest(shares: Floats, placement: Sequence[Sequence[int]]) -> float:
    """Return the visits of the busiest rank over the mean of all, at least 1."""
    loads = rank_loads(shares, placement)
    return max(1.0, float(loads.max()) * len(loads))

"""Two scenarios on the same replications: differences pair by pair, with intervals, and what they allow to say.

Both sides of a pair have the same requests and the same random streams (common random numbers), so what varies between
replications is largely the same on both and drops out of their difference: A. M. Law, *Simulation Modeling and
Analysis*, 5th ed., sections 10.2.1 (paired-t interval) and 11.2. Figures that are above zero are compared by their
ratio: the mean and Student's interval of its logarithm, which make a geometric mean and an interval that treat a
halving and a doubling alike. Several sides against one baseline are corrected for by S. Holm, *A Simple Sequentially
Rejective Multiple Test Procedure*, Scandinavian Journal of Statistics 6 (1979) 65-70.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from simulator.studies.intervals import CONFIDENCE, Interval, interval

SAME_RATIO = 0.01
"""Figures whose whole interval lies this close to each other are called the same, as a share: a choice."""
SAME_SHARE = 0.001
"""The same for figures that are shares themselves, as a difference: 0.1 points; a choice."""

Verdict = Literal["better", "worse", "same", "unclear", ""]
"""``same``: the interval lies within the margin. ``unclear``: it doesn't, and no difference is shown either. Empty:
there is no interval."""


@dataclass(frozen=True)
class Paired:
    """One figure of two sides, pair by pair.

    Attributes
    ----------
    baseline, other
        Of the pairs alone.
    difference
        Other minus baseline.
    ratio
        Other over baseline; None where one of them isn't above zero in every pair, or the figure is a share.
    p_value
        Of no difference, two-sided; of the ratio where there is one. None with fewer than two pairs.
    """

    baseline: Interval
    other: Interval
    difference: Interval
    ratio: Interval | None
    p_value: float | None

    @property
    def n(self) -> int:
        """Number of pairs."""
        return self.difference.n


def paired(
    baseline: Sequence[float | None],
    other: Sequence[float | None],
    *,
    is_share: bool = False,
    confidence: float = CONFIDENCE,
) -> Paired:
    """Compare two sides pair by pair.

    Parameters
    ----------
    baseline, other
        The figure in each replication, the same replication at the same place; a pair that lacks one is left out.
    is_share
        Whether it is a share of something, whose difference says more than its ratio.
    """
    pairs = [(a, b) for a, b in zip(baseline, other, strict=True) if a is not None and b is not None]
    first, second = [float(a) for a, _ in pairs], [float(b) for _, b in pairs]
    differences = [b - a for a, b in zip(first, second, strict=True)]
    ratio = None
    tested = differences
    if pairs and not is_share and min(*first, *second) > 0:
        tested = [math.log(b / a) for a, b in zip(first, second, strict=True)]
        ratio = _exponential(interval(tested, confidence))
    return Paired(
        interval(first, confidence),
        interval(second, confidence),
        interval(differences, confidence),
        ratio,
        _p_value(tested),
    )


def _exponential(found: Interval) -> Interval:
    """Return the interval of a logarithm as one of what it is the logarithm of."""
    low = None if found.low is None else math.exp(found.low)
    high = None if found.high is None else math.exp(found.high)
    return Interval(None if found.mean is None else math.exp(found.mean), low, high, found.n)


def _p_value(values: Sequence[float]) -> float | None:
    """Return how likely a mean as far from zero is without a difference: Student's test, two-sided."""
    from scipy.special import stdtr  # as in `intervals`: scipy.stats takes long to import

    n = len(values)
    if n < 2:
        return None
    if all(value == values[0] for value in values):
        return 1.0 if values[0] == 0 else 0.0
    mean = math.fsum(values) / n
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n)
    return float(2 * stdtr(n - 1, -abs(mean) / spread))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p-values corrected for there being several, each at its place; nulls count for nothing.

    A hypothesis is rejected at a level when its corrected value is at most that: the chance that any that holds is
    rejected is then no more than the level, however they depend on each other.
    """
    order = sorted((value, place) for place, value in enumerate(p_values) if value is not None)
    found: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (value, place) in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * value))
        found[place] = highest
    return found


def verdict(
    pair: Paired,
    corrected: float | None,
    *,
    higher_is_better: bool,
    is_share: bool = False,
    confidence: float = CONFIDENCE,
) -> Verdict:
    """Return what a comparison allows to say of the other side.

    Parameters
    ----------
    corrected
        The p-value after `holm`.
    """
    if corrected is None or pair.difference.low is None or pair.difference.mean is None:
        return ""
    if _within_margin(pair, is_share):
        return "same"
    if corrected > 1 - confidence:
        return "unclear"
    up = pair.difference.mean > 0 if pair.ratio is None or pair.ratio.mean is None else pair.ratio.mean > 1
    return "better" if up == higher_is_better else "worse"


def _within_margin(pair: Paired, is_share: bool) -> bool:
    """Tell whether the whole interval is so near to no difference that nobody would mind."""
    if pair.ratio is not None and pair.ratio.low is not None and pair.ratio.high is not None:
        return pair.ratio.low >= 1 - SAME_RATIO and pair.ratio.high <= 1 + SAME_RATIO
    assert pair.difference.low is not None and pair.difference.high is not None
    margin = SAME_SHARE if is_share else SAME_RATIO * abs(pair.baseline.mean or 0.0)
    return -margin <= pair.difference.low and pair.difference.high <= margin


__all__ = ["SAME_RATIO", "SAME_SHARE", "Paired", "Verdict", "holm", "paired", "verdict"]

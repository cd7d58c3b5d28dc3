"""The largest setting that keeps an objective."""

from __future__ import annotations

from collections.abc import Callable


def largest(keeps: Callable[[float], bool], high: float, *, resolution: float, least: float) -> float:
    """Return the lower bound of a bisection between 0 and ``high``; 0 if nothing that was tried keeps the objective.

    Parameters
    ----------
    keeps
        Whether a setting keeps it; what is below one that does is taken to do so too.
    high
        A setting that is taken not to.
    resolution
        Share of the upper bound that the bounds are apart at the end.
    least
        Settings below this are not looked at: the upper bound where bisection gives up.
    """
    low = 0.0
    while high - low > resolution * high and high > least:
        middle = (low + high) / 2
        low, high = (middle, high) if keeps(middle) else (low, middle)
    return low

"""Which of several choices are on the Pareto front: those that no other beats in everything that counts.

One choice dominates another when it is at least as good in every figure and better in one. Choices that are equal in
every figure don't dominate each other: either all of them are on the front or none is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from simulator.errors import InputError


def pareto_front(points: Sequence[Sequence[float]], *, lower: Sequence[bool] | None = None) -> list[bool]:
    """Tell of each point whether no other dominates it.

    Parameters
    ----------
    points
        One a choice, all with the same number of figures, all finite.
    lower
        For each figure whether less is better; None: of all.

    Raises
    ------
    InputError
        If a figure isn't finite: what is not known can't be compared.
    """
    if not points:
        return []
    values = np.array(points, dtype=np.float64)
    if not np.isfinite(values).all():
        raise InputError("a Pareto front is of finite figures; leave out the choices that lack one")
    if lower is not None:
        values = values * np.where(np.array(lower), 1.0, -1.0)
    front = []
    for value in values:
        no_worse = (values <= value).all(axis=1)
        better = (values < value).any(axis=1)
        front.append(not bool((no_worse & better).any()))
    return front


__all__ = ["pareto_front"]

"""Functions that are multilinear between the nodes of a grid over the logarithms of a shape.

No logarithm is computed: `octaves` is the binary exponent plus a linear fraction, equal to the base-2 logarithm at
powers of two and exact on every processor, so that costs made of it are the same everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import numpy.typing as npt

from hardware_profiles.fits import Grid

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def octaves(values: Floats) -> Floats:
    """Return the exponent of each number above 0, and how far it is to the next power of two, 0 to 1."""
    mantissa, exponent = np.frexp(values)
    return np.asarray((exponent - 1) + (2.0 * mantissa - 1.0))


def corners(axes: Sequence[Sequence[float]], points: Floats) -> tuple[Ints, Floats]:
    """Return the nodes around each point, and their weights; points beyond the grid count as those on its edge.

    Parameters
    ----------
    axes
        Nodes of each axis, in the units of the points.
    points
        Shape (points, axes).

    Returns
    -------
    tuple
        Flat indices of nodes and weights that sum to 1, both of shape (2 ** axes, points).
    """
    located = []
    for nodes, column in zip(axes, points.T, strict=True):
        place = octaves(np.asarray(nodes, dtype=np.float64))
        if len(place) == 1:
            located.append((np.zeros(len(points), dtype=np.int64), np.zeros(len(points)), 0))
            continue
        at = np.clip(octaves(column), place[0], place[-1])
        low = np.clip(np.searchsorted(place, at, side="right") - 1, 0, len(place) - 2)
        located.append((low, (at - place[low]) / (place[low + 1] - place[low]), 1))
    indices, weights = [], []
    for bits in product((0, 1), repeat=len(located)):
        index = np.zeros(len(points), dtype=np.int64)
        weight = np.ones(len(points))
        for bit, nodes, (low, inside, step) in zip(bits, axes, located, strict=True):
            index = index * len(nodes) + low + bit * step
            weight = weight * (inside if bit else 1.0 - inside)
        indices.append(index)
        weights.append(weight)
    return np.array(indices), np.array(weights)


def evaluate(grid: Grid, columns: Mapping[str, Floats]) -> Floats:
    """Return the values of a grid at points, given by the names of its axes.

    Terms are added one after the other, in one order, so that the sum is the same everywhere.
    """
    points = np.stack([np.asarray(columns[name], dtype=np.float64) for name in grid.axes], axis=1)
    indices, weights = corners(list(grid.axes.values()), points)
    values = np.array(grid.values)
    total = np.zeros(len(points))
    for index, weight in zip(indices, weights, strict=True):
        total = total + weight * values[index]
    return total

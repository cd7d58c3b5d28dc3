"""Tables of measured times, and interpolation between their points: linear in every axis, on values in seconds.

Linear axes and linear times have the least leave-one-out error on attention tables (``docs/measurements.md``): kernel
times are close to products of counts, which multilinear interpolation reproduces exactly, and no logarithm has to be
taken in a step, whose rounding would differ from processor to processor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simulator.errors import InputError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Axis:
    """Measured values of one axis, ascending; a single value counts as if it held for all.

    Attributes
    ----------
    values
        At least two, strictly ascending.
    single
        True where one value was measured only: then the axis changes nothing.
    """

    values: tuple[float, ...]
    single: bool = False

    @classmethod
    def of(cls, values: Sequence[float]) -> Axis:
        """Return the axis of values in any order, repeated or not."""
        found = sorted({float(value) for value in values})
        if len(found) == 1:
            return cls((found[0], found[0] + 1.0), True)
        return cls(tuple(found))

    @property
    def low(self) -> float:
        """Least measured value."""
        return self.values[0]

    @property
    def high(self) -> float:
        """Greatest measured value."""
        return self.values[0] if self.single else self.values[-1]

    @property
    def scale(self) -> tuple[float, ...]:
        """One over the width of each interval; 0 where nothing changes along the axis."""
        if self.single:
            return (0.0,)
        return tuple(1.0 / (b - a) for a, b in zip(self.values, self.values[1:], strict=False))

    def locate(self, points: Floats) -> tuple[Ints, Floats]:
        """Return the interval of each point, and how far into it: below 0 or above 1 outside what was measured."""
        values = np.array(self.values)
        found = np.clip(np.searchsorted(values, points, side="right") - 1, 0, len(values) - 2)
        return found, (points - values[found]) * np.array(self.scale)[found]


def curve(points: Floats, times: Floats, at: Floats, *, hold: bool) -> Floats:
    """Return times on a piecewise linear curve; below its first point the first time holds.

    Parameters
    ----------
    points, times
        What was measured, points in any order.
    at
        Where the times are wanted.
    hold
        Beyond the last point: its time holds (True), or the rate that it was measured at does. Times of products have
        steps, so that a line through the last two points may be level.
    """
    order = np.argsort(points, kind="stable")
    axis = Axis.of(points.tolist())
    known = times[order]
    if axis.single:
        return np.full(len(at), known[0])
    if len(known) != len(axis.values):
        raise InputError("a curve has two times for one point")
    index, weight = axis.locate(at)
    weight = np.maximum(weight, 0.0)
    step = known[index + 1] - known[index]
    last = weight > 1.0
    if hold:
        weight = np.minimum(weight, 1.0)
    else:
        inside = known[index] + step * np.minimum(weight, 1.0)
        return np.where(last, known[-1] * (at / axis.high), inside)
    return np.asarray(known[index] + step * weight)


def experts_curve(points: Floats, times: Floats, tokens: Floats, visited: Floats, *, hold: bool) -> Floats:
    """Return the times of routed experts, linear in the experts visited, then in tokens.

    Parameters
    ----------
    points
        Tokens and visited experts of each measurement, shape (measurements, 2).
    times
        Of the measurements.
    tokens, visited
        Where the times are wanted.
    hold
        Beyond the greatest number of tokens, as in `curve`. A number of experts that a number of tokens cannot visit
        was not measured with it; there the line goes on.
    """
    measured = Axis.of(points[:, 0].tolist())
    lines = []
    for count in sorted(set(points[:, 0].tolist())):
        line = points[:, 0] == count
        lines.append(curve(points[line, 1], times[line], visited, hold=False))
    at = np.array(lines)
    if measured.single:
        return np.asarray(at[0])
    index, weight = measured.locate(tokens)
    weight = np.clip(weight, 0.0, 1.0) if hold else np.maximum(weight, 0.0)
    each = np.arange(len(tokens))
    low, high = at[index, each], at[index + 1, each]
    return np.asarray(low + (high - low) * weight)


def fill(grid: Floats, axes: Sequence[Axis], order: Sequence[int]) -> tuple[Floats, int]:
    """Fill the cells of a grid that were not measured (NaN), from those that were.

    A cell between two known ones along an axis is interpolated between them, along the first axis of ``order`` where
    that is so; what lies between none takes the time of the nearest known one along the same axes.

    Returns
    -------
    tuple
        The full grid, and how many cells lay between none.

    Raises
    ------
    InputError
        If nothing is known.
    """
    filled = grid.copy()
    if np.isnan(filled).all():
        raise InputError("a table has no measured points")
    _sweep(filled, axes, order, outside=False)
    beyond = int(np.isnan(filled).sum())
    while np.isnan(filled).any():
        _sweep(filled, axes, order, outside=True)
    return filled, beyond


def _sweep(grid: Floats, axes: Sequence[Axis], order: Sequence[int], *, outside: bool) -> None:
    """Fill along each axis in turn until nothing more can be filled (once, where ``outside``)."""
    missing = -1
    while missing != (missing := int(np.isnan(grid).sum())) and missing:
        for axis in order:
            points = np.array(axes[axis].values[: grid.shape[axis]])
            lines = np.moveaxis(grid, axis, -1)
            flat = lines.reshape(-1, len(points))
            known = ~np.isnan(flat)
            for line in np.flatnonzero(known.any(axis=1) & ~known.all(axis=1)):
                have = known[line]
                interpolated = np.interp(points, points[have], flat[line, have])
                if not outside:
                    interpolated[points < points[have][0]] = np.nan
                    interpolated[points > points[have][-1]] = np.nan
                flat[line] = np.where(have, flat[line], interpolated)
            np.copyto(lines, flat.reshape(lines.shape))
        if outside:
            return


def grid_of(columns: Sequence[Floats], times: Floats, order: Sequence[int]) -> tuple[tuple[Axis, ...], Floats, int]:
    """Return the axes and the full grid of measured points.

    Parameters
    ----------
    columns
        One array for each axis: where each point lies.
    times
        Of the points; the last counts where one was measured twice.
    order
        Axes to interpolate missing cells along, the most exact one first.

    Returns
    -------
    tuple
        Axes, times, and the number of cells that lay between no measured ones.
    """
    axes = tuple(Axis.of(column.tolist()) for column in columns)
    grid = np.full([len(axis.values) for axis in axes], np.nan)
    cells = tuple(np.searchsorted(axis.values, column) for axis, column in zip(axes, columns, strict=True))
    grid[cells] = times
    for number, axis in enumerate(axes):
        if axis.single:  # the second value stands for the same
            lines = np.moveaxis(grid, number, 0)
            lines[1] = lines[0]
    full, beyond = fill(grid, axes, order)
    return axes, full, beyond


def interpolate(axes: Sequence[Axis], grid: Floats, points: Sequence[Floats]) -> Floats:
    """Return the values at points, held constant outside the grid; for making tables, not for steps."""
    located = [axis.locate(np.asarray(point, dtype=np.float64)) for axis, point in zip(axes, points, strict=True)]
    total = np.zeros(len(located[0][0]))
    for corner in np.ndindex(*[2] * len(axes)):
        weight = np.ones(len(total))
        cell = []
        for bit, (index, inside) in zip(corner, located, strict=True):
            inside = np.clip(inside, 0.0, 1.0)
            weight = weight * (inside if bit else 1.0 - inside)
            cell.append(index + bit)
        total = total + weight * grid[tuple(cell)]
    return total

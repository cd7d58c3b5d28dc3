"""A quantity that is piecewise linear in one count: tokens attended to, or pairs of tokens.

Each piece is kept as ``base + slope * x``, so that a step costs one search and one product, and a run of steps that
stays on one piece two array operations. Numbers and arrays go through the same floating-point operations.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Piecewise:
    """See the module.

    Parameters
    ----------
    starts
        Where each piece but the first begins, ascending, shape (pieces - 1,).
    bases, slopes
        Of each piece, shape (pieces,).
    measured_to
        Beyond it the last piece is a guess.

    Attributes
    ----------
    pieces
        Base and slope of each.
    lowest
        No value at a count from 0 is below it, for a curve without jumps.

    Examples
    --------
    >>> capped = Piecewise([10.0], [0.0, 20.0], [2.0, 0.0])
    >>> capped.at(4), capped.at(15)
    (8.0, 20.0)
    """

    __slots__ = ("_array_bases", "_array_slopes", "_array_starts", "lowest", "measured_to", "pieces", "starts")

    def __init__(
        self,
        starts: npt.ArrayLike,
        bases: npt.ArrayLike,
        slopes: npt.ArrayLike,
        measured_to: float = float("inf"),
    ) -> None:
        self._array_starts: Floats = np.asarray(starts, dtype=np.float64)
        self._array_bases: Floats = np.asarray(bases, dtype=np.float64)
        self._array_slopes: Floats = np.asarray(slopes, dtype=np.float64)
        self.starts: list[float] = self._array_starts.tolist()
        self.pieces: list[tuple[float, float]] = list(
            zip(self._array_bases.tolist(), self._array_slopes.tolist(), strict=True)
        )
        self.measured_to = measured_to
        self.lowest = float(self._array_bases[0] if (self._array_slopes >= 0.0).all() else "-inf")

    @classmethod
    def through(cls, points: Floats, values: Floats, last_slope: float, measured_to: float) -> Piecewise:
        """Return straight lines between points: level below the first, ``last_slope`` beyond the last.

        Parameters
        ----------
        points
            Strictly ascending, shape (n,), n at least 1.
        values
            There, shape (n,).
        """
        slopes = np.empty(len(points) + 1)
        slopes[0], slopes[-1] = 0.0, last_slope
        slopes[1:-1] = np.diff(values) / np.diff(points)
        bases = np.empty(len(points) + 1)
        bases[0] = values[0]
        bases[1:] = values - slopes[1:] * points
        return cls(points, bases, slopes, measured_to)

    def at(self, x: int | float) -> float:
        """Return the value at one count."""
        x = float(x)  # comparing with whole numbers takes twice as long
        base, slope = self.pieces[bisect_right(self.starts, x)]
        return base + slope * x

    def rounded(self, x: range) -> list[int]:
        """Return the values at a few ascending counts, at least one, each rounded half to even."""
        starts = self.starts
        piece = bisect_right(starts, x[0])
        if piece == len(starts) or x[-1] < starts[piece]:
            base, slope = self.pieces[piece]
            return [round(base + slope * value) for value in x]
        return [round(self.at(value)) for value in x]

    def many(self, x: Ints | Floats) -> Floats:
        """Return the values at ascending counts, shape (n,), n at least 1."""
        starts = self.starts
        piece = bisect_right(starts, x[0])
        if piece == len(starts) or x[-1] < starts[piece]:
            base, slope = self.pieces[piece]
            return np.asarray(base + slope * x)
        values = np.empty(len(x))
        begin = 0
        while begin < len(x):
            base, slope = self.pieces[piece]
            end = int(x.searchsorted(starts[piece])) if piece < len(starts) else len(x)
            values[begin:end] = base + slope * x[begin:end]
            begin, piece = end, piece + 1
        return values

    def scaled(self, factor: float, plus: float) -> Piecewise:
        """Return ``factor`` times this ``plus`` a constant."""
        return Piecewise(
            self._array_starts, self._array_bases * factor + plus, self._array_slopes * factor, self.measured_to
        )

    def stretched(self, factor: float, plus: float) -> Piecewise:
        """Return the curve whose value at ``x`` is this one's at ``x / factor``, plus a constant."""
        return Piecewise(
            self._array_starts * factor,
            self._array_bases + plus,
            self._array_slopes / factor,
            self.measured_to * factor,
        )

    def values_and_slope(self, x: Floats) -> tuple[Floats, float]:
        """Return the values at points, shape (n,), and the slope of the last piece."""
        pieces = self._array_starts.searchsorted(x, side="right")
        return self._array_bases[pieces] + self._array_slopes[pieces] * x, float(self._array_slopes[-1])


class Curves(dict[int, Piecewise]):
    """Curves by count, each made when it is first asked for; ``curves[count]`` is a look-up from then on."""

    def __init__(self, make: Callable[[int], Piecewise]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, count: int) -> Piecewise:
        self[count] = curve = self._make(count)
        return curve

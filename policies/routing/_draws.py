"""Random numbers in blocks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


class Draws:
    """Rows of whole numbers, each drawn uniformly from 0 to below its bound.

    A call of NumPy's generator takes as long for one number as for a hundred, so they are drawn in blocks; the numbers
    are those that it would give one by one. With another generator or other bounds what is left of a block is dropped.
    """

    ROWS = 512
    """Rows a block."""

    def __init__(self) -> None:
        self._rng: np.random.Generator | None = None
        self._bounds: tuple[int, ...] = ()
        self._rows: Iterator[list[int]] = iter(())

    def next(self, rng: np.random.Generator, bounds: tuple[int, ...]) -> list[int]:
        """Return the next row, a number below each of the bounds."""
        if rng is self._rng and bounds == self._bounds:
            for row in self._rows:
                return row
        self._rng, self._bounds = rng, bounds
        self._rows = iter(rng.integers(bounds, size=(self.ROWS, len(bounds))).tolist())
        return next(self._rows)

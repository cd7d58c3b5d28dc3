"""Attention of one layer from measured kernels: chunks and decodes apart, each by two numbers.

Decodes are looked up by how many they are and by the mean of the tokens they attend to; chunks by how many and by the
mean of their pairs of a new token and one that it attends to, which is what their arithmetic grows with, so that a
chunk with cached context counts as a fresh prompt with as many pairs, but see `ChunkAttention`. Linear between measured
points in both; a straight line beyond the last, the least value below the first. What lies beyond is counted.

Numbers for one step and arrays for a run go through the same floating-point operations in the same order.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from simulator.cost.attention import Attention, Ints
from simulator.cost.kernels import Floats
from simulator.cost.piecewise import Curves, Piecewise

if TYPE_CHECKING:
    import pandas as pd

BEYOND_CHUNKS = "prefill attention: more or longer chunks than measured"
"""What is counted in ``substitutions``."""


class Surface:
    """Seconds over (count, size): a piecewise linear curve over size for each measured count, linear between counts.

    Counts need not have been measured at the same sizes. ``max_count`` and ``max_size`` bound what was measured.
    """

    def __init__(self, counts: Floats, sizes: Floats, times: Floats) -> None:
        self._counts = sorted({float(count) for count in counts})
        self.max_count, self.max_size = self._counts[-1], float(sizes.max())
        self._points: list[Floats] = []
        self._measured: list[Piecewise] = []
        for count in self._counts:
            here = counts == count
            order = np.argsort(sizes[here], kind="stable")
            points, values = sizes[here][order], times[here][order]
            last = (values[-1] - values[-2]) / (points[-1] - points[-2]) if len(points) > 1 else 0.0
            self._points.append(points)
            self._measured.append(Piecewise.through(points, values, float(last), self.max_size))

    def curve(self, count: int) -> Piecewise:
        """Return the seconds of so many over the sum of their sizes."""
        at = bisect_right(self._counts, count, 1, max(1, len(self._counts) - 1)) - 1
        low, points = self._measured[at], self._points[at]
        values, slope = low.values_and_slope(points)
        if at + 1 < len(self._counts) and count > self._counts[at]:
            others = self._points[at + 1]
            if not np.array_equal(points, others):
                points = np.array(sorted({*points.tolist(), *others.tolist()}))
                values, slope = low.values_and_slope(points)
            high, high_slope = self._measured[at + 1].values_and_slope(points)
            weight = (count - self._counts[at]) / (self._counts[at + 1] - self._counts[at])
            values = values + (high - values) * weight
            slope += (high_slope - slope) * weight
        measured_to = self.max_size * count if count <= self.max_count else 0.0
        return Piecewise.through(points * count, values, slope / count, measured_to)


class TableAttention:
    """Attention of one layer from two surfaces; where one was not measured, another source's.

    Parameters
    ----------
    decode, prefill
        Measured, or None.
    estimate
        What counts in their place.
    substitutions
        Where steps beyond what was measured are counted.
    """

    def __init__(
        self, decode: Surface | None, prefill: Surface | None, estimate: Attention, substitutions: Counter[str]
    ) -> None:
        self.decode = estimate.decode if decode is None else decode.curve
        self._prefill = None if prefill is None else Curves(prefill.curve)
        self._estimate = estimate
        self._substitutions = substitutions

    def prefill_s(self, chunks: int, new: int, cached: int, pairs: int, context: int) -> float:
        """Return the seconds of the chunks of one step."""
        if self._prefill is None:
            return self._estimate.prefill_s(chunks, new, cached, pairs, context)
        curve = self._prefill[chunks]
        if pairs > curve.measured_to:
            self._substitutions[BEYOND_CHUNKS] += 1
        return curve.at(pairs)

    def prefill_run_s(self, chunks: int, new: int, cached: Ints, pairs: Ints, context: Ints) -> Floats:
        """Return the same for each step of a run."""
        if self._prefill is None:
            return self._estimate.prefill_run_s(chunks, new, cached, pairs, context)
        curve = self._prefill[chunks]
        if pairs[-1] > curve.measured_to:
            self._substitutions[BEYOND_CHUNKS] += int(np.count_nonzero(pairs > curve.measured_to))
        return curve.many(pairs)


class ChunkAttention(TableAttention):
    """Attention of one layer from two surfaces; a chunk takes at least what its longest row and its cache take.

    Kernels were measured without cached tokens, and a chunk counts as a fresh prompt with as many pairs. But a block
    of queries goes through all of its context, one key after the other: 16 new tokens after 8,192 cached ones take as
    long as 8,192 new ones of a single head do, 187 and 171 us on RTX PRO 6000 (layer profile of LLMServingSim, vLLM
    0.19.0, and aiconfigurator-core 0.12.0, vLLM 0.24.0), where as many pairs take 25 us.

    Parameters
    ----------
    longest
        Seconds by the tokens of a fresh prompt of one head.
    token_s
        Seconds that reading a token of the cache takes at the data sheet's bandwidth.
    """

    def __init__(
        self,
        decode: Surface | None,
        prefill: Surface,
        estimate: Attention,
        substitutions: Counter[str],
        longest: Surface,
        token_s: float,
    ) -> None:
        super().__init__(decode, prefill, estimate, substitutions)
        assert self._prefill is not None
        self._curves = self._prefill  # chunks were measured
        self._longest_row, self._token_s = longest.curve(1), token_s

    def prefill_s(self, chunks: int, new: int, cached: int, pairs: int, context: int) -> float:
        """Return the seconds of the chunks of one step."""
        # Both curves as `Piecewise.at` has them: every step with a chunk asks.
        curve, longest = self._curves[chunks], self._longest_row
        x = float(pairs)
        if x > curve.measured_to:
            self._substitutions[BEYOND_CHUNKS] += 1
        base, slope = curve.pieces[bisect_right(curve.starts, x)]
        seconds = base + slope * x
        x = context / chunks
        base, slope = longest.pieces[bisect_right(longest.starts, x)]
        row = base + slope * x
        if row > seconds:
            seconds = row
        read = context * self._token_s
        return read if read > seconds else seconds

    def prefill_run_s(self, chunks: int, new: int, cached: Ints, pairs: Ints, context: Ints) -> Floats:
        """Return the same for each step of a run."""
        seconds = super().prefill_run_s(chunks, new, cached, pairs, context)
        row = self._longest_row.many(context / chunks)
        read = context * self._token_s
        return np.asarray(np.maximum(np.maximum(seconds, row), read))


def decode_surface(rows: pd.DataFrame) -> Surface | None:
    """Return the surface of rows that have one shape of heads; None without rows."""
    return _surface(rows, "decodes", "decode_kv")


def prefill_surface(rows: pd.DataFrame, window: int | None) -> Surface | None:
    """Return the same over pairs of fresh prompts; None without rows."""
    fresh = rows[rows["cached_tokens"] == 0]
    new = fresh["new_tokens"].to_numpy(dtype=np.float64)
    inside = new if window is None else np.minimum(new, window)
    pairs = inside * (inside + 1.0) / 2.0 + (new - inside) * inside
    return _surface(fresh.assign(pairs=pairs), "sequences", "pairs")


def longest_row_surface(rows: pd.DataFrame) -> Surface:
    """Return the seconds of a fresh prompt by its tokens, of rows of one prompt and as few heads as were measured."""
    surface = _surface(rows[rows["cached_tokens"] == 0], "sequences", "new_tokens")
    assert surface is not None
    return surface


def _surface(rows: pd.DataFrame, count: str, size: str) -> Surface | None:
    if rows.empty:
        return None
    median = rows.groupby([count, size], sort=True)["time_s"].median().reset_index()
    return Surface(*(median[name].to_numpy(dtype=np.float64) for name in (count, size, "time_s")))

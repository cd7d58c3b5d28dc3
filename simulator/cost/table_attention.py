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

import numpy as np
import pandas as pd

from simulator.cost.attention import Attention, Ints
from simulator.cost.kernels import Floats
from simulator.cost.tables import Axis


class Surface:
    """Seconds over (count, size): a piecewise linear curve over size for each measured count, linear between counts.

    Counts need not have been measured at the same sizes.
    """

    def __init__(self, counts: Floats, sizes: Floats, times: Floats) -> None:
        measured = sorted({float(count) for count in counts})
        axis = Axis.of(measured)
        self._counts, self._count_scale = axis.values, axis.scale
        self.max_count = measured[-1]
        self._curves = []
        for count in measured:
            here = counts == count
            order = np.argsort(sizes[here], kind="stable")
            points = Axis.of(sizes[here].tolist())
            values = times[here][order]
            if points.single:
                values = np.repeat(values, 2)
            self._curves.append(_Curve(points, values))
        if axis.single:
            self._curves.append(self._curves[0])
        self.max_size = float(sizes.max())

    def _interval(self, count: float) -> tuple[int, float]:
        index = bisect_right(self._counts, count, 1, len(self._counts) - 1) - 1
        weight = (count - self._counts[index]) * self._count_scale[index]
        return index, weight if weight > 0.0 else 0.0

    def one(self, count: int, size: float) -> float:
        """Return the seconds of one point."""
        index, weight = self._interval(count)
        low = self._curves[index].one(size)
        if weight == 0.0:
            return low
        return low + (self._curves[index + 1].one(size) - low) * weight

    def many(self, count: int, sizes: Floats) -> Floats:
        """Return the seconds of points that have the count in common."""
        index, weight = self._interval(count)
        low = self._curves[index].many(sizes)
        if weight == 0.0:
            return low
        return np.asarray(low + (self._curves[index + 1].many(sizes) - low) * weight)


class _Curve:
    """Piecewise linear seconds over size; numbers and arrays go through the same operations."""

    __slots__ = ("_array_points", "_array_scale", "_array_values", "_inner", "_last", "_points", "_scale", "_values")

    def __init__(self, axis: Axis, values: Floats) -> None:
        self._points, self._scale, self._values = axis.values, axis.scale, values.tolist()
        self._last = len(axis.values) - 1
        self._array_points, self._array_scale, self._array_values = np.array(axis.values), np.array(axis.scale), values
        self._inner = self._array_points[1 : self._last]

    def one(self, size: float) -> float:
        at = bisect_right(self._points, size, 1, self._last) - 1
        weight = (size - self._points[at]) * self._scale[at]
        if weight < 0.0:
            weight = 0.0
        low = self._values[at]
        seconds: float = low + (self._values[at + 1] - low) * weight
        return seconds

    def many(self, sizes: Floats) -> Floats:
        at = self._inner.searchsorted(sizes, side="right")
        weight = np.maximum((sizes - self._array_points[at]) * self._array_scale[at], 0.0)
        low = self._array_values[at]
        return np.asarray(low + (self._array_values[at + 1] - low) * weight)


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
        self._decode, self._prefill, self._estimate = decode, prefill, estimate
        self._substitutions = substitutions

    def decode_s(self, attended: int, decodes: int) -> float:
        """Return the seconds of the decodes of one step."""
        table = self._decode
        if table is None:
            return self._estimate.decode_s(attended, decodes)
        kv = attended / decodes
        if decodes > table.max_count or kv > table.max_size:
            self._substitutions["decode attention: more or longer decodes than measured"] += 1
        return table.one(decodes, kv)

    def decode_run_s(self, attended: Ints, decodes: int) -> Floats:
        """Return the same for each step of a run."""
        table = self._decode
        if table is None:
            return self._estimate.decode_run_s(attended, decodes)
        kv = attended / decodes
        if decodes > table.max_count or kv[-1] > table.max_size:
            self._substitutions["decode attention: more or longer decodes than measured"] += len(kv)
        return table.many(decodes, kv)

    def prefill_s(self, chunks: int, new: int, cached: int, pairs: int, context: int) -> float:
        """Return the seconds of the chunks of one step."""
        table = self._prefill
        if table is None:
            return self._estimate.prefill_s(chunks, new, cached, pairs, context)
        mean = pairs / chunks
        if chunks > table.max_count or mean > table.max_size:
            self._substitutions["prefill attention: more or longer chunks than measured"] += 1
        return table.one(chunks, mean)

    def prefill_run_s(self, chunks: int, new: int, cached: Ints, pairs: Ints, context: Ints) -> Floats:
        """Return the same for each step of a run."""
        table = self._prefill
        if table is None:
            return self._estimate.prefill_run_s(chunks, new, cached, pairs, context)
        mean = pairs / chunks
        if chunks > table.max_count or mean[-1] > table.max_size:
            self._substitutions["prefill attention: more or longer chunks than measured"] += len(mean)
        return table.many(chunks, mean)


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
        self._longest, self._token_s = longest, token_s

    def prefill_s(self, chunks: int, new: int, cached: int, pairs: int, context: int) -> float:
        """Return the seconds of the chunks of one step."""
        seconds = super().prefill_s(chunks, new, cached, pairs, context)
        row = self._longest.one(1, context / chunks)
        read = context * self._token_s
        return max(seconds, row, read)

    def prefill_run_s(self, chunks: int, new: int, cached: Ints, pairs: Ints, context: Ints) -> Floats:
        """Return the same for each step of a run."""
        seconds = super().prefill_run_s(chunks, new, cached, pairs, context)
        row = self._longest.many(1, context / chunks)
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

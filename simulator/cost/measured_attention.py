"""Attention of one layer from a joint table: prefill chunk, its cached tokens, number of decodes, their tokens.

Prefill and decode parts don't add up (a mixed batch takes 1.2 to 3 times the sum at 64 decodes and more), so the joint
table is looked up whole, in one of three parts: decodes alone, a chunk alone, both. Rules, in the order they apply:

1. Several chunks in a step count as one with as many new tokens and as many attended pairs, from which its cached
   tokens follow; where they would be negative (short prompts side by side), as one without cached tokens and with as
   many pairs.
2. Less than the least measured value of an axis counts as that value.
3. Between measured values: linear in each axis. A shape of the grid that was not measured is interpolated along one
   axis, see `simulator.cost.tables.fill`.
4. Beyond the greatest: as ``outside`` says; a straight line through the last two values, or the last one. But a chunk
   of more tokens than measured goes on in pieces of the greatest measured: its rows attend each to all before them.
5. Decodes of unequal length take ``1 + slope * cv`` times as long as equal ones, cv being the standard deviation of
   their lengths over the mean; the slope is what fits the measured batches of two lengths best, by least squares
   through the origin, for each measured (chunk, cached, decodes, length).

Numbers for one step and arrays for a run go through the same floating-point operations in the same order.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd

from simulator.cost.shape import BatchShape
from simulator.cost.tables import Axis, Floats, Ints, grid_of, interpolate
from simulator.errors import InputError

OUTSIDE = ("raise", "clip", "extrapolate")
"""What to do with shapes outside the measured range."""

_FIRST_POSITIONS = 4096
_SHAPE = ("new_tokens", "cached_tokens", "decodes", "decode_kv")


class _Positions:
    """Where whole numbers lie on an axis, for all of them up to a limit that grows."""

    def __init__(self, axis: Axis, clip: bool) -> None:
        self._axis, self._clip = axis, clip
        self.low, self.high = axis.low, axis.high
        self.grow(_FIRST_POSITIONS)

    def grow(self, count: int) -> None:
        """Hold at least the numbers below ``count``."""
        size = 1 << (count - 1).bit_length()
        index, weight = self._axis.locate(np.arange(size, dtype=np.float64))
        weight = np.maximum(weight, 0.0)
        if self._clip:
            weight = np.minimum(weight, 1.0)
        self.size, self.indices, self.weights = size, index, weight
        self.index: list[int] = index.tolist()
        self.weight: list[float] = weight.tolist()


class _Line:
    """Where numbers lie on an axis, computed."""

    def __init__(self, axis: Axis, clip: bool) -> None:
        self.values, self.scale = list(axis.values), list(axis.scale)
        self.low, self.high = axis.low, axis.high
        self._values, self._scale = np.array(axis.values), np.array(axis.scale)
        self._last, self._clip = len(axis.values) - 1, clip

    def one(self, point: float) -> tuple[int, float]:
        """Return the interval of a point and how far into it."""
        index = bisect_right(self.values, point, 1, self._last) - 1
        weight = (point - self.values[index]) * self.scale[index]
        if weight < 0.0:
            return index, 0.0
        if self._clip and weight > 1.0:
            return index, 1.0
        return index, weight

    def many(self, points: Floats) -> tuple[Ints, Floats]:
        """Return the same for each point."""
        index = np.searchsorted(self._values[1 : self._last], points, side="right")
        weight = np.maximum((points - self._values[index]) * self._scale[index], 0.0)
        return index, np.minimum(weight, 1.0) if self._clip else weight


class _Table:
    """A grid over (count, count, number, number), and seconds that unequal decodes add for each unit of cv."""

    def __init__(self, rows: pd.DataFrame, skew: pd.DataFrame, order: Sequence[int], clip: bool) -> None:
        columns = [rows[name].to_numpy(dtype=np.float64) for name in _SHAPE]
        axes, grid, self.beyond = grid_of(columns, rows["time_s"].to_numpy(dtype=np.float64), order)
        new, cached, decodes, kv = axes
        self.new, self.decodes = _Positions(new, clip), _Positions(decodes, clip)
        self.cached, self.kv = _Line(cached, clip), _Line(kv, clip)
        self.cells = np.ascontiguousarray(grid.transpose(0, 2, 1, 3)).ravel()
        self.flat: list[float] = self.cells.tolist()
        self._row = len(kv.values)
        self._plane = len(cached.values) * self._row
        self._slab = len(decodes.values) * self._plane
        self.max_cv = 0.0
        self.extra: Floats | None = None
        if len(skew):
            slope = _slopes(skew, axes, grid.shape)
            self.extra = np.ascontiguousarray((grid * slope).transpose(0, 2, 1, 3)).ravel()
            self.extra_flat: list[float] = self.extra.tolist()
            self.max_cv = float(skew["decode_kv_cv"].max())

    def one(self, new: int, cached: float, decodes: int, kv: float, cv: float) -> float:
        """Return the seconds of one shape."""
        if new >= self.new.size:
            self.new.grow(new + 1)
        if decodes >= self.decodes.size:
            self.decodes.grow(decodes + 1)
        at = self.new.index[new] * self._slab + self.decodes.index[decodes] * self._plane
        i, x = self.cached.one(cached)
        j, y = self.kv.one(kv)
        at += i * self._row + j
        u, v = self.new.weight[new], self.decodes.weight[decodes]
        seconds = self._corners(self.flat, at, u, v, x, y)
        if self.extra is not None:
            seconds = seconds + cv * self._corners(self.extra_flat, at, u, v, x, y)
        return seconds

    def _corners(self, flat: list[float], at: int, u: float, v: float, x: float, y: float) -> float:
        row, plane, slab = self._row, self._plane, self._slab
        a = flat[at]
        a = a + (flat[at + 1] - a) * y
        b = flat[at + row]
        b = b + (flat[at + row + 1] - b) * y
        first = a + (b - a) * x
        at += plane
        a = flat[at]
        a = a + (flat[at + 1] - a) * y
        b = flat[at + row]
        b = b + (flat[at + row + 1] - b) * y
        second = a + (b - a) * x
        near = first + (second - first) * v
        at += slab - plane
        a = flat[at]
        a = a + (flat[at + 1] - a) * y
        b = flat[at + row]
        b = b + (flat[at + row + 1] - b) * y
        first = a + (b - a) * x
        at += plane
        a = flat[at]
        a = a + (flat[at + 1] - a) * y
        b = flat[at + row]
        b = b + (flat[at + row + 1] - b) * y
        second = a + (b - a) * x
        far = first + (second - first) * v
        return near + (far - near) * u

    def many(self, new: Ints, cached: Floats, decodes: int, kv: Floats, cv: Floats) -> Floats:
        """Return the seconds of shapes that have the number of decodes in common."""
        most = int(new.max())
        if most >= self.new.size:
            self.new.grow(most + 1)
        if decodes >= self.decodes.size:
            self.decodes.grow(decodes + 1)
        i, x = self.cached.many(cached)
        j, y = self.kv.many(kv)
        at = self.new.indices[new] * self._slab + self.decodes.index[decodes] * self._plane + i * self._row + j
        u, v = self.new.weights[new], self.decodes.weight[decodes]
        seconds = self._corners_run(self.cells, at, u, v, x, y)
        if self.extra is not None:
            seconds = seconds + cv * self._corners_run(self.extra, at, u, v, x, y)
        return seconds

    def _corners_run(self, cells: Floats, at: Ints, u: Floats, v: float, x: Floats, y: Floats) -> Floats:
        def plane(at: Ints) -> Floats:
            a = cells[at]
            a = a + (cells[at + 1] - a) * y
            b = cells[at + self._row]
            b = b + (cells[at + self._row + 1] - b) * y
            return np.asarray(a + (b - a) * x)

        first, second = plane(at), plane(at + self._plane)
        near = first + (second - first) * v
        at = at + self._slab
        first, second = plane(at), plane(at + self._plane)
        far = first + (second - first) * v
        return np.asarray(near + (far - near) * u)


def _slopes(skew: pd.DataFrame, axes: Sequence[Axis], shape: tuple[int, ...]) -> Floats:
    """Return the slope in cv at every cell of a grid, held constant outside what was measured."""
    rows = skew.reset_index(drop=True)
    cv = rows["decode_kv_cv"].to_numpy(dtype=np.float64)
    more = (rows["time_s"] / rows["baseline_s"] - 1.0).to_numpy(dtype=np.float64)
    kv = rows["decode_kv"].to_numpy(dtype=np.float64)
    # Batches of several means make one slope: they are put together by octave of the mean.
    octave = np.floor(np.log2(kv))
    keys = [rows[name].to_numpy(dtype=np.float64) for name in _SHAPE[:3]] + [octave]
    sums = pd.DataFrame({"a": keys[0], "b": keys[1], "c": keys[2], "d": keys[3], "xy": cv * more, "xx": cv * cv})
    sums = sums.groupby(["a", "b", "c", "d"], sort=True, as_index=False).sum()
    columns = [sums[name].to_numpy(dtype=np.float64) for name in "abc"] + [
        1.5 * np.exp2(sums["d"].to_numpy(np.float64))
    ]
    slope_axes, slopes, _ = grid_of(columns, (sums["xy"] / sums["xx"]).to_numpy(dtype=np.float64), (1, 3, 0, 2))
    points = np.meshgrid(*(np.array(axis.values) for axis in axes), indexing="ij")
    return interpolate(slope_axes, slopes, [point.ravel() for point in points]).reshape(shape)


class MeasuredAttention:
    """Seconds of one layer's attention on one rank.

    Parameters
    ----------
    attention, skew
        Rows of the operators ``attention`` and ``attention_skew``, of one model and one tensor parallel size; the
        second may be empty: then decodes count as equal.
    outside
        One of `OUTSIDE`.

    Attributes
    ----------
    substitutions
        How many of the steps computed lay outside the measured range, by what was substituted. Steps of a run are
        counted as computed, even if the run is cut short.
    cells_beyond
        Cells of the grids that lie between no measured ones, and took the time of the nearest.
    """

    def __init__(self, attention: pd.DataFrame, skew: pd.DataFrame, outside: str = "extrapolate") -> None:
        clip = outside != "extrapolate"
        prefill, decode = attention["new_tokens"] > 0, attention["decodes"] > 0
        skewed = skew["new_tokens"] > 0
        parts = {
            "decodes": (attention[~prefill & decode], skew[~skewed], (3, 2, 0, 1)),
            "chunk": (attention[prefill & ~decode], skew[:0], (1, 0, 2, 3)),
            "mixed": (attention[prefill & decode], skew[skewed], (1, 3, 0, 2)),
        }
        for name, (rows, _, _) in parts.items():
            if rows.empty:
                what = {"decodes": "decodes alone", "chunk": "a prefill chunk alone", "mixed": "both together"}[name]
                raise InputError(f"attention was not measured for {what}")
        self._decodes, self._chunk, self._mixed = (_Table(*part, clip) for part in parts.values())
        self._raise, self._clip = outside == "raise", clip
        # Tokens of a chunk beyond which it goes on in pieces; never, where the nearest measured value is to hold.
        self._piece = int(self._chunk.new.high) if outside == "extrapolate" else 1 << 62
        self._skewed = bool(len(skew))
        self.cells_beyond = sum(table.beyond for table in (self._decodes, self._chunk, self._mixed))
        self.substitutions: Counter[str] = Counter()

    def one(self, shape: BatchShape) -> float:
        """Return the seconds of one step."""
        decodes = shape.decodes
        if not shape.chunks:
            if not decodes:
                return 0.0
            kv = shape.decode_kv / decodes
            table = self._decodes
            cv = self._cv(shape, kv, table)
            if not table.kv.low <= kv <= table.kv.high or decodes > table.decodes.high:
                self._outside(table, 0, 0.0, decodes, kv)
            return table.one(0, 0.0, decodes, kv, cv)
        new, cached = effective_chunk(shape.chunks)
        before = 0.0
        if new > self._piece:
            before, new, cached = self._pieces(new, cached)
        if not decodes:
            table = self._chunk
            if not table.new.low <= new <= table.new.high or not table.cached.low <= cached <= table.cached.high:
                self._outside(table, new, cached, 0, 0.0)
            return before + table.one(new, cached, 0, 0.0, 0.0)
        kv = shape.decode_kv / decodes
        table = self._mixed
        cv = self._cv(shape, kv, table)
        if (
            not table.new.low <= new <= table.new.high
            or not table.kv.low <= kv <= table.kv.high
            or not table.cached.low <= cached <= table.cached.high
            or decodes > table.decodes.high
        ):
            self._outside(table, new, cached, decodes, kv)
        return before + table.one(new, cached, decodes, kv, cv)

    def _pieces(self, new: int, cached: float) -> tuple[float, int, float]:
        """Return the seconds of all equal pieces of a chunk but the last, and the last one."""
        self._count("prefill chunk above what was measured", self._chunk.new.high, float(new), 1)
        count = -(-new // self._piece)
        size = -(-new // count)
        seconds = 0.0
        while new > size:
            seconds = seconds + self._chunk.one(size, cached, 0, 0.0, 0.0)
            new, cached = new - size, cached + size
        return seconds, new, cached

    def _pieces_run(self, new: Ints, cached: Floats) -> tuple[Floats, Ints, Floats]:
        """Return the same for each step of a run."""
        seconds = zeros = np.zeros(len(new))
        beyond, high = int(np.count_nonzero(new > self._piece)), self._chunk.new.high
        self._count("prefill chunk above what was measured", high, float(new.max()), beyond)
        count = -(-new // self._piece)
        size = -(-new // count)
        while (over := new > size).any():
            seconds = np.where(over, seconds + self._chunk.many(size, cached, 0, zeros, zeros), seconds)
            new, cached = np.where(over, new - size, new), np.where(over, cached + size, cached)
        return seconds, new, cached

    def run(self, shape: BatchShape, step: Ints) -> Floats:
        """Return the seconds of each step of a run, equal to those of `one` to the last bit."""
        decodes = shape.decodes
        before = zeros = np.zeros(len(step))
        new, cached = np.zeros(len(step), dtype=np.int64), zeros
        if shape.chunks:
            new, cached = _effective_chunk_run(shape.chunks, step)
            if int(new.max()) > self._piece:
                before, new, cached = self._pieces_run(new, cached)
        elif not decodes:
            return zeros
        kv = cv = zeros
        table = self._chunk
        if decodes:
            kv = (shape.decode_kv + step * decodes) / decodes
            table = self._mixed if shape.chunks else self._decodes
            cv = self._cv_run(shape, kv, step, table)
        self._outside_run(table, new, cached, decodes, kv)
        return np.asarray(before + table.many(new, cached, decodes, kv, cv))

    def _cv(self, shape: BatchShape, kv: float, table: _Table) -> float:
        if table.extra is None:
            return 0.0
        variance = float(shape.decode_kv_sq) / shape.decodes - kv * kv
        if variance <= 0.0:
            return 0.0
        cv = math.sqrt(variance) / kv
        if cv > table.max_cv:
            self._count("decodes more unequal than measured", table.max_cv, cv, 1)
            if self._clip:
                return table.max_cv
        return cv

    def _cv_run(self, shape: BatchShape, kv: Floats, step: Ints, table: _Table) -> Floats:
        if table.extra is None:
            return np.zeros(len(step))
        squares = shape.decode_kv_sq + 2 * step * shape.decode_kv + step * step * shape.decodes
        variance = squares.astype(np.float64) / shape.decodes - kv * kv
        cv = np.sqrt(np.maximum(variance, 0.0)) / kv
        beyond = cv > table.max_cv
        if beyond.any():
            self._count("decodes more unequal than measured", table.max_cv, float(cv.max()), int(beyond.sum()))
            if self._clip:
                cv = np.minimum(cv, table.max_cv)
        return np.asarray(cv)

    def _outside(self, table: _Table, new: int, cached: float, decodes: int, kv: float) -> None:
        if new:
            self._check("prefill chunk", table.new.low, table.new.high, new)
            self._check("cached tokens of a chunk", table.cached.low, table.cached.high, cached)
        if decodes:
            self._check("number of decodes", table.decodes.low, table.decodes.high, decodes)
            self._check("tokens of a decode", table.kv.low, table.kv.high, kv)

    def _check(self, name: str, low: float, high: float, value: float) -> None:
        if value > high:
            self._count(f"{name} above what was measured", high, value, 1)
        elif value < low:
            self._count(f"{name} below what was measured", low, value, 1)

    def _outside_run(self, table: _Table, new: Ints, cached: Floats, decodes: int, kv: Floats) -> None:
        checks: list[tuple[str, float, float, Floats]] = []
        if new.any():
            checks += [
                ("prefill chunk", table.new.low, table.new.high, new.astype(np.float64)),
                ("cached tokens of a chunk", table.cached.low, table.cached.high, cached),
            ]
        if decodes:
            checks += [
                ("number of decodes", table.decodes.low, table.decodes.high, np.full(len(kv), float(decodes))),
                ("tokens of a decode", table.kv.low, table.kv.high, kv),
            ]
        for name, low, high, values in checks:
            if above := int(np.count_nonzero(values > high)):
                self._count(f"{name} above what was measured", high, float(values.max()), above)
            if below := int(np.count_nonzero(values < low)):
                self._count(f"{name} below what was measured", low, float(values.min()), below)

    def _count(self, what: str, limit: float, value: float, steps: int) -> None:
        if self._raise:
            raise InputError(
                f"measured cost: attention, {what}: {value:g}, measured to {limit:g}; set cost.outside to clip or "
                "extrapolate"
            )
        self.substitutions[f"attention: {what} ({limit:g})"] += steps


def effective_chunk(chunks: Sequence[tuple[int, int]]) -> tuple[int, float]:
    """Return new and cached tokens of the one chunk that several count as.

    Examples
    --------
    >>> effective_chunk([(100, 40)])
    (100, 40.0)
    >>> effective_chunk([(100, 300), (100, 300)])  # 200 new tokens with as many pairs: 200 (250 + 200 / 2)
    (200, 250.0)
    >>> effective_chunk([(300, 0), (400, 0)])  # as many pairs as 500 tokens alone
    (500, 0.0)
    """
    if len(chunks) == 1:
        new, cached = chunks[0]
        return new, float(cached)
    tokens = pairs = 0
    for new, cached in chunks:
        tokens += new
        pairs += new * (2 * cached + new)
    if pairs < tokens * tokens:
        return int(math.sqrt(pairs)), 0.0
    return tokens, (pairs - tokens * tokens) / (2 * tokens)


def _effective_chunk_run(chunks: Sequence[tuple[int, int]], step: Ints) -> tuple[Ints, Floats]:
    """Return the same for each step of a run."""
    if len(chunks) == 1:
        new, cached = chunks[0]
        return np.full(len(step), new, dtype=np.int64), (cached + step * new).astype(np.float64)
    tokens = 0
    pairs = np.zeros(len(step), dtype=np.int64)
    for new, cached in chunks:
        tokens += new
        pairs += new * (2 * (cached + step * new) + new)
    short = pairs < tokens * tokens
    alone = np.sqrt(pairs.astype(np.float64)).astype(np.int64)
    cached_tokens = np.where(short, 0.0, (pairs - tokens * tokens) / (2 * tokens))
    return np.where(short, alone, tokens), cached_tokens

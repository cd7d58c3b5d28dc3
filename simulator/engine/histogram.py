"""Histogram of durations with bins of at most 0.5 % relative width, exact in count, sum and maximum."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Durations: TypeAlias = "list[int] | npt.NDArray[np.int64]"
"""Durations of steps in ns: numbers where they are few, an array where they are many."""

_FLUSH_AT = 1 << 16
_LOW_BITS = 20
_LONG = 256
_LONGEST_NS = 10**15


def bin_edges() -> npt.NDArray[np.int64]:
    """Lower edges of the bins in ns, from 0 to about 12 days: exact below 200 ns, then 0.5 % apart.

    Edges are made with whole numbers only, so that every processor puts a duration in the same bin.
    """
    edges = [0]
    while edges[-1] < _LONGEST_NS:
        edges.append(edges[-1] + max(1, edges[-1] // 200))
    return np.array(edges, dtype=np.int64)


_EDGES_NS = bin_edges()
_EDGES = _EDGES_NS.tolist()  # bisect on a list is quicker than NumPy for one value


class DurationHistogram:
    """Counts durations in ns. Binning is done in bulk, because one NumPy call costs as much as an engine step."""

    __slots__ = (
        "_array_counts",
        "_arrays",
        "_counts",
        "_gaps",
        "_pending",
        "counts",
        "max_ns",
        "min_ns",
        "total",
        "total_ns",
    )

    def __init__(self) -> None:
        self.counts: npt.NDArray[np.int64] = np.zeros(len(_EDGES), dtype=np.int64)
        self.total = 0
        self.total_ns = 0
        self.min_ns = 0  # of all durations; 0 while empty
        self.max_ns = 0
        self._gaps: list[int] = []
        self._counts: list[int] = []
        self._arrays: list[npt.NDArray[np.int64]] = []
        self._array_counts: list[int] = []
        self._pending = 0

    def add(self, duration_ns: int, count: int) -> None:
        """Count a duration ``count`` times."""
        self._gaps.append(duration_ns)
        self._counts.append(count)
        if len(self._gaps) >= _FLUSH_AT:
            self.flush()

    def add_each(self, durations_ns: npt.NDArray[np.int64], count: int) -> None:
        """Count each element ``count`` times. The array must not change afterwards."""
        if len(durations_ns) >= _LONG:
            # Steps of a long run are nearly equal, and most often all in one bin: no need to look each of them up.
            least, most = int(np.minimum.reduce(durations_ns)), int(np.maximum.reduce(durations_ns))
            index = bisect_right(_EDGES, least) - 1
            if most < _LONGEST_NS and most < _EDGES[index + 1]:
                self.min_ns = min(self.min_ns, least) if self.total else least
                self.counts[index] += count * len(durations_ns)
                self.total += count * len(durations_ns)
                self.total_ns += count * int(np.add.reduce(durations_ns))
                self.max_ns = max(self.max_ns, most)
                return
        self._arrays.append(durations_ns)
        self._array_counts.append(count)
        self._pending += len(durations_ns)
        if self._pending >= _FLUSH_AT:
            self.flush()

    def flush(self) -> None:
        """Bin what was added since the last flush."""
        parts: list[tuple[Any, Any]] = []
        if self._gaps:
            parts.append((np.array(self._gaps, dtype=np.int64), np.array(self._counts, dtype=np.int64)))
        if self._arrays:
            lengths = [len(a) for a in self._arrays]
            parts.append((np.concatenate(self._arrays), np.repeat(self._array_counts, lengths)))
        for durations, counts in parts:
            self.add_weighted(durations, counts)
        self._gaps, self._counts, self._arrays, self._array_counts, self._pending = [], [], [], [], 0

    def add_weighted(self, durations_ns: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]) -> None:
        """Count each element as many times as ``counts`` says, at least once; both have the shape (n,)."""
        if len(durations_ns) == 0:
            return
        bins = np.searchsorted(_EDGES_NS, durations_ns, side="right") - 1
        # Sums of whole numbers, exact in floating point below 2^53.
        self.counts += np.bincount(bins, weights=counts, minlength=len(_EDGES)).astype(np.int64)
        least = int(durations_ns.min())
        self.min_ns = min(self.min_ns, least) if self.total else least
        self.total += int(counts.sum())
        # Two halves, so that the products stay far below 2^63 whatever the durations.
        high, low = durations_ns >> _LOW_BITS, durations_ns & ((1 << _LOW_BITS) - 1)
        self.total_ns += (int((high * counts).sum()) << _LOW_BITS) + int((low * counts).sum())
        self.max_ns = max(self.max_ns, int(durations_ns.max()))

    def merge(self, other: DurationHistogram) -> None:
        """Add another histogram's counts to this one."""
        self.flush()
        other.flush()
        self.counts = self.counts + other.counts
        if other.total:
            self.min_ns = min(self.min_ns, other.min_ns) if self.total else other.min_ns
        self.total += other.total
        self.total_ns += other.total_ns
        self.max_ns = max(self.max_ns, other.max_ns)

    def mean_s(self) -> float | None:
        """Exact mean in seconds; None if empty."""
        self.flush()
        return self.total_ns / self.total / 1e9 if self.total else None

    def quantile_s(self, q: float) -> float | None:
        """Quantile in seconds, to within one bin (0.5 %): its middle, within minimum and maximum. None if empty."""
        self.flush()
        if not self.total:
            return None
        rank = q * (self.total - 1)
        index = int(np.searchsorted(np.cumsum(self.counts), rank, side="right"))
        edges = _EDGES_NS
        upper = edges[index + 1] - 1 if index + 1 < len(edges) else edges[index]
        return min(max(float(edges[index] + upper) / 2, self.min_ns), self.max_ns) / 1e9

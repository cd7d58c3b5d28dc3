"""The gaps between tokens of a decode group, noted once a step for all members and worked out for each in bulk.

All members get a token in every step, so one gap stands for all of them. Of the members only their coming and going is
noted: how many had a gap, and the largest that each of them had, follow from it with a few array operations.
"""

from __future__ import annotations

from array import array

import numpy as np

from simulator.engine.histogram import DurationHistogram, Durations

_FLUSH_AT = 1 << 14


class GapLog:
    """See the module.

    Parameters
    ----------
    histograms
        One for each class of requests: where the gaps are counted.
    """

    __slots__ = ("_gaps", "_histograms", "_joined", "_largest", "_left", "_rows", "_since", "_sizes", "_until")

    def __init__(self, histograms: list[DurationHistogram]) -> None:
        self._histograms = histograms
        self._gaps: list[int] = []
        self._joined: list[list[int]] = [[] for _ in histograms]  # by class: gaps noted when a member came
        self._left: list[list[int]] = [[] for _ in histograms]
        self._sizes = [0] * len(histograms)  # by class: members when the first of the gaps was noted
        self._largest = array("q")  # gap of each run of steps
        self._rows, self._since, self._until = array("q"), array("q"), array("q")  # of members that left: runs they had

    def add(self, gaps_ns: Durations) -> None:
        """Note gaps that all present members have, of steps one after the other."""
        if isinstance(gaps_ns, list):
            self._gaps += gaps_ns
            self._largest.append(max(gaps_ns))
            return
        self._largest.append(int(np.maximum.reduce(gaps_ns)))
        for histogram, size, joined, left in zip(self._histograms, self._sizes, self._joined, self._left, strict=True):
            members = size + len(joined) - len(left)
            if members:
                histogram.add_each(gaps_ns, members)

    def add_one(self, class_code: int, gap_ns: int) -> None:
        """Count the gap of one request that is no member, or not yet."""
        self._histograms[class_code].add(gap_ns, 1)

    def join(self, class_code: int) -> int:
        """Take a member in, of a class; return what `leave` wants to know."""
        self._joined[class_code].append(len(self._gaps))
        return len(self._largest)

    def leave(self, class_code: int, row: int, since: int) -> None:
        """Let a member of a class go, the request of a row, that joined at ``since``."""
        self._left[class_code].append(len(self._gaps))
        self._rows.append(row)
        self._since.append(since)
        self._until.append(len(self._largest))
        if len(self._gaps) > _FLUSH_AT:
            self._flush()

    def close(self, itl_max_ns: memoryview[int]) -> None:
        """Count what is left, and raise the largest gap by row, shape (rows,), to what was noted here."""
        self._flush()
        if not self._rows:
            return
        since, until = np.array(self._since), np.array(self._until)
        largest = np.append(np.array(self._largest), 0)
        found = np.maximum.reduceat(largest, np.column_stack((since, until)).ravel())[::2]
        had = since < until  # a member may leave before its first gap
        np.maximum.at(np.asarray(itl_max_ns), np.array(self._rows)[had], found[had])

    def _flush(self) -> None:
        """Count the gaps noted so far for as many members as had each."""
        gaps = np.array(self._gaps, dtype=np.int64)
        for code, histogram in enumerate(self._histograms):
            joined, left = self._joined[code], self._left[code]
            came, went = (np.bincount(np.array(at, dtype=np.int64), minlength=len(gaps)) for at in (joined, left))
            members = self._sizes[code] + np.cumsum(came[: len(gaps)] - went[: len(gaps)])
            histogram.add_weighted(gaps[members > 0], members[members > 0])
            self._sizes[code] += len(joined) - len(left)
            joined.clear()
            left.clear()
        self._gaps.clear()

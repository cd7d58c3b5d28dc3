"""Gaps noted once for all members, against a list of gaps for each member."""

from __future__ import annotations

from dataclasses import dataclass, field
from unittest.mock import patch

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from simulator.engine import gap_log
from simulator.engine.gap_log import GapLog
from simulator.engine.histogram import DurationHistogram

CLASSES, ROWS = 3, 6
_DURATIONS = st.lists(st.integers(1, 10**10), min_size=1, max_size=6)
_OPERATIONS = st.one_of(
    st.tuples(st.just("add"), _DURATIONS),
    st.tuples(st.just("add array"), _DURATIONS),
    st.tuples(st.just("add one"), st.tuples(st.integers(0, CLASSES - 1), st.integers(1, 10**10))),
    st.tuples(st.just("join"), st.integers(0, ROWS - 1)),
    st.tuples(st.just("leave"), st.integers(0, ROWS - 1)),
)


@dataclass
class PlainLog:
    """What `GapLog` does, said as plainly as possible."""

    gaps: list[list[int]] = field(default_factory=lambda: [[] for _ in range(CLASSES)])
    largest: list[int] = field(default_factory=lambda: [-1] * ROWS)
    members: set[int] = field(default_factory=set)

    def add(self, gaps: list[int]) -> None:
        for row in self.members:
            self.gaps[row % CLASSES] += gaps
            self.largest[row] = max(self.largest[row], *gaps)


def replay(operations: list[tuple[str, object]]) -> tuple[GapLog, list[DurationHistogram], PlainLog]:
    """Do the same to both; a row is of the class row % 3, and joins and leaves as often as it is told to."""
    histograms = [DurationHistogram() for _ in range(CLASSES)]
    log, plain = GapLog(histograms), PlainLog()
    since: dict[int, int] = {}
    for what, value in [*operations, *(("leave", row) for row in range(ROWS))]:
        match what, value:
            case "add", list(gaps):
                log.add(gaps)
                plain.add(gaps)
            case "add array", list(gaps):
                log.add(np.array(gaps))
                plain.add(gaps)
            case "add one", (int(code), int(gap)):
                log.add_one(code, gap)
                plain.gaps[code].append(gap)
            case "join", int(row) if row not in since:
                since[row] = log.join(row % CLASSES)
                plain.members.add(row)
            case "leave", int(row) if row in since:
                log.leave(row % CLASSES, row, since.pop(row))
                plain.members.remove(row)
    return log, histograms, plain


def assert_counted(histograms: list[DurationHistogram], plain: PlainLog) -> None:
    for histogram, gaps in zip(histograms, plain.gaps, strict=True):
        expected = DurationHistogram()
        for gap in gaps:
            expected.add(gap, 1)
        histogram.flush()
        expected.flush()
        assert histogram.counts.tolist() == expected.counts.tolist()
        assert (histogram.total, histogram.total_ns) == (len(gaps), sum(gaps))
        assert (histogram.min_ns, histogram.max_ns) == ((min(gaps), max(gaps)) if gaps else (0, 0))


@settings(deadline=None)
@example(  # a member that stays while the log is emptied, and then has gaps of an array
    operations=[("join", 0), ("join", 1), ("add", [1, 2, 3, 4]), ("leave", 1), ("add array", [5, 6])], flush_at=3
)
@given(operations=st.lists(_OPERATIONS, max_size=40), flush_at=st.sampled_from([0, 3, 1 << 14]))
def test_every_member_has_the_gaps_between_its_coming_and_going(
    operations: list[tuple[str, object]], flush_at: int
) -> None:
    with patch.object(gap_log, "_FLUSH_AT", flush_at):
        log, histograms, plain = replay(operations)
        rows = np.full(ROWS, -1)
        log.close(rows.data)
    assert_counted(histograms, plain)
    had = np.array(plain.largest) > 0
    assert rows[had].tolist() == np.array(plain.largest)[had].tolist()
    assert (rows[~had] <= 0).all()


def test_closing_raises_the_largest_gap_of_a_row_and_never_lowers_it() -> None:
    log = GapLog([DurationHistogram()])
    since = [log.join(0) for _ in range(3)]
    log.add([7, 30])
    log.leave(0, 2, since[2])
    log.add(np.array([50, 40]))
    log.leave(0, 0, since[0])
    log.leave(0, 1, since[1])
    rows = np.array([60, 10, -1, -1])
    log.close(rows.data)
    assert rows.tolist() == [60, 50, 30, -1]


def test_a_row_that_comes_twice_has_the_larger_of_its_largest_gaps() -> None:
    for gaps in ([20, 90, 30], [30, 90, 20]):  # the 90 between is none of its own
        log = GapLog([DurationHistogram()])
        for gap, member in zip(gaps, (True, False, True), strict=True):
            since = log.join(0)
            log.add([gap])
            log.leave(0, 0 if member else 1, since)
        rows = np.array([-1, -1])
        log.close(rows.data)
        assert rows.tolist() == [30, 90]


def test_a_member_without_a_gap_has_no_largest_one() -> None:
    log = GapLog([DurationHistogram()])
    log.leave(0, 0, log.join(0))
    rows = np.array([-1])
    log.close(rows.data)
    assert rows.tolist() == [-1]


def test_an_empty_log_changes_nothing() -> None:
    histogram, rows = DurationHistogram(), np.array([-1, 5])
    GapLog([histogram]).close(rows.data)
    assert rows.tolist() == [-1, 5]
    assert histogram.total == 0


def test_gaps_without_members_are_nobodys() -> None:
    histograms = [DurationHistogram(), DurationHistogram()]
    log = GapLog(histograms)
    log.add([5])
    log.add(np.array([6]))
    since = log.join(1)
    log.add([7])
    log.leave(1, 0, since)
    log.add([8])
    log.close(np.array([-1]).data)
    assert [(h.total, h.total_ns) for h in histograms] == [(0, 0), (1, 7)]

"""What Perfetto's importer of JSON traces makes of events, for tests.

It sorts events by time, keeping the order of the file within an instant. Complete slices of a thread must nest: one
that crosses the end of another is dropped. Asynchronous ones with one category and id stand on one track as a stack. An
arrow begins and ends on the slice that its thread has open. Times are read in either way that versions have.

Source: src/trace_processor/importers/json (json_trace_parser_impl.cc, json_utils.cc) and common/slice_tracker.cc.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from decimal import Decimal
from math import isfinite
from typing import Any

Event = dict[str, Any]
READINGS: tuple[Callable[[float], int], ...] = (lambda us: int(us * 1000), lambda us: int(Decimal(repr(us)) * 1000))


def check_trace(events: Sequence[Event]) -> None:
    """Assert that the importer would take every event, whichever way it reads times."""
    processes = [event["pid"] for event in events if event["name"] == "process_name"]
    threads = [event["tid"] for event in events if event["name"] == "thread_name"]
    assert len(set(processes)) == len(processes)
    assert len(set(threads)) == len(threads), "the importer names threads by number alone"
    assert not set(threads) & set(processes)
    for event in events:
        assert event["pid"] in processes
        assert isinstance(event["name"], str)
        if event["ph"] in "Xsf":
            assert event["tid"] in threads
    for read in READINGS:
        _check_order([event for event in events if event["ph"] != "M"], read)


def _check_order(events: Sequence[Event], read: Callable[[float], int]) -> None:
    slices: dict[int, list[tuple[int, int]]] = defaultdict(list)
    spans: dict[tuple[str, int], list[tuple[str, int]]] = defaultdict(list)
    begun: set[tuple[str, str, int]] = set()
    for event in sorted(events, key=lambda event: read(event["ts"])):
        at, phase = read(event["ts"]), event["ph"]
        assert at >= 0
        if phase == "C":
            assert all(isinstance(value, int | float) and isfinite(value) for value in event["args"].values())
        elif phase == "X":
            end, open_slices = at + read(event["dur"]), slices[event["tid"]]
            while open_slices and open_slices[-1][1] <= at:
                open_slices.pop()
            assert end >= at
            assert all(end <= other for _, other in open_slices), f"dropped: {event}"
            open_slices.append((at, end))
        elif phase in "sf":
            since, until = slices[event["tid"]][-1]
            assert since <= at <= until
            arrow = (event["cat"], event["name"], event["id"])
            assert (arrow in begun) == (phase == "f")
            begun.add(arrow)
        elif phase == "b":
            spans[event["cat"], event["id"]].append((event["name"], at))
        else:
            assert phase == "e"
            name, since = spans[event["cat"], event["id"]].pop()
            assert name == event["name"]
            assert since <= at
    assert not any(spans.values())

"""Values of Chrome's JSON trace events as Perfetto's importer reads them.

The importer identifies a thread by its ``tid`` alone where it is named, so numbers must differ between processes. It
reads a time as microseconds, and by its version either digit by digit or as a double times 1,000, cut to whole ns.
"""

from __future__ import annotations

import math
from typing import Any

Event = dict[str, Any]

_FIRST_TID = 1_000_000
"""Above all process numbers: a thread that has its process's number is the main one, which sorts first."""


def microseconds(ns: int) -> float:
    """Return a time in microseconds that is read as exactly these ns, by either way of reading it, up to 2^51 ns.

    A value that is 1 ns short would make two slices overlap, and the importer drops the second one.
    """
    value = ns / 1000
    return value if int(value * 1000) >= ns else math.nextafter(value, math.inf)


class Threads:
    """Numbers of threads, each its own across all processes, with the events that name them."""

    def __init__(self) -> None:
        self.names: list[Event] = []
        self._tids: dict[tuple[int, object], int] = {}

    def number(self, pid: int, key: object, name: str, sort_index: int) -> int:
        """Return the number of a process's thread, given its name and place the first time that it is asked for."""
        tid = self._tids.get((pid, key))
        if tid is None:
            tid = self._tids[pid, key] = _FIRST_TID + len(self._tids)
            about = {"ph": "M", "pid": pid, "tid": tid}
            self.names.append({**about, "name": "thread_name", "args": {"name": name}})
            self.names.append({**about, "name": "thread_sort_index", "args": {"sort_index": sort_index}})
        return tid


def process_names(pid: int, name: str) -> list[Event]:
    """Return the events that name a process, in the order of its number."""
    about = {"ph": "M", "pid": pid, "tid": pid}
    return [
        {**about, "name": "process_name", "args": {"name": name}},
        {**about, "name": "process_sort_index", "args": {"sort_index": pid}},
    ]

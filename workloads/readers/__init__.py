"""Readers of trace formats: one file each, found by being here.

A new format is one file in this folder that defines ``READER``, a :class:`~workloads.readers._base.Reader`: a header
test and a parse function. It is then chosen by its header or by name, and listed in messages.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import get_args

from workloads.readers._base import Head, OnBadRow, Options, Reader, SpreadTies, head_of
from workloads.trace import Trace, TraceError, did_you_mean

__all__ = ["Reader", "read_trace", "readers"]

_BUNDLED = "bundled:"


@cache
def readers() -> Mapping[str, Reader]:
    """Return the readers by name, in the order of their names."""
    found: dict[str, Reader] = {}
    for module in sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")):
        reader: Reader = importlib.import_module(f"{__name__}.{module}").READER
        if reader.name in found:
            raise TraceError(f"two readers are called {reader.name!r}; the second is in {module}.py")
        found[reader.name] = reader
    return found


def read_trace(
    path: str | Path,
    *,
    format: str | None = None,  # noqa: A002  (the word that users know)
    on_bad_row: OnBadRow = "fail",
    sort: bool = False,
    spread_ties: SpreadTies | None = None,
    keep_failed: bool = False,
) -> Trace:
    """Read a trace file, of whatever known format.

    Parameters
    ----------
    path
        File, also compressed with gzip; ``"bundled:NAME"`` for one of the traces that come with the project.
    format
        Name of the reader; by default the one whose header test the file passes.
    on_bad_row
        ``"fail"``: the first bad row is an error that names file, line and reason. ``"skip"``: bad rows are left out,
        counted and noted. ``"stop"``: the rows before the first bad one are used.
    sort
        Sort rows by arrival; without it an unsorted trace is refused.
    spread_ties
        ``"uniform"``: k requests of one arrival time t go to t + j/k s (j = 0 to k - 1, in file order), within the time
        to the next distinct arrival if that is less than a second. ``"keep"``: they stay together. By default BurstGPT,
        whose clock counts whole seconds, is spread and all others are kept.
    keep_failed
        Keep failed requests (no output tokens) with one output token in place of none; by default they are dropped,
        counted and noted.

    Returns
    -------
    Trace
        With notes on everything that was left out or changed.

    Raises
    ------
    TraceError
        If the file can't be read as a trace; one line with file, line and remedy.
    """
    for value, allowed, name in ((on_bad_row, OnBadRow, "on_bad_row"), (spread_ties, SpreadTies, "spread_ties")):
        if value is not None and value not in get_args(allowed):
            raise TraceError(f"{name} is {value!r}{did_you_mean(str(value), get_args(allowed))}")
    file = bundled(str(path)[len(_BUNDLED) :]) if str(path).startswith(_BUNDLED) else Path(path)
    head = head_of(file)
    reader = _named(format) if format is not None else _matching(head)
    trace = reader.parse(head, Options(on_bad_row, sort, spread_ties, keep_failed))
    return replace(trace, source=str(path)) if str(path).startswith(_BUNDLED) else trace


def bundled(name: str) -> Path:
    """Return the file of a trace that comes with the project."""
    try:
        module = importlib.import_module("traces")
    except ImportError:
        raise TraceError("bundled traces aren't installed (package 'traces' is missing); give a file instead") from None
    if name not in module.names():
        raise TraceError(f"no bundled trace is called {name!r}{did_you_mean(name, module.names())}")
    return Path(module.path(name))


def _named(name: str) -> Reader:
    if name not in readers():
        raise TraceError(f"unknown trace format {name!r}{did_you_mean(name, readers())}")
    return readers()[name]


def _matching(head: Head) -> Reader:
    # The project's own format is asked last: a foreign file never passes for it, and it takes every Parquet file.
    candidates = sorted(readers().values(), key=lambda reader: (reader.name == "native", reader.name))
    for reader in candidates:
        if reader.matches(head):
            return reader
    if head.record is not None and not head.record:
        raise TraceError(f"{head.path}:1: begins like JSON Lines, but the first line is no whole JSON object")
    found = list(head.record) if head.record is not None else list(head.columns)
    listed = ", ".join(repr(_shortened(name)) for name in found[:12]) or "none"
    layout = "csv" if head.record is None else "jsonl"
    nearest = max(
        (reader for reader in candidates if reader.layout == layout), key=lambda reader: _likeness(reader, found)
    )
    if _likeness(nearest, found) > 0:
        lacking = [name for name in nearest.columns if name not in found]
        hints = [did_you_mean(name, found) for name in lacking]
        near = next((hint for hint in hints if hint.startswith("; did")), "")
        raise TraceError(
            f"{head.path}: unknown trace format (found: {listed}); nearest is {nearest.name!r}, which needs "
            f"{', '.join(map(repr, lacking))}{near}"
        )
    raise TraceError(f"{head.path}: unknown trace format (found: {listed}); known: {', '.join(readers())}")


def _likeness(reader: Reader, found: list[str]) -> float:
    """Return the share of a reader's columns that a file has, near misses counting half."""
    score = 0.0
    for name in reader.columns:
        if name in found:
            score += 1
        elif found and did_you_mean(name, found).startswith("; did"):
            score += 0.5
    return score / len(reader.columns)


def _shortened(text: str) -> str:
    return text if len(text) <= 30 else text[:27] + "..."

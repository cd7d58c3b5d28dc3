"""The trace: what every reader and generator returns and every source replays.

A trace is a set of NumPy columns, one element a request, in the order of arrival. No object exists per request, so
that a trace of millions of requests stays a few tens of megabytes.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MAX_TOKENS = 1 << 31
"""Longest prompt or output that a trace may hold, tokens; more is taken for a damaged row."""


class TraceError(ValueError):
    """A trace that can't be read, written, filtered or generated; one line: what, where (file:line), remedy."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest known word, else the sorted list of the known ones."""
    options = sorted(known)
    folded = {option.lower().replace("_", "-"): option for option in options}
    near = difflib.get_close_matches(word.lower().replace("_", "-"), list(folded), n=1, cutoff=0.6)
    if near:
        return f"; did you mean {folded[near[0]]!r}?"
    return f"; known: {', '.join(options)}"


@dataclass(frozen=True, eq=False)
class Categorical:
    """A text column: a small code for each row, and the text of each code.

    Attributes
    ----------
    codes
        Index into ``names`` for each row, -1 where the row has none; int32.
    names
        The texts, in the order of their first appearance.
    """

    codes: npt.NDArray[np.int32]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "codes", _column(self.codes, np.int32))
        if len(self.codes) and (self.codes.min() < -1 or self.codes.max() >= len(self.names)):
            raise TraceError(f"a category code lies outside -1 to {len(self.names) - 1}")

    def __len__(self) -> int:
        return len(self.codes)

    def texts(self) -> list[str]:
        """Return the text of every row, empty where there is none."""
        names = [*self.names, ""]
        return [names[code] for code in self.codes.tolist()]

    def take(self, index: npt.NDArray[Any]) -> Categorical:
        """Return the rows of a mask or an index; names that no row has are kept."""
        return Categorical(self.codes[index], self.names)

    @staticmethod
    def of(texts: Iterable[str]) -> Categorical:
        """Make a column from texts, the empty text being none."""
        known: dict[str, int] = {}
        codes = [known.setdefault(text, len(known)) if text else -1 for text in texts]
        return Categorical(np.array(codes, np.int32), tuple(known))


@dataclass(frozen=True, eq=False)
class Ragged:
    """A column of lists of integers: row ``i`` is ``values[offsets[i]:offsets[i + 1]]``."""

    offsets: Ints
    values: Ints

    def __post_init__(self) -> None:
        object.__setattr__(self, "offsets", _column(self.offsets, np.int64))
        object.__setattr__(self, "values", _column(self.values, np.int64))
        if not len(self.offsets) or self.offsets[0] != 0 or self.offsets[-1] != len(self.values):
            raise TraceError("the offsets of a ragged column must run from 0 to the number of its values")
        if np.any(np.diff(self.offsets) < 0):
            raise TraceError("the offsets of a ragged column must not fall")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> Ints:
        """Return the list of one row."""
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    def lengths(self) -> Ints:
        """Return the number of values of every row."""
        return np.diff(self.offsets)

    def take(self, index: npt.NDArray[Any]) -> Ragged:
        """Return the rows of a mask or an index, in its order."""
        rows = np.flatnonzero(index) if index.dtype == np.bool_ else index
        lengths = self.lengths()[rows]
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        source = np.repeat(self.offsets[rows] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Ragged(offsets, self.values[source])

    @staticmethod
    def of(rows: Iterable[Iterable[int]]) -> Ragged:
        """Make a column from lists."""
        lists = [np.fromiter(row, np.int64) for row in rows]
        offsets = np.concatenate(([0], np.cumsum([len(row) for row in lists], dtype=np.int64)))
        return Ragged(offsets.astype(np.int64), np.concatenate(lists) if lists else np.empty(0, np.int64))


def _column(values: Any, dtype: Any) -> npt.NDArray[Any]:
    """Return values as a read-only contiguous array of this type (a view where they are one already)."""
    array: npt.NDArray[Any] = np.ascontiguousarray(values, dtype=dtype).view()
    array.flags.writeable = False
    return array


_DTYPES: Mapping[str, Any] = {
    "arrival_s": np.float64,
    "prompt_tokens": np.int64,
    "output_tokens": np.int64,
    "session_id": np.int64,
    "parent_id": np.int64,
    "think_time_s": np.float64,
    "priority": np.int64,
    "deadline_s": np.float64,
    "row_key": np.uint64,
}


@dataclass(frozen=True, eq=False)
class Trace:
    """Requests in the order of their arrival, as columns of equal length.

    Attributes
    ----------
    arrival_s
        Seconds from the trace's zero (its first arrival, or the start of a window); never falls, first >= 0.
    prompt_tokens, output_tokens
        Lengths in tokens, at least 1.
    session_id
        Conversation or agent run that a request belongs to; -1 none.
    parent_id
        Row of the previous turn, always an earlier row; -1 none.
    think_time_s
        Seconds between the parent's end and this turn; NaN none.
    model, adapter, tenant, request_class
        Texts (the column of a file is called ``class``).
    priority
        Smaller is more urgent.
    deadline_s
        Seconds after arrival within which the request should end; NaN none.
    block_hashes
        Chained identities of the request's blocks of ``block_size_tokens`` tokens: equal identities mean equal
        tokens up to and including that block. They cover the prompt, or the prompt and the output.
    block_size_tokens
        Tokens a block of ``block_hashes``; 0 without them.
    source, sha256
        Where the trace is from (file or generator call), and the digest of that file (or of the call's text).
    time_origin
        What ``arrival_s == 0`` is on the source's own clock; empty where the source has none.
    notes
        Sentences for a person: everything dropped, skipped, spread, substituted, and unknown columns.
    counts
        The same in numbers, by a short name.
    row_key
        Identity of each row for sampling, independent of the rows around it; None until it is needed.
    """

    arrival_s: Floats
    prompt_tokens: Ints
    output_tokens: Ints
    session_id: Ints | None = None
    parent_id: Ints | None = None
    think_time_s: Floats | None = None
    model: Categorical | None = None
    adapter: Categorical | None = None
    tenant: Categorical | None = None
    request_class: Categorical | None = None
    priority: Ints | None = None
    deadline_s: Floats | None = None
    block_hashes: Ragged | None = None
    block_size_tokens: int = 0
    source: str = ""
    sha256: str = ""
    time_origin: str = ""
    notes: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    row_key: npt.NDArray[np.uint64] | None = None

    def __post_init__(self) -> None:
        for name, dtype in _DTYPES.items():
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, _column(value, dtype))
        n = len(self.arrival_s)
        for name, column in self.columns().items():
            if len(column) != n:
                raise TraceError(f"column {name!r} has {len(column)} rows, 'arrival_s' {n}")
        if n:
            self._check_values()
        if (self.block_hashes is not None) != (self.block_size_tokens > 0):
            raise TraceError("'block_hashes' needs 'block_size_tokens' of at least 1, and the other way round")

    def _check_values(self) -> None:
        if not np.isfinite(self.arrival_s).all() or self.arrival_s[0] < 0:
            raise TraceError("'arrival_s' must be finite and start at 0 or later")
        if (falls := np.flatnonzero(np.diff(self.arrival_s) < 0)).size:
            raise TraceError(f"'arrival_s' falls at row {falls[0] + 1}; sort the rows by arrival")
        for name in ("prompt_tokens", "output_tokens"):
            if (low := np.flatnonzero(getattr(self, name) < 1)).size:
                raise TraceError(f"{name!r} is below 1 at row {low[0]}")
        if self.parent_id is not None:
            late = np.flatnonzero((self.parent_id >= np.arange(len(self))) | (self.parent_id < -1))
            if late.size:
                raise TraceError(f"'parent_id' at row {late[0]} isn't an earlier row")
        if self.think_time_s is not None and np.any(self.think_time_s < 0):
            raise TraceError(f"'think_time_s' is negative at row {np.flatnonzero(self.think_time_s < 0)[0]}")

    def __len__(self) -> int:
        return len(self.arrival_s)

    def columns(self) -> dict[str, npt.NDArray[Any] | Categorical | Ragged]:
        """Return the columns that the trace has, by attribute name."""
        found = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, np.ndarray | Categorical | Ragged):
                found[f.name] = value
        return found

    def select(self, rows: npt.NDArray[Any]) -> Trace:
        """Return the rows of a boolean mask or of an increasing index.

        Parents are renumbered; a turn whose parent is gone has none (-1), and so starts at its own arrival.
        """
        rows = np.asarray(rows)
        index: Ints = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows.astype(np.int64)
        changes = self._taken(index)
        if self.parent_id is not None:
            new = np.full(len(self) + 1, -1, np.int64)
            new[index] = np.arange(len(index))
            changes["parent_id"] = new[self.parent_id[index]]  # a parent of -1 reads the last element, -1
        return replace(self, **changes)

    def rearranged(self, rows: npt.NDArray[Any], arrival_s: Floats) -> Trace:
        """Return rows in any order, and as often as wished, that arrive at other times; sessions are gone then."""
        changes = self._taken(np.asarray(rows, np.int64))
        gone = dict.fromkeys(("session_id", "parent_id", "think_time_s", "row_key"))
        return replace(self, **{**changes, **gone, "arrival_s": arrival_s})

    def _taken(self, index: Ints) -> dict[str, Any]:
        return {
            name: column.take(index) if isinstance(column, Categorical | Ragged) else column[index]
            for name, column in self.columns().items()
        }

    def with_notes(self, *notes: str, **counts: int) -> Trace:
        """Return the trace with notes and counts added."""
        return replace(self, notes=(*self.notes, *notes), counts={**self.counts, **counts})

    def describe(self) -> dict[str, Any]:
        """Return statistics of the trace as plain data; see :func:`workloads.stats.describe`."""
        from workloads.stats import describe

        return describe(self)

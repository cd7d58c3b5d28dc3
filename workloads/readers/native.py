"""The project's own format: CSV or Parquet with the columns of docs/traces.md.

``arrival_s``, ``prompt_tokens`` and ``output_tokens`` are required; the rest may be left out, as may single values of
them. ``arrival_s`` is kept as it is. ``parent_id`` counts the rows of the file from 0. ``block_hashes`` is a list
column in Parquet and whole numbers with spaces between in CSV, ``block_size_tokens`` the same in every row.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from workloads.arrow import to_numpy
from workloads.readers._base import (
    DURATION,
    INTEGER,
    Head,
    Options,
    Reader,
    Roles,
    Rule,
    Table,
    arrange,
    digest,
    readable,
)
from workloads.readers._csv import Column, in_order_of_appearance, missing_column, read_csv, text_codes
from workloads.streams import mix
from workloads.trace import Floats, Ragged, Trace, TraceError

REQUIRED = ("arrival_s", "prompt_tokens", "output_tokens")
INTEGERS = ("session_id", "parent_id", "priority")
DURATIONS = ("think_time_s", "deadline_s")
TEXTS = ("model", "adapter", "tenant", "class")
COLUMNS = (
    *(Column(name) for name in REQUIRED),
    *(Column(name, required=False) for name in (*INTEGERS, *DURATIONS)),
    *(Column(name, "text", required=False) for name in TEXTS),
    Column("block_size_tokens", required=False),
    Column("block_hashes", "list", required=False),
)
"""Every column of the native schema, in the order in which it is written."""

_RULES = {
    **dict.fromkeys(INTEGERS, INTEGER),
    **dict.fromkeys(DURATIONS, DURATION),
    "parent_id": Rule(integral=True, optional=True, low=-1, high=2.0**53),
    "block_size_tokens": Rule(integral=True, optional=True, low=0, high=2.0**31),
}


def _matches(head: Head) -> bool:
    return head.parquet or set(REQUIRED) <= set(head.columns)


def _parse(head: Head, options: Options) -> Trace:
    table, sha = _read_parquet(head) if head.parquet else read_csv(head, COLUMNS)
    block_size = _block_size(table)
    roles = Roles(
        time="arrival_s",
        relative=False,
        prompt="prompt_tokens",
        output="output_tokens",
        zero_output_failed=False,
        model="model",
        adapter="adapter",
        tenant="tenant",
        request_class="class",
        blocks="block_hashes" if block_size else None,
        block_size=block_size,
    )
    rows = table.n
    extra = {name: rule for name, rule in _RULES.items() if name in table.numbers}
    table, trace = arrange(table, roles, options, extra)
    parts: dict[str, Any] = {"sha256": sha}
    for name in ("session_id", "priority"):
        if name in table.numbers:
            none = -1 if name == "session_id" else 0
            parts[name] = np.nan_to_num(table.numbers[name], nan=none).astype(np.int64)
    for name in DURATIONS:
        if name in table.numbers:
            parts[name] = table.numbers[name]
    if "session_id" in parts and trace.row_key is not None:
        in_session = parts["session_id"] >= 0
        parts["row_key"] = np.where(in_session, mix(~parts["session_id"]), trace.row_key)
    trace = replace(trace, **parts)
    return _with_parents(trace, table, rows) if "parent_id" in table.numbers else trace


def _block_size(table: Table) -> int:
    sizes = table.numbers.get("block_size_tokens", np.empty(0))
    good = np.unique(sizes[(sizes > 0) & np.isfinite(sizes)])
    if len(good) > 1:
        raise TraceError(
            f"{table.path}: 'block_size_tokens' differs by row ({good[0]:g}, {good[1]:g}); a trace has one"
        )
    if "block_hashes" in table.lists and len(table.lists["block_hashes"].values) and not len(good):
        raise TraceError(
            f"{table.path}: 'block_hashes' needs a column 'block_size_tokens' that says how long a block is"
        )
    return int(good[0]) if len(good) and "block_hashes" in table.lists else 0


def _with_parents(trace: Trace, table: Table, rows: int) -> Trace:
    """Renumber parents from rows of the file to rows of the trace."""
    original = np.arange(table.n) if table.original is None else table.original
    parent = np.nan_to_num(table.numbers["parent_id"], nan=-1).astype(np.int64)
    if (beyond := np.flatnonzero(parent >= rows)).size:
        row = int(beyond[0])
        raise TraceError(
            f"{table.where(row)}: parent_id is {parent[row]}, but the file has {rows} rows (0 to {rows - 1})"
        )
    place = np.full(rows + 1, -1, np.int64)
    place[original] = np.arange(table.n)
    new = place[parent]
    if (late := np.flatnonzero(new >= np.arange(table.n))).size:
        row = int(late[0])
        raise TraceError(
            f"{table.where(row)}: parent_id is {parent[row]}, which isn't an earlier request; a turn follows its parent"
        )
    trace = replace(trace, parent_id=new)
    if lost := int(np.count_nonzero((parent >= 0) & (new < 0))):
        return trace.with_notes(
            f"{lost} turns lost their parent, a row that was left out; they start at their own arrival",
            orphaned_turns=lost,
        )
    return trace


def _read_parquet(head: Head) -> tuple[Table, str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with readable(head.path):
        sha, _ = digest(head.path)
        try:
            with pq.ParquetFile(head.path) as file:
                names = tuple(file.schema_arrow.names)
                head = replace(head, columns=names)
                for name in REQUIRED:
                    if name not in names:
                        raise missing_column(head, name)
                wanted = [column for column in COLUMNS if column.name in names]
                whole = file.read([column.name for column in wanted])
            table = Table(head.path, whole.num_rows, unit="row", first_line=0)
            for column in wanted:
                _add_column(table, column, whole.column(column.name), pa)
        except pa.ArrowException as e:
            raise TraceError(f"{head.path}: is no readable Parquet file ({str(e).splitlines()[0]})") from None
    unknown = [name for name in names if name not in {column.name for column in COLUMNS}]
    if unknown:
        table.notes.append(f"ignored unknown column{'s' * (len(unknown) > 1)} {', '.join(map(repr, unknown))}")
        table.counts["unknown_columns"] = len(unknown)
    return table, sha


def _add_column(table: Table, column: Column, values: Any, pa: Any) -> None:
    name = column.name
    if column.kind == "number":
        if not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type) or pa.types.is_null(values.type)):
            raise TraceError(f"{table.path}: column {name!r} holds {values.type}, not numbers")
        table.numbers[name] = _floats(values, pa)
        if column.required:
            for row in np.flatnonzero(np.isnan(table.numbers[name])).tolist():
                table.bad.setdefault(row, f"{name} is missing")
    elif column.kind == "text":
        values = values.cast(pa.string()).dictionary_encode()
        names: dict[str, int] = {}
        codes = [text_codes(chunk, names) for chunk in values.chunks]
        table.texts[name] = in_order_of_appearance(np.concatenate([np.empty(0, np.int32), *codes]), tuple(names))
    else:
        if not pa.types.is_list(values.type) and not pa.types.is_large_list(values.type):
            raise TraceError(f"{table.path}: column {name!r} holds {values.type}, not lists of whole numbers")
        joined = values.combine_chunks().cast(pa.large_list(pa.int64()))
        lengths = joined.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
        offsets = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
        table.lists[name] = Ragged(offsets, joined.flatten().to_numpy(zero_copy_only=False))


def _floats(values: Any, pa: Any) -> Floats:
    """Return a column of numbers; whole numbers without nulls, as writers leave them, need none of Arrow's casts."""
    whole = values.type == pa.int64() and not values.null_count
    if not whole and values.type != pa.float64():
        values = values.cast(pa.float64(), safe=False)
    parts = [to_numpy(chunk, np.int64 if whole else np.float64, np.nan) for chunk in values.chunks]
    return np.concatenate([np.empty(0), *parts])


READER = Reader(
    "native",
    "this project's own columns, CSV or Parquet (docs/traces.md)",
    _matches,
    _parse,
    REQUIRED,
)

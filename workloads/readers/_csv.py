"""CSV files: a fast vectorised pass, and a careful one by line that says what is wrong and where."""

from __future__ import annotations

import csv
import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from workloads.arrow import to_numpy
from workloads.readers._base import NO_STAMP, Head, Table, digest, is_gzip, open_text, readable
from workloads.trace import Categorical, Ragged, TraceError, did_you_mean

Kind = Literal["number", "text", "stamp", "list"]

_BLOCK_BYTES = 1 << 23
_STAMP = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:?\d\d)?\Z")
_ZONE = re.compile(r"(Z|[+-]\d\d:?\d\d)\Z")


@dataclass(frozen=True)
class Column:
    """One column of a CSV format."""

    name: str
    kind: Kind = "number"
    required: bool = True


def read_csv(head: Head, columns: Sequence[Column]) -> tuple[Table, str]:
    """Read the named columns of a CSV file; return them and the file's SHA-256.

    Columns that the file has beyond these become a note. Nothing is judged but what can't be parsed.

    Raises
    ------
    TraceError
        If a required column is missing, one occurs twice, or the file can't be read.
    """
    known = {column.name for column in columns}
    for column in columns:
        if column.required and column.name not in head.columns:
            raise missing_column(head, column.name)
    for name in known:
        if head.columns.count(name) > 1:
            raise TraceError(f"{head.path}:1: column {name!r} occurs {head.columns.count(name)} times; name each once")
    present = [column for column in columns if column.name in head.columns]
    with readable(head.path):
        sha, whole = digest(head.path)
        table = _fast(head, present)
        if table is None or (not whole and _cut_label(table, present)):
            table = _careful(head, present, whole)
    unknown = [name for name in head.columns if name not in known]
    if unknown:
        listed = ", ".join(repr(name) for name in unknown)
        table.notes.append(f"ignored unknown column{'s' * (len(unknown) > 1)} {listed}")
        table.counts["unknown_columns"] = len(unknown)
    return table, sha


def missing_column(head: Head, name: str) -> TraceError:
    """Say which column a file lacks, and which it has."""
    found = ", ".join(repr(column) for column in head.columns) or "none"
    hint = did_you_mean(name, head.columns) if head.columns else ""
    hint = hint if hint.startswith("; did") else ""
    return TraceError(f"{head.path}:1: column {name!r} is missing (found: {found}){hint}")


# --------------------------------------------------------------------------------------------------- fast pass


def _fast(head: Head, columns: Sequence[Column]) -> Table | None:
    """Read with Arrow, block by block; None where anything is out of the ordinary."""
    import pyarrow as pa
    import pyarrow.csv as pacsv

    zoned = dict(zip(head.columns, (bool(_ZONE.search(text)) for text in head.first_row), strict=False))
    types = {
        "number": lambda name: pa.float64(),
        "text": lambda name: pa.dictionary(pa.int32(), pa.string()),
        "stamp": lambda name: pa.timestamp("ns", "UTC" if zoned.get(name) else None),
        "list": lambda name: pa.string(),
    }
    parts: dict[str, list[Any]] = {column.name: [] for column in columns}
    names: dict[str, dict[str, int]] = {column.name: {} for column in columns if column.kind == "text"}
    n = 0
    try:
        source = pa.input_stream(str(head.path), compression="gzip" if is_gzip(head.path) else None)
        with pacsv.open_csv(
            source,
            read_options=pacsv.ReadOptions(column_names=head.columns, skip_rows=1, block_size=_BLOCK_BYTES),
            parse_options=pacsv.ParseOptions(ignore_empty_lines=False),
            convert_options=pacsv.ConvertOptions(
                column_types={column.name: types[column.kind](column.name) for column in columns},
                include_columns=[column.name for column in columns],
                null_values=[""],
                strings_can_be_null=False,
            ),
        ) as reader:
            for batch in reader:
                n += batch.num_rows
                for column, values in zip(columns, batch.columns, strict=True):
                    if column.required and column.kind in ("number", "stamp") and values.null_count:
                        return None
                    parts[column.name].append(_plain(values, column.kind, names.get(column.name)))
    except (pa.ArrowInvalid, OSError):  # the careful pass says what and where
        return None
    return _table(head, columns, parts, names, n)


def _plain(values: Any, kind: Kind, names: dict[str, int] | None) -> Any:
    if kind == "number":
        return to_numpy(values, np.float64, np.nan)
    if kind == "stamp":
        return to_numpy(values, np.int64, NO_STAMP)
    if kind == "list":
        return values.to_pylist()
    return text_codes(values, {} if names is None else names)


def text_codes(values: Any, names: dict[str, int]) -> npt.NDArray[np.int32]:
    """Return the code of each text of an Arrow dictionary array, -1 for none; new texts are added to the names."""
    codes = [-1 if not text else names.setdefault(text, len(names)) for text in values.dictionary.to_pylist()]
    found: npt.NDArray[np.int32] = np.array([*codes, -1], np.int32)[to_numpy(values.indices, np.int32, -1)]
    return found


def _table(
    head: Head, columns: Sequence[Column], parts: dict[str, list[Any]], names: dict[str, dict[str, int]], n: int
) -> Table:
    table = Table(head.path, n, last_column=head.columns[-1])
    for column in columns:
        blocks = parts.pop(column.name)
        if column.kind == "number":
            table.numbers[column.name] = np.concatenate(blocks) if blocks else np.empty(0)
        elif column.kind == "stamp":
            table.stamps[column.name] = np.concatenate(blocks) if blocks else np.empty(0, np.int64)
        elif column.kind == "text":
            codes = np.concatenate(blocks) if blocks else np.empty(0, np.int32)
            table.texts[column.name] = in_order_of_appearance(codes, tuple(names[column.name]))
        else:
            table.lists[column.name] = _lists([text for block in blocks for text in block], column.name, table)
    return table


def in_order_of_appearance(codes: npt.NDArray[np.int32], names: tuple[str, ...]) -> Categorical:
    """Renumber codes so that names come in the order in which rows first have them."""
    used, first = np.unique(codes, return_index=True)
    used = used[np.argsort(first)]
    used = used[used >= 0]
    new = np.full(len(names) + 1, -1, np.int32)
    new[used] = np.arange(len(used))
    return Categorical(new[codes], tuple(names[code] for code in used.tolist()))


def _lists(texts: Sequence[str], name: str, table: Table) -> Ragged:
    values = array("q")
    offsets = array("q", [0])
    for row, text in enumerate(texts):
        try:
            values.extend(map(int, text.split()))
        except (ValueError, OverflowError):
            table.bad.setdefault(row, f"{name} is {_short(text)}, not whole numbers with spaces between")
        offsets.append(len(values))
    return Ragged(np.array(offsets, np.int64), np.array(values, np.int64))


def _cut_label(table: Table, columns: Sequence[Column]) -> bool:
    """Return True if the file ends inside its last label (a proper beginning of another label of that column)."""
    last = columns[-1]
    if last.kind != "text" or last.name != table.last_column or not table.n:
        return False
    column = table.texts[last.name]
    code = int(column.codes[-1])
    if code < 0 or np.count_nonzero(column.codes == code) > 1:
        return False
    label = column.names[code]
    return any(name != label and name.startswith(label) for name in column.names)


# ------------------------------------------------------------------------------------------------- careful pass


def _careful(head: Head, columns: Sequence[Column], whole: bool) -> Table:
    """Read line by line; what can't be parsed is noted as a bad row with its reason."""
    width = len(head.columns)
    places = [(column, head.columns.index(column.name)) for column in columns]
    numbers = {c.name: array("d") for c in columns if c.kind == "number"}
    stamps = {c.name: array("q") for c in columns if c.kind == "stamp"}
    codes = {c.name: array("i") for c in columns if c.kind == "text"}
    names: dict[str, dict[str, int]] = {name: {} for name in codes}
    lists: dict[str, list[str]] = {c.name: [] for c in columns if c.kind == "list"}
    lines = array("q")
    bad: dict[int, str] = {}
    with open_text(head.path) as text:
        rows = csv.reader(text)
        next(rows)
        previous = rows.line_num
        try:
            for fields in rows:
                line, previous = previous + 1, rows.line_num
                if not fields:
                    continue
                row = len(lines)
                lines.append(line)
                if len(fields) != width:
                    bad[row] = f"{len(fields)} field{'s' * (len(fields) > 1)}, {width} expected"
                    fields = [""] * width
                for column, place in places:
                    field = fields[place]
                    if column.kind == "number":
                        numbers[column.name].append(_number(field.strip(), column, row, bad))
                    elif column.kind == "text":
                        known = names[column.name]
                        codes[column.name].append(known.setdefault(field, len(known)) if field else -1)
                    elif column.kind == "stamp":
                        stamps[column.name].append(_stamp(field.strip(), column, row, bad))
                    else:
                        lists[column.name].append(field)
        except csv.Error as e:
            raise TraceError(f"{head.path}:{rows.line_num}: is no CSV row ({e})") from None
    parts: dict[str, list[Any]] = {name: [np.array(values, np.float64)] for name, values in numbers.items()}
    parts |= {name: [np.array(values, np.int64)] for name, values in stamps.items()}
    parts |= {name: [np.array(values, np.int32)] for name, values in codes.items()}
    parts |= {name: [values] for name, values in lists.items()}
    table = _table(head, columns, parts, names, len(lines))
    table.lines = np.array(lines, np.int64)
    table.bad = {**table.bad, **bad}
    if not whole and table.n:
        if _cut_label(table, columns):
            label = table.texts[columns[-1].name].names[int(table.texts[columns[-1].name].codes[-1])]
            table.bad.setdefault(table.n - 1, f"{columns[-1].name} is {label!r}, cut short")
        if table.n - 1 in table.bad:
            table.bad[table.n - 1] += " (the last line is truncated)"
    return table


def _number(text: str, column: Column, row: int, bad: dict[int, str]) -> float:
    if not text:
        if column.required:
            bad.setdefault(row, f"{column.name} is missing")
        return np.nan
    try:
        value = float(text) if "_" not in text else None
    except ValueError:
        value = None
    if value is None or value != value:
        bad.setdefault(row, f"{column.name} is {_short(text)}, not a number")
        return np.nan
    return value


def _stamp(text: str, column: Column, row: int, bad: dict[int, str]) -> int:
    match = _STAMP.match(text)
    try:
        if match is None:
            raise ValueError
        day, time, fraction, zone = match.groups()
        moment = datetime.fromisoformat(f"{day}T{time}{zone or '+00:00'}")
        seconds = int((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds())
        stamp = seconds * 10**9 + int((fraction or "").ljust(9, "0"))
        if abs(stamp) >= -NO_STAMP:
            raise ValueError
    except ValueError:
        what = f"is {_short(text)}, not a time such as 2023-11-16 18:17:03.9799600" if text else "is missing"
        bad.setdefault(row, f"{column.name} {what}")
        return int(NO_STAMP)
    return stamp


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")

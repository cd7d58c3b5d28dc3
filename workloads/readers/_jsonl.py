"""JSON Lines files: one object a line, parsed line by line into compact columns."""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np

from workloads.readers._base import Head, Table, digest, open_text, readable
from workloads.trace import Ragged, TraceError, did_you_mean


def read_jsonl(head: Head, numbers: Sequence[str], lists: Sequence[str], *, hexadecimal: bool) -> tuple[Table, str]:
    """Read numeric keys and lists of block identities; return them and the file's SHA-256.

    Parameters
    ----------
    head
        The file.
    numbers
        Keys whose values are numbers; all are required.
    lists
        Keys whose values are lists of identities.
    hexadecimal
        True: identities are texts of hexadecimal digits (the low 63 bits count); False: whole numbers.
    """
    columns = {name: array("d") for name in numbers}
    values = {name: array("q") for name in lists}
    offsets = {name: array("q", [0]) for name in lists}
    lines = array("q")
    bad: dict[int, str] = {}
    unknown: set[str] = set()
    known = {*numbers, *lists}
    with readable(head.path):
        sha, whole = digest(head.path)
        with open_text(head.path) as text:
            for number, line in enumerate(text, 1):
                if line.isspace():
                    continue
                row = len(lines)
                lines.append(number)
                record = _record(line, row, bad)
                unknown |= record.keys() - known
                for name in numbers:
                    columns[name].append(_number(record, name, row, bad))
                for name in lists:
                    _extend(values[name], record, name, row, bad, hexadecimal)
                    offsets[name].append(len(values[name]))
    if not whole and len(lines) and len(lines) - 1 in bad:
        bad[len(lines) - 1] += " (the last line is truncated)"
    table = Table(head.path, len(lines), lines=np.array(lines, np.int64), bad=bad, first_line=1)
    table.numbers = {name: np.array(column, np.float64) for name, column in columns.items()}
    table.lists = {name: Ragged(np.array(offsets[name], np.int64), np.array(values[name], np.int64)) for name in lists}
    if unknown:
        listed = ", ".join(repr(name) for name in sorted(unknown))
        table.notes.append(f"ignored unknown key{'s' * (len(unknown) > 1)} {listed}")
        table.counts["unknown_columns"] = len(unknown)
    return table, sha


def require_keys(head: Head, names: Sequence[str]) -> None:
    """Refuse a file whose first record lacks one of these keys."""
    record = head.record
    if record is None:
        raise TraceError(f"{head.path}:1: is no JSON object, and this format has one on each line")
    for name in names:
        if name not in record:
            found = ", ".join(repr(key) for key in record) or "none"
            hint = did_you_mean(name, record)
            raise TraceError(
                f"{head.path}:1: key {name!r} is missing (found: {found}){hint if hint.startswith('; did') else ''}"
            )


def _record(line: str, row: int, bad: dict[int, str]) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as e:
        bad[row] = f"is no JSON object ({getattr(e, 'msg', e)})"
        return {}
    if not isinstance(record, dict):
        bad[row] = "is no JSON object"
        return {}
    return record


def _number(record: dict[str, Any], name: str, row: int, bad: dict[int, str]) -> float:
    value = record.get(name)
    if value is None:
        bad.setdefault(row, f"{name} is missing")
        return np.nan
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        bad.setdefault(row, f"{name} is {value!r}, not a number")
        return np.nan
    return float(value) if abs(value) < 2**63 else float(np.copysign(np.inf, value))


def _extend(
    values: array[int], record: dict[str, Any], name: str, row: int, bad: dict[int, str], hexadecimal: bool
) -> None:
    identities = record.get(name)
    before = len(values)
    try:
        if hexadecimal:
            values.extend([int(text, 16) & 0x7FFF_FFFF_FFFF_FFFF for text in identities or ()])
        else:
            values.extend(identities or ())
    except (TypeError, ValueError, OverflowError):
        del values[before:]
        what = "hexadecimal texts" if hexadecimal else "whole numbers"
        bad.setdefault(row, f"{name} must be a list of {what}")

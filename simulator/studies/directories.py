"""The directory that a study writes to: its own or a new one, all of it or nothing, and never anybody else's files."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from simulator.errors import InputError
from simulator.write import plain

_PARTIAL = ".partial"
"""Ends the names of files that are being written; they are left where a study was killed meanwhile."""


def check_own(place: Path, study: str, is_own: Callable[[str], bool], *, overwrite: bool) -> Path:
    """Return a directory, absolute and there, if a study may be written to it; for a check before a long one.

    Parameters
    ----------
    study
        What is written, such as ``"sweep"``.
    is_own
        Whether a name is that of a file of such a study.
    overwrite
        Whether an earlier one may be replaced.

    Raises
    ------
    InputError
        If it is a file, can't be made, or holds anything but an earlier study that may be replaced.
    """
    place = place.expanduser().resolve()
    try:
        place.mkdir(parents=True, exist_ok=True)
        names = sorted(entry.name for entry in place.iterdir())
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"cannot write to {place}: it is a file, or lies in one; choose another directory") from error
    except OSError as error:
        raise InputError(f"cannot write to {place}: {error.strerror}; choose another directory") from error
    others = [name for name in names if not is_own(name.removesuffix(_PARTIAL))]
    if others:
        what = ", ".join(others[:3])
        raise InputError(f"cannot write to {place}: it holds other files ({what}); choose another directory")
    if names and not overwrite:
        raise InputError(
            f"cannot write to {place}: it holds an earlier {study}; choose another directory or overwrite it "
            "(--overwrite: what is kept in the store isn't simulated again)"
        )
    return place


def csv_text(rows: Sequence[Mapping[str, Any]], columns: Iterable[str] = ()) -> str:
    """Return rows as CSV; mappings and lists in them as JSON.

    Parameters
    ----------
    columns
        Those that stand first, and are there also without a row; those that rows have beside follow.
    """
    named = dict.fromkeys((*columns, *(name for row in rows for name in row)))
    text = io.StringIO()
    writer = csv.DictWriter(text, list(named), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    return json.dumps(plain(value), ensure_ascii=False) if isinstance(value, Mapping | list | tuple) else value


def json_text(data: Mapping[str, Any]) -> str:
    """Return what is known of a study as JSON."""
    return json.dumps(plain(data), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_all(place: Path, files: Mapping[str, str], is_own: Callable[[str], bool]) -> None:
    """Write all files of a study to a directory that `check_own` returned, in place of an earlier one's.

    Parameters
    ----------
    files
        Texts by name; a name may have a folder in front.
    is_own
        As `check_own`: what an earlier study left goes, and nothing that somebody else put there meanwhile.

    Raises
    ------
    InputError
        If that can't be, such as on a full disk; then what was there is there still.
    """
    begun: list[Path] = []
    try:
        for name, text in files.items():
            path = place / f"{name}{_PARTIAL}"
            path.parent.mkdir(parents=True, exist_ok=True)
            begun.append(path)
            path.write_text(text, encoding="utf-8")
        for path in begun:
            path.replace(path.with_suffix(""))
        for path in place.rglob("*"):
            within = path.relative_to(place)
            if path.is_file() and within.as_posix() not in files and is_own(within.parts[0].removesuffix(_PARTIAL)):
                path.unlink()
    except OSError as error:
        for path in begun:
            path.unlink(missing_ok=True)
        why = os.strerror(error.errno) if error.errno else str(error)
        raise InputError(
            f"cannot write to {place}: {why}; choose another directory, or make room (what is kept in the store isn't "
            "simulated again)"
        ) from error

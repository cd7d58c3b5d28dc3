"""The directory that a study writes to: its own or a new one, all of it or nothing, and never anybody else's files."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from simulator.errors import InputError

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


def write_all(place: Path, files: Mapping[str, str]) -> None:
    """Write all files of a study to a directory that `check_own` returned, in place of an earlier one's.

    Parameters
    ----------
    files
        Texts by name; a name may have a folder in front.

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
            if path.is_file() and path.relative_to(place).as_posix() not in files:
                path.unlink()
    except OSError as error:
        for path in begun:
            path.unlink(missing_ok=True)
        why = os.strerror(error.errno) if error.errno else str(error)
        raise InputError(
            f"cannot write to {place}: {why}; choose another directory, or make room (what is kept in the store isn't "
            "simulated again)"
        ) from error

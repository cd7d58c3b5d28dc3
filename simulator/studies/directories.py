"""The directory that a study writes to: its own, or a new one, and never one with anything else in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from simulator.errors import InputError


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
    others = [name for name in names if not is_own(name)]
    if others:
        what = ", ".join(others[:3])
        raise InputError(f"cannot write to {place}: it holds other files ({what}); choose another directory")
    if names and not overwrite:
        raise InputError(
            f"cannot write to {place}: it holds an earlier {study}; choose another directory or overwrite it "
            "(--overwrite: what is kept in the store isn't simulated again)"
        )
    return place

"""Whose fault an exception was: a policy's, with its file and line, or the simulator's."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path

import policies
from policies.protocols import Policy, PolicyError

_OWN = Path(policies.__file__).resolve().parent


def policy_error(error: Exception, classes: Sequence[type[Policy]]) -> PolicyError | None:
    """Return the one-line error to show for an exception from a run; None where it is the simulator's own defect.

    A decision that the engine refused, and any exception that passed through a policy of the user's own, is the
    policy's: the message names its file and line.

    Parameters
    ----------
    classes
        The policies that took part.
    """
    files = {file: cls for cls in classes if (file := _file(cls)) is not None}
    for each in _chain(error):
        place = _deepest(each, files)
        if place is None:
            continue
        file, line = place
        cls = files[file]
        foreign = not Path(file).resolve().is_relative_to(_OWN)
        if isinstance(each, PolicyError):
            if not foreign:
                return each
            return PolicyError(f"policy {cls.name!r} ({file}, line {line}): {_one_line(each)}")
        if foreign:
            said = _one_line(each)
            what = f"{type(each).__name__}: {said}" if said else type(each).__name__
            return PolicyError(f"policy {cls.name!r} failed at {file}, line {line}: {what}")
        return None
    return error if isinstance(error, PolicyError) else None


def _file(cls: type) -> str | None:
    try:
        return inspect.getfile(cls)
    except (TypeError, OSError):
        return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and what caused it; SimPy raises a copy of what a process raised."""
    each: BaseException | None = error
    while each is not None:
        yield each
        each = each.__cause__


def _deepest(error: BaseException, files: dict[str, type[Policy]]) -> tuple[str, int] | None:
    found = None
    trace = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if file in files:
            found = (file, trace.tb_lineno)
        trace = trace.tb_next
    return found


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())

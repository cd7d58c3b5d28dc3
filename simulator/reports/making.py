"""`report`: find out what kind of result a directory holds, and write its page."""

from __future__ import annotations

import errno
import importlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from simulator.errors import InputError
from simulator.reports.document import Document
from simulator.reports.rendering import render
from simulator.result import RunResult
from simulator.write import REPORT

KINDS = {
    "plan.json": ("simulator.reports.of_plan", "simulate plan --out"),
    "load.json": ("simulator.reports.of_load", "simulate search --by load --out"),
    "search.json": ("simulator.reports.of_search", "simulate search --out"),
    "study.json": ("simulator.reports.of_reproduce", "simulate reproduce --out"),
    "compare.json": ("simulator.reports.of_compare", "simulate compare --out"),
    "sweep.json": ("simulator.reports.of_sweep", "simulate sweep --out"),
    "summary.json": ("simulator.reports.of_run", "simulate run --out"),
}
"""By the file that only such a result has: the module that has ``document(directory: Path) -> Document``, and what
writes such a result. The first that a directory holds decides."""


@dataclass(frozen=True)
class Report:
    """A report that was written.

    Attributes
    ----------
    path
        The file, absolute.
    answer
        What it says first.
    """

    path: Path
    answer: str


def report(result: str | os.PathLike[str] | RunResult, *, out: str | os.PathLike[str] | None = None) -> Report:
    """Write the report of a result: one self-contained HTML file.

    Parameters
    ----------
    result
        Directory that ``--out`` of `simulate run`, `search`, `reproduce` ... wrote, or what `simulator.run` returned.
    out
        The file; None: ``report.html`` in the directory.

    Raises
    ------
    InputError
        If the directory holds no result, one that this version can't read, or the file can't be written.
    """
    if isinstance(result, RunResult):
        from simulator.reports.of_run import described

        if out is None:
            raise InputError("where to? a report of a run that is not on disk needs the file: report(result, out=...)")
        document, target = described(result, result.scenario), Path(out).expanduser().resolve()
    else:
        place = Path(result).expanduser().resolve()
        document, target = document_of(place), place / REPORT
        if out is not None:
            target = Path(out).expanduser().resolve()
    _write(render(document), target)
    return Report(target, document.answer)


def document_of(directory: Path) -> Document:
    """Return the report of a result as data; errors as of `report`."""
    if not directory.is_dir():
        what = "that is a file, and no directory" if directory.exists() else "there is no such directory"
        raise InputError(f"no result in {directory}: {what}; name what --out of a command wrote")
    for marker, (module, _) in KINDS.items():
        if (directory / marker).is_file():
            make: Callable[[Path], Document] = importlib.import_module(module).document
            return make(directory)
    written = ", ".join(f"{marker} ({writer})" for marker, (_, writer) in KINDS.items())
    raise InputError(f"no result in {directory}: it has none of {written}")


def _write(text: str, target: Path) -> None:
    """Write a file whole or not at all."""
    try:
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent)
        staging = Path(name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
                file.write(text)
            staging.chmod(0o644)
            staging.replace(target)
        finally:
            staging.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"cannot write {target}: {error.strerror}; choose another file with --out") from error

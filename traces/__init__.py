"""Small traces that the project itself generated; ``README.md`` has the command that made each.

``workloads.read_trace("bundled:NAME")`` reads them.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

_SUFFIXES = (".csv.gz", ".parquet")

__all__ = ["names", "path"]


def _found() -> dict[str, Path]:
    folder = Path(str(files(__name__)))
    found = {}
    for file in sorted(folder.iterdir()):
        for suffix in _SUFFIXES:
            if file.name.endswith(suffix):
                found[file.name.removesuffix(suffix)] = file
    return found


def names() -> tuple[str, ...]:
    """Return the names of the bundled traces, sorted."""
    return tuple(sorted(_found()))


def path(name: str) -> Path:
    """Return the file of a bundled trace.

    Raises
    ------
    KeyError
        If there is no trace of this name.
    """
    found = _found()
    if name not in found:
        raise KeyError(f"no bundled trace is called {name!r}; known: {', '.join(sorted(found))}")
    return found[name]

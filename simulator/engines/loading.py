"""Finds engines by name and version."""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path

from simulator.engines.base import Engine
from simulator.errors import InputError, did_you_mean

_NO_ENGINES = ("__init__", "base", "loading")


@cache
def _all() -> tuple[Engine, ...]:
    """Every engine, by name, then version from old to new."""
    stems = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in _NO_ENGINES)
    found = [importlib.import_module(f"simulator.engines.{stem}").ENGINE for stem in stems]
    return tuple(sorted(found, key=lambda engine: (engine.name, _order(engine.version))))


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isdecimal() else -1 for part in version.split("."))


def list_engines() -> list[str]:
    """Return what there is, as ``name@version``."""
    return [engine.label for engine in _all()]


def load_engine(name: str, version: str | None = None) -> Engine:
    """Return an engine; without a version the newest known.

    Parameters
    ----------
    name
        ``vllm``, or ``vllm@0.19``.
    version
        ``0.19``; a longer one (``0.19.0``) means the same.

    Raises
    ------
    InputError
        If there is none.
    """
    if version is None and "@" in name:
        name, version = name.split("@", 1)
    of_name = [engine for engine in _all() if engine.name == name]
    if not of_name:
        raise InputError(f"unknown engine {name!r}{did_you_mean(name, {engine.name for engine in _all()})}")
    if version is None:
        return of_name[-1]
    for engine in of_name:
        if version == engine.version or version.startswith(f"{engine.version}."):
            return engine
    known = ", ".join(engine.version for engine in of_name)
    raise InputError(f"unknown version {version!r} of engine {name!r}; known: {known}")


def engines_with_flag(flag: str) -> list[str]:
    """Return the engines that have a flag which is modelled."""
    return [engine.label for engine in _all() if engine.find(flag) is not None]

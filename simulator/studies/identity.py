"""What a simulation's result depends on, as one digest: scenario, requests, other files that it names, program.

Two tasks of one digest give the same result to the last bit, so a result that is kept under it need not be made again.
A changed trace, model file, measurement or policy file, and any other version of the program's source, give another.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cache, lru_cache
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.errors import InputError
from simulator.scenario import Scenario
from simulator.write import plain

if TYPE_CHECKING:
    from simulator.studies.points import Task
    from workloads import Trace

_PACKAGES = ("simulator", "policies", "workloads", "hardware_profiles", "traces")
_UNUSED_SUFFIXES = frozenset({".pyc", ".so"})
_AICONFIGURATOR = "aiconfigurator-core"


def digest_of(task: Task) -> str:
    """Return the digest of all that the task's result depends on, 64 hexadecimal digits.

    Not in it: versions of libraries other than NumPy, what a policy's file imports from beside it, and the processor.

    Raises
    ------
    ScenarioError
        If the scenario is none.
    """
    scenario = Scenario.from_mapping(task.scenario).to_mapping(everything=True)
    parts = {
        "program": program_digest(),
        "scenario": _by_content(scenario),
        "trace": None if task.trace is None else trace_digest(task.trace),
    }
    return hashlib.sha256(json.dumps(plain(parts), sort_keys=True).encode()).hexdigest()


def addressed(task: Task, digest: str) -> Task:
    """Return a task of this digest for another machine, which refuses it where it means something else there."""
    return replace(task, digest=digest, program=program_digest())


def check_same(task: Task) -> None:
    """Refuse a task that another machine sent (`addressed`) and that means something else on this one.

    Raises
    ------
    InputError
        If this program is another version, or files that the scenario names are not the same here.
    """
    if not task.digest:
        return
    if task.program != program_digest():
        raise InputError(
            f"refused by {platform.node()}: its version of the simulator, of NumPy or of a package with policies is "
            "another; install those there that the study was started with"
        )
    if task.digest != digest_of(task):
        raise InputError(
            f"refused by {platform.node()}: a file that the scenario names (trace, model, profile, policy) is another "
            "there or can't be read; let both machines read the same files by the same paths"
        )


@cache
def program_digest() -> str:
    """Return the digest of the source and data of the program, and of whatever policies other packages bring.

    NumPy's version is part of it: its random numbers and the last bits of its sums may change with it.
    """
    found = hashlib.sha256(f"numpy {np.__version__}\n".encode())
    for package in _PACKAGES:
        (root,) = import_module(package).__path__
        found.update(f"{package}\0{_folder_digest(Path(root))}\n".encode())
    for path in _sources_of_entry_points():
        digest = _folder_digest(path) if path.is_dir() else _file_digest(path)
        found.update(f"{path.name}\0{digest}\n".encode())
    with suppress(metadata.PackageNotFoundError):
        found.update(metadata.version(_AICONFIGURATOR).encode())  # tables of measurements that scenarios may name
    return found.hexdigest()


def trace_digest(trace: Trace) -> str:
    """Return the digest of the requests themselves, wherever they come from."""
    found = hashlib.sha256(str(trace.block_size_tokens).encode())
    for name, column in sorted(trace.columns().items()):
        if name == "row_key":  # follows from the others, and is there once somebody sampled
            continue
        found.update(name.encode())
        for part in (column,) if hasattr(column, "tobytes") else vars(column).values():
            found.update(part.tobytes() if hasattr(part, "tobytes") else repr(part).encode())
    return found.hexdigest()


def _by_content(value: Any) -> Any:
    """Return plain data with the digest of its content for every text that names a file or folder."""
    if isinstance(value, Mapping):
        return {key: _by_content(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_by_content(item) for item in value]
    if not isinstance(value, str):
        return value
    # A policy's file is followed by its class (``policy.py:Mine``). A text that happens to be a file's name, and means
    # something else, gets a digest too: the worst that follows is a run that need not have been made again.
    name, _, rest = value.partition(".py:")
    path = Path(f"{name}.py" if rest else value).expanduser()
    try:
        digest = _file_digest(path) if path.is_file() else _folder_digest(path) if _is_folder(path, value) else ""
    except OSError:  # a name too long for a file, a file that can't be read: the run will say so
        return value
    return f"sha256:{digest}:{path.suffix}:{rest}" if digest else value  # what reads a file may go by its suffix


def _is_folder(path: Path, text: str) -> bool:
    """Tell whether a text names a folder: with a slash, as a name of the catalogue may be that of one; or a model's."""
    return ("/" in text and path.is_dir()) or (path / "config.json").is_file()


def _folder_digest(root: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(_files(root)):
        found.update(f"{path.relative_to(root).as_posix()}\0{_file_digest(path)}\n".encode())
    return found.hexdigest()


def _files(root: Path) -> Iterator[Path]:
    return (path for path in root.rglob("*") if path.is_file() and path.suffix not in _UNUSED_SUFFIXES)


def _file_digest(path: Path) -> str:
    stat = path.stat()
    return _digest_of_version(path.resolve(), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=10_000)
def _digest_of_version(path: Path, size: int, modified_ns: int) -> str:
    """Return the digest of a file as it is now; a file that has changed since has another size or time."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sources_of_entry_points() -> list[Path]:
    """Return the modules and packages that policies of other distributions come from: of a package the whole."""
    from importlib.util import find_spec

    from policies.registry import ENTRY_POINT_GROUP

    found: set[Path] = set()
    for each in metadata.entry_points(group=ENTRY_POINT_GROUP):
        try:
            spec = find_spec(each.module.partition(".")[0])
        except (ImportError, ValueError):  # a broken package: the registry says so where it is used
            continue
        if spec is None:
            continue
        if spec.submodule_search_locations:
            found.update(Path(folder) for folder in spec.submodule_search_locations if Path(folder).is_dir())
        elif spec.origin is not None and Path(spec.origin).is_file():
            found.add(Path(spec.origin))
    return sorted(found)


__all__ = ["addressed", "check_same", "digest_of", "program_digest", "trace_digest"]

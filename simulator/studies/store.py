"""Results of simulations on disk, by the digest of all that they depend on (`simulator.studies.identity`).

A study that was killed goes on where it was, one that is repeated is there at once, and studies share what they have in
common. One file a result, written whole or not at all; failures are not kept, so that they are tried again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from simulator.errors import InputError
from simulator.studies.identity import addressed, digest_of, program_digest
from simulator.studies.points import Outcome, Task, died, evaluate, outcome_of
from simulator.studies.workers import run_tasks
from simulator.summary import SCHEMA_VERSION
from simulator.write import plain

if TYPE_CHECKING:
    from concurrent.futures import Executor

ENVIRONMENT = "SIMULATE_STORE"
"""Environment variable that names the default store's directory."""


def default_store() -> Path:
    """Return the user's store: ``$SIMULATE_STORE``, or a folder of the user's cache directory (XDG)."""
    given = os.environ.get(ENVIRONMENT)
    if given:
        return Path(given)
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache, "llm-cluster-simulator", "results").expanduser()


class Store:
    """A directory of results.

    Parameters
    ----------
    root
        The directory, made when the first result is kept.

    Raises
    ------
    InputError
        If it can't be one.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root).expanduser().resolve()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"cannot keep results in {self.root}: {error.strerror}; choose another directory (--store)"
            ) from error

    def path(self, digest: str) -> Path:
        """Return the file of a result."""
        return self.root / digest[:2] / f"{digest}.json"

    def get(self, digest: str) -> Outcome | None:
        """Return a kept result; None where there is none, or none that can be read."""
        record = self.record(digest)
        try:
            return None if record is None else outcome_of(record["summary"])
        except (KeyError, TypeError):
            return None

    def put(self, digest: str, task: Task, outcome: Outcome) -> None:
        """Keep a result, with the scenario that made it.

        Raises
        ------
        InputError
            If it can't be written.
        """
        self.keep(digest, task, {"summary": outcome.summary})

    def record(self, digest: str) -> dict[str, Any] | None:
        """Return what is kept under a digest; None where nothing is, or nothing that can be read."""
        try:
            record = json.loads(self.path(digest).read_text(encoding="utf-8"))
            return record if record["schema_version"] == SCHEMA_VERSION else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep(self, digest: str, task: Task, found: Mapping[str, Any]) -> None:
        """Keep what was found of a task under a digest, whole or not at all.

        Raises
        ------
        InputError
            If it can't be written.
        """
        record: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "digest": digest,
            "program": program_digest(),
            "trace": None if task.trace is None else task.trace.source or "given in Python",
            "scenario": plain(task.scenario),
            **plain(found),
        }
        text = json.dumps(record, allow_nan=False, ensure_ascii=False)
        self.write(self.path(digest), text.encode())

    def write(self, path: Path, content: bytes) -> None:
        """Write a file of the store, whole or not at all.

        Raises
        ------
        InputError
            If it can't be written.
        """
        # a name of its own: other threads, processes and machines may be writing the same
        partial = path.with_name(f"{path.name}.{uuid4().hex}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(content)
            partial.replace(path)
        except OSError as error:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise InputError(
                f"cannot keep results in {self.root}: {error.strerror}; choose another directory (--store)"
            ) from error


StoreLike = str | os.PathLike[str] | Store | bool | None
"""What studies take for ``store``; see `open_store`."""


def open_store(store: StoreLike) -> Store | None:
    """Return what a study's ``store`` means.

    Parameters
    ----------
    store
        A directory, or a store; True: the user's own (`default_store`); False or None: nothing is kept, and nothing
        that was kept is used.

    Raises
    ------
    InputError
        If the directory can't be one.
    """
    if store is None or store is False:
        return None
    if isinstance(store, Store):
        return store
    return Store(default_store() if store is True else store)


@dataclass(frozen=True)
class Done:
    """A task that has its result.

    Attributes
    ----------
    digest
        Of all that the result depends on; empty where the scenario is none.
    was_kept
        Whether it was in the store, or the same as another task of this call.
    """

    digest: str
    outcome: Outcome
    was_kept: bool


def run_kept(
    tasks: Sequence[Task],
    store: Store | None,
    *,
    work: Callable[[Task], Outcome] = evaluate,
    workers: int | None = None,
    executor: Executor | None = None,
) -> Iterator[tuple[int, Done]]:
    """Yield the place and result of each task: first those that are kept, then the others as they end.

    Tasks of one digest are simulated once. A result is on disk before it is yielded.

    Parameters
    ----------
    store
        Where results are kept; None: nowhere, and every task is simulated.
    work
        Simulates one task.
    workers, executor
        As `simulator.studies.workers.run_tasks`.

    Raises
    ------
    KeyboardInterrupt
        As `run_tasks`.
    """
    places: dict[str, list[int]] = {}
    for place, task in enumerate(tasks):
        try:
            digest = digest_of(task)
        except ValueError as error:  # a scenario that is none has no digest: its failure is its result
            yield place, Done("", Outcome(failure=" ".join(str(error).split())), was_kept=False)
            continue
        kept = None if store is None else store.get(digest)
        if kept is None:
            places.setdefault(digest, []).append(place)
        else:
            yield place, Done(digest, kept, was_kept=True)
    digests = list(places)
    left = [tasks[places[digest][0]] for digest in digests]
    if executor is not None:
        left = [addressed(task, digest) for task, digest in zip(left, digests, strict=True)]
    for index, outcome in run_tasks(work, left, died, workers=workers, executor=executor):
        digest = digests[index]
        if store is not None and not outcome.failure:
            store.put(digest, left[index], outcome)
        first, *others = places[digest]
        yield first, Done(digest, outcome, was_kept=False)
        for place in others:
            yield place, Done(digest, outcome, was_kept=True)


__all__ = ["Done", "Store", "StoreLike", "default_store", "open_store", "run_kept"]

"""Verdicts on many tasks, in processes, and kept: records of their own kind beside the results.

The record of a verdict is one of a task and of demands. A run that went to its end is kept as any study's result too;
one that was given up never is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any

from simulator.studies.identity import addressed, digest_of
from simulator.studies.points import Outcome, Task
from simulator.studies.store import Store
from simulator.studies.verdict import Demand, Judged, Tally, Verdict, judge, judge_died
from simulator.studies.workers import run_tasks


def run_judged(
    tasks: Sequence[Task],
    demands: Sequence[Demand],
    store: Store | None,
    *,
    workers: int | None = None,
    executor: Executor | None = None,
) -> Iterator[tuple[int, Judged]]:
    """Yield the place and the judgement of each task: first those that are kept, then the others as they end.

    Parameters
    ----------
    store
        Where results and verdicts are kept; None: nowhere.
    workers, executor
        As `simulator.studies.workers.run_tasks`.

    Raises
    ------
    KeyboardInterrupt
        As `run_tasks`.
    """
    places: list[int] = []
    digests: list[str] = []
    for place, task in enumerate(tasks):
        digest = "" if store is None and executor is None else _digest(task)
        kept = None if store is None or not digest else _kept(store, digest, demands)
        if kept is not None:
            yield place, kept
        else:
            places.append(place)
            digests.append(digest)
    left = [tasks[place] for place in places]
    if executor is not None:
        left = [addressed(task, digest) if digest else task for task, digest in zip(left, digests, strict=True)]
    work = partial(judge, demands=tuple(demands))
    for index, judged in run_tasks(work, left, judge_died, workers=workers, executor=executor):
        if store is not None and judged.verdict is not None:
            _keep(store, digests[index], left[index], demands, judged)
        yield places[index], judged


def _digest(task: Task) -> str:
    """Return a task's digest; empty where its scenario is none, which the run will say."""
    try:
        return digest_of(task)
    except ValueError:
        return ""


def _key(digest: str, demands: Sequence[Demand]) -> str:
    said = [[each.share, each.objectives.model_dump(mode="json")] for each in demands]
    return hashlib.sha256(json.dumps(["verdict", digest, said], sort_keys=True).encode()).hexdigest()


def _keep(store: Store, digest: str, task: Task, demands: Sequence[Demand], judged: Judged) -> None:
    assert judged.verdict is not None
    counts = [{"met": each.met, "missed": each.missed, "of": each.of} for each in judged.verdict.tallies]
    record = {"verdict": {"is_whole": judged.verdict.is_whole, "tallies": counts}}
    if judged.verdict.is_whole:
        store.put(digest, task, judged.outcome)
    store.keep(_key(digest, demands), task, record)


def _kept(store: Store, digest: str, demands: Sequence[Demand]) -> Judged | None:
    record = store.record(_key(digest, demands))
    if record is None:
        return None
    try:
        verdict = _verdict(record["verdict"], demands)
    except (KeyError, TypeError, ValueError):
        return None
    if not verdict.is_whole:
        return Judged(verdict, Outcome())
    outcome = store.get(digest)
    return None if outcome is None else Judged(verdict, outcome)


def _verdict(record: Mapping[str, Any], demands: Sequence[Demand]) -> Verdict:
    counts = record["tallies"]
    tallies = [
        Tally(demand, each["met"], each["missed"], each["of"]) for demand, each in zip(demands, counts, strict=True)
    ]
    return Verdict(tuple(tallies), is_whole=record["is_whole"])


__all__ = ["run_judged"]

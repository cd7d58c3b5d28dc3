"""Capacities on disk, beside the results of runs: for a plan with other prices, or one that was killed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import asdict

from simulator.planning.capacity import Capacity, Probe, Question, capacity_of, died
from simulator.studies.identity import digest_of
from simulator.studies.points import Task
from simulator.studies.store import Store
from simulator.studies.workers import run_tasks


def run_capacities(
    asked: Sequence[Question],
    store: Store | None,
    *,
    workers: int | None = None,
    executor: Executor | None = None,
) -> Iterator[tuple[int, Capacity]]:
    """Yield the place and the capacity of each question: first those that are kept, then the others as they end.

    Parameters
    ----------
    store
        Where they are kept; None: nowhere.
    workers, executor
        As `simulator.studies.workers.run_tasks`.
    """
    left: list[tuple[int, str]] = []
    for place, each in enumerate(asked):
        key = "" if store is None else _key(each)
        kept = None if store is None else _kept(store, key)
        if kept is None:
            left.append((place, key))
        else:
            yield place, kept
    questions = [asked[place] for place, _ in left]
    for index, capacity in run_tasks(capacity_of, questions, died, workers=workers, executor=executor):
        place, key = left[index]
        if store is not None and not capacity.failure:
            store.keep(key, _task(asked[place]), {"capacity": asdict(capacity)})
        yield place, capacity


def _task(asked: Question) -> Task:
    return Task(asked.scenario, asked.trace)


def _key(asked: Question) -> str:
    said = [asdict(each) for each in asked.objectives]
    parts = ["capacity", digest_of(_task(asked)), said, asked.request_class, asked.worth, asked.fewest_requests]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _kept(store: Store, key: str) -> Capacity | None:
    record = store.record(key)
    try:
        if record is None:
            return None
        found = record["capacity"]
        return Capacity(found["share"], found["not_share"], tuple(Probe(**each) for each in found["probes"]))
    except (KeyError, TypeError):
        return None


__all__ = ["run_capacities"]

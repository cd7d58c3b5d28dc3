"""The simulations of a comparison: every side with every seed, and the requests of one seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field

from simulator.studies import request_pairs
from simulator.studies.identity import addressed, digest_of
from simulator.studies.points import Task
from simulator.studies.request_pairs import Latencies
from simulator.studies.store import Done, Store, run_kept
from simulator.studies.workers import run_tasks

Progress = Callable[[int, int, str], None]
"""Told how many simulations have ended, of how many, and the last one's side and seed."""


@dataclass
class Batch:
    """Simulates the tasks of all sides and seeds, and keeps what came of each."""

    tasks: Mapping[tuple[str, int], Task]
    store: Store | None
    workers: int | None
    executor: Executor | None
    progress: Progress
    done: dict[tuple[str, int], Done] = field(default_factory=dict)

    def run(self, first: int | None) -> tuple[dict[str, Latencies], bool]:
        """Simulate everything; return the requests' latencies of the first seed by side, and whether Ctrl-C came.

        Parameters
        ----------
        first
            The seed whose requests are compared; None: none.
        """
        latencies: dict[str, Latencies] = {}
        try:
            for (name, _), found in self._with_requests([key for key in self.tasks if key[1] == first]):
                latencies[name] = found
            self._others()
        except KeyboardInterrupt:
            return latencies, True
        return latencies, False

    def _with_requests(self, keys: Sequence[tuple[str, int]]) -> Iterator[tuple[tuple[str, int], Latencies]]:
        """Simulate tasks and yield the latencies of their requests, from the store where they are kept."""
        left = []
        digests = {key: digest_of(self.tasks[key]) for key in keys}
        for key in keys:
            outcome = None if self.store is None else self.store.get(digests[key])
            found = None if self.store is None else request_pairs.kept(self.store, digests[key])
            if outcome is None or found is None:
                left.append(key)
                continue
            self._note(key, Done(digests[key], outcome, was_kept=True))
            yield key, found
        tasks = [self.tasks[key] for key in left]
        if self.executor is not None:
            tasks = [addressed(self.tasks[key], digests[key]) for key in left]
        for place, (outcome, found) in run_tasks(
            request_pairs.measure,
            tasks,
            request_pairs.died,
            workers=self.workers,
            executor=self.executor,
        ):
            key = left[place]
            if self.store is not None and found is not None:
                self.store.put(digests[key], self.tasks[key], outcome)
                request_pairs.keep(self.store, digests[key], found)
            self._note(key, Done(digests[key], outcome, was_kept=False))
            if found is not None:
                yield key, found

    def _others(self) -> None:
        keys = [key for key in self.tasks if key not in self.done]
        tasks = [self.tasks[key] for key in keys]
        for place, done in run_kept(tasks, self.store, workers=self.workers, executor=self.executor):
            self._note(keys[place], done)

    def _note(self, key: tuple[str, int], done: Done) -> None:
        self.done[key] = done
        self.progress(len(self.done), len(self.tasks), f"{key[0]}, seed {key[1]}")

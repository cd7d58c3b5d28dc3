"""Bars that show how far a run or several are; a module of its own, as runs without a terminal need none of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from simulator.engine.cluster import Cluster


class ClusterProgress(Progress):
    """A bar that reads the cluster's counters whenever its own thread draws it; the simulation knows nothing of it."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._total = len(cluster.workload.prompt_tokens)
        self._begun = time.perf_counter()
        super().__init__(
            TextColumn("{task.fields[clock]}"),
            BarColumn(),
            TextColumn("{task.completed:,.0f} of {task.total:,.0f} requests, {task.fields[speed]}"),
            console=Console(stderr=True),
            refresh_per_second=4,
            transient=True,
        )
        self._job = self.add_task("run", total=self._total, clock="0.0 s", speed="")

    def get_renderables(self) -> Iterable[RenderableType]:
        """Read the counters, then draw."""
        if hasattr(self, "_job"):
            now_s = self._cluster.now_s
            wall_s = max(time.perf_counter() - self._begun, 1e-9)
            self.update(
                self._job,
                completed=self._cluster.num_ended,
                clock=f"{now_s:,.1f} s simulated",
                speed=f"{now_s / wall_s:,.0f} times real time",
            )
        yield from super().get_renderables()


@contextmanager
def counting_bar() -> Iterator[Callable[[int, int, str], None]]:
    """Yield what draws on standard error how many of how many are done, and which was the last.

    It is drawn by the thread that calls it, not by one of its own: other processes are forked while it is up.
    """
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, **_quiet()) as shown:
        task = shown.add_task("")

        def progress(done: int, total: int, name: str) -> None:
            shown.update(task, completed=done, total=total, description=name[:60], refresh=True)

        yield progress


@contextmanager
def status_line() -> Iterator[Callable[[str], None]]:
    """Yield what shows on standard error the last thing that was said, where nobody knows how much is to come."""
    with Progress(TimeElapsedColumn(), TextColumn("{task.description}"), **_quiet()) as shown:
        task = shown.add_task("", total=None)
        yield lambda text: shown.update(task, description=text[:100], refresh=True)


def _quiet() -> dict[str, Any]:
    return {"console": Console(stderr=True), "transient": True, "auto_refresh": False}

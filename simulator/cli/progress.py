"""The bar that shows how far a run is; a module of its own, as runs without a terminal need none of it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TextColumn

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

"""Llumnix: by average freeness."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from policies.protocols import ReplicaLoadView, ScalingPolicy, ScalingView, param


@dataclass
class Llumnix(ScalingPolicy):
    """More replicas when the average freeness is below a range, one fewer when it is above.

    Average freeness: free KV blocks of all replicas that serve, what waits taken off, over their requests. As many are
    added as bring it into the range if each comes empty; one at a time is ended, the one with the fewest requests, if
    those left would still be above the range. Replicas that start count as empty ones, so that no more than needed are
    asked for.

    Unit: blocks a request, as in the artifact and the later releases (their range is 10 to 60); see the rescheduling
    policy of this name, which also empties a replica that is being drained.
    """

    name: ClassVar[str] = "llumnix"
    source: ClassVar[str] = (
        "Sun et al., Llumnix, OSDI 2024, section 4.4; AlibabaPAI/llumnix global_scheduler/scaling_scheduler.py,"
        " config/default.py (10, 60, every 10 s)"
    )

    low: float = param(10.0, "freeness below which replicas are added", unit="blocks")
    high: float = param(60.0, "freeness above which one is ended", unit="blocks")
    interval_s: float = param(10.0, "time between two decisions", unit="seconds", gt=0)

    def interval(self) -> float:
        """Return the time between two decisions."""
        return self.interval_s

    def decide(self, view: ScalingView) -> int:
        """Return how many bring the average freeness into the range."""
        current = len(view.replicas) + view.num_starting
        if not view.replicas:
            return max(current, 1 if view.num_unrouted else 0)
        size = view.replicas[0].total_blocks
        wanted = current
        while wanted < view.max_replicas and _freeness(view, size * (wanted - len(view.replicas))) < self.low:
            wanted += 1
        if wanted > current or view.num_starting:
            return wanted
        return current - 1 if current > 1 and _freeness(view, -size) > self.high else current


def _freeness(view: ScalingView, more_blocks: int) -> float:
    """Return the average freeness if there were so many more free blocks."""
    loads: Sequence[ReplicaLoadView] = view.replicas
    requests = view.num_unrouted + sum(load.num_running + load.num_waiting for load in loads)
    if not requests:
        return math.inf
    return (more_blocks + sum(load.free_blocks - load.waiting_blocks for load in loads)) / requests

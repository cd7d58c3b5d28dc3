"""By attainment of latency objectives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from policies.protocols import ScalingPolicy, ScalingView, param


@dataclass
class Slo(ScalingPolicy):
    """One more replica when too few of the last requests met their objectives, one fewer when all but a few do.

    Attainment is the share of the requests that ended within the window and met both objectives (the scenario's for all
    requests, unless given here); while somebody has waited longer for a first token than the objective allows it counts
    as missed too. One is ended only after the attainment was above ``high`` for ``patience_s`` and the KV of those left
    would be used to ``most_used`` at most. While a replica starts none is added: what it does to the attainment isn't
    known yet.
    """

    name: ClassVar[str] = "slo"
    source: ClassVar[str] = "ours: a threshold controller on attainment, with hysteresis"

    ttft_s: float | None = param(
        None, "longest time to the first token; 0: any", unit="seconds", ge=0, objective="ttft_s"
    )
    tpot_s: float | None = param(
        None,
        "longest mean time of the output tokens after the first; 0: any",
        unit="seconds",
        ge=0,
        objective="tpot_s",
    )
    low: float = param(0.9, "attainment below which one is added", ge=0, le=1)
    high: float = param(0.99, "attainment from which one may be ended", ge=0, le=1)
    most_used: float = param(0.6, "share of KV that those left may use then", gt=0, le=1)
    window_s: float = param(60.0, "time whose ended requests count", unit="seconds", gt=0)
    patience_s: float = param(120.0, "time for which the attainment was high before one is ended", unit="seconds", ge=0)
    interval_s: float = param(10.0, "time between two decisions", unit="seconds", gt=0)

    def reset(self) -> None:
        """Begin without a history."""
        self._high_since: float | None = None

    def interval(self) -> float:
        """Return the time between two decisions."""
        return self.interval_s

    def decide(self, view: ScalingView) -> int:
        """Return one more, one fewer, or as many as there are."""
        serving, current = len(view.replicas), len(view.replicas) + view.num_starting
        ended = view.ended(self.window_s)
        met = sum(self._meets(each.ttft_s, self.ttft_s) and self._meets(each.tpot_s, self.tpot_s) for each in ended)
        late = not self._meets(view.longest_wait_s, self.ttft_s)
        share = met / len(ended) if ended else 0.0 if late else 1.0
        if share < self.high or late:
            self._high_since = None
            missing = share < self.low or late or not serving
            return current + 1 if missing and not view.num_starting else current
        if self._high_since is None:
            self._high_since = view.now_s
        if view.now_s - self._high_since < self.patience_s or serving < 2 or view.num_starting:
            return current
        used = sum(load.used_blocks + load.waiting_blocks for load in view.replicas)
        fewest = min(load.total_blocks for load in view.replicas)
        left = sum(load.total_blocks for load in view.replicas) - fewest
        if used > self.most_used * left:
            return current
        self._high_since = view.now_s
        return current - 1

    @staticmethod
    def _meets(value: float, limit: float | None) -> bool:
        return not limit or value <= limit

"""By used KV memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from policies.protocols import ScalingPolicy, ScalingView, param
from policies.scaling._horizontal import HPA, Stabilizer, desired


@dataclass
class KVUsage(ScalingPolicy):
    """As many replicas as keep the used share of KV memory at a target, by Kubernetes' rule for a metric's average.

    The metric is vLLM's ``vllm:kv_cache_usage_perc``. What waits counts as if it were used, so that the metric can
    rise above 1 and the rule sees by how much memory lacks (vLLM's own metric ends at 1).
    """

    name: ClassVar[str] = "kv-usage"
    source: ClassVar[str] = f"{HPA}; vLLM docs, Production metrics (vllm:kv_cache_usage_perc)"

    target: float = param(0.6, "used share of KV memory (a choice)", gt=0, le=1)
    tolerance: float = param(0.1, "deviation of the metric's ratio to the target that changes nothing", ge=0)
    stabilization_s: float = param(
        300.0, "time for which fewer were enough before some are ended", unit="seconds", ge=0
    )
    interval_s: float = param(15.0, "time between two decisions", unit="seconds", gt=0)

    def reset(self) -> None:
        """Begin without a history."""
        self._stabilizer = Stabilizer(self.stabilization_s)

    def interval(self) -> float:
        """Return the time between two decisions."""
        return self.interval_s

    def decide(self, view: ScalingView) -> int:
        """Return what the used share wants."""
        current = len(view.replicas) + view.num_starting
        if not view.replicas:
            return max(current, 1 if view.num_unrouted else 0)
        used = sum(load.used_blocks + load.waiting_blocks for load in view.replicas)
        share = used / sum(load.total_blocks for load in view.replicas)
        wanted = desired(len(view.replicas), share, self.target, self.tolerance)
        return self._stabilizer.settle(view.now_s, max(1, wanted), current)

"""By waiting requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from policies.protocols import ScalingPolicy, ScalingView, param
from policies.scaling._horizontal import HPA, Stabilizer, desired


@dataclass
class Queue(ScalingPolicy):
    """As many replicas as keep the waiting requests of each at a target, by Kubernetes' rule for a metric's average.

    The metric is vLLM's ``vllm:num_requests_waiting``, which its production stack scales by. Where nobody waits the
    running requests count in its place, as a share of what replicas may run, so that replicas that are busy without a
    queue are kept: ``full_share`` of ``max_num_seqs`` counts as the target (an assumption; the rule alone would end
    every replica but one whenever the queue is empty).
    """

    name: ClassVar[str] = "queue"
    source: ClassVar[str] = f"{HPA}; vllm-project/production-stack tutorials/10-horizontal-autoscaling.md"

    target: float = param(5.0, "waiting requests a replica", unit="requests", gt=0)
    full_share: float = param(0.7, "share of max_num_seqs that runs where a replica is busy enough", gt=0, le=1)
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
        """Return the larger of what waiting and running requests want."""
        serving, current = len(view.replicas), len(view.replicas) + view.num_starting
        waiting = view.num_unrouted + sum(load.num_waiting for load in view.replicas)
        running = sum(load.num_running for load in view.replicas)
        if not serving:
            return max(current, 1 if waiting else 0)
        by_queue = desired(serving, waiting / serving, self.target, self.tolerance)
        most = sum(load.max_num_seqs for load in view.replicas) / serving
        by_batch = desired(serving, running / serving, self.full_share * most, self.tolerance)
        wanted = by_queue if by_queue >= serving else max(by_queue, min(by_batch, serving), 1)
        return self._stabilizer.settle(view.now_s, wanted, current)

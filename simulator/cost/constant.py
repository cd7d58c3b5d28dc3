"""Steps that all take the same time: for queueing theory, where results are known in closed form, and for teaching."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from simulator.cost.shape import BatchShape
from simulator.errors import InputError

NS_PER_S = 1_000_000_000


class ConstantCost:
    """Every step takes the same time, whatever the batch.

    Parameters
    ----------
    step_s
        Duration of a step in seconds, rounded half to even to whole nanoseconds; either this or ``step_ns``.
    step_ns
        Duration of a step in whole nanoseconds, at least 1.
    stages
        Pipeline stages that share a step evenly; what is left over goes to the first ones.

    Examples
    --------
    >>> ConstantCost(step_s=0.02).step_ns(BatchShape())
    20000000
    """

    def __init__(self, step_s: float | None = None, *, step_ns: int | None = None, stages: int = 1) -> None:
        if (step_s is None) == (step_ns is None):
            raise InputError("constant cost: give either step_s or step_ns")
        if step_ns is None:
            assert step_s is not None
            step_ns = round(step_s * NS_PER_S)
        if stages < 1:
            raise InputError(f"constant cost: stages must be at least 1, got {stages}")
        if step_ns < stages:
            raise InputError(f"constant cost: a step must take at least {stages} ns (1 a stage), got {step_ns}")
        self._step_ns = step_ns
        each, left = divmod(step_ns, stages)
        self._stage_ns = [each + (stage < left) for stage in range(stages)]

    @property
    def sources(self) -> tuple[str, ...]:
        """What the durations are."""
        return (f"constant: every step takes {self._step_ns / NS_PER_S:g} s (an assumption)",)

    def step_ns(self, shape: BatchShape) -> int:
        """Duration of one step."""
        return self._step_ns

    def run_ns(self, shape: BatchShape, k: int) -> npt.NDArray[np.int64]:
        """Durations of ``k`` steps."""
        return np.full(k, self._step_ns, dtype=np.int64)

    def few_ns(self, shape: BatchShape, k: int) -> list[int]:
        """Durations of a few steps."""
        return [self._step_ns] * k

    def stage_ns(self, shape: BatchShape) -> list[int]:
        """Time in each stage; they add up to a step."""
        return list(self._stage_ns)

"""Steps of ranks that step together: what the engine asks of their joint cost, and what it hears."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from simulator.cost.shape import BatchShape

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LockstepTimes:
    """Times of ``k`` steps of all ranks together, ns.

    Attributes
    ----------
    own
        Part of each rank that has work, int64, shape (ranks, k).
    exchange, experts
        Dispatch and combine, and routed experts, of each step.
    """

    own: Ints
    exchange: int
    experts: int

    @property
    def steps(self) -> Ints:
        """Duration of each step, int64, shape (k,), at least 1 ns."""
        return np.asarray(self.own.max(axis=0) + (self.exchange + self.experts))


class JointCost(Protocol):
    """What the engine asks of the cost of ranks that step together."""

    def together(self, shapes: Sequence[BatchShape], k: int) -> LockstepTimes:
        """Return the times of the next ``k`` steps of the ranks that have work, beside idle ones.

        Column i of ``together(shapes, k)`` equals ``together`` of the shapes advanced i times, to the last bit.
        """
        ...

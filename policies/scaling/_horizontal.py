"""The rule of Kubernetes' Horizontal Pod Autoscaler, which policies by a metric share."""

from __future__ import annotations

import math
from collections import deque

HPA = (
    "Kubernetes documentation, Horizontal Pod Autoscaling, section Algorithm details and Configurable scaling behavior"
)
"""Where the rule and its default tolerance (0.1) and stabilization window (300 s, scaling down only) come from."""


def desired(current: int, metric: float, target: float, tolerance: float) -> int:
    """Return ceil(current x metric / target), or ``current`` while the ratio is within the tolerance of 1."""
    ratio = metric / target
    if abs(ratio - 1.0) <= tolerance:
        return current
    return math.ceil(current * ratio)


class Stabilizer:
    """Scales down to the largest that was wanted within a window only, so that a lull doesn't end replicas."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._wanted: deque[tuple[float, int]] = deque()

    def settle(self, now_s: float, wanted: int, current: int) -> int:
        """Return the number to have: more at once, fewer when they were enough for the whole window."""
        while self._wanted and self._wanted[0][0] <= now_s - self._window_s:
            self._wanted.popleft()
        self._wanted.append((now_s, wanted))
        return max(wanted, min(current, max(number for _, number in self._wanted)))

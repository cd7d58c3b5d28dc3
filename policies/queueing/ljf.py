"""Longest predicted job first."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from policies.protocols import PolicyError, QueueingPolicy, RequestView


@dataclass
class Ljf(QueueingPolicy):
    """Longest predicted output first.

    Shortens the makespan of a closed batch, as in longest-processing-time scheduling, and delays everybody
    else; SGLang offers it as ``lof``. Output lengths come from the scenario's predictor; without one this is
    a `PolicyError`.
    """

    name: ClassVar[str] = "ljf"
    source: ClassVar[str] = (
        "Graham, Bounds on Multiprocessing Timing Anomalies, SIAM J. Appl. Math. 17 (1969);"
        " SGLang python/sglang/srt/managers/schedule_policy.py (lof)"
    )

    def preferred_predictor(self) -> str:
        """Return ``noisy``: a ranking that was learnt is never right."""
        return "noisy"

    def key(self, request: RequestView) -> float:
        """Return the predicted output tokens, negated."""
        predicted = request.predicted_output_tokens
        if math.isnan(predicted):
            raise PolicyError(
                "queueing policy 'ljf' needs predicted output lengths, but the scenario has no predictor: give it one"
            )
        return -predicted

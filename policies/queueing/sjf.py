"""Shortest predicted job first."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from policies.protocols import PolicyError, QueueingPolicy, RequestView, param


@dataclass
class Sjf(QueueingPolicy):
    """Shortest predicted output first, with linear ageing.

    With ageing a request's urgency grows while it waits: at time t the order is that of ``predicted - ageing
    * (t - arrival)``. As ``ageing * t`` is the same for all, the order is at any time that of ``predicted +
    ageing * arrival``, which is fixed: that is the key. A request that arrived T seconds later comes first
    only if its output is predicted more than ``ageing * T`` tokens shorter, so that none waits for ever.

    Output lengths come from the scenario's predictor, whose noise the scenario sets; without one this is a
    `PolicyError`.
    """

    name: ClassVar[str] = "sjf"
    source: ClassVar[str] = (
        "Fu et al., Efficient LLM Scheduling by Learning to Rank, NeurIPS 2024, arXiv:2408.15792 (its starvation guard"
        " is a quantum of steps; linear ageing stands for it)"
    )

    ageing_tokens_per_s: float = param(
        0.0, "predicted tokens by which a second of waiting makes a request shorter", unit="tokens/s", ge=0
    )

    def preferred_predictor(self) -> str:
        """Return ``noisy``: a ranking that was learnt is never right."""
        return "noisy"

    def key(self, request: RequestView) -> float:
        """Return the predicted output tokens, aged."""
        predicted = request.predicted_output_tokens
        if math.isnan(predicted):
            raise PolicyError(
                "queueing policy 'sjf' needs predicted output lengths, but the scenario has no predictor: give it one"
            )
        return predicted + self.ageing_tokens_per_s * request.arrival_s

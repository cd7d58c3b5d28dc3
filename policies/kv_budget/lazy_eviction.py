"""Lagged eviction by recurrence interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from policies.budget import Cap, KVBudget, ModelFacts, Work, uniform
from policies.protocols import KVBudgetPolicy, param

_TRACKING_BYTES = 14.0
"""Bytes a head and token read moves to track recurrences: the probability written and read in 16 bits, the last time of
use read, written where it changes, and the longest interval read (32 bits each, the write once in two). An
assumption."""


@dataclass
class LazyEviction(KVBudgetPolicy):
    """Every ``window`` steps evict down to the budget, by when each token is expected to matter again.

    From the paper: tokens regain attention after intervals that recur, so nothing is evicted between two windows; at
    a window's end those go that have been quiet for longer than their longest interval so far, and the latest
    ``window`` tokens always stay. A sequence so takes up to budget + window tokens of memory, and reads
    budget + window / 2 on the mean over a window, which is what each step reads here. A prompt beyond that is cut
    when it is computed, not a window later.

    The paper gives budgets as a share of each answer's full length (50 % keeps the accuracy), which no engine knows
    beforehand: here it is a number of tokens, and the default a choice.

    Not seen here: the accuracy of the answers; that heads keep different tokens.
    """

    name: ClassVar[str] = "lazy-eviction"
    source: ClassVar[str] = "LazyEviction, arXiv:2506.15969 (window: 80th percentile of recurrence, Qwen on MATH-500)"

    budget_tokens: int = param(2048, "tokens kept at a window's end", unit="tokens", ge=1)
    window: int = param(175, "steps between evictions, and latest tokens that always stay", unit="steps", ge=1)

    def budget(self, model: ModelFacts) -> KVBudget:
        """Return a budget that is the same in all layers and for all requests."""
        return KVBudget(
            groups=uniform(
                model,
                keep=Cap(tokens=self.budget_tokens + self.window),
                read=Cap(tokens=self.budget_tokens + self.window // 2),
            ),
            token_bits=model.token_bits,
            read_bits=model.token_bits,
            step_kernels=1,
            per_read=Work(memory_bytes=model.num_layers * model.num_heads * _TRACKING_BYTES),
        )

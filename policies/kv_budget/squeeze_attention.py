"""Budgets by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from policies.budget import Cap, KVBudget, LayerGroup, ModelFacts, Work, uniform
from policies.protocols import KVBudgetPolicy, PolicyError, param


@dataclass
class SqueezeAttention(KVBudgetPolicy):
    """Give layers that change their input little a smaller budget, and the others what those give up.

    From the paper: the prompt's hidden states before and after each attention are compared (cosine similarity), layers
    are clustered by it, and those of the least important cluster get ``squeeze`` times the initial budget; what that
    frees is spread over the others, so that the total stays that of the initial budget. Within a layer a method for
    sequences (window, sinks, heavy hitters) keeps the budget; none of its own work is counted here.

    How many layers the least important cluster has, the paper finds for each prompt; here it is a parameter, and its
    default an assumption. The comparison costs two reads of the hidden states a layer and prompt token.

    Not seen here: the accuracy of the answers, which is what a smaller ``budget_ratio`` is limited by: for equal totals
    the method gains accuracy, not speed.
    """

    name: ClassVar[str] = "squeeze-attention"
    source: ClassVar[str] = "SqueezeAttention, ICLR 2025, arXiv:2404.04793"

    budget_ratio: float = param(0.2, "initial budget of every layer, share of the prompt", gt=0, le=1)
    squeeze: float = param(0.35, "share of it that unimportant layers keep (the paper's p, 0.3 to 0.4)", gt=0, le=1)
    unimportant: float = param(0.5, "share of the layers in the least important cluster", ge=0, le=0.95)

    def budget(self, model: ModelFacts) -> KVBudget:
        """Return two groups of layers, or one where there are no unimportant ones."""
        fewer = min(round(model.num_layers * self.unimportant), model.num_layers - 1)
        similarity = Work(
            flops=6.0 * model.num_layers * model.hidden_size,
            memory_bytes=2.0 * model.num_layers * model.hidden_size * model.activation_bits / 8,
        )
        if not fewer or self.squeeze == 1.0:
            groups = uniform(model, Cap(prompt_share=self.budget_ratio))
        else:
            more = model.num_layers - fewer
            large = self.budget_ratio * (model.num_layers - fewer * self.squeeze) / more
            if large > 1:
                raise PolicyError(
                    f"policy {self.name!r}: with budget_ratio {self.budget_ratio:g} the {more} important layers would "
                    f"keep {large:.2f} of the prompt; lower budget_ratio or unimportant, or raise squeeze"
                )
            small = Cap(prompt_share=self.budget_ratio * self.squeeze)
            groups = (
                LayerGroup(more, Cap(prompt_share=large), Cap(prompt_share=large)),
                LayerGroup(fewer, small, small),
            )
        return KVBudget(
            groups=groups,
            token_bits=model.token_bits,
            read_bits=model.token_bits,
            step_kernels=1,
            per_prefill=similarity,
        )

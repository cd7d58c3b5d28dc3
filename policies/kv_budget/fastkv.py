"""Later layers compute a part of the prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from policies.budget import Cap, KVBudget, LayerGroup, ModelFacts, Work
from policies.protocols import KVBudgetPolicy, param


@dataclass
class Fastkv(KVBudgetPolicy):
    """Past one layer propagate the prompt's most attended tokens only; keep a share of the KV of each layer.

    From the paper and its code: up to the TSP layer (index 15 of Llama-3.1-8B's 32) the prompt is computed in full; of
    it ``tsp_rate`` goes on through the other layers, chosen by the attention of the last ``window`` tokens. Each layer
    keeps ``retain_rate`` of the prompt, that window at least, and then every token that is decoded.

    The engine holds the KV of a prompt until all of it is computed, since the choice is made by its last tokens: with a
    prompt cut into chunks the method isn't defined otherwise. Each chunk is taken to propagate its own share.

    Not seen here: the accuracy of the answers.
    """

    name: ClassVar[str] = "fastkv"
    source: ClassVar[str] = "FastKV, arXiv:2502.01068; dongwonjo/FastKV benchmark/prefill.py (tsp_idx 15, tsp_rate 0.2)"

    tsp_depth: float = param(
        0.5, "share of the layers that compute the whole prompt, the TSP layer included", gt=0, le=1
    )
    tsp_rate: float = param(0.2, "share of the prompt that the other layers compute", gt=0, le=1)
    retain_rate: float = param(0.1, "share of the prompt whose KV each layer keeps", gt=0, le=1)
    window: int = param(8, "last tokens of the prompt, which choose and stay", unit="tokens", ge=1)

    def budget(self, model: ModelFacts) -> KVBudget:
        """Return two groups of layers, or one where all compute the whole prompt."""
        first = max(1, round(model.num_layers * self.tsp_depth))
        keep = Cap(tokens=self.window, prompt_share=self.retain_rate)
        groups = [LayerGroup(first, keep, keep)]
        if first < model.num_layers:
            groups.append(LayerGroup(model.num_layers - first, keep, keep, self.tsp_rate))
        # The window's scores once more, beside the fused attention: window queries for each prompt token.
        scores = Work(flops=2.0 * model.num_layers * model.num_heads * model.head_dim * self.window)
        return KVBudget(
            groups=tuple(groups),
            token_bits=model.token_bits,
            read_bits=model.token_bits,
            grows=True,
            per_prefill=scores,
        )

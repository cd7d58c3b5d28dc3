"""Attention sinks and a window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from policies.budget import Cap, KVBudget, ModelFacts, Work, uniform
from policies.protocols import KVBudgetPolicy, param

_ROTARY_FLOPS = 3.0
"""FLOPs an element of a key, to rotate it to its place in the cache: two products and a sum."""


@dataclass
class StreamingWindow(KVBudgetPolicy):
    """Keep the first tokens of a sequence, its attention sinks, and the latest ones.

    StreamingLLM: positions are those within the cache, so keys are stored before their rotary embedding and rotated
    whenever they are read. A prompt rolls through the cache chunk by chunk; here a chunk attends to all of itself and
    to what is kept, where the paper's evaluation feeds tokens one by one.

    Not seen here: that what left the window is forgotten.
    """

    name: ClassVar[str] = "streaming-window"
    source: ClassVar[str] = "StreamingLLM, ICLR 2024, arXiv:2309.17453; mit-han-lab/streaming-llm"

    sinks: int = param(4, "first tokens kept", unit="tokens", ge=0)
    window: int = param(2044, "latest tokens kept; with 4 sinks a cache of 2,048 as for Llama-2", unit="tokens", ge=1)

    def budget(self, model: ModelFacts) -> KVBudget:
        """Return a budget that is the same in all layers and for all requests."""
        rotated = model.num_layers * model.kv_width
        return KVBudget(
            groups=uniform(model, Cap(tokens=self.sinks + self.window)),
            token_bits=model.token_bits,
            read_bits=model.token_bits,
            drop="prefill",
            per_read=Work(flops=_ROTARY_FLOPS * rotated),
        )

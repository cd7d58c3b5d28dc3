"""Orca: iteration-level scheduling with KV reserved at admission."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from policies.protocols import (
    UNBOUNDED,
    BatchingPolicy,
    PolicyError,
    ReplicaView,
    RequestView,
    StepPlan,
    param,
)


@dataclass
class Orca(BatchingPolicy):
    """Iteration-level batches of all running requests and whole new prompts, KV reserved at admission.

    From Orca: after every iteration, ended requests leave and waiting ones join, first come first served; a
    step mixes whole prompts with decodes (selective batching); a request joins only if the KV that it may
    need to its end can be reserved. How much that is was made a variable by the vLLM paper:

    - ``max``: the longest context, ``max_model_len`` (or all of memory where that is less);
    - ``pow2``: the prompt and the next power of two above the output length;
    - ``predicted``: the prompt and the output length (the paper's Orca (Oracle), if the predictor is an
      oracle).

    ``allocation`` says how large a piece of memory holds a reservation: ``exact`` (whole blocks), or
    ``buddy``, the next power of two of tokens, prompt included, as the vLLM paper assumes of Orca. What a
    buddy allocator loses between pieces of different sizes isn't modelled.

    ``pow2`` and ``predicted`` read the scenario's predictor. Where its prediction falls short a request takes further
    blocks as it grows, and if none is free the request admitted last is preempted and recomputed; under
    ``max`` nothing ever is.

    The prompts of one step keep within ``max_num_batched_tokens`` unless there is only one, for the sake of
    activation memory; Orca has no such limit. Not modelled: attention is costed as one batched kernel, not
    one a request.
    """

    name: ClassVar[str] = "orca"
    takes_over: ClassVar[bool] = False
    source: ClassVar[str] = (
        "Yu et al., Orca: A Distributed Serving System for Transformer-Based Generative Models, OSDI 2022, Algorithm 1;"
        " Kwon et al., PagedAttention, SOSP 2023, section 6.1 (Orca (Max), (Pow2), (Oracle));"
        " microsoft/sarathi-serve sarathi/core/scheduler/orca_scheduler.py (commit 13f16cf)"
    )
    admits_in_order: ClassVar[bool] = True
    defaults: ClassVar[Mapping[str, Any]] = {
        "max_num_seqs": 256,
        "max_num_batched_tokens": 16384,
        "prefix_caching": False,
    }

    reserve: str = param("max", "for which length KV is reserved at admission", choices=("max", "pow2", "predicted"))
    allocation: str = param("exact", "size of the piece that holds a reservation", choices=("exact", "buddy"))

    def preferred_predictor(self) -> str:
        """Return ``oracle`` where a prediction is reserved for: the vLLM paper's Orca (Oracle) and (Pow2)."""
        return "none" if self.reserve == "max" else "oracle"

    def refuses(self, request: RequestView, view: ReplicaView) -> str:
        """Refuse what can't be reserved even in empty memory."""
        need = -(-self._reserved_tokens(request, view) // view.kv.block_size)
        if need > view.kv.total_blocks:
            return f"needs {need} KV blocks reserved of {view.kv.total_blocks}"
        return ""

    def compose(self, view: ReplicaView, plan: StepPlan) -> None:
        """Fill the step: all decodes, then waiting requests."""
        while plan.decode_shortfall():
            plan.preempt(view.youngest)
        if view.num_decoding:
            plan.decode_all()
        if plan.num_preempted:
            return
        budget = view.limits.max_num_batched_tokens
        while view.waiting and view.num_running < view.limits.max_num_seqs:
            request = view.waiting.first
            tokens = plan.uncached_tokens(request)
            if plan.prefill_tokens and plan.prefill_tokens + tokens > budget:
                break
            if not plan.prefill(request, tokens, reserve_tokens=self._reserved_tokens(request, view)):
                break

    def _reserved_tokens(self, request: RequestView, view: ReplicaView) -> int:
        longest = min(view.limits.max_model_len, view.kv.total_blocks * view.kv.block_size)
        if self.reserve == "max":
            return longest
        output = request.predicted_output_tokens
        if math.isnan(output):
            raise PolicyError(
                f"policy 'orca' with reserve {self.reserve!r} needs predicted output lengths, but the scenario has no"
                " predictor: give it one, or use reserve 'max'"
            )
        length = max(1, math.ceil(output))
        if self.reserve == "pow2":
            length = _power_of_two(length)
        tokens = min(max(request.prompt_tokens + length, request.remaining_prefill), view.limits.max_model_len)
        return tokens if self.allocation == "exact" else max(tokens, min(_power_of_two(tokens), longest))

    def stable_steps(self, view: ReplicaView, plan: StepPlan) -> int:
        """Return UNBOUNDED: a step without a new prompt is all decodes; only a completion or arrival ends it."""
        return UNBOUNDED


def _power_of_two(tokens: int) -> int:
    """Return the least power of two that is at least ``tokens``."""
    return 1 << (tokens - 1).bit_length()

"""TensorRT-LLM: in-flight batching under a capacity policy."""

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
class Trtllm(BatchingPolicy):
    """In-flight batching: decodes and prompts share a step; a capacity policy says who may be in flight.

    From TensorRT-LLM: every step takes one token of each request in generation, then prompts, those in flight
    before waiting ones, in order and up to ``max_num_batched_tokens``; the first that doesn't fit ends the
    step. Capacity is

    - ``guaranteed_no_evict``: a request starts only if KV for its prompt and all its new tokens can be kept
      for it; nothing is ever paused;
    - ``max_utilization``: a request starts if KV for its prompt is free; when a generation step lacks blocks
      the request started last is paused, that is, preempted and recomputed, and no other starts in that step.

    The bound on new tokens is the client's, which traces don't have: the predicted length stands for it.
    Without a predictor ``guaranteed_no_evict`` is a `PolicyError`; where the prediction falls short a request
    takes further blocks as it grows, and pauses the one started last if none is free, which TensorRT-LLM
    never has to.

    With ``chunked_context`` a prompt that doesn't fit the step is cut, to whole KV blocks. Without it, it
    waits for the next step, and a prompt above the budget, which TensorRT-LLM refuses, is cut all the same.

    Not modelled: a request that could reuse blocks which another computes in the same step waits for them;
    kept KV is taken at once, where TensorRT-LLM only counts it, so that the prefix cache has less room;
    beams.
    """

    name: ClassVar[str] = "trtllm"
    source: ClassVar[str] = (
        "NVIDIA/TensorRT-LLM cpp/tensorrt_llm/batch_manager/capacityScheduler.cpp (commit 02a10fe),"
        " microBatchScheduler.cpp (commit 0a949d3)"
    )
    admits_in_order: ClassVar[bool] = True
    defaults: ClassVar[Mapping[str, Any]] = {
        "max_num_seqs": 2048,
        "max_num_batched_tokens": 8192,
        "prefix_caching": True,
    }

    capacity_policy: str = param(
        "guaranteed_no_evict",
        "what KV a request needs to start",
        choices=("guaranteed_no_evict", "max_utilization"),
    )
    chunked_context: bool = param(False, "cut prompts that don't fit the step")

    def preferred_predictor(self) -> str:
        """Return ``oracle`` where a client's bound is reserved for."""
        return "oracle" if self.capacity_policy == "guaranteed_no_evict" else "none"

    def refuses(self, request: RequestView, view: ReplicaView) -> str:
        """Refuse what can't be kept even in empty memory."""
        need = -(-self._kept_tokens(request, view) // view.kv.block_size)
        if need > view.kv.total_blocks:
            return f"needs {need} KV blocks kept of {view.kv.total_blocks}"
        return ""

    def compose(self, view: ReplicaView, plan: StepPlan) -> None:
        """Fill the step: generation, prompts in flight, then waiting requests."""
        while plan.decode_shortfall():
            plan.preempt(view.youngest)
        if view.num_decoding:
            plan.decode_all()
        for request in tuple(view.prefilling):
            chunk = self._chunk(request, request.remaining_prefill, view, plan)
            if not chunk or not plan.prefill(request, chunk):
                return
        if plan.num_preempted:
            return
        while view.waiting and view.num_running < view.limits.max_num_seqs:
            request = view.waiting.first
            chunk = self._chunk(request, plan.uncached_tokens(request), view, plan)
            if not chunk or not plan.prefill(request, chunk, reserve_tokens=self._kept_tokens(request, view)):
                return

    def _chunk(self, request: RequestView, tokens: int, view: ReplicaView, plan: StepPlan) -> int:
        """Return the prompt tokens to compute now, 0 for none."""
        budget = view.limits.max_num_batched_tokens
        left = budget - plan.tokens
        if tokens <= left:
            return tokens
        if self.chunked_context or tokens > budget:
            return max(left // view.kv.block_size * view.kv.block_size, 0)
        return 0

    def _kept_tokens(self, request: RequestView, view: ReplicaView) -> int:
        if self.capacity_policy == "max_utilization":
            return request.remaining_prefill
        output = request.predicted_output_tokens
        if math.isnan(output):
            raise PolicyError(
                "policy 'trtllm' with capacity_policy 'guaranteed_no_evict' needs predicted output lengths, but the"
                " scenario has no predictor: give it one, or use capacity_policy 'max_utilization'"
            )
        bound = request.prompt_tokens + max(1, math.ceil(output))
        return min(max(bound, request.remaining_prefill), view.limits.max_model_len)

    def stable_steps(self, view: ReplicaView, plan: StepPlan) -> int:
        """Return UNBOUNDED, but 1 where a chunk leaves budget.

        The chunk may then cache blocks that let the first waiting request in, and if it was cut to whole blocks the
        last chunks may be longer than it.
        """
        if plan.prefill_tokens and plan.tokens < view.limits.max_num_batched_tokens:
            return 1
        return UNBOUNDED

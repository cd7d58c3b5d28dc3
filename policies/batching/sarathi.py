"""Sarathi-Serve: stall-free batching with chunked prefills."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from policies.protocols import UNBOUNDED, BatchingPolicy, ReplicaView, StepPlan, param


@dataclass
class Sarathi(BatchingPolicy):
    """All decodes in every step; what is left of the token budget goes to running prompts, then to new ones.

    From Sarathi-Serve: decodes are never stalled by a prompt; the budget (``max_num_batched_tokens``, its
    chunk size, 512 by default) bounds decodes and prompt tokens together; running prompts go on before a new
    one starts; a new request is admitted, in order, only if blocks for its whole prompt can be taken at once
    above a watermark. A decode that lacks blocks preempts the request admitted last, by recomputation.
    Decodes alone may exceed the budget.

    The watermark is not kept if nothing runs, where Sarathi-Serve would wait for ever.

    Not modelled: Sarathi-Serve asks for a free block for every decode, even one that needs none this step;
    its dynamic chunking schedule (an option); cached prefixes, which it doesn't have, are used where the
    scenario turns them on.
    """

    name: ClassVar[str] = "sarathi"
    source: ClassVar[str] = (
        "Agrawal et al., Taming Throughput-Latency Tradeoff in LLM Inference with Sarathi-Serve, OSDI 2024;"
        " microsoft/sarathi-serve sarathi/core/scheduler/sarathi_scheduler.py (commit 13f16cf),"
        " block_space_manager/base_block_space_manager.py"
    )
    admits_in_order: ClassVar[bool] = True
    repeats_admissions: ClassVar[bool] = True
    defaults: ClassVar[Mapping[str, Any]] = {
        "max_num_seqs": 128,
        "max_num_batched_tokens": 512,
        "prefix_caching": False,
    }

    watermark: float = param(0.01, "share of all blocks to stay free at an admission", ge=0, le=1)

    def compose(self, view: ReplicaView, plan: StepPlan) -> None:
        """Fill the step: decodes, running prompts, then waiting requests."""
        limits = view.limits
        left = limits.max_num_batched_tokens
        if view.num_decoding:
            while plan.decode_shortfall():
                plan.preempt(view.youngest)
            left -= plan.decode_all()
        for request in tuple(view.prefilling):
            chunk = min(request.remaining_prefill, left)
            if chunk <= 0 or not plan.prefill(request, chunk):
                break
            left -= chunk
        while left > 0 and view.waiting and view.num_running < limits.max_num_seqs:
            request = view.waiting.first
            chunk = min(plan.uncached_tokens(request), left)
            keep_free = int(self.watermark * view.kv.total_blocks) if view.num_running else 0
            if not plan.prefill(request, chunk, reserve_tokens=request.remaining_prefill, keep_free_blocks=keep_free):
                break
            left -= chunk

    def stable_steps(self, view: ReplicaView, plan: StepPlan) -> int:
        """Return UNBOUNDED, but 1 where a chunk may cache blocks that let the first waiting request in.

        A step that admitted is followed by the same one if it used up the budget: nobody else is looked at then.
        """
        if plan.num_admitted:
            return UNBOUNDED if plan.tokens >= view.limits.max_num_batched_tokens else 1
        if (
            plan.prefill_tokens
            and view.waiting
            and plan.tokens < view.limits.max_num_batched_tokens
            and view.num_running < view.limits.max_num_seqs
        ):
            return 1
        return UNBOUNDED

"""DeepSpeed-FastGen: Dynamic SplitFuse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from policies.protocols import UNBOUNDED, BatchingPolicy, ReplicaView, RequestView, StepPlan


@dataclass
class Fastgen(BatchingPolicy):
    """Dynamic SplitFuse: forward passes of constant size; long prompts are split, short ones fused.

    From DeepSpeed-MII: decodes first, then the prompt that was split last, then new ones in order, until the
    pass holds ``max_num_batched_tokens`` (``max_ragged_batch_size``, 768). A prompt or rest of one is taken
    up only if blocks for all of it are free, though blocks are taken chunk by chunk; the first that isn't
    holds up those behind it. A decode that needs a block where none is free waits, the others go on. If
    nothing at all can go on, all KV is dropped and every request starts again with what it has generated
    (MII's "Deadlock detected").

    Not modelled: the order in which decodes are tried once blocks lack is that of admission; MII's is that in
    which their last tokens came back, which differs after a wait.
    """

    name: ClassVar[str] = "fastgen"
    source: ClassVar[str] = (
        "Holmes et al., DeepSpeed-FastGen, arXiv:2401.08671; microsoft/DeepSpeed-MII mii/batching/ragged_batching.py"
        " (commit 041a216); deepspeed/inference/v2/ragged/manager_configs.py"
    )
    admits_in_order: ClassVar[bool] = True
    supports_pipeline: ClassVar[bool] = False
    defaults: ClassVar[Mapping[str, Any]] = {
        "max_num_seqs": 512,
        "max_num_batched_tokens": 768,
        "prefix_caching": False,
    }

    def compose(self, view: ReplicaView, plan: StepPlan) -> None:
        """Fill the step: decodes, the split prompt, then waiting requests; start all over if nothing can go on."""
        self._decode(view, plan)
        self._prompts(view, plan)
        if plan.tokens == 0 and view.num_running:
            for request in tuple(view.running)[::-1]:
                plan.preempt(request)
            self._prompts(view, plan)

    def _decode(self, view: ReplicaView, plan: StepPlan) -> None:
        if not plan.decode_shortfall():
            if view.num_decoding:
                plan.decode_all()
            return
        free = view.kv.free_blocks
        chosen = []
        for request in view.running:
            if request.remaining_prefill:
                continue
            if plan.decode_blocks(request):
                if not free:
                    continue
                free -= 1
            chosen.append(request)
        if chosen:
            plan.decode_some(chosen)

    def _prompts(self, view: ReplicaView, plan: StepPlan) -> None:
        budget = view.limits.max_num_batched_tokens
        for request in tuple(view.prefilling):
            if plan.tokens >= budget or not self._take_up(request, request.remaining_prefill, view, plan):
                return
        while view.waiting and plan.tokens < budget and view.num_running < view.limits.max_num_seqs:
            request = view.waiting.first
            if not self._take_up(request, plan.uncached_tokens(request), view, plan):
                return

    def _take_up(self, request: RequestView, tokens: int, view: ReplicaView, plan: StepPlan) -> bool:
        """Compute what fits of the request's ``tokens``, if blocks for all of them are free."""
        chunk = min(tokens, view.limits.max_num_batched_tokens - plan.tokens)
        size = view.kv.block_size
        whole = request.computed_tokens + request.remaining_prefill
        keep_free = -(-whole // size) - -(-(whole - tokens + chunk) // size)
        return plan.prefill(request, chunk, keep_free_blocks=keep_free)

    def stable_steps(self, view: ReplicaView, plan: StepPlan) -> int:
        """Return UNBOUNDED, but 1 where decodes wait for blocks or a chunk may let the first waiting request in."""
        if plan.num_decodes < view.num_decoding:
            return 1
        if (
            plan.prefill_tokens
            and view.waiting
            and plan.tokens < view.limits.max_num_batched_tokens
            and view.num_running < view.limits.max_num_seqs
        ):
            return 1
        return UNBOUNDED

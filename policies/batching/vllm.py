"""vLLM's first scheduler (v0): prompts before decodes, never both in a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from policies.protocols import (
    UNBOUNDED,
    BatchingPolicy,
    ReplicaView,
    RequestView,
    StepPlan,
    least_urgent,
    param,
    urgency,
)


@dataclass
class Vllm(BatchingPolicy):
    """Prompts first: a step computes whole prompts if any request can be admitted, else it decodes all.

    From vLLM v0 without chunked prefill: no prompt is looked at while any request is swapped out; otherwise
    waiting requests are admitted in order while the prompt tokens keep within the budget, sequences within
    ``max_num_seqs`` and the admission leaves a watermark of blocks free. If nobody was admitted all running
    requests decode; where blocks lack the one admitted last is preempted first, by recomputation or by
    swapping to host memory; and if nobody was preempted, swapped-out requests come back, oldest first, above
    the same watermark.

    The budget counts whole prompts, cached prefixes included, as vLLM 0.5 does. vLLM refuses to start with a
    budget below the longest context; here the budget is then the longest context. A request whose blocks,
    with the watermark, exceed all of memory is refused, as vLLM ignores it. The watermark is not kept for a
    swap-in if nothing runs, where vLLM would wait for ever.

    With ``priority_preemption`` (vLLM 0.6.3 and later, ``--scheduling-policy priority``) the least urgent request is
    preempted first, and if nobody could be admitted, running requests that are less urgent than the first waiting one
    are preempted until that one would fit, so that the next step admits it.

    Not modelled: vLLM asks for a free block for every decode, even one that needs none this step; pipeline
    stages with queues of their own; ``delay_factor``; beam search and n > 1.
    """

    name: ClassVar[str] = "vllm"
    source: ClassVar[str] = (
        "Kwon et al., Efficient Memory Management for LLM Serving with PagedAttention, SOSP 2023; vLLM 0.5:"
        " vllm/core/scheduler.py _schedule_default() (commit 0054e1f), vllm/core/block_manager_v1.py; vLLM 0.6:"
        " _schedule_priority_preemption()"
    )
    admits_in_order: ClassVar[bool] = True
    defaults: ClassVar[Mapping[str, Any]] = {
        "max_num_seqs": 256,
        "max_num_batched_tokens": 2048,
        "prefix_caching": False,
    }

    preemption_mode: str = param(
        "recompute",
        "what becomes of a preempted request's KV: recomputed later, or swapped to host memory",
        choices=("recompute", "swap"),
    )
    priority_preemption: bool = param(
        False,
        "preempt the least urgent first, and for a more urgent one that waits; needs the queueing policy 'priority'",
    )
    watermark: float = param(0.01, "share of all blocks to stay free at an admission or swap-in", ge=0, le=1)

    def reset(self) -> None:
        """Ask for the queue by priority where running requests are preempted by it."""
        if self.priority_preemption:
            self.queueing, self.preempts_for_waiting = "priority", True  # type: ignore[misc]  # of this instance

    def refuses(self, request: RequestView, view: ReplicaView) -> str:
        """Refuse what doesn't fit below the watermark even in empty memory."""
        kv = view.kv
        need = -(-request.remaining_prefill // kv.block_size) + self._watermark_blocks(view)
        if need > kv.total_blocks:
            return f"needs {need} KV blocks, watermark included, of {kv.total_blocks}"
        return ""

    def compose(self, view: ReplicaView, plan: StepPlan) -> None:
        """Fill the step: prompts, or else swap-ins and decodes."""
        if not view.swapped:
            self._admit(view, plan)
        if plan.num_admitted:
            return
        swap = self.preemption_mode == "swap"
        if self.priority_preemption and view.waiting:
            self._make_room(view, plan, swap)
        while plan.decode_shortfall():
            plan.preempt(least_urgent(view.running) if self.priority_preemption else view.youngest, swap=swap)
        if view.swapped and not plan.num_preempted:
            self._swap_in(view, plan)
        if view.num_decoding:
            plan.decode_all()

    def _make_room(self, view: ReplicaView, plan: StepPlan, swap: bool) -> None:
        """Preempt requests that are less urgent than the first waiting one, until that one would fit."""
        first, kv, limits = view.waiting.first, view.kv, view.limits
        need = -(-first.remaining_prefill // kv.block_size) + self._watermark_blocks(view)
        while view.num_schedulable and (need > kv.free_blocks or view.num_running >= limits.max_num_seqs):
            victim = least_urgent(view.running)
            if urgency(victim) <= urgency(first):
                return
            plan.preempt(victim, swap=swap)

    def _watermark_blocks(self, view: ReplicaView) -> int:
        return int(self.watermark * view.kv.total_blocks)

    def _admit(self, view: ReplicaView, plan: StepPlan) -> None:
        limits = view.limits
        budget = max(limits.max_num_batched_tokens, limits.max_model_len)
        keep_free = self._watermark_blocks(view)
        batched = 0
        while view.waiting and view.num_running < limits.max_num_seqs:
            request = view.waiting.first
            batched += request.remaining_prefill
            if batched > budget and plan.num_admitted:
                break
            if not plan.prefill(request, plan.uncached_tokens(request), keep_free_blocks=keep_free):
                break

    def _swap_in(self, view: ReplicaView, plan: StepPlan) -> None:
        """Bring back what fits above the watermark after the blocks that this step's decodes take."""
        size = view.kv.block_size
        taken = sum(request.context_tokens % size == 0 for request in view.running)
        watermark = self._watermark_blocks(view)
        while view.swapped and view.num_running < view.limits.max_num_seqs:
            request = view.swapped[0]
            own = request.context_tokens % size == 0
            if not plan.swap_in(request, keep_free_blocks=taken + own + (watermark if view.num_running else 0)):
                break
            taken += own

    def stable_steps(self, view: ReplicaView, plan: StepPlan) -> int:
        """Return UNBOUNDED: a step that admits nobody is all decodes; only a completion or arrival ends it.

        But 1 where swapped-out requests keep a waiting one out that may preempt others as soon as blocks lack for it.
        """
        return 1 if self.priority_preemption and view.swapped and view.waiting else UNBOUNDED

"""vLLM's v1 scheduler: one token budget for decodes and prompt chunks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

from policies.protocols import UNBOUNDED, BatchingPolicy, ReplicaView, RequestView, StepPlan, least_urgent, param


@dataclass
class VllmV1(BatchingPolicy):
    """One token budget a step: running requests first, then waiting ones in order, prompts cut to fit.

    From vLLM: running requests take their tokens (one for a decode, the next chunk for a prompt) before any
    waiting request is looked at; a request that lacks KV blocks preempts the one admitted last, by
    recomputation; a step that preempted admits nobody; waiting requests are admitted in order until tokens,
    sequences or blocks run out, and the first that can't be admitted blocks those behind it. Cached prefixes
    are taken off before chunks are cut. Since 0.19 a request is admitted only if its *whole* input fits the
    free blocks, although blocks are taken chunk by chunk (``scheduler_reserve_full_isl``), and an admission
    watermark can be set that applies while anything runs.

    Running requests are served decodes first, then chunks in the order of admission. vLLM goes through both
    in the order of admission; the tokens are the same unless a decode stands behind a chunk that uses up the
    budget, which takes ``long_prefill_token_threshold`` or pipeline stages. There, too, a chunk that lacks
    blocks waits a step instead of preempting a younger decode.

    With ``priority_preemption``, which vLLM's ``--scheduling-policy priority`` means beside the order of its queue, the
    request of the largest priority number that arrived last is preempted instead. A waiting request preempts nobody,
    however urgent. Where the victim would be one that this step computes already (vLLM takes it out of the step
    again), the chunk that lacks blocks waits a step.

    Not modelled: the next chunk of a prompt while the one before it is in flight (pipeline parallelism), encoder and
    speculative tokens, LoRA slots, remote KV.
    """

    name: ClassVar[str] = "vllm-v1"
    source: ClassVar[str] = (
        "vLLM v1, 0.19 and main of 2026: vllm/v1/core/sched/scheduler.py schedule(),"
        " vllm/v1/core/kv_cache_manager.py allocate_slots() (commits 00024d3, 003df29)"
    )
    admits_in_order: ClassVar[bool] = True
    repeats_admissions: ClassVar[bool] = True
    defaults: ClassVar[Mapping[str, Any]] = {
        "max_num_seqs": 256,
        "max_num_batched_tokens": 2048,
        "prefix_caching": True,
    }

    long_prefill_token_threshold: int = param(
        0, "longest chunk of one request a step; 0 for no limit", unit="tokens", ge=0
    )
    reserve_full_input: bool = param(
        True, "admit a request only if blocks for its whole input are free, not just for its first chunk"
    )
    priority_preemption: bool = param(
        False, "preempt the least urgent request, not the youngest; needs the queueing policy 'priority'"
    )
    watermark: float = param(0.0, "share of all blocks to stay free at an admission while anything runs", ge=0, le=1)

    def reset(self) -> None:
        """Ask for the queue by priority where running requests are preempted by it."""
        if self.priority_preemption:
            self.queueing = "priority"  # type: ignore[misc]  # of this instance

    def _victim(self, view: ReplicaView) -> RequestView:
        return least_urgent(view.running) if self.priority_preemption else view.youngest

    def compose(self, view: ReplicaView, plan: StepPlan) -> None:
        """Fill the step: decodes, running prompts, then waiting requests."""
        budget = view.limits.max_num_batched_tokens
        if view.num_decoding:
            while plan.decode_shortfall():
                plan.preempt(self._victim(view))
            if view.num_decoding > budget:
                prefilling = {request.request_id for request in view.prefilling}
                ready = (request for request in view.running if request.request_id not in prefilling)
                plan.decode_some(list(islice(ready, budget)))
                return
            plan.decode_all()
        done = 0
        while done < len(view.prefilling):  # which a preemption may shorten
            request = view.prefilling[done]
            chunk = self._chunk(request.remaining_prefill, budget - plan.tokens)
            if chunk <= 0 or not self._continue_prefill(view, plan, done, chunk):
                break
            done += 1
        if view.waiting and not plan.num_preempted:
            self._admit(view, plan, budget)

    def _chunk(self, tokens: int, budget: int) -> int:
        limit = self.long_prefill_token_threshold
        return min(tokens, budget, limit) if limit else min(tokens, budget)

    def _continue_prefill(self, view: ReplicaView, plan: StepPlan, done: int, chunk: int) -> bool:
        """Compute the next chunk of a running prompt, of which ``done`` were served; False if this ends the round."""
        request = view.prefilling[done]
        while not plan.prefill(request, chunk):
            victim = self._victim(view)
            if victim.remaining_prefill == 0 or (self.priority_preemption and victim in view.prefilling[:done]):
                return False
            itself = victim.request_id == request.request_id
            plan.preempt(victim)
            if itself:
                return False
        return True

    def _admit(self, view: ReplicaView, plan: StepPlan, budget: int) -> None:
        kv = view.kv
        while view.waiting and plan.tokens < budget and view.num_running < view.limits.max_num_seqs:
            request = view.waiting.first
            uncached = plan.uncached_tokens(request)
            chunk = self._chunk(uncached, budget - plan.tokens)
            keep_free = int(self.watermark * kv.total_blocks) if view.num_running else 0
            if self.reserve_full_input and chunk < uncached:
                whole = request.remaining_prefill
                after_chunk = whole - uncached + chunk
                keep_free += -(-whole // kv.block_size) - -(-after_chunk // kv.block_size)
            if not plan.prefill(request, chunk, keep_free_blocks=keep_free):
                if not view.waiting or view.waiting.first is not request:
                    continue  # it stands aside until its KV has been loaded
                break

    def stable_steps(self, view: ReplicaView, plan: StepPlan) -> int:
        """Return UNBOUNDED, but 1 where a chunk may cache blocks that let the first waiting request in.

        A waiting request is held up by the token budget, the number of sequences or blocks. The first two end
        only with a completion, and so do blocks, unless a prompt that is computed now shares a prefix with
        it. A step that admitted is followed by the same one if it used up the budget: nobody else is looked at then.
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

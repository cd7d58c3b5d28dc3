"""Splitwise's machine-level scheduler: mixed batches of whole prompts and decodes, prompts first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from policies.protocols import UNBOUNDED, BatchingPolicy, ReplicaView, RequestView, StepPlan, param


@dataclass
class Splitwise(BatchingPolicy):
    """Whole prompts first come first served up to a number of tokens a step, beside as many decodes as still fit.

    Prompt machines batch prompts up to 2,048 tokens in total, or one longer one; token machines batch all that decode;
    mixed machines, and those of the paper's baselines, do both in one step. Where prompts leave no room for all
    decodes, some wait a step, those that waited before going first, and one that was put off ``max_preemptions`` times
    is not put off any more. The limit of tokens is ``max_num_batched_tokens``.

    Not modelled: in the paper's simulator the memory of a request's whole output is looked at before it starts; here
    requests take blocks as they grow, and the youngest is recomputed when none is left.
    """

    name: ClassVar[str] = "splitwise"
    source: ClassVar[str] = (
        "Patel et al., Splitwise: Efficient Generative LLM Inference Using Phase Splitting, ISCA 2024, section 4.2;"
        " Mutinifni/splitwise-sim instance.py SplitwiseInstance, configs/start_state/splitwise.yaml (commit 3780880)"
    )
    admits_in_order: ClassVar[bool] = True
    defaults: ClassVar[Mapping[str, Any]] = {
        "max_num_seqs": 512,
        "max_num_batched_tokens": 2048,
        "prefix_caching": False,
    }

    max_preemptions: int = param(4, "steps that a request's tokens may be put off in all", unit="steps", ge=0)

    def reset(self) -> None:
        """Nobody was put off yet."""
        self._put_off: dict[int, int] = {}

    def compose(self, view: ReplicaView, plan: StepPlan) -> None:
        """Admit whole prompts, then decode what fits beside them."""
        while plan.decode_shortfall():
            plan.preempt(view.youngest)
        budget = view.limits.max_num_batched_tokens
        if view.waiting and not plan.num_preempted:
            self._admit(view, plan, budget)
        room = max(0, budget - plan.prefill_tokens)
        if view.num_decoding <= room:
            if view.num_decoding:
                plan.decode_all()
            return
        self._decode_some(view, plan, room)

    def _admit(self, view: ReplicaView, plan: StepPlan, budget: int) -> None:
        while view.waiting and view.num_running < view.limits.max_num_seqs:
            request = view.waiting.first
            tokens = plan.uncached_tokens(request)
            if plan.prefill_tokens and plan.prefill_tokens + tokens > budget:
                break
            if not plan.prefill(request, tokens, keep_free_blocks=view.num_decoding):
                break

    def _decode_some(self, view: ReplicaView, plan: StepPlan, room: int) -> None:
        prefilling = {request.request_id for request in view.prefilling}
        ready = [request for request in view.running if request.request_id not in prefilling]
        before = self._put_off

        def times(request: RequestView) -> int:
            return before.get(request.request_id, 0)

        ready.sort(key=times, reverse=True)  # stable: then in the order of admission
        due = sum(times(request) >= self.max_preemptions for request in ready)
        chosen = max(room, due)
        self._put_off = {request.request_id: times(request) for request in ready if times(request)}
        for request in ready[chosen:]:
            self._put_off[request.request_id] = times(request) + 1
        if chosen:
            plan.decode_some(ready[:chosen])

    def stable_steps(self, view: ReplicaView, plan: StepPlan) -> int:
        """Return UNBOUNDED: a step without a new prompt decodes all; only a completion or an arrival ends that."""
        return UNBOUNDED

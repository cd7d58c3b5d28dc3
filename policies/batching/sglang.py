"""SGLang's scheduler: prefill first, in chunks, admitted against an estimate of what will be generated."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from policies.protocols import UNBOUNDED, BatchingPolicy, ReplicaView, RequestView, StepPlan, param

_CLIP_NEW_TOKENS = 4096
_RETRACT_DECODE_STEPS = 20
_MIN_RATIO_FACTOR = 0.14
_RATIO_DECAY_STEPS = 600


@dataclass
class Sglang(BatchingPolicy):
    """Prefill first: a step computes prompts, in chunks, if any can be admitted, else it decodes all.

    From SGLang: a prompt cut in an earlier step goes on before new ones; chunks of a step keep within the
    chunked prefill size (``max_num_batched_tokens``), whole prompts together within ``max_prefill_tokens``;
    prompts and decodes share no step. A request is admitted if its prompt and all its new tokens fit beside
    what the running ones are expected to generate: for each of them the new tokens that it has left, times
    the *new token ratio*. The ratio starts at 0.7 and falls with every decode step to 0.098 in 600 steps. If
    a decode step lacks memory, requests are *retracted*, the fewest output tokens first and of these the
    longest prompt, and the ratio is set anew from what was really generated. Once a request can't be admitted
    none is tried before a running one ends or is retracted.

    "New tokens" of a request are its client's bound, 4096 at most. Traces have none, so the predicted length
    stands for it (SGLang's own benchmark sends the true one), and ``assumed_new_tokens`` where there is no
    predictor.

    Not modelled: a retracted request goes to the front of the queue instead of its end; orders by longest
    prefix match (SGLang's default is first come first served); mixed chunks; overlap of scheduling with the
    step (its cost is the cost model's); page rounding of chunks beyond KV blocks; hierarchical cache; the
    prefill delayer.
    """

    name: ClassVar[str] = "sglang"
    source: ClassVar[str] = (
        "Zheng et al., SGLang, NeurIPS 2024; sgl-project/sglang python/sglang/srt/managers/schedule_policy.py"
        " PrefillAdder (commit 00550cd), schedule_batch.py retract_decode, scheduler.py, environ.py"
    )
    admits_in_order: ClassVar[bool] = True
    defaults: ClassVar[Mapping[str, Any]] = {
        "max_num_seqs": 2048,
        "max_num_batched_tokens": 8192,
        "prefix_caching": True,
    }

    max_prefill_tokens: int = param(16384, "most prompt tokens of a step, one prompt excepted", unit="tokens", ge=1)
    schedule_conservativeness: float = param(1.0, "factor on the initial new token ratio", ge=0)
    assumed_new_tokens: int = param(
        _CLIP_NEW_TOKENS, "new tokens of a request where the scenario has no predictor", unit="tokens", ge=1
    )

    def reset(self) -> None:
        """Begin with the initial ratio and nothing full."""
        self._ratio = min(0.7 * self.schedule_conservativeness, 1.0)
        self._least_ratio = self._ratio * _MIN_RATIO_FACTOR
        self._decay = (self._ratio - self._least_ratio) / _RATIO_DECAY_STEPS
        self._full = False
        self._running_before = 0

    def compose(self, view: ReplicaView, plan: StepPlan) -> None:
        """Fill the step: prompts, or else decodes."""
        if view.num_running < self._running_before:
            self._full = False
        if view.prefilling or (view.waiting and not self._full):
            self._prefill(view, plan)
        if not plan.prefill_tokens and view.num_decoding:
            self._decode(view, plan)
        self._running_before = view.num_running

    # ------------------------------------------------------------------------------------------- prefill

    def _new_tokens(self, request: RequestView) -> int:
        predicted = request.predicted_output_tokens
        bound = self.assumed_new_tokens if math.isnan(predicted) else math.ceil(predicted)
        return min(max(bound - request.generated_tokens, 0), _CLIP_NEW_TOKENS)

    def _prefill(self, view: ReplicaView, plan: StepPlan) -> None:
        chunk_left = view.limits.max_num_batched_tokens
        input_left = self.max_prefill_tokens
        for request in tuple(view.prefilling):
            chunk = min(request.remaining_prefill, chunk_left)
            if chunk <= 0 or not plan.prefill(request, chunk):
                return  # decodes go on until there are blocks for it; another prompt would take them away
            chunk_left -= chunk
            input_left -= chunk
        if not view.waiting or self._full or chunk_left <= 0:
            return
        kv = view.kv
        expected = self._ratio * sum(self._new_tokens(request) for request in view.running)
        memory_left = kv.free_blocks * kv.block_size - expected
        while view.waiting and chunk_left > 0 and input_left > 0:
            if view.num_running >= view.limits.max_num_seqs:
                self._full = True
                return
            request = view.waiting.first
            tokens = plan.uncached_tokens(request)
            new_tokens = self._new_tokens(request)
            if view.num_running and tokens + new_tokens + kv.block_size >= memory_left:
                self._full = True
                return
            chunk = tokens if tokens <= chunk_left else chunk_left // kv.block_size * kv.block_size
            if chunk == 0:
                return
            # SGLang counts the whole prompt as spoken for when it starts the first chunk; taking it says the same.
            if not plan.prefill(request, chunk, reserve_tokens=request.remaining_prefill):
                if not view.waiting or view.waiting.first is not request:
                    continue  # it stands aside until its KV has been loaded, which says nothing of memory
                self._full = view.num_running > 0  # else it waits for what is kept for requests from elsewhere
                return
            chunk_left -= chunk
            input_left -= chunk
            memory_left -= chunk + kv.block_size + (new_tokens if chunk == tokens else 0)
            if memory_left <= 0:
                self._full = bool(view.waiting)
                return

    # -------------------------------------------------------------------------------------------- decode

    def _decode(self, view: ReplicaView, plan: StepPlan) -> None:
        if plan.decode_shortfall():
            self._retract(view, plan)
        else:
            self._ratio = max(self._ratio - self._decay, self._least_ratio)
        if view.num_decoding:
            plan.decode_all()

    def _retract(self, view: ReplicaView, plan: StepPlan) -> None:
        ready = [request for request in view.running if not request.remaining_prefill]
        ready.sort(key=lambda request: (-request.generated_tokens, request.prompt_tokens))
        while ready and plan.decode_shortfall():
            plan.preempt(ready.pop())
        generated = sum(request.generated_tokens for request in ready)
        allowed = generated + sum(self._new_tokens(request) for request in ready)
        self._ratio = min(1.0, (generated + _RETRACT_DECODE_STEPS * len(ready)) / (allowed + 1))
        self._full = False

    def stable_steps(self, view: ReplicaView, plan: StepPlan) -> int:
        """Return UNBOUNDED, but 1 while the ratio still falls or a chunk is computed before requests that wait."""
        if plan.prefill_tokens:
            return 1 if view.waiting and not self._full else UNBOUNDED
        return UNBOUNDED if self._ratio <= self._least_ratio else 1

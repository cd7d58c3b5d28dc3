"""HyGen: offline requests in the time that online ones leave of each step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from policies.protocols import (
    UNBOUNDED,
    BatchingPolicy,
    LimitsView,
    ReplicaView,
    RequestView,
    StepPlan,
    StepTimer,
    param,
)
from policies.step_time import LinearStepTime, fit_step_time


@dataclass
class Hygen(BatchingPolicy):
    """Online requests as Sarathi-Serve has them; offline ones in what a predicted step time leaves of a budget.

    An offline request is one of a priority number of at least ``offline_priority``. Each step takes all online decodes
    and then online prompt chunks up to ``max_num_batched_tokens``. Offline decodes, then offline chunks are added as
    long as the predicted time of the step keeps within ``step_budget_s``, chunks cut to fit. For an online request that
    lacks KV blocks or a place, offline ones are preempted by recomputation, the one admitted last first; so are they
    first where blocks lack for the next token. If a step would be empty, an offline request goes on whatever the
    prediction says, one decode or one block of a prompt.

    The time of a step is predicted as in the paper, linear in the prompt tokens, the context of decodes, the squares of
    both, and the numbers of chunks and decodes, fitted when the replica starts to a profile of its engine (here: of its
    cost model). Coefficients below 0 are left out, so that a longer batch is never predicted to be shorter. The context
    is that of all KV memory in use, prompts under way included. ``step_budget_s`` is what the paper's SLO-aware
    profiler finds by trial: the largest for which online objectives are kept (``simulate reproduce hygen`` does that).

    Not modelled: the paper's preservation of preempted offline requests' state, and its mixture of prefix order and
    waiting time among offline requests (see the queueing policy ``hygen``, which goes with this one).
    """

    name: ClassVar[str] = "hygen"
    source: ClassVar[str] = (
        "Sun, Wang and Lai, HyGen: Efficient LLM Serving via Elastic Online-Offline Request Co-location, NeurIPS 2025,"
        " arXiv:2501.14808"
    )
    queueing: ClassVar[str] = "hygen"
    admits_in_order: ClassVar[bool] = True
    preempts_for_waiting: ClassVar[bool] = True
    defaults: ClassVar[Mapping[str, Any]] = {
        "max_num_seqs": 128,
        "max_num_batched_tokens": 512,
        "prefix_caching": True,
    }

    offline_priority: int = param(1, "priority number from which a request is an offline one")
    step_budget_s: float = param(
        0.05, "predicted time of a step up to which offline work is added; 0: none beside online", unit="s", ge=0
    )
    watermark: float = param(0.01, "share of all blocks to stay free at an admission", ge=0, le=1)

    def reset(self) -> None:
        """Predict nothing before the engine was profiled: the budget then doesn't bind."""
        self._predict = LinearStepTime((0.0,) * 7)

    def profile(self, step_s: StepTimer, limits: LimitsView, kv_tokens: int) -> None:
        """Fit the predictor to the engine."""
        self._predict = fit_step_time(step_s, limits, kv_tokens)

    def compose(self, view: ReplicaView, plan: StepPlan) -> None:
        """Fill the step: decodes, online chunks, then offline chunks as far as the budget goes."""
        limits = view.limits
        if view.waiting and self._is_online(view.waiting.first):
            self._make_room(view, plan)
        while plan.decode_shortfall():
            plan.preempt(self._victim(view))
        if view.num_decoding:
            self._decode(view, plan)
        left = limits.max_num_batched_tokens - plan.num_decodes
        chunks = 0
        for request in [each for each in view.prefilling if self._is_online(each)]:
            tokens = min(request.remaining_prefill, left)
            if tokens <= 0 or not plan.prefill(request, tokens):
                break
            left -= tokens
            chunks += 1
        while left > 0 and view.waiting and self._is_online(view.waiting.first):
            tokens = self._admit(view, plan, left)
            if not tokens:
                break
            left -= tokens
            chunks += 1
        self._offline_chunks(view, plan, left, chunks)

    def stable_steps(self, view: ReplicaView, plan: StepPlan) -> int:
        """Return the steps until growing context may bring the prediction over the budget.

        1 where offline prompts are or may be under way, as their chunks shrink, and where a chunk may cache blocks that
        let the first waiting request in.
        """
        offline_waits = bool(view.waiting) and not self._is_online(view.waiting.first)
        if offline_waits and plan.prefill_tokens:
            return 1
        if any(not self._is_online(request) for request in view.prefilling):
            return 1
        if plan.prefill_tokens and view.waiting and plan.tokens < view.limits.max_num_batched_tokens:
            return 1
        chunks, tokens, decodes = len(view.prefilling), plan.prefill_tokens, plan.num_decodes
        if self._time(view, tokens, chunks, decodes) > self.step_budget_s:
            return UNBOUNDED  # of online requests alone, or they would not all decode
        # Context grows by a token a decode and what chunks add, in blocks of which each may be new.
        used, block = _context(view), view.kv.block_size
        growth, slack = decodes + tokens, (decodes + chunks) * block
        low, high = 1, 1 << 20
        while low < high:
            steps = (low + high + 1) // 2
            time = self._predict(tokens, chunks, decodes, used + slack + steps * growth)
            low, high = (steps, high) if time <= self.step_budget_s else (low, steps - 1)
        return low

    # ------------------------------------------------------------------------------------------------ prediction

    def _is_online(self, request: RequestView) -> bool:
        return request.priority < self.offline_priority

    def _time(self, view: ReplicaView, tokens: int, chunks: int, decodes: int) -> float:
        return self._predict(tokens, chunks, decodes, _context(view) if decodes else 0)

    # ---------------------------------------------------------------------------------------------------- online

    def _make_room(self, view: ReplicaView, plan: StepPlan) -> None:
        """Preempt offline requests, the youngest first, until the first waiting request, an online one, would fit."""
        kv, limits = view.kv, view.limits
        need = -(-view.waiting.first.remaining_prefill // kv.block_size) + self._watermark_blocks(view)
        full = view.num_running >= limits.max_num_seqs
        if not full and need + view.num_schedulable <= kv.free_blocks:
            return  # even if every running request takes a block
        running = list(view.running)
        need += sum(request.context_tokens % kv.block_size == 0 for request in running)
        offline = [request for request in running if not self._is_online(request)]
        while offline and (need > kv.free_blocks or view.num_running >= limits.max_num_seqs):
            plan.preempt(offline.pop())

    def _victim(self, view: ReplicaView) -> RequestView:
        """Return the offline request admitted last, else the online one."""
        offline = [request for request in view.running if not self._is_online(request)]
        return offline[-1] if offline else view.youngest

    def _admit(self, view: ReplicaView, plan: StepPlan, most: int) -> int:
        """Admit the first waiting request with at most so many tokens; return how many, 0 if it can't be."""
        if view.num_running >= view.limits.max_num_seqs:
            return 0
        request = view.waiting.first
        tokens = min(plan.uncached_tokens(request), most)
        keep = self._watermark_blocks(view) if view.num_running else 0
        admitted = plan.prefill(request, tokens, reserve_tokens=request.remaining_prefill, keep_free_blocks=keep)
        return tokens if admitted else 0

    def _watermark_blocks(self, view: ReplicaView) -> int:
        return int(self.watermark * view.kv.total_blocks)

    # --------------------------------------------------------------------------------------------------- offline

    def _decode(self, view: ReplicaView, plan: StepPlan) -> None:
        """Decode the online requests, and as many offline ones as the budget has time for beside online prompts."""
        number = view.num_decoding
        tokens, chunks = self._online_tokens(view, view.limits.max_num_batched_tokens - number)
        if self._time(view, tokens, chunks, number) <= self.step_budget_s:
            plan.decode_all()
            return
        under_way = {request.request_id for request in view.prefilling}
        ready = [request for request in view.running if request.request_id not in under_way]
        online = [request for request in ready if self._is_online(request)]
        offline = [request for request in ready if not self._is_online(request)]
        if not offline:
            plan.decode_all()
            return
        context = sum(request.context_tokens for request in online)
        chosen = 0 if online or tokens else 1
        while chosen < len(offline):
            context += offline[chosen].context_tokens
            if self._predict(tokens, chunks, len(online) + chosen + 1, context) > self.step_budget_s:
                break
            chosen += 1
        if online or chosen:
            plan.decode_some([*online, *offline[:chosen]])

    def _online_tokens(self, view: ReplicaView, most: int) -> tuple[int, int]:
        """Return the tokens and chunks of online prompts that are about to be in the step, at most so many tokens."""
        wanted = [request.remaining_prefill for request in view.prefilling if self._is_online(request)]
        if view.waiting and self._is_online(view.waiting.first):
            wanted.append(view.waiting.first.remaining_prefill)
        tokens = max(0, min(sum(wanted), most))
        return tokens, len(wanted) if tokens else 0

    def _offline_chunks(self, view: ReplicaView, plan: StepPlan, left: int, chunks: int) -> None:
        """Add offline chunks, of prompts under way and then of the first that wait, as long as there is time."""
        for request in [each for each in view.prefilling if not self._is_online(each)]:
            tokens = min(request.remaining_prefill, self._room(view, plan, left, chunks))
            if tokens <= 0 or not plan.prefill(request, tokens):
                return
            left -= tokens
            chunks += 1
        while view.waiting and not self._is_online(view.waiting.first):
            tokens = self._admit(view, plan, room) if (room := self._room(view, plan, left, chunks)) > 0 else 0
            if not tokens:
                return
            left -= tokens
            chunks += 1

    def _room(self, view: ReplicaView, plan: StepPlan, left: int, chunks: int) -> int:
        """Return the largest chunk that keeps the predicted time within the budget, at most ``left`` tokens."""
        low, high = 0, left
        while low < high:
            tokens = (low + high + 1) // 2
            time = self._time(view, plan.prefill_tokens + tokens, chunks + 1, plan.num_decodes)
            low, high = (tokens, high) if time <= self.step_budget_s else (low, tokens - 1)
        return low if low or plan.tokens else min(left, view.kv.block_size)


def _context(view: ReplicaView) -> int:
    """Return the tokens of KV memory in use."""
    kv = view.kv
    return (kv.total_blocks - kv.free_blocks) * kv.block_size

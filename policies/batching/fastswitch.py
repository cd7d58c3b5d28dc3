"""FastSwitch: fairness by priorities that change, and swaps that go on while others compute."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from policies.protocols import BatchingPolicy, ReplicaView, RequestView, StepPlan, param

_MASK = (1 << 64) - 1


@dataclass
class Fastswitch(BatchingPolicy):
    """The most urgent requests that fit run; priorities change every few steps, and who loses its place is swapped out.

    Every ``update_period`` steps each request, running or not, may get another priority. The most urgent ones that
    fit the KV memory and ``max_num_seqs`` together are to run: running ones that aren't among them are swapped out to
    host memory, those among them that are out come back as soon as there is room, and waiting ones are admitted, all
    in the order of urgency. Between two updates nobody is preempted unless blocks lack for the next token (then the
    least urgent goes, and the step waits for that). Prompts are computed whole and before decodes, as by vLLM v0, the
    system that it is built on.

    With ``asynchronous`` swaps go on while the others compute: a request that comes back stays out of the batch until
    its copy is done, and blocks of one that goes are free when its copy is. Without it, each step waits for its swaps,
    as in vLLM v0: the baseline. What a copy takes (calls for each block, or for groups of blocks that lie together) and
    whether the host keeps copies is the scenario's ``swap`` part; the preset ``fastswitch`` sets them all, and
    ``fastswitch-vllm`` the baseline's.

    The paper simulates priorities in two patterns: at random, and with those that were urgent tending to stay so (a
    Markov chain). ``random`` draws each request's urgency anew at every update, ``markov`` only with the probability
    ``1 - persistence`` (0.8 is an assumption), and ``trace`` takes the trace's priorities, which don't change. Draws
    depend on the request, the update and ``seed`` alone.

    Not modelled: the choice between asynchronous and synchronous swaps at run time (the paper's adaptive strategy),
    host threads that submit calls, copies kept from one turn of a conversation to the next (a turn is a request of its
    own here; its prefix cache is in GPU memory only), blocks of copies lost one by one to others (a copy goes whole).
    """

    name: ClassVar[str] = "fastswitch"
    source: ClassVar[str] = (
        "Shen, Li and Gao, FastSwitch: Optimizing Context Switching Efficiency in Fairness-aware Large Language Model"
        " Serving, arXiv:2411.18424"
    )
    supports_pipeline: ClassVar[bool] = False
    defaults: ClassVar[Mapping[str, Any]] = {
        "max_num_seqs": 256,
        "max_num_batched_tokens": 2048,
        "prefix_caching": False,
        "swap_space_gib": 64.0,
    }

    pattern: str = param("markov", "how priorities change", choices=("random", "markov", "trace"))
    update_period: int = param(50, "steps between two updates of priorities", unit="steps", ge=1)
    persistence: float = param(0.8, "markov: probability that a request keeps its urgency at an update", ge=0, le=1)
    asynchronous: bool = param(True, "swap while others compute, or let each step wait for its swaps")
    seed: int = param(0, "of the draws of urgency", ge=0)

    def reset(self) -> None:
        """Begin before the first update."""
        self._update = -1

    def compose(self, view: ReplicaView, plan: StepPlan) -> None:
        """Fill the step: change who runs where an update is due, bring back and admit, then prompts or decodes."""
        update = view.num_steps // self.update_period
        if update != self._update:
            self._update = update
            self._switch(view, plan)
        wait = not self.asynchronous
        waiting = self._enter(view, plan, wait) if view.waiting or view.swapped else False
        if waiting:
            return
        while plan.decode_shortfall():
            plan.preempt(max(view.running, key=self._urgency), swap=True)
        if view.num_decoding:
            plan.decode_all()

    def stable_steps(self, view: ReplicaView, plan: StepPlan) -> int:
        """Return the steps until the next update of priorities."""
        return self.update_period - view.num_steps % self.update_period

    # ------------------------------------------------------------------------------------------------ urgency

    def _urgency(self, request: RequestView) -> tuple[float, float, int]:
        """Return a request's place: the smallest is the most urgent."""
        if self.pattern == "trace":
            return request.priority, request.arrival_s, request.request_id
        drawn = max(self._update, 0)
        if self.pattern == "markov":
            while drawn and self._draw(request.request_id, drawn, 1) < self.persistence:
                drawn -= 1
        return self._draw(request.request_id, drawn, 0), request.arrival_s, request.request_id

    def _draw(self, request_id: int, update: int, what: int) -> float:
        """Return a number in [0, 1) that depends on these alone: the finaliser of SplitMix64 over a sum of products."""
        x = self.seed * 0xD6E8FEB86659FD93 + request_id * 0x9E3779B97F4A7C15 + (2 * update + what) * 0xBF58476D1CE4E5B9
        x &= _MASK
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
        return float((x ^ (x >> 31)) >> 11) / (1 << 53)

    # ------------------------------------------------------------------------------------------ who comes and goes

    def _switch(self, view: ReplicaView, plan: StepPlan) -> None:
        """Swap out the running requests that aren't among the most urgent that fit."""
        if not view.swapped and not view.waiting:
            return
        running = {request.request_id: request for request in view.running}
        # Those on their way in hold places and blocks too. Their blocks aren't known here: too few may have to go then,
        # and who doesn't fit yet comes when somebody ends, or after the next update.
        blocks = view.kv.total_blocks
        places = view.limits.max_num_seqs - (view.num_running - view.num_schedulable)
        somebody_comes = closed = False
        for request in sorted([*running.values(), *view.swapped, *view.waiting], key=self._urgency):
            runs = request.request_id in running
            if not runs and closed:
                continue
            need = _blocks(request, view)
            if need > blocks or not places:
                closed = closed or not runs  # nobody who is out passes by another
                continue
            blocks -= need
            places -= 1
            if runs:
                del running[request.request_id]
            else:
                somebody_comes = True
        if somebody_comes:
            for request in sorted(running.values(), key=self._urgency, reverse=True):
                plan.preempt(request, swap=True, wait=not self.asynchronous)

    def _enter(self, view: ReplicaView, plan: StepPlan, wait: bool) -> bool:
        """Bring back and admit in the order of urgency until somebody doesn't fit; True if prompts were admitted."""
        limits, kv = view.limits, view.kv
        budget = max(limits.max_num_batched_tokens, limits.max_model_len)
        swapped = {request.request_id for request in view.swapped}
        reserve = self._next_token_blocks(view)
        for request in sorted([*view.swapped, *view.waiting], key=self._urgency):
            if view.num_running >= limits.max_num_seqs:
                break
            if request.request_id in swapped:
                if _blocks(request, view) + reserve > kv.free_blocks:
                    break
                plan.swap_in(request, wait=wait)  # not yet, if it is still on its way out: others needn't wait for it
                continue
            if plan.num_admitted and plan.prefill_tokens + request.remaining_prefill > budget:
                break
            if not plan.prefill(request, plan.uncached_tokens(request), keep_free_blocks=reserve):
                break
        return plan.num_admitted > 0

    def _next_token_blocks(self, view: ReplicaView) -> int:
        """Return the blocks that the running requests' next tokens take: an admission leaves them free."""
        size = view.kv.block_size
        return sum(request.context_tokens % size == 0 for request in view.running)


def _blocks(request: RequestView, view: ReplicaView) -> int:
    """Return the KV blocks that a request takes in its next step: its whole prompt, or its context and a token."""
    tokens = request.context_tokens + max(1, request.remaining_prefill)
    return -(-tokens // view.kv.block_size)

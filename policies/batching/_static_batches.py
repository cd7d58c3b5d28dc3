"""Request-level batches, which `static` and systems that offload have: a batch starts when the last one has ended."""

from __future__ import annotations

from typing import ClassVar

from policies.protocols import UNBOUNDED, BatchingPolicy, ReplicaView, StepPlan


class StaticBatches(BatchingPolicy):
    """Waiting requests start together, padded to the longest prompt, and all slots go on until the last has ended."""

    admits_in_order: ClassVar[bool] = True
    takes_over: ClassVar[bool] = False

    def most_requests(self) -> int:
        """Return how many requests a batch has at most."""
        raise NotImplementedError

    def reset(self) -> None:
        """Begin without a batch."""
        self._slots = 0

    def compose(self, view: ReplicaView, plan: StepPlan) -> None:
        """Fill the step: the decodes of the batch, or the prompts of the next one."""
        if view.num_running:
            if view.num_decoding:
                plan.pad(self._slots - plan.decode_all())
            return
        self._slots = longest = total = 0
        most = min(self.most_requests(), view.limits.max_num_seqs)
        while view.waiting and self._slots < most:
            request = view.waiting.first
            tokens = plan.uncached_tokens(request)
            padded = max(longest, tokens) * (self._slots + 1)
            if self._slots and padded > view.limits.max_num_batched_tokens:
                break
            if not plan.prefill(request, tokens, reserve_tokens=self._reserve(view)):
                break
            self._slots += 1
            longest = max(longest, tokens)
            total += tokens
        plan.pad(longest * self._slots - total)

    def _reserve(self, view: ReplicaView) -> int:
        return min(view.limits.max_model_len, view.kv.total_blocks * view.kv.block_size)

    def stable_steps(self, view: ReplicaView, plan: StepPlan) -> int:
        """Return UNBOUNDED: the batch decodes until one of its requests ends."""
        return UNBOUNDED

"""FasterTransformer: request-level static batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from policies.protocols import UNBOUNDED, BatchingPolicy, ReplicaView, StepPlan, param


@dataclass
class Static(BatchingPolicy):
    """Request-level batches: a new batch starts only when the last one has wholly ended.

    From FasterTransformer: up to ``batch_size`` waiting requests start together; their prompts are padded to
    the longest of them; every slot goes on computing in the dense layers until the last request of the batch
    has ended; KV is reserved for the longest context (``max_model_len``, or all of memory where that is
    less).

    A batch starts with whoever waits when the last one has ended; its padded prompts keep within
    ``max_num_batched_tokens``, the first request excepted, which stands for the buffers that
    FasterTransformer allocates for its largest batch.

    Not modelled: attention over the padding of finished slots, a delay to fill batches, micro-batches within
    a static batch for pipeline stages.
    """

    name: ClassVar[str] = "static"
    takes_over: ClassVar[bool] = False
    source: ClassVar[str] = (
        "NVIDIA/FasterTransformer, as described by Yu et al., Orca, OSDI 2022, section 2;"
        " microsoft/sarathi-serve sarathi/core/scheduler/faster_transformer_scheduler.py (commit 13f16cf)"
    )
    admits_in_order: ClassVar[bool] = True
    defaults: ClassVar[Mapping[str, Any]] = {
        "max_num_seqs": 256,
        "max_num_batched_tokens": 16384,
        "prefix_caching": False,
    }

    batch_size: int = param(8, "most requests of a batch", unit="requests", ge=1)

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
        most = min(self.batch_size, view.limits.max_num_seqs)
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

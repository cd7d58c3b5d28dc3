"""The step under construction: checks each decision of a batching policy and applies it at once."""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from operator import attrgetter
from typing import TYPE_CHECKING

from policies.protocols import PolicyError, RequestView
from simulator.cost.shape import BatchShape
from simulator.engine.sequence import DECODING, PREFILLING, SWAPPED, WAITING, Sequence

if TYPE_CHECKING:
    from simulator.engine.lane import Lane


class Plan:
    """See `policies.protocols.StepPlan`, whose methods these are; one object a lane, used again for every step.

    Attributes
    ----------
    chunks
        Prefill chunks as (sequence, tokens, tokens of KV reserved).
    stalls_ns
        Time that the step waits for swaps to go over the host link before it computes.
    awaited
        Copies over links that others use too for whose ends the step waits.
    parked
        Members of the decode group that `decode_some` left out of this step.
    changed
        Whether requests were admitted, taken out, brought back or left out, or tokens padded.
    repeatable
        Whether the same step could follow again: none of these, or admissions alone where the policy answers for them.
    """

    __slots__ = (
        "_lane",
        "_repeats_admissions",
        "awaited",
        "changed",
        "chunks",
        "keep_free_blocks",
        "num_admitted",
        "num_preempted",
        "num_swapped_in",
        "parked",
        "repeatable",
        "shape",
        "stalls_ns",
    )

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._repeats_admissions = lane.replica.policy.repeats_admissions
        self.shape = BatchShape()
        self.chunks: list[tuple[Sequence, int, int]] = []
        self.parked: list[Sequence] = []
        self.keep_free_blocks = 0
        self.changed = True  # as if there had been a step, for `reset` to set what follows from it
        self.reset()

    def reset(self) -> None:
        """Begin a new step. What most steps leave alone is set only after one that didn't."""
        shape = self.shape
        shape.decodes = shape.logit_rows = 0  # the sums over decodes stay until there are others, see `Lane`
        if self.chunks:
            self.chunks.clear()
            shape.chunks.clear()
            shape.prefill_tokens = self.keep_free_blocks = 0
        if self.changed:
            self.changed, self.repeatable = False, True
            shape.padding_tokens = 0
            self.num_preempted = self.num_admitted = self.num_swapped_in = self.stalls_ns = self.awaited = 0
            self.parked.clear()

    num_decodes: int = property(attrgetter("shape.decodes"))  # type: ignore[assignment]
    prefill_tokens: int = property(attrgetter("shape.prefill_tokens"))  # type: ignore[assignment]

    @property
    def tokens(self) -> int:
        shape = self.shape
        return shape.decodes + shape.prefill_tokens

    # ------------------------------------------------------------------------------------------------- decode

    def decode_shortfall(self) -> int:
        lane = self._lane
        group, kv = lane.group, lane.kv
        lacking = group.phases[group.step % kv.block_size] - kv.free_blocks
        return lacking if lacking > 0 else 0

    def decode_all(self) -> int:
        lane, shape = self._lane, self.shape
        group, kv = lane.group, lane.kv
        size = group.size
        if shape.decodes:
            raise PolicyError(f"{lane.policy_name}: decode_all after a decode in the same step")
        if not size:
            return 0
        need = group.phases[group.step % kv.block_size]
        if need:
            if need > kv.free_blocks:
                raise PolicyError(
                    f"{lane.policy_name}: decode_all needs {need} KV blocks and {kv.free_blocks} are free; "
                    "preempt until decode_shortfall() is 0"
                )
            kv.take(need)
        group.describe(shape)
        shape.logit_rows += size
        return size

    def decode_some(self, requests: SequenceOf[RequestView]) -> int:
        lane = self._lane
        chosen = set(requests)
        for request in requests:
            if not isinstance(request, Sequence) or request.group is not lane.group:
                raise PolicyError(f"{lane.policy_name}: decode_some of {request!r}, which is not ready to decode here")
        for member in [s for s in lane.sequences if s.state is DECODING and s not in chosen]:
            lane.leave_group(member)
            self.parked.append(member)
            self.changed, self.repeatable = True, False
        return self.decode_all()

    def decode_blocks(self, request: RequestView) -> int:
        sequence, kv = self._own(request), self._lane.kv
        limit = -(-sequence.kv_limit // kv.block_size)
        context = sequence.context_tokens
        held = max(kv.held_by(sequence), min(-(-context // kv.block_size), limit))
        return 1 if context >= held * kv.block_size and held < limit else 0

    # ------------------------------------------------------------------------------------------------ prefill

    def uncached_tokens(self, request: RequestView) -> int:
        sequence = request if isinstance(request, Sequence) else self._own(request)
        if sequence.state is WAITING:
            return sequence.prefill_target - self._lane.kv.cached_tokens(sequence)
        return sequence.remaining_prefill

    def prefill(self, request: RequestView, tokens: int, *, reserve_tokens: int = 0, keep_free_blocks: int = 0) -> bool:
        lane = self._lane
        sequence = request if isinstance(request, Sequence) else self._own(request)
        kv = lane.kv
        if sequence.state is WAITING:
            done = kv.cached_tokens(sequence) if kv.caches_prefixes else 0
            if not 1 <= tokens <= sequence.prefill_target - done:
                raise self._wrong_tokens(sequence, tokens, done)
            if lane.replica.num_running >= lane.limits.max_num_seqs:
                raise PolicyError(
                    f"{lane.policy_name}: admits request {sequence.request_id} beyond max_num_seqs = "
                    f"{lane.limits.max_num_seqs}"
                )
            if not kv.admit(sequence, max(done + tokens, reserve_tokens), keep_free_blocks):
                return False
            lane.admitted(sequence, done)
            self.num_admitted += 1
            self.changed = True
            if not self._repeats_admissions:
                self.repeatable = False
        elif sequence.state is PREFILLING and sequence in lane.sequences and not sequence.planned:
            done = sequence.computed_tokens
            if not 1 <= tokens <= sequence.prefill_target - done:
                raise self._wrong_tokens(sequence, tokens, done)
            context = done + tokens if done + tokens > reserve_tokens else reserve_tokens
            if context > sequence.kv_limit:
                context = sequence.kv_limit
            need = -(-context // kv.block_size) - kv.held_by(sequence)
            if need > 0:
                if need + keep_free_blocks > kv.free_blocks:
                    return False
                kv.take(need)
                sequence.private_blocks += need
            if keep_free_blocks > self.keep_free_blocks:
                self.keep_free_blocks = keep_free_blocks
        else:
            raise PolicyError(f"{lane.policy_name}: prefill of {sequence!r}, which can't be scheduled in this step")
        sequence.planned = True
        if kv.caches_prefixes:
            kv.computed(sequence, done + tokens)
        self.chunks.append((sequence, tokens, reserve_tokens))
        shape = self.shape
        shape.chunks.append((tokens, done))
        shape.prefill_tokens += tokens
        shape.logit_rows += 1
        return True

    def _wrong_tokens(self, sequence: Sequence, tokens: int, done: int) -> PolicyError:
        return PolicyError(
            f"{self._lane.policy_name}: prefill of {tokens} tokens of request {sequence.request_id}, which has "
            f"{sequence.prefill_target - done} to compute"
        )

    def pad(self, tokens: int) -> None:
        if tokens < 0:
            raise PolicyError(f"{self._lane.policy_name}: padding of {tokens} tokens; must be at least 0")
        self.shape.padding_tokens += tokens
        self.changed = True

    # --------------------------------------------------------------------------------------- preemption, swap

    def preempt(self, request: RequestView, *, swap: bool = False, wait: bool = True) -> None:
        lane = self._lane
        sequence = self._own(request)
        if sequence not in lane.sequences:
            raise PolicyError(f"{lane.policy_name}: preempts {sequence!r}, which isn't running in this batch")
        if sequence.planned or (self.shape.decodes and sequence.state is DECODING):
            raise PolicyError(f"{lane.policy_name}: preempts {sequence!r} after scheduling it in the same step")
        self.num_preempted += 1
        self.changed, self.repeatable = True, False
        self.stalls_ns += lane.preempt(sequence, swap, wait)

    def swap_in(self, request: RequestView, *, keep_free_blocks: int = 0, wait: bool = True) -> bool:
        lane = self._lane
        sequence = self._own(request)
        if sequence.state is not SWAPPED:
            raise PolicyError(f"{lane.policy_name}: swaps in {sequence!r}, which isn't swapped out")
        if self.shape.decodes:
            raise PolicyError(f"{lane.policy_name}: swap_in after decode_all in the same step")
        stall_ns = lane.swap_in(sequence, keep_free_blocks, wait)
        if stall_ns is None:
            return False
        self.num_swapped_in += 1
        self.changed, self.repeatable = True, False
        self.stalls_ns += stall_ns
        return True

    def _own(self, request: RequestView) -> Sequence:
        if not isinstance(request, Sequence):
            raise PolicyError(f"{self._lane.policy_name}: decides on {request!r}, which is no request of this replica")
        return request

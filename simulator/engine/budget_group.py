"""Decodes under a KV budget: members that take no more blocks from some step on, and sums of what they read."""

from __future__ import annotations

from heapq import heappush

from simulator.cost.shape import BatchShape
from simulator.engine.budget import NO_LIMIT, DecodeReads
from simulator.engine.decode_group import DecodeGroup
from simulator.engine.gap_log import GapLog
from simulator.engine.sequence import Sequence

_STOP, _READ = 3, 4
"""Milestones beside the group's own: the member takes no block any more; and from here on, it fills the first, second
... of the budget's caps."""

_PLENTY = NO_LIMIT
"""Blocks that the group is told of a member that takes none any more: it never needs another one."""


class BudgetDecodeGroup(DecodeGroup):
    """A decode group of one replica under a budget that drops tokens.

    Parameters
    ----------
    reads
        Sums for the budget's caps; None where decodes read all that is kept.
    """

    __slots__ = ("_reads",)

    def __init__(self, block_size: int, window: int | None, gaps: GapLog, reads: DecodeReads | None) -> None:
        super().__init__(block_size, window, gaps)
        self._reads = reads

    def join(self, sequence: Sequence, context: int, remaining: int, held_blocks: int) -> None:
        step, size, limit, milestones = self.step, self._block_size, sequence.kv_limit, self.milestones
        is_full = held_blocks * size >= limit
        super().join(sequence, context, remaining, _PLENTY if is_full else held_blocks)
        if self._reads is not None:
            for filled, number in self._reads.add(sequence, context + 1 - step, step, 1):
                heappush(milestones, (filled, next(self._ties), _READ + number, sequence.epoch, sequence))
        if not is_full and limit != NO_LIMIT:
            last = (limit - 1) // size * size - context  # steps until the one that takes its last block
            if last < remaining:
                heappush(milestones, (step + last + 1, next(self._ties), _STOP, sequence.epoch, sequence))

    def leave(self, sequence: Sequence, held_blocks: int) -> int:
        size, limit = self._block_size, sequence.kv_limit
        context = sequence.base_context + self.step - sequence.join_step
        if self._reads is not None:
            self._reads.add(sequence, context + 1 - self.step, self.step, -1)
        held_blocks = max(held_blocks, -(-min(context, limit) // size))
        is_full = held_blocks * size >= limit
        super().leave(sequence, _PLENTY if is_full else held_blocks)
        return held_blocks

    def describe(self, shape: BatchShape) -> None:
        super().describe(shape)
        if self._reads is not None:
            shape.decode_reads = self._reads.describe(self.step)

    def _reached(self, kind: int, step: int, sequence: Sequence) -> None:
        if kind == _STOP:
            self.phases[(step - 1) % self._block_size] -= 1
            self.growing -= 1
        elif self._reads is not None:
            self._reads.fill(sequence, sequence.base_context + 1 - sequence.join_step, kind - _READ)

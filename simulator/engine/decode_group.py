"""The decoding sequences of one batch, advanced together in O(1) a step whatever their number.

All members decode one token a step, so a member that joined at step j with c tokens attends to c + s - j + 1 of them at
step s, and sums over the members follow from sums of what doesn't change (``c - j + 1`` and its square). What happens
to a single member (it ends, outgrows a reservation, fills a sliding window or its KV budget) happens at a step that is
known when it joins: those *milestones* stand in a heap. Gaps between tokens are the same for all members but those
whose last token came at another time than the group's (``fresh``, until their first step).
"""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from simulator.cost.shape import BatchShape
from simulator.engine.gap_log import GapLog
from simulator.engine.histogram import Durations
from simulator.engine.sequence import DECODING, Sequence

if TYPE_CHECKING:
    from simulator.engine.tenants import TenantMembers

_FIRST, _END, _GROW, _WINDOW = -1, 0, 1, 2
"""What a milestone is: the member's first token comes, which somebody may ask for; it ends; takes blocks from now on;
fills the window. Subclasses have others."""


class DecodeGroup:
    """Members that decode in lockstep.

    Parameters
    ----------
    block_size
        Tokens of a KV block.
    window
        Sliding window of the model, tokens; None without one.
    gaps
        Where the gaps between tokens are noted.

    Attributes
    ----------
    step
        Decode steps done by the group since the run began.
    size
        Members.
    growing
        Members that take a new KV block every ``block_size`` steps (the others live in a reservation).
    phases
        How many of them need a block at steps of each remainder by ``block_size``.
    last_ns
        When the last token came of every member that isn't fresh.
    tenants
        Counts of members by tenant, for a queue that chooses among tenants; None without one.
    milestones
        Heap of (step, order, what, epoch of the sequence, sequence), all ahead; those of a member that left are void,
        and change nothing when their step comes.
    """

    __slots__ = (
        "_attended",
        "_bases",
        "_block_size",
        "_squares",
        "_ties",
        "_window",
        "_window_attended",
        "_within",
        "_within_bases",
        "first_tokens",
        "fresh",
        "gaps",
        "growing",
        "last_ns",
        "milestones",
        "phases",
        "size",
        "step",
        "tenants",
    )

    def __init__(self, block_size: int, window: int | None, gaps: GapLog) -> None:
        self.step = 0
        self.size = 0
        self.growing = 0
        self.phases = [0] * block_size
        self.fresh: dict[Sequence, None] = {}
        self.first_tokens: memoryview[int] | None = None
        self.last_ns = 0
        self.gaps = gaps
        self._block_size = block_size
        self._window = window
        # Sums over the members of attended tokens less steps done, and of their squares; the first also, and how many
        # they are, over those that have not filled the window.
        self._bases = self._squares = 0
        self._within_bases = self._within = 0
        # Twice what `attended` and `window_attended` would be now, less what follows from the sums above at this step.
        # A member with base b has attended to b step + step (step - 1) / 2 tokens by then.
        self._attended = self._window_attended = 0
        self.milestones: list[tuple[int, int, int, int, Sequence]] = []
        self._ties = count()
        self.tenants: TenantMembers | None = None

    # ------------------------------------------------------------------------------------------ membership

    def join(self, sequence: Sequence, context: int, remaining: int, held_blocks: int) -> None:
        """Take in a sequence with ``context`` tokens in ``held_blocks`` blocks and ``remaining`` tokens to decode."""
        step, size, epoch = self.step, self._block_size, sequence.epoch
        sequence.group = self
        sequence.state = DECODING
        sequence.join_step = step
        sequence.base_context = context
        base = context + 1 - step
        self.size += 1
        if self.tenants is not None:
            self.tenants.change(sequence.tenant, 1, step)
        self._bases += base
        self._squares += base * base
        passed = step * (base + context)
        self._attended -= passed
        if self._window is not None:
            if context + 1 < self._window:
                self._within += 1
                self._within_bases += base
                self._window_attended -= passed
                filled = self._window - base
                heappush(self.milestones, (filled, next(self._ties), _WINDOW, epoch, sequence))
            else:
                self._window_attended -= 2 * self._window * step
        ahead = held_blocks * size - context  # tokens until it needs another block
        if ahead < size:
            self.phases[(step + ahead) % size] += 1
            self.growing += 1
        else:
            near = step + ahead - size + 1
            heappush(self.milestones, (near, next(self._ties), _GROW, epoch, sequence))
        heappush(self.milestones, (step + remaining, next(self._ties), _END, epoch, sequence))
        if self.size == 1:
            self.last_ns = sequence.last_token_ns
        if sequence.last_token_ns == self.last_ns >= 0:
            sequence.first_gap = self.gaps.join(sequence.class_code)
        else:
            self.fresh[sequence] = None
            if sequence.last_token_ns < 0:
                heappush(self.milestones, (step + 1, next(self._ties), _FIRST, epoch, sequence))

    def leave(self, sequence: Sequence, held_blocks: int) -> int:
        """Let a member go, its own progress written back to it.

        ``held_blocks`` is what it joined with; returned is what it holds now.
        """
        size, step = self._block_size, self.step
        done = step - sequence.join_step
        context = sequence.base_context + done
        base = context + 1 - step
        self.size -= 1
        if self.tenants is not None:
            self.tenants.change(sequence.tenant, -1, sequence.join_step)
        self._bases -= base
        self._squares -= base * base
        passed = step * (base + context)
        self._attended += passed
        if self._window is not None:
            if context + 1 < self._window:
                self._within -= 1
                self._within_bases -= base
                self._window_attended += passed
            else:
                self._window_attended += 2 * self._window * step
        held_blocks = max(held_blocks, -(-context // size))
        ahead = held_blocks * size - context
        if ahead < size:
            self.phases[(step + ahead) % size] -= 1
            self.growing -= 1
        if sequence in self.fresh:
            del self.fresh[sequence]
        else:
            sequence.last_token_ns = self.last_ns
            self.gaps.leave(sequence.class_code, sequence.request_id, sequence.first_gap)
        sequence.base_generated += done
        sequence.computed_tokens = context
        sequence.group = None
        sequence.epoch += 1  # its milestones are void now
        return held_blocks

    def describe(self, shape: BatchShape) -> None:
        """Write the next step of all members into a batch."""
        step, size, bases = self.step, self.size, self._bases
        attended = bases + size * step
        shape.decodes = size
        shape.decode_kv = attended
        shape.decode_kv_sq = self._squares + step * (bases + attended)
        if self._window is None:
            shape.decode_window_kv, shape.decode_window_growth = attended, size
        else:
            within = self._within
            shape.decode_window_kv = self._within_bases + within * step + (size - within) * self._window
            shape.decode_window_growth = within

    def attended(self, more: int = 0) -> int:
        """Return the tokens that all decodes attended to since the run began, and in ``more`` steps from now."""
        step = self.step + more
        return (self._attended + step * (2 * self._bases + (step - 1) * self.size)) // 2

    def window_attended(self, more: int = 0) -> int:
        """Return the same of the layers with a sliding window; 0 without one."""
        if self._window is None:
            return 0
        step, within = self.step + more, self._within
        inside = step * (2 * self._within_bases + (step - 1) * within)
        return (self._window_attended + inside + 2 * (self.size - within) * self._window * step) // 2

    # ---------------------------------------------------------------------------------------------- blocks

    def blocks_needed(self, first: int, steps: int) -> int:
        """Return the new KV blocks that ``steps`` steps need, beginning ``first`` steps from now."""
        size, phases = self._block_size, self.phases
        cycles, rest = divmod(steps, size)
        begin = (self.step + first) % size
        end = begin + rest
        need = sum(phases[begin:end]) if end <= size else sum(phases[begin:]) + sum(phases[: end - size])
        return cycles * self.growing + need

    def blocks_needed_each(self, steps: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the new KV blocks that each of so many steps need, beginning one step from now; shape (n,)."""
        size = self._block_size
        begin = (self.step + 1) % size
        until = np.concatenate(([0], np.cumsum(self.phases[begin:] + self.phases[:begin])))
        return np.asarray(steps // size * self.growing + until[steps % size])

    def steps_within(self, blocks: int, first: int, limit: int) -> int:
        """Return how many steps, beginning ``first`` steps from now, so many free blocks last; at most ``limit``."""
        size = self._block_size
        if self.growing * (limit // size + 1) <= blocks:
            return limit  # the usual case: there is plenty
        cycles = blocks // self.growing
        blocks -= cycles * self.growing
        steps = cycles * size
        phase = (self.step + first) % size
        for at in range(phase, phase + size):
            blocks -= self.phases[at % size]
            if blocks < 0:
                break
            steps += 1
        return min(steps, limit)

    # --------------------------------------------------------------------------------------------- advance

    def advance(self, start_ns: int, end_ns: int, durations: Durations) -> SequenceOf[Sequence]:
        """Note steps done, one right after the other; return the members that end with the last of them.

        Parameters
        ----------
        start_ns, end_ns
            When the first of these steps began, and the last ended.
        durations
            Of each step in ns, shape (steps,), at least one.
        """
        self.step = step = self.step + len(durations)
        if self.fresh or start_ns != self.last_ns:
            self._note_first_gaps(start_ns + int(durations[0]))
            if len(durations) > 1:
                self.gaps.add(durations[1:])
        else:
            self.gaps.add(durations)
        self.last_ns = end_ns
        return self._pass_milestones() if self.milestones[0][0] <= step else ()

    def _note_first_gaps(self, end_ns: int) -> None:
        """Note the gaps of a step that are not its duration; those of the fresh members are their own."""
        if self.size > len(self.fresh):
            self.gaps.add([end_ns - self.last_ns])
        for sequence in self.fresh:
            if sequence.last_token_ns < 0:
                assert self.first_tokens is not None
                self.first_tokens[sequence.request_id] = end_ns
            else:
                gap = end_ns - sequence.last_token_ns
                self.gaps.add_one(sequence.class_code, gap)
                sequence.itl_max_ns = max(sequence.itl_max_ns, gap)
            sequence.first_gap = self.gaps.join(sequence.class_code)
        self.fresh.clear()

    def _pass_milestones(self) -> list[Sequence]:
        ended: list[Sequence] = []
        milestones = self.milestones
        while milestones and milestones[0][0] <= self.step:
            step, _, kind, epoch, sequence = heappop(milestones)
            if sequence.epoch != epoch:
                continue
            if kind == _END:
                ended.append(sequence)
            elif kind == _GROW:
                self.phases[(step - 1) % self._block_size] += 1  # a block's length after it came near, less one
                self.growing += 1
            elif kind == _WINDOW:
                base = sequence.base_context + 1 - sequence.join_step
                self._within -= 1
                self._within_bases -= base
                self._window_attended += step * (2 * base + step - 1) - 2 * (base + step) * step
            elif kind != _FIRST:
                self._reached(kind, step, sequence)
        return ended

    def _reached(self, kind: int, step: int, sequence: Sequence) -> None:
        """Pass a milestone of a kind that a subclass has."""
        raise NotImplementedError

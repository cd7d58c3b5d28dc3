"""The decoding sequences of one batch, advanced together in O(1) a step whatever their number.

All members decode one token a step, so sums over them follow from a few running totals, and what happens to a single
member (it ends, it outgrows a reservation or fills a sliding window) happens at a step that is known when it joins:
those *milestones* stand in a heap. Gaps between tokens are the same for all members but those whose last token came at
another time than the group's (``fresh``, until their first step); the largest gap of each member is found, when it
leaves, in a stack of maxima.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence as SequenceOf
from heapq import heappop, heappush
from itertools import count

from simulator.engine.histogram import DurationHistogram, Durations
from simulator.engine.sequence import Sequence, State

NEVER = 1 << 62
_END, _GROW, _WINDOW = 0, 1, 2


class DecodeGroup:
    """Members that decode in lockstep.

    Attributes
    ----------
    step
        Decode steps done by the group since the run began.
    size
        Members.
    kv, kv_sq, window_kv, window_growth
        Sums over the members as `BatchShape` has them, for the next step.
    growing
        Members that take a new KV block every ``block_size`` steps (the others live in a reservation).
    last_ns
        When the last token came of every member that isn't fresh.
    """

    __slots__ = (
        "_block_size",
        "_gap_maxima",
        "_gap_steps",
        "_grow_phase",
        "_histograms",
        "_milestones",
        "_ties",
        "_window",
        "class_sizes",
        "fresh",
        "growing",
        "kv",
        "kv_sq",
        "last_ns",
        "phases",
        "size",
        "step",
        "window_growth",
        "window_kv",
    )

    def __init__(self, block_size: int, window: int | None, itl: list[DurationHistogram]) -> None:
        self.step = 0
        self.size = 0
        self.kv = 0
        self.kv_sq = 0
        self.window_kv = 0
        self.window_growth = 0
        self.growing = 0
        self.phases = [0] * block_size  # members that need a block at steps of this remainder
        self.class_sizes = [0] * len(itl)  # members by class that are not fresh
        self.fresh: dict[Sequence, None] = {}
        self.last_ns = 0
        self._histograms = itl
        self._block_size = block_size
        self._window = window if window is not None else NEVER
        self._milestones: list[tuple[int, int, int, int, Sequence]] = []
        self._ties = count()
        self._gap_steps: list[int] = []
        self._gap_maxima: list[int] = []

    # ------------------------------------------------------------------------------------------ membership

    def join(self, sequence: Sequence, context: int, remaining: int, held_blocks: int) -> None:
        """Take in a sequence with ``context`` tokens in ``held_blocks`` blocks and ``remaining`` tokens to decode."""
        step = self.step
        sequence.group = self
        sequence.state = State.DECODING
        sequence.join_step = step
        sequence.base_context = context
        epoch = sequence.epoch
        attended = context + 1
        self.size += 1
        self.kv += attended
        self.kv_sq += attended * attended
        if attended < self._window:
            self.window_kv += attended
            self.window_growth += 1
            if self._window != NEVER:
                heappush(
                    self._milestones,
                    (step + self._window - attended, next(self._ties), _WINDOW, epoch, sequence),
                )
        else:
            self.window_kv += self._window
        ahead = held_blocks * self._block_size - context  # tokens until it needs another block
        if ahead < self._block_size:
            self.phases[(step + ahead) % self._block_size] += 1
            self.growing += 1
        else:
            near = step + ahead - self._block_size + 1
            heappush(self._milestones, (near, next(self._ties), _GROW, epoch, sequence))
        heappush(self._milestones, (step + remaining, next(self._ties), _END, epoch, sequence))
        if self.size == 1:
            self.last_ns = sequence.last_token_ns
        if sequence.last_token_ns == self.last_ns:
            self.class_sizes[sequence.class_code] += 1
            sequence.first_gap_step = step
        else:
            self.fresh[sequence] = None

    def leave(self, sequence: Sequence, held_blocks: int) -> int:
        """Let a member go, its own progress written back to it.

        ``held_blocks`` is what it joined with; returned is what it holds now.
        """
        done = self.step - sequence.join_step
        context = sequence.base_context + done
        attended = context + 1
        self.size -= 1
        self.kv -= attended
        self.kv_sq -= attended * attended
        if attended < self._window:
            self.window_kv -= attended
            self.window_growth -= 1
        else:
            self.window_kv -= self._window
        held_blocks = max(held_blocks, -(-context // self._block_size))
        ahead = held_blocks * self._block_size - context
        if ahead < self._block_size:
            self.phases[(self.step + ahead) % self._block_size] -= 1
            self.growing -= 1
        if sequence in self.fresh:
            del self.fresh[sequence]
        else:
            self.class_sizes[sequence.class_code] -= 1
            sequence.last_token_ns = self.last_ns
            at = bisect_left(self._gap_steps, sequence.first_gap_step)
            if at < len(self._gap_steps):
                sequence.itl_max_ns = max(sequence.itl_max_ns, self._gap_maxima[at])
        sequence.base_generated += done
        sequence.computed_tokens = context
        sequence.group = None
        sequence.epoch += 1  # its milestones are void now
        return held_blocks

    # ---------------------------------------------------------------------------------------------- blocks

    def blocks_needed(self, first: int, steps: int) -> int:
        """Return the new KV blocks that ``steps`` steps need, beginning ``first`` steps from now."""
        size, phases = self._block_size, self.phases
        cycles, rest = divmod(steps, size)
        begin = (self.step + first) % size
        end = begin + rest
        need = sum(phases[begin:end]) if end <= size else sum(phases[begin:]) + sum(phases[: end - size])
        return cycles * self.growing + need

    def steps_within(self, blocks: int, first: int, limit: int) -> int:
        """Return how many steps, beginning ``first`` steps from now, so many free blocks last; at most ``limit``."""
        size = self._block_size
        if self.growing * (limit // size + 1) <= blocks:
            return limit
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

    def next_milestone(self) -> int:
        """Return the step of the next milestone, NEVER if there is none."""
        milestones = self._milestones
        while milestones:
            step, _, _, epoch, sequence = milestones[0]
            if sequence.epoch == epoch:
                return step
            heappop(milestones)
        return NEVER

    def advance(self, start_ns: int, end_ns: int, durations: Durations) -> SequenceOf[Sequence]:
        """Note steps done, one right after the other; return the members that end with the last of them.

        Parameters
        ----------
        start_ns, end_ns
            When the first of these steps began, and the last ended.
        durations
            Of each step in ns, shape (steps,), at least one.
        """
        steps, begin = len(durations), self.step
        first_end_ns = start_ns + int(durations[0])
        gap = first_end_ns - self.last_ns
        if self.fresh:
            # Their first gaps are their own; from the second on they have everybody's.
            if self.size > len(self.fresh):
                self._count([gap], begin)
            self._settle(first_end_ns)
            if steps > 1:
                self._count(durations[1:], begin + 1)
        elif start_ns == self.last_ns:
            self._count(durations, begin)
        else:
            gaps = durations.copy()
            gaps[0] = gap
            self._count(gaps, begin)
        self.kv_sq += steps * (2 * self.kv + steps * self.size)
        self.kv += steps * self.size
        self.window_kv += steps * self.window_growth
        self.step = begin + steps
        self.last_ns = end_ns
        return self._pass_milestones() if self._milestones[0][0] <= self.step else ()

    def _count(self, gaps_ns: Durations, step: int) -> None:
        """Count the gaps of every settled member, the first of them at ``step``."""
        for histogram, members in zip(self._histograms, self.class_sizes, strict=True):
            if members:
                histogram.add_each(gaps_ns, members)
        longest_ns = max(gaps_ns) if isinstance(gaps_ns, list) else int(gaps_ns.max())
        steps, maxima = self._gap_steps, self._gap_maxima
        while maxima and maxima[-1] <= longest_ns:
            maxima.pop()
            steps.pop()
        maxima.append(longest_ns)
        steps.append(step)

    def _settle(self, first_end_ns: int) -> None:
        """Count the first gap of each fresh member, which has the others' from then on."""
        for sequence in self.fresh:
            own = first_end_ns - sequence.last_token_ns
            self._histograms[sequence.class_code].add(own, 1)
            if own > sequence.itl_max_ns:
                sequence.itl_max_ns = own
            sequence.first_gap_step = self.step + 1
            self.class_sizes[sequence.class_code] += 1
        self.fresh.clear()

    def _pass_milestones(self) -> list[Sequence]:
        ended: list[Sequence] = []
        milestones = self._milestones
        while milestones and milestones[0][0] <= self.step:
            step, _, kind, epoch, sequence = heappop(milestones)
            if sequence.epoch != epoch:
                continue
            if kind == _END:
                ended.append(sequence)
            elif kind == _GROW:
                self.phases[(step - 1) % self._block_size] += 1  # a block's length after it came near, less one
                self.growing += 1
            else:
                self.window_growth -= 1
        return ended

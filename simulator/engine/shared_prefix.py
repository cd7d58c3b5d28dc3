"""Decodes that attend to their shared prefixes together: which cached blocks two or more members of a batch hold.

Hydragen (Juravsky et al., arXiv:2402.05099) splits a decode's attention in two: over the prefix that it shares with
others, for all of them at once (queries stacked, the prefix's keys and values read once), and over its own suffix.
Prefixes that branch are a tree, and each of its nodes is a level of its own (section 3.3). Here every level is used: a
cached block is read once a step by all members that hold it, if they are two or more.

Blocks are shared as the prefix cache has them: two requests that computed the same prompt at the same time, each into
blocks of its own, share nothing.
"""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf

from simulator.cost.shape import BatchShape
from simulator.engine.decode_group import DecodeGroup
from simulator.engine.gap_log import GapLog
from simulator.engine.histogram import Durations
from simulator.engine.kv import CacheUnit
from simulator.engine.sequence import Sequence


class SharedPrefixes:
    """Sums over the cached units that two or more members hold, kept up as members come and go.

    A member costs as much as it has units; reading the sums costs nothing.

    Attributes
    ----------
    attended
        Tokens of those units times the members that hold each.
    read
        Tokens of those units.
    sharers
        Members that hold such a unit.
    """

    __slots__ = ("_holders", "attended", "read", "sharers")

    def __init__(self) -> None:
        self._holders: dict[CacheUnit, int] = {}
        self.attended = self.read = self.sharers = 0

    def add(self, units: SequenceOf[CacheUnit]) -> None:
        """Take in a member that holds these units, a prefix from its start."""
        holders = self._holders
        for unit in units:
            before = holders.get(unit, 0)
            holders[unit] = before + 1
            if before:
                tokens = unit.num_tokens
                self.attended += tokens if before > 1 else 2 * tokens
                if before == 1:
                    self.read += tokens
        if units and (first := holders[units[0]]) > 1:
            self.sharers += 1 if first > 2 else 2

    def drop(self, units: SequenceOf[CacheUnit]) -> None:
        """Let a member go that came with these units."""
        holders = self._holders
        if units and (first := holders[units[0]]) > 1:
            self.sharers -= 1 if first > 2 else 2
        for unit in units:
            left = holders[unit] - 1
            if left:
                holders[unit] = left
                tokens = unit.num_tokens
                self.attended -= tokens if left > 1 else 2 * tokens
                if left == 1:
                    self.read -= tokens
            else:
                del holders[unit]


class SharingDecodeGroup(DecodeGroup):
    """A decode group that tells the cost model which of the attended tokens are shared.

    A member counts with the cached units that it joined with, so the sums stay the same between two changes of members.

    Attributes
    ----------
    prefixes
        What its members share now.
    attended_tokens
        Tokens that decodes attended to since the run began.
    shared_attended_tokens, shared_read_tokens
        Of them, those in shared prefixes; and how many the shared attention read for them.
    """

    __slots__ = ("_units", "attended_tokens", "prefixes", "shared_attended_tokens", "shared_read_tokens")

    def __init__(self, block_size: int, window: int | None, gaps: GapLog) -> None:
        super().__init__(block_size, window, gaps)
        self.prefixes = SharedPrefixes()
        self._units: dict[Sequence, tuple[CacheUnit, ...]] = {}
        self.attended_tokens = self.shared_attended_tokens = self.shared_read_tokens = 0

    def join(self, sequence: Sequence, context: int, remaining: int, held_blocks: int) -> None:
        super().join(sequence, context, remaining, held_blocks)
        self._units[sequence] = units = tuple(sequence.units)
        self.prefixes.add(units)

    def leave(self, sequence: Sequence, held_blocks: int) -> int:
        self.prefixes.drop(self._units.pop(sequence))
        return super().leave(sequence, held_blocks)

    def describe(self, shape: BatchShape) -> None:
        super().describe(shape)
        prefixes = self.prefixes
        shape.shared_kv, shape.shared_read, shape.sharers = prefixes.attended, prefixes.read, prefixes.sharers

    def advance(self, start_ns: int, end_ns: int, durations: Durations) -> SequenceOf[Sequence]:
        steps, first = len(durations), self._bases + self.size * self.step
        self.attended_tokens += steps * first + self.size * (steps * (steps - 1) // 2)
        self.shared_attended_tokens += steps * self.prefixes.attended
        self.shared_read_tokens += steps * self.prefixes.read
        return super().advance(start_ns, end_ns, durations)

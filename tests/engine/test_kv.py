"""The prefix cache against one that keeps plain lists and searches them, and its memory over many hits."""

from __future__ import annotations

from dataclasses import dataclass
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies import registry
from policies.kv_eviction.lfu import Lfu
from policies.kv_eviction.lru import Lru
from policies.protocols import KVEvictionPolicy
from simulator.engine.kv import PrefixKVManager
from simulator.engine.sequence import Sequence

BLOCK = 4
UNIT_BLOCKS = 2
UNIT = BLOCK * UNIT_BLOCKS


@dataclass(eq=False)
class PlainUnit:
    """A unit as `PlainCache` keeps it; to a policy a `policies.protocols.CachedBlockView`."""

    identity: int | None
    num_blocks: int
    num_tokens: int
    depth_tokens: int
    cached_order: int
    released_order: int = 0
    hits: int = 0
    references: int = 1
    rank: float = 0.0


class PlainCache:
    """What `PrefixKVManager` does, said as plainly as possible: every question is a search through a list."""

    def __init__(self, total_blocks: int, eviction: KVEvictionPolicy) -> None:
        self.spare, self.eviction, self.order = total_blocks, eviction, 0
        self.found: list[PlainUnit] = []  # those with an identity
        self.free: list[PlainUnit] = []
        self.held: dict[Sequence, list[PlainUnit]] = {}
        self.private: dict[Sequence, int] = {}

    @property
    def free_blocks(self) -> int:
        return self.spare + sum(unit.num_blocks for unit in self.free)

    def next_order(self) -> int:
        self.order += 1
        return self.order

    def match(self, sequence: Sequence) -> list[PlainUnit]:
        units: list[PlainUnit] = []
        for identity in sequence.hashes[: (sequence.prefill_target - 1) // UNIT]:
            same = [unit for unit in self.found if unit.identity == identity]
            if not same:
                break
            units += same
        return units

    def admit(self, sequence: Sequence, tokens: int, keep_free_blocks: int) -> bool:
        hits = self.match(sequence)
        need = -(-tokens // BLOCK) - len(hits) * UNIT_BLOCKS
        revived = [unit for unit in hits if unit in self.free]
        if need + len(revived) * UNIT_BLOCKS + keep_free_blocks > self.free_blocks:
            return False
        self.free = [unit for unit in self.free if unit not in revived]
        for unit in hits:
            unit.references += 1
            unit.hits += 1
        self.held[sequence] = hits
        self.private[sequence] = need
        self.take(need)
        return True

    def take(self, blocks: int) -> None:
        while blocks:
            if self.spare:
                self.spare -= 1
                blocks -= 1
                continue
            unit = min(self.free, key=lambda each: (each.rank, each.released_order))
            if unit.identity is None and unit.num_blocks > blocks:
                unit.num_blocks -= blocks  # nobody can find it, so it needn't go whole
                return
            self.free.remove(unit)
            if unit in self.found:
                self.found.remove(unit)
            self.eviction.evicted(unit.rank)
            self.spare += unit.num_blocks

    def computed(self, sequence: Sequence, tokens: int) -> None:
        held = self.held[sequence]
        for index in range(len(held), min(len(sequence.hashes), tokens // UNIT)):
            identity: int | None = sequence.hashes[index]
            if any(unit.identity == identity for unit in self.found):
                identity = None
            unit = PlainUnit(identity, UNIT_BLOCKS, UNIT, index * UNIT, self.next_order())
            if identity is not None:
                self.found.append(unit)
            held.append(unit)
            self.private[sequence] -= UNIT_BLOCKS

    def release(self, sequence: Sequence) -> None:
        units = self.held.pop(sequence)[::-1]
        if blocks := self.private.pop(sequence):
            units.insert(0, PlainUnit(None, blocks, 0, sequence.context_tokens, self.next_order()))
        for unit in units:
            unit.references -= 1
            if not unit.references:
                unit.released_order = self.next_order()
                unit.rank = self.eviction.rank(unit)
                self.free.append(unit)


def sequence(row: int, rng: np.random.Generator) -> Sequence:
    """Return a prompt that begins like some others: a chain from one of two roots, left at a random depth."""
    depth, own = int(rng.integers(0, 6)), int(rng.integers(0, 3))
    root = 100 * int(rng.integers(1, 3))
    hashes = [*range(root, root + depth), *(1000 * (row + 1) + i for i in range(own))]
    return Sequence(row, 0, max(1, UNIT * len(hashes) + int(rng.integers(0, UNIT))), 1, hashes=hashes)


@pytest.mark.parametrize("eviction", registry.names("kv_eviction"))
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), blocks=st.sampled_from([16, 30, 61, 400]), void_kept=st.sampled_from([-20, 1024])
)
def test_does_what_a_plain_cache_does(eviction: str, seed: int, blocks: int, void_kept: int) -> None:
    with patch("simulator.engine.kv.VOID_ENTRIES_KEPT", void_kept):
        compare_with_plain_cache(eviction, seed, blocks)


def compare_with_plain_cache(eviction: str, seed: int, blocks: int) -> None:
    """Do the same random things to both and compare all that can be seen after each."""
    rng = np.random.default_rng(seed)
    policies = [registry.make("kv_eviction", eviction, {}) for _ in range(2)]
    kv = PrefixKVManager(blocks, BLOCK, UNIT_BLOCKS, policies[0])  # type: ignore[arg-type]
    plain = PlainCache(blocks, policies[1])  # type: ignore[arg-type]
    running: list[Sequence] = []
    for row in range(120):
        what = rng.random()
        if what < 0.45:
            new = sequence(row, rng)
            assert kv.cached_tokens(new) == len(plain.match(new)) * UNIT
            keep = int(rng.integers(0, 4))
            admitted = kv.admit(new, new.prompt_tokens, keep)
            assert admitted == plain.admit(new, new.prompt_tokens, keep)
            if admitted:
                running.append(new)
        elif running:
            chosen = running[int(rng.integers(len(running)))]
            if what < 0.65:
                chosen.computed_tokens = int(rng.integers(chosen.computed_tokens, chosen.prompt_tokens + 1))
                kv.computed(chosen, chosen.computed_tokens)
                plain.computed(chosen, chosen.computed_tokens)
            elif what < 0.8:
                more = min(int(rng.integers(0, 4)), kv.free_blocks)
                kv.take(more)
                plain.take(more)
                chosen.private_blocks += more
                plain.private[chosen] += more
            else:
                kv.release(chosen)
                plain.release(chosen)
                running.remove(chosen)
        assert kv.free_blocks == plain.free_blocks
        assert set(kv.units) == {unit.identity for unit in plain.found}
        assert all(kv.held_by(s) == plain.private[s] + UNIT_BLOCKS * len(plain.held[s]) for s in running)
    for each in running:
        kv.release(each)
    assert kv.free_blocks == blocks


@pytest.mark.parametrize("eviction", [Lru(), Lfu()])
def test_hits_leave_nothing_behind(eviction: KVEvictionPolicy) -> None:
    """One prompt found again and again, with room for all: the order of eviction doesn't grow with every hit."""
    kv = PrefixKVManager(10_000, BLOCK, UNIT_BLOCKS, eviction)
    for row in range(1000):
        prompt = Sequence(row, 0, 10 * UNIT + 1, 1, hashes=range(10))
        assert kv.admit(prompt, 10 * UNIT + 1, 0)
        kv.computed(prompt, 10 * UNIT + 1)
        kv.release(prompt)
    assert len(kv.units) == 10
    assert 1010 <= len(kv._freed) < 4000  # 10 units, 1,000 last blocks that nobody can find, and some of 9,990 hits

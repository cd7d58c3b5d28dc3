"""Paged KV memory of one replica: block counts, and a hash-chained prefix cache over them.

Follows vLLM's block pool (``vllm/v1/core/block_pool.py``): a freed block keeps its contents and can be found again
until an allocation takes it; what is freed goes behind what was freed before, a request's last block first; under
``lru`` blocks that nobody can find again (partial or unidentified ones) stand in the same line as the others.

Blocks are counted, not named: only those with an identity in the prefix cache are objects (`CacheUnit`), because
nothing else about a block can be observed. A unit spans as many engine blocks as one block of the trace's identities.

Not modelled: a *running* request's generated tokens can't be found by others before it ends or is preempted.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

from policies.protocols import KVEvictionPolicy

if TYPE_CHECKING:
    from simulator.engine.sequence import Sequence


class CacheUnit:
    """Blocks with one identity in the prefix cache, or (``identity`` None) freed blocks that nobody can find again."""

    __slots__ = (
        "cached_order",
        "depth_tokens",
        "heap_order",
        "hits",
        "identity",
        "num_blocks",
        "num_tokens",
        "references",
        "released_order",
    )

    def __init__(self, identity: int | None, num_blocks: int, num_tokens: int, depth_tokens: int, order: int) -> None:
        self.identity = identity
        self.num_blocks = num_blocks
        self.num_tokens = num_tokens
        self.depth_tokens = depth_tokens
        self.references = 0
        self.hits = 0
        self.cached_order = order
        self.released_order = order
        self.heap_order = -1  # its valid entry in the heap of unreferenced units; -1: referenced


class KVManager:
    """KV blocks of one replica, without a prefix cache: a count.

    Attributes
    ----------
    total_blocks, free_blocks
        Blocks in all, and those that an allocation can have now.
    version
        Changes whenever an earlier answer of `match` may no longer hold.
    """

    __slots__ = ("block_size", "free_blocks", "total_blocks", "version")

    caches_prefixes = False

    def __init__(self, total_blocks: int, block_size: int) -> None:
        self.total_blocks = total_blocks
        self.block_size = block_size
        self.free_blocks = total_blocks
        self.version = 0

    @property
    def used_blocks(self) -> int:
        """Blocks that running requests hold."""
        return self.total_blocks - self.free_blocks

    def blocks_for(self, tokens: int) -> int:
        """Blocks that hold so many tokens."""
        return -(-tokens // self.block_size)

    def take(self, blocks: int) -> None:
        """Allocate blocks; the caller has checked that they are free."""
        self.free_blocks -= blocks

    def held_by(self, sequence: Sequence) -> int:
        """Blocks that the sequence holds."""
        return sequence.private_blocks

    def cached_tokens(self, sequence: Sequence) -> int:
        """Tokens of the sequence's prefill that are in the prefix cache now, at least one being left to compute."""
        return 0

    def admit(self, sequence: Sequence, tokens: int, keep_free_blocks: int) -> bool:
        """Allocate KV for ``tokens`` of context; False, with nothing changed, if ``keep_free_blocks`` weren't left."""
        need = -(-tokens // self.block_size)
        if need + keep_free_blocks > self.free_blocks:
            return False
        self.free_blocks -= need
        sequence.private_blocks = need
        return True

    def computed(self, sequence: Sequence, tokens: int) -> None:
        """Note that the first ``tokens`` of the sequence's context are computed (or will be by this step)."""

    def release(self, sequence: Sequence) -> None:
        """Free all that the sequence holds."""
        self.free_blocks += sequence.private_blocks
        sequence.private_blocks = 0


class PrefixKVManager(KVManager):
    """KV blocks with a prefix cache: requests that begin with the same blocks share them.

    Parameters
    ----------
    unit_blocks
        Engine blocks in one unit of identity (1 where the trace's blocks are the engine's).
    eviction
        Which unreferenced unit goes first.
    """

    __slots__ = (
        "_evictable",
        "_eviction",
        "_heap",
        "_order",
        "_spare",
        "unit_blocks",
        "unit_tokens",
        "units",
    )

    caches_prefixes = True

    def __init__(self, total_blocks: int, block_size: int, unit_blocks: int, eviction: KVEvictionPolicy) -> None:
        super().__init__(total_blocks, block_size)
        self.unit_blocks = unit_blocks
        self.unit_tokens = unit_blocks * block_size
        self.units: dict[int, CacheUnit] = {}
        self._eviction = eviction
        self._spare = total_blocks  # free blocks without contents: taken before anything is evicted
        self._heap: list[tuple[float, int, CacheUnit]] = []
        self._evictable = 0  # valid entries of the heap
        self._order = 0

    def held_by(self, sequence: Sequence) -> int:
        return sequence.private_blocks + len(sequence.units) * self.unit_blocks

    def _match(self, sequence: Sequence) -> int:
        """Return how many units from the start are cached, at least one token being left to compute."""
        if sequence.match_version != self.version:
            units, hashes = self.units, sequence.hashes
            limit = min(len(hashes), (sequence.prefill_target - 1) // self.unit_tokens)
            found = 0
            while found < limit and hashes[found] in units:
                found += 1
            sequence.match, sequence.match_version = found, self.version
        return sequence.match

    def cached_tokens(self, sequence: Sequence) -> int:
        return self._match(sequence) * self.unit_tokens

    def admit(self, sequence: Sequence, tokens: int, keep_free_blocks: int) -> bool:
        found = self._match(sequence)
        hits = [self.units[h] for h in sequence.hashes[:found]]
        need = self.blocks_for(tokens) - found * self.unit_blocks
        revived = sum(u.num_blocks for u in hits if u.references == 0)
        if need + revived + keep_free_blocks > self.free_blocks:
            return False
        for unit in hits:
            if unit.references == 0:
                unit.heap_order = -1
                self._evictable -= 1
            unit.references += 1
            unit.hits += 1
        self.free_blocks -= revived
        sequence.units = hits
        self.take(need)
        sequence.private_blocks = need
        return True

    def take(self, blocks: int) -> None:
        self.free_blocks -= blocks
        from_spare = min(blocks, self._spare)
        self._spare -= from_spare
        blocks -= from_spare
        heap = self._heap
        while blocks:
            rank, order, unit = heap[0]
            if unit.heap_order != order:
                heappop(heap)  # it was found again since, or stands elsewhere in the line now
                continue
            if unit.identity is None and unit.num_blocks > blocks:
                unit.num_blocks -= blocks
                return
            heappop(heap)
            unit.heap_order = -1
            self._evictable -= 1
            self._eviction.evicted(rank)
            if unit.identity is not None:
                del self.units[unit.identity]
                self.version += 1
            if unit.num_blocks > blocks:
                self._spare += unit.num_blocks - blocks
                return
            blocks -= unit.num_blocks

    def computed(self, sequence: Sequence, tokens: int) -> None:
        held, hashes = sequence.units, sequence.hashes
        full = min(len(hashes), tokens // self.unit_tokens)
        if full <= len(held):
            return
        for index in range(len(held), full):
            # Somebody else may have computed the same meanwhile; this copy is then one that nobody can find.
            identity = None if hashes[index] in self.units else hashes[index]
            unit = CacheUnit(identity, self.unit_blocks, self.unit_tokens, index * self.unit_tokens, self._next_order())
            unit.references = 1
            if identity is not None:
                self.units[identity] = unit
            held.append(unit)
            sequence.private_blocks -= self.unit_blocks
        self.version += 1

    def release(self, sequence: Sequence) -> None:
        if sequence.private_blocks:
            tail = CacheUnit(None, sequence.private_blocks, 0, sequence.context_tokens, self._next_order())
            self._make_evictable(tail)
            sequence.private_blocks = 0
        for unit in reversed(sequence.units):
            unit.references -= 1
            if unit.references == 0:
                self._make_evictable(unit)
        sequence.units = []

    def _make_evictable(self, unit: CacheUnit) -> None:
        order = self._next_order()
        unit.released_order = unit.heap_order = order
        self.free_blocks += unit.num_blocks
        self._evictable += 1
        if len(self._heap) > 2 * self._evictable + 1024:
            # Mostly entries of units found again since: drop them, or a long run with many hits would keep them all.
            self._heap = [entry for entry in self._heap if entry[2].heap_order == entry[1]]
            heapify(self._heap)
        heappush(self._heap, (self._eviction.rank(unit), order, unit))

    def _next_order(self) -> int:
        self._order += 1
        return self._order

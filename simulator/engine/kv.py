"""Paged KV memory of one replica: block counts, and a hash-chained prefix cache over them.

Follows vLLM's block pool (``vllm/v1/core/block_pool.py``): a freed block keeps its contents and can be found again
until an allocation takes it; what is freed goes behind what was freed before, a request's last block first; under
``lru`` blocks that nobody can find again (partial or unidentified ones) stand in the same line as the others.

Blocks are counted, not named: only those with an identity in the prefix cache are objects (`CacheUnit`), because
nothing else about a block can be observed. A unit spans as many engine blocks as one block of the trace's identities.

Not modelled: a *running* request's generated tokens can't be found by others before it ends or is preempted.
"""

from __future__ import annotations

from collections import deque
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Protocol

from policies.protocols import KVEvictionPolicy

if TYPE_CHECKING:
    from simulator.engine.sequence import Sequence


VOID_ENTRIES_KEPT = 1024
"""Void entries of an order of eviction that aren't worth tidying up."""


class CacheUnit:
    """Blocks with one identity in the prefix cache, or (``identity`` None) blocks that nobody can find.

    ``released_order`` is 0 while somebody refers to it.
    """

    __slots__ = (
        "cached_order",
        "depth_tokens",
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
        self.references = 1
        self.hits = 0
        self.cached_order = order
        self.released_order = 0


class FreedUnits(Protocol):
    """Unreferenced units in the order of their eviction.

    One that is found again keeps its entry, which is void from then on: its number isn't the unit's ``released_order``.

    Attributes
    ----------
    num_void
        Void entries; counted up by whoever refers to units again.
    """

    num_void: int

    def __len__(self) -> int:
        """Entries, void ones included."""
        ...

    def push(self, units: list[CacheUnit], order: int) -> int:
        """Take in units released together, those of a prefix from its start, after number ``order``; return the last.

        The list is kept.
        """
        ...

    def evict(self, blocks: int, cached: dict[int, CacheUnit]) -> int:
        """Give up contents of at least so many blocks and their identities in the cache; return how many more."""
        ...


class FreedLine:
    """Units in the order of their release, of those released together the last first; asks the policy nothing."""

    __slots__ = ("_groups", "_num_entries", "num_void")

    def __init__(self) -> None:
        self._groups: deque[tuple[int, list[CacheUnit]]] = deque()
        self._num_entries = 0
        self.num_void = 0

    def __len__(self) -> int:
        return self._num_entries

    def push(self, units: list[CacheUnit], order: int) -> int:
        order += 1
        for unit in units:
            unit.released_order = order
        self._groups.append((order, units))
        self._num_entries += len(units)
        if 2 * self.num_void > self._num_entries + VOID_ENTRIES_KEPT:
            self._drop_void()
        return order

    def evict(self, blocks: int, cached: dict[int, CacheUnit]) -> int:
        # A tail goes whole: what is left of it is spare, and taken before the next unit, as if it still stood here.
        while blocks > 0:
            order, units = self._groups[0]
            while units and blocks > 0:
                unit = units.pop()
                self._num_entries -= 1
                if unit.released_order != order:
                    self.num_void -= 1
                    continue
                blocks -= unit.num_blocks
                if unit.identity is not None:
                    del cached[unit.identity]
            if not units:
                self._groups.popleft()
        return -blocks

    def _drop_void(self) -> None:
        """Forget void entries, or a long run with many hits would keep them all."""
        groups = ((order, [unit for unit in units if unit.released_order == order]) for order, units in self._groups)
        self._groups = deque(group for group in groups if group[1])
        self._num_entries = sum(len(units) for _, units in self._groups)
        self.num_void = 0


class FreedHeap:
    """Units by the rank that the policy gives them when they are released, then by the order of release."""

    __slots__ = ("_entries", "_eviction", "num_void")

    def __init__(self, eviction: KVEvictionPolicy) -> None:
        self._eviction = eviction
        self._entries: list[tuple[float, int, CacheUnit]] = []
        self.num_void = 0

    def __len__(self) -> int:
        return len(self._entries)

    def push(self, units: list[CacheUnit], order: int) -> int:
        for unit in reversed(units):
            order += 1
            unit.released_order = order
            heappush(self._entries, (self._eviction.rank(unit), order, unit))
        if 2 * self.num_void > len(self._entries) + VOID_ENTRIES_KEPT:
            self._drop_void()
        return order

    def evict(self, blocks: int, cached: dict[int, CacheUnit]) -> int:
        entries = self._entries
        while blocks > 0:
            rank, order, unit = entries[0]
            void = unit.released_order != order
            if unit.identity is None and unit.num_blocks > blocks and not void:
                unit.num_blocks -= blocks  # nobody can find it, so it needn't go whole
                return 0
            heappop(entries)
            if void:
                self.num_void -= 1
                continue
            self._eviction.evicted(rank)
            blocks -= unit.num_blocks
            if unit.identity is not None:
                del cached[unit.identity]
        return -blocks

    def _drop_void(self) -> None:
        """Forget void entries, or a long run with many hits would keep them all."""
        self._entries = [entry for entry in self._entries if entry[2].released_order == entry[1]]
        heapify(self._entries)
        self.num_void = 0


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
    drops_tokens = False
    tells_evictions = False

    def __init__(self, total_blocks: int, block_size: int) -> None:
        self.total_blocks = total_blocks
        self.block_size = block_size
        self.free_blocks = total_blocks
        self.version = 0

    @property
    def used_blocks(self) -> int:
        """Blocks that running requests hold."""
        return self.total_blocks - self.free_blocks

    @property
    def quiet_blocks(self) -> int:
        """Blocks that can be allocated without anybody being told of evictions."""
        return self.free_blocks

    def blocks_for(self, tokens: int) -> int:
        """Blocks that hold so many tokens."""
        return -(-tokens // self.block_size)

    def blocks_of(self, sequence: Sequence, tokens: int) -> int:
        """Blocks that a sequence takes with so many tokens of context, those that it shares with others included."""
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

    def prefilled(self, sequence: Sequence) -> None:
        """Note that a sequence's prefill is complete; asked only where tokens are dropped then."""

    def computed(self, sequence: Sequence, tokens: int) -> None:
        """Note that the first ``tokens`` of the sequence's context are computed (or will be by this step)."""

    def release(self, sequence: Sequence) -> None:
        """Free all that the sequence holds."""
        self.free_blocks += sequence.private_blocks
        sequence.private_blocks = 0

    def forget(self, sequence: Sequence) -> None:
        """Give up what is kept for a request that waits; nothing but where some is loaded first."""

    def clear(self) -> None:
        """Forget everything: nobody holds anything any more, nothing is cached."""
        self.free_blocks = self.total_blocks
        self.version += 1


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
        "_eviction",
        "_freed",
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
        self._freed: FreedUnits = FreedLine() if eviction.in_release_order else FreedHeap(eviction)
        self._spare = total_blocks  # free blocks without contents: taken before anything is evicted
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
        need = self.blocks_for(tokens) - found * self.unit_blocks
        if need + keep_free_blocks > self.free_blocks:
            return False
        units = self.units
        hits = [units[h] for h in sequence.hashes[:found]]
        unreferenced = [unit for unit in hits if not unit.references]
        revived_blocks = len(unreferenced) * self.unit_blocks
        if need + revived_blocks + keep_free_blocks > self.free_blocks:
            return False
        for unit in hits:
            unit.references += 1
            unit.hits += 1
        for unit in unreferenced:
            unit.released_order = 0
        self._freed.num_void += len(unreferenced)
        self.free_blocks -= revived_blocks
        sequence.units = hits
        self.take(need)
        sequence.private_blocks = need
        return True

    def take(self, blocks: int) -> None:
        self.free_blocks -= blocks
        self._spare -= blocks
        if self._spare < 0:
            self._spare = self._freed.evict(-self._spare, self.units)
            self.version += 1

    def computed(self, sequence: Sequence, tokens: int) -> None:
        held = sequence.units
        first, end = len(held), tokens // self.unit_tokens
        if end <= first:
            return
        new = sequence.hashes[first:end]
        if not new:
            return
        units, unit_blocks, unit_tokens, order = self.units, self.unit_blocks, self.unit_tokens, self._order
        depth_tokens = first * unit_tokens
        for identity in new:
            order += 1
            if identity in units:
                # Somebody else has computed the same meanwhile; this copy is one that nobody can find.
                held.append(CacheUnit(None, unit_blocks, unit_tokens, depth_tokens, order))
            else:
                units[identity] = unit = CacheUnit(identity, unit_blocks, unit_tokens, depth_tokens, order)
                held.append(unit)
            depth_tokens += unit_tokens
        self._order = order
        sequence.private_blocks -= len(new) * unit_blocks
        self.version += 1

    def release(self, sequence: Sequence) -> None:
        freed = []
        for unit in sequence.units:
            unit.references = references = unit.references - 1
            if not references:
                freed.append(unit)
        sequence.units = []
        private = sequence.private_blocks
        self.free_blocks += private + len(freed) * self.unit_blocks
        if private:
            self._order += 1
            freed.append(CacheUnit(None, private, 0, sequence.context_tokens, self._order))
            sequence.private_blocks = 0
        self._order = self._freed.push(freed, self._order)

    def clear(self) -> None:
        super().clear()
        self.units.clear()
        self._freed = FreedLine() if self._eviction.in_release_order else FreedHeap(self._eviction)
        self._spare = self.total_blocks

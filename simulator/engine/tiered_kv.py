"""A prefix cache with further tiers behind it: what is found there may be loaded before a request is admitted.

When a batching policy would admit a request, the tiers are asked whether they hold what follows the prefix that is
cached here, and whether it is to be loaded. If so, blocks for it are taken, the policy hears that the request can't be
admitted now, and it stands aside until its KV has come. This is the place where vLLM asks its connectors
(``get_num_new_matched_tokens`` in its scheduler; the request then waits for remote KVs). Policies that don't look
whether the request still waits take the refusal for a lack of memory, and admit nobody else in that step.

Asking only where the request would be admitted keeps fast-forward exact: a run of steps holds none that admits. What
is decided stays decided while memory for it is waited for; meanwhile what it found here is held.
"""

from __future__ import annotations

from typing import Protocol

from policies.protocols import KVEvictionPolicy
from simulator.engine.kv import CacheUnit, PrefixKVManager
from simulator.engine.sequence import WAITING, Sequence

_ON_ITS_WAY = -1


class Tiers(Protocol):
    """What stands behind the cache of one replica; each is called from within its steps, or between them."""

    def look(self, sequence: Sequence, found: int) -> int | None:
        """Return how many units to load behind the first ``found``; None: the request is admitted as it is.

        0: it stands aside, and nothing is loaded for now.
        """
        ...

    def begin(self, sequence: Sequence) -> None:
        """Hear that blocks for what `look` said are taken: the request may be put aside, the load begin."""
        ...

    def drop(self, sequence: Sequence) -> None:
        """Hear that what `look` said of a request is not wanted any more."""
        ...

    def is_busy(self) -> bool:
        """Tell whether requests run or are loaded here, so that memory will be given back."""
        ...

    def hit(self, units: list[CacheUnit]) -> None:
        """Hear of cached units that a request was admitted with."""
        ...

    def computed(self, units: list[CacheUnit]) -> None:
        """Hear of the units of a request whose prompt is computed, or which lets them go."""
        ...

    def evicted(self, units: list[CacheUnit]) -> None:
        """Hear of units that were given up; only where ``tells_evictions``."""
        ...

    def lost(self) -> None:
        """Hear that the replica was lost."""
        ...


class TellingUnits(dict[int, CacheUnit]):
    """Cached units by identity, which notes those that are evicted."""

    __slots__ = ("gone",)

    def __init__(self) -> None:
        super().__init__()
        self.gone: list[CacheUnit] = []

    def __delitem__(self, identity: int) -> None:
        self.gone.append(self.pop(identity))


class TieredKVManager(PrefixKVManager):
    """See the module.

    Parameters
    ----------
    tells_evictions
        Whether `Tiers.evicted` is called. A run of steps then ends before one that evicts, since what follows from an
        eviction has its time.

    Attributes
    ----------
    tiers
        What stands behind; None: nothing yet.
    """

    __slots__ = ("_wanted", "tells_evictions", "tiers")

    units: dict[int, CacheUnit]

    def __init__(
        self,
        total_blocks: int,
        block_size: int,
        unit_blocks: int,
        eviction: KVEvictionPolicy,
        *,
        tells_evictions: bool,
    ) -> None:
        super().__init__(total_blocks, block_size, unit_blocks, eviction)
        self.tells_evictions = tells_evictions
        if tells_evictions:
            self.units = TellingUnits()
        self.tiers: Tiers | None = None
        # Requests that wait for memory to load so many units into, or stand aside.
        self._wanted: dict[Sequence, int] = {}

    @property
    def quiet_blocks(self) -> int:
        return self._spare

    def admit(self, sequence: Sequence, tokens: int, keep_free_blocks: int) -> bool:
        tiers = self.tiers
        if tiers is None or sequence.state is not WAITING:
            return super().admit(sequence, tokens, keep_free_blocks)
        units = self._wanted.get(sequence)
        if units is None:
            if not self._fits(sequence, tokens, keep_free_blocks):
                return False
            units = tiers.look(sequence, self._match(sequence))
            if units is None:
                admitted = super().admit(sequence, tokens, keep_free_blocks)
                if sequence.units:
                    tiers.hit(sequence.units)
                return admitted
            self._hold(sequence)
            self._wanted[sequence] = units
        elif units == _ON_ITS_WAY:
            return False
        need = units * self.unit_blocks
        whole = self.blocks_for(tokens) - len(sequence.units) * self.unit_blocks + keep_free_blocks
        if max(need, whole) > self.free_blocks:
            if tiers.is_busy():
                return False
            self.release(sequence)
            return super().admit(sequence, tokens, keep_free_blocks)
        self._wanted[sequence] = _ON_ITS_WAY
        if need:
            self.take(need)
            sequence.private_blocks = need
        tiers.begin(sequence)
        return False

    def landed(self, sequence: Sequence, units: int) -> None:
        """Put what was loaded for a request into the cache, and let it queue again, holding nothing."""
        del self._wanted[sequence]
        self.computed(sequence, (len(sequence.units) + units) * self.unit_tokens)
        self.release(sequence)
        sequence.match_version = -1

    def _fits(self, sequence: Sequence, tokens: int, keep_free_blocks: int) -> bool:
        """Tell whether a request could be admitted with what is cached."""
        found = self._match(sequence)
        units = self.units
        revived = sum(not units[identity].references for identity in sequence.hashes[:found])
        need = self.blocks_for(tokens) + (revived - found) * self.unit_blocks
        return need + keep_free_blocks <= self.free_blocks

    def _hold(self, sequence: Sequence) -> None:
        """Let a waiting request refer to what it found here, so that it is not evicted."""
        hits = [self.units[identity] for identity in sequence.hashes[: self._match(sequence)]]
        for unit in hits:
            if not unit.references:
                unit.released_order = 0
                self._freed.num_void += 1
                self.free_blocks -= self.unit_blocks
            unit.references += 1
        sequence.units = hits

    def take(self, blocks: int) -> None:
        super().take(blocks)
        if self.tells_evictions:
            self._tell()

    def _tell(self) -> None:
        units = self.units
        assert isinstance(units, TellingUnits)
        if units.gone:
            gone, units.gone = units.gone, []
            if self.tiers is not None:
                self.tiers.evicted(gone)

    def release(self, sequence: Sequence) -> None:
        tiers = self.tiers
        if tiers is not None:
            if self._wanted.pop(sequence, None) is not None:
                tiers.drop(sequence)
            if sequence.units:
                tiers.computed(sequence.units)
        super().release(sequence)

    def forget(self, sequence: Sequence) -> None:
        if sequence in self._wanted:
            self.release(sequence)

    def clear(self) -> None:
        super().clear()
        self._wanted.clear()
        if self.tiers is not None:
            self.tiers.lost()


__all__ = ["TieredKVManager", "Tiers"]

"""One tier's contents: units of KV by identity, a capacity, an order of eviction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from policies.protocols import KVEvictionPolicy
from simulator.engine.kv import CacheUnit, FreedHeap, FreedLine, FreedUnits
from simulator.engine.tiered_kv import TellingUnits


class Item(NamedTuple):
    """A unit of KV: its identity, and the tokens of the prefix before it."""

    identity: int
    depth_tokens: int


class TierStore:
    """Units of one size. One that is being written or read is *pinned*, and not evicted.

    Eviction follows the same policies as the cache in GPU memory; a unit is *released* there, and so counts as used
    last, when it was written, loaded, or found by a request (`touch`). Of units used together, those at the end of the
    prefix go first.

    Parameters
    ----------
    capacity
        Units that fit.
    unit_tokens
        Tokens of each.

    Attributes
    ----------
    peak
        Most units that were there at a time, those being written included.
    """

    def __init__(self, capacity: int, unit_tokens: int, eviction: KVEvictionPolicy) -> None:
        self.capacity = capacity
        self.unit_tokens = unit_tokens
        self.peak = 0
        self._eviction = eviction
        self._order = 0
        self.clear()

    def clear(self) -> None:
        """Forget everything; what is pinned needn't be let go any more."""
        self._units = TellingUnits()
        self._coming: set[int] = set()
        self._num_pinned = 0
        self._freed: FreedUnits = FreedLine() if self._eviction.in_release_order else FreedHeap(self._eviction)

    def __len__(self) -> int:
        return len(self._units)

    @property
    def num_pinned(self) -> int:
        """Units being written or read."""
        return self._num_pinned

    def holds(self, identity: int) -> bool:
        """Tell whether a unit is there, all of it."""
        return identity in self._units and identity not in self._coming

    def knows(self, identity: int) -> bool:
        """Tell whether a unit is there or being written."""
        return identity in self._units

    def hits(self, identity: int) -> int:
        """Return how often a unit was found since it was written."""
        return self._units[identity].hits

    def reserve(self, items: Sequence[Item]) -> tuple[list[Item], list[Item]]:
        """Make room for units that aren't there, and pin them until `written`.

        Returns
        -------
        accepted
            The first of them, as many as there is room for.
        evicted
            What was given up for them.
        """
        room = self.capacity - self._num_pinned  # all that is not pinned can be evicted
        accepted = list(items[: max(0, room)])
        lacking = len(self._units) + len(accepted) - self.capacity
        evicted: list[Item] = []
        if lacking > 0:
            self._freed.evict(lacking, self._units)
            gone, self._units.gone = self._units.gone, []
            evicted = [Item(unit.identity, unit.depth_tokens) for unit in gone if unit.identity is not None]
        for item in accepted:
            self._order += 1
            self._units[item.identity] = CacheUnit(item.identity, 1, self.unit_tokens, item.depth_tokens, self._order)
            self._coming.add(item.identity)
        self._num_pinned += len(accepted)
        self.peak = max(self.peak, len(self._units))
        return accepted, evicted

    def written(self, items: Iterable[Item]) -> None:
        """Note that reserved units are there now, and let them go."""
        units = []
        for item in items:
            self._coming.discard(item.identity)
            units.append(self._units[item.identity])
        self._unpin(units)

    def forget(self, items: Iterable[Item]) -> None:
        """Give up reserved units that never came."""
        for item in items:
            self._coming.discard(item.identity)
            self._units.pop(item.identity)
            self._num_pinned -= 1

    def pin(self, identities: Iterable[int]) -> list[CacheUnit]:
        """Keep units from being evicted while they are read, and return them for `unpin`; they count as found."""
        units = [self._units[identity] for identity in identities]
        for unit in units:
            if not unit.references:
                self._revive(unit)
                self._num_pinned += 1
            unit.references += 1
            unit.hits += 1
        return units

    def unpin(self, units: Iterable[CacheUnit]) -> None:
        """Let pinned units go; they were used last. Those of before `clear` are gone."""
        there = self._units
        self._unpin([unit for unit in units if unit.identity is not None and there.get(unit.identity) is unit])

    def touch(self, identities: Iterable[int]) -> None:
        """Count units as found and used last; those that aren't there are left out."""
        again = []
        for identity in identities:
            unit = self._units.get(identity)
            if unit is None:
                continue
            unit.hits += 1
            if not unit.references:
                self._revive(unit)
                again.append(unit)
        self._push(again)

    def _revive(self, unit: CacheUnit) -> None:
        unit.released_order = 0
        self._freed.num_void += 1

    def _unpin(self, units: Sequence[CacheUnit]) -> None:
        free = []
        for unit in units:
            unit.references -= 1
            if not unit.references:
                free.append(unit)
        self._num_pinned -= len(free)
        self._push(free)

    def _push(self, units: list[CacheUnit]) -> None:
        if units:
            self._order = self._freed.push(units, self._order)


__all__ = ["Item", "TierStore"]

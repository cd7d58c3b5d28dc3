"""What stands behind the prefix cache of one replica: loads, writes, and what a loss leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from simulator.engine.kv import CacheUnit
from simulator.engine.sequence import MOVING, WAITING
from simulator.engine.sequence import Sequence as Request
from simulator.engine.tiered_kv import TieredKVManager
from simulator.kv_tiers.deciding import best_load, prefill_ns
from simulator.kv_tiers.levels import Choice, Figures, Level
from simulator.kv_tiers.prefetch import Prefetcher
from simulator.kv_tiers.store import Item, TierStore

if TYPE_CHECKING:
    from simulator.engine.control import Control
    from simulator.engine.replica import Replica
    from simulator.network.cluster_network import Part
    from simulator.network.flows import FlowGroup


@dataclass(eq=False)
class Load:
    """KV of one request on its way to the GPUs.

    Attributes
    ----------
    pieces
        From which level which units, in the order of the prefix.
    decided_ns, begun_ns
        When it was decided, and when there was memory for it.
    """

    sequence: Request
    units: int
    pieces: list[tuple[Level, list[Item]]]
    decided_ns: int
    begun_ns: int = -1
    pinned: list[tuple[TierStore, list[CacheUnit]]] = field(default_factory=list)
    is_open: bool = True
    group: FlowGroup | None = None

    def pin(self) -> None:
        """Keep what is read from being evicted."""
        self.pinned = [(level.store, level.store.pin(item.identity for item in items)) for level, items in self.pieces]

    def unpin(self) -> None:
        """Let what is read go."""
        for store, units in self.pinned:
            store.unpin(units)
        self.pinned = []


class ReplicaTiers:
    """What stands behind the prefix cache of one replica (`simulator.engine.tiered_kv.Tiers`)."""

    def __init__(
        self,
        control: Control,
        replica: Replica,
        kv: TieredKVManager,
        levels: Sequence[Level],
        choice: Choice,
        unit_bytes: int,
        figures: Figures,
    ) -> None:
        self._control = control
        self._replica = replica
        self._kv = kv
        self._levels = tuple(levels)
        self._choice = choice
        self._unit_bytes = unit_bytes
        self._figures = figures
        self._loads: dict[Request, Load] = {}
        self._loaded: set[Request] = set()
        self._writes: dict[FlowGroup, tuple[Level, list[Item]]] = {}
        self._prefetcher: Prefetcher | None = None
        if any(level.spec.prefetch != "none" for level in levels):
            self._prefetcher = Prefetcher(
                control,
                replica,
                self._levels[0],
                unit_bytes,
                find=self._behind_cached,
                gave_up=self._evicted_from,
                complete=self._prefetched,
            )
        self._before = replica.prefilled
        replica.prefilled = self._prefilled
        kv.tiers = self

    # ---------------------------------------------------------------------------------------------------- loading

    def look(self, sequence: Request, found: int) -> int | None:
        """Decide what of a request about to be admitted is loaded; see `Tiers`."""
        control = self._control
        if control.live.get(sequence.request_id) is not sequence:
            return None  # it comes from another replica, with its KV
        if sequence in self._loaded:
            self._loaded.discard(sequence)
            return None
        if self._prefetcher is not None and self._prefetcher.must_wait(sequence):
            self._loads[sequence] = Load(sequence, 0, [], control.now_ns)
            return 0
        pieces = self._pieces(sequence, found)
        if not pieces:
            return None
        units = self._chosen(sequence, found, pieces)
        there = sum(len(items) for _, items in pieces)
        if units < there:
            self._figures.recomputed_tokens += (there - units) * self._kv.unit_tokens
        if not units:
            self._figures.recomputes += 1
            return None
        left, kept = units, []
        for level, items in pieces:
            if left > 0:
                kept.append((level, items[:left]))
                left -= len(items)
        self._loads[sequence] = load = Load(sequence, units, kept, control.now_ns)
        load.pin()
        return units

    def _behind_cached(self, sequence: Request) -> list[tuple[Level, list[Item]]]:
        return self._pieces(sequence, self._kv.cached_tokens(sequence) // self._kv.unit_tokens)

    def _pieces(self, sequence: Request, found: int) -> list[tuple[Level, list[Item]]]:
        """Return where the units behind the first ``found`` are, as far as they are anywhere."""
        unit_tokens = self._kv.unit_tokens
        hashes = sequence.hashes
        limit = min(len(hashes), (sequence.prefill_target - 1) // unit_tokens)
        pieces: list[tuple[Level, list[Item]]] = []
        for at in range(found, limit):
            level = next((level for level in self._levels if level.store.holds(hashes[at])), None)
            if level is None:
                break
            if not pieces or pieces[-1][0] is not level:
                pieces.append((level, []))
            pieces[-1][1].append(Item(hashes[at], at * unit_tokens))
        return pieces

    def _chosen(self, sequence: Request, found: int, pieces: list[tuple[Level, list[Item]]]) -> int:
        """Return how many units are loaded."""
        ends: list[int] = []
        for _, items in pieces:
            ends.append((ends[-1] if ends else 0) + len(items))
        if self._choice == "always-recompute":
            return 0
        if self._choice == "always-load":
            return ends[-1]
        unit_tokens, limits = self._kv.unit_tokens, self._replica.limits

        def load_ns(units: int) -> int | None:
            return self._control.network.expected_ns(self._parts(pieces, units))

        def compute_ns(units: int) -> int:
            cached = (found + units) * unit_tokens
            left = sequence.prefill_target - cached
            return prefill_ns(self._replica.cost, cached, left, limits.max_num_batched_tokens)

        return best_load(ends, load_ns, compute_ns)

    def _parts(self, pieces: Sequence[tuple[Level, list[Item]]], units: int) -> list[Part]:
        """Return what goes over the links for the first units."""
        network, parts = self._control.network, []
        for level, items in pieces:
            number = min(len(items), units)
            if number > 0:
                size = number * self._unit_bytes
                parts += network.parts(level.spec.where, "gpu", self._replica.index, size)
            units -= number
        return parts

    def begin(self, sequence: Request) -> None:
        """Put a request aside and begin its load: there is memory for it."""
        load = self._loads[sequence]
        load.begun_ns = self._control.now_ns
        self._replica.waiting.remove(sequence)
        sequence.state = MOVING
        self._control.soon(partial(self._start, load))

    def _start(self, load: Load) -> None:
        if load.is_open and load.units:
            load.group = self._control.network.start(
                self._parts(load.pieces, load.units), partial(self._arrived, load), label="kv-tiers load"
            )
        elif load.is_open and self._prefetcher is not None and not self._prefetcher.is_under_way(load.sequence):
            self._replica.between_steps(partial(self._settle, load))  # while it waited for memory
        # The policy may not have looked at those behind it, and had nothing else to do.
        self._replica.between_steps(lambda _: None)

    def _arrived(self, load: Load, now: int) -> None:
        """Note that all of it is on the GPUs; the request queues again between two steps."""
        load.unpin()
        if not load.is_open:
            return
        first = self._levels[0]
        for level, items in load.pieces:
            level.figures.loaded += len(items)
            if level is not first and first.spec.where == "host":
                self._keep(first, items)
        self._replica.between_steps(partial(self._settle, load))

    def _prefetched(self, sequence: Request) -> None:
        """Let a request queue again that stands aside until its KV is in host memory."""
        load = self._loads.get(sequence)
        if load is not None and not load.units and load.begun_ns >= 0:
            self._replica.between_steps(partial(self._settle, load))

    def _keep(self, level: Level, items: Sequence[Item]) -> None:
        """Keep in host memory what came through it."""
        fresh = [item for item in items if not level.store.knows(item.identity)]
        accepted, evicted = level.store.reserve(fresh)
        level.store.written(accepted)
        level.figures.passing += len(accepted)
        self._evicted_from(level, evicted)

    def _settle(self, load: Load, now: int) -> None:
        if not load.is_open:
            return
        sequence = load.sequence
        del self._loads[sequence]
        load.is_open = False
        self._kv.landed(sequence, load.units)
        sequence.state = WAITING
        self._replica.waiting.push_front(sequence)
        for lane in self._replica.lanes[1:]:
            lane.wake()
        figures = self._figures
        if not load.units:
            figures.prefetch_waits.append(now - load.begun_ns)
            return
        self._loaded.add(sequence)
        figures.loads += 1
        figures.loaded_tokens += load.units * self._kv.unit_tokens
        figures.waits.append(now - load.begun_ns)
        figures.memory_waits.append(load.begun_ns - load.decided_ns)

    def drop(self, sequence: Request) -> None:
        """Give up what was to be loaded for a request."""
        load = self._loads.pop(sequence)
        load.is_open = False
        self._figures.dropped += 1
        self._control.soon(partial(self._stop, load))

    @staticmethod
    def _stop(load: Load) -> None:
        load.unpin()
        if load.group is not None:
            load.group.cancel()

    def is_busy(self) -> bool:
        """Tell whether memory will be given back here."""
        return bool(self._replica.num_running) or any(load.begun_ns >= 0 for load in self._loads.values())

    # ---------------------------------------------------------------------------------------------------- writing

    def hit(self, units: list[CacheUnit]) -> None:
        """Count units found in GPU memory as used in the tiers too, and write those that are due now."""
        self._control.soon(partial(self._used, [_item(unit) for unit in units]))

    def _used(self, items: list[Item]) -> None:
        store = self._levels[0].store
        store.touch(item.identity for item in items)
        if self._levels[0].spec.write == "on-second-use":
            self._write(0, items)
        self._found_again(0, items)

    def _found_again(self, at: int, items: Sequence[Item]) -> None:
        """Write on what was found for the second time in a level."""
        if at + 1 < len(self._levels) and self._levels[at + 1].spec.write == "on-second-use":
            store = self._levels[at].store
            again = [item for item in items if store.holds(item.identity) and store.hits(item.identity)]
            self._write(at + 1, again)

    def _prefilled(self, sequence: Request, now: int) -> bool:
        self.computed(sequence.units)
        return False if self._before is None else self._before(sequence, now)

    def computed(self, units: list[CacheUnit]) -> None:
        """Write units that are computed."""
        level = self._levels[0]
        if level.spec.write == "write-through":
            knows = level.store.knows
            fresh = [_item(unit) for unit in units if unit.identity is not None and not knows(unit.identity)]
            if fresh:
                self._control.soon(partial(self._write, 0, fresh))

    def evicted(self, units: list[CacheUnit]) -> None:
        """Write units that were given up on the GPUs."""
        if self._levels[0].spec.write == "on-evict":
            self._control.soon(partial(self._write, 0, [_item(unit) for unit in units]))

    def _evicted_from(self, level: Level, items: Sequence[Item]) -> None:
        """Hear of units that a level gave up."""
        level.figures.evicted += len(items)
        after = self._levels.index(level) + 1
        if items and after < len(self._levels) and self._levels[after].spec.write == "on-evict":
            self._write(after, items)

    def _write(self, at: int, items: Sequence[Item]) -> None:
        """Write units from the level before to a level, those that it doesn't have."""
        level = self._levels[at]
        if not self._control.is_alive(self._replica.index):
            return
        fresh = [item for item in items if not level.store.knows(item.identity)]
        accepted, evicted = level.store.reserve(fresh)
        level.figures.refused += len(fresh) - len(accepted)
        self._evicted_from(level, evicted)
        if not accepted:
            return
        source = "gpu" if at == 0 else self._levels[at - 1].spec.where
        network = self._control.network
        parts = network.parts(source, level.spec.where, self._replica.index, len(accepted) * self._unit_bytes)
        group = network.start(parts, lambda _: self._written(group, at), label="kv-tiers write")
        self._writes[group] = (level, accepted)

    def _written(self, group: FlowGroup, at: int) -> None:
        level, items = self._writes.pop(group)
        level.store.written(items)
        level.figures.written += len(items)
        if at + 1 < len(self._levels) and self._levels[at + 1].spec.write == "write-through":
            self._write(at + 1, items)

    # ------------------------------------------------------------------------------------------------------- loss

    def lost(self) -> None:
        """Forget what the replica had; the remote pool keeps what was written there."""
        for load in list(self._loads.values()):
            self.drop(load.sequence)
        self._loaded.clear()
        if self._prefetcher is not None:
            self._prefetcher.lost()
        for group, (level, items) in self._writes.items():
            group.cancel()
            level.store.forget(items)
        self._writes.clear()
        for level in self._levels:
            if level.spec.where != "remote":
                level.store.clear()


def _item(unit: CacheUnit) -> Item:
    assert unit.identity is not None
    return Item(unit.identity, unit.depth_tokens)


__all__ = ["ReplicaTiers"]

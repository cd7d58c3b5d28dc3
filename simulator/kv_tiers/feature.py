"""KV tiers as a feature of a cluster: what is written where, what is loaded, and what came of it.

Blocks with an identity in the prefix cache are written to the tiers behind the GPUs' memory, and loaded from there when
a request that begins with them is about to be admitted (`simulator.engine.tiered_kv`). Host memory and flash are of one
replica, as in vLLM's offloading connector, LMCache and SGLang's HiCache; the remote pool is shared by all replicas, as
Mooncake Store. All transfers are flows on the cluster's links and share them with everything else there. A tier holds
copies: what is loaded, and what is written on to the next tier, stays. What comes from flash or the remote pool passes
through host memory, and stays there if that is a tier.

Not modelled: that blocks can't be given up while they are written, nor reused until what was evicted is copied (copies
count as staged); layers loaded while the ones before are computed (HiCache); the cost of many small copies; where the
remote pool's bytes lie (Mooncake Store: in the nodes' own memory; here: behind the shared storage's link); that KV is
written while it is computed: a prompt's is when all of it is computed, generated tokens' when the request ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from policies.protocols import KVEvictionPolicy
from simulator.engine.clock import NS_PER_S, to_s
from simulator.engine.kv import CacheUnit
from simulator.engine.sequence import MOVING, WAITING
from simulator.engine.sequence import Sequence as Request
from simulator.engine.tiered_kv import TieredKVManager
from simulator.kv_tiers.deciding import best_load, prefill_ns
from simulator.kv_tiers.store import Item, TierStore

if TYPE_CHECKING:
    from simulator.engine.control import Control
    from simulator.engine.replica import Replica
    from simulator.network.cluster_network import Part
    from simulator.network.flows import FlowGroup

Where = Literal["host", "flash", "remote"]
Write = Literal["write-through", "on-second-use", "on-evict"]
Choice = Literal["auto", "always-load", "always-recompute"]


@dataclass(frozen=True)
class TierSpec:
    """A tier as the scenario has it, ready to be made.

    Attributes
    ----------
    capacity_bytes
        Of a replica, or of the whole remote pool.
    eviction
        Makes its policy.
    """

    where: Where
    capacity_bytes: int
    eviction: Callable[[], KVEvictionPolicy]
    eviction_name: str
    write: Write


@dataclass(frozen=True)
class PoolTiers:
    """Tiers of the replicas of one pool.

    Attributes
    ----------
    kv_bytes_per_token
        Of a replica, all heads of all layers once.
    """

    pool: str
    replicas: Sequence[int]
    tiers: Sequence[TierSpec]
    choice: Choice
    kv_bytes_per_token: int


@dataclass
class TierFigures:
    """What one tier of one pool did, over all of its replicas; units of KV."""

    loaded: int = 0
    written: int = 0
    evicted: int = 0
    refused: int = 0
    passing: int = 0


@dataclass
class Figures:
    """What became of requests; times in ns, tokens."""

    loads: int = 0
    recomputes: int = 0
    loaded_tokens: int = 0
    recomputed_tokens: int = 0
    dropped: int = 0
    waits: list[int] = field(default_factory=list)
    memory_waits: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Level:
    """A tier as one replica has it."""

    spec: TierSpec
    store: TierStore
    figures: TierFigures


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
        if not load.is_open:
            return
        load.group = self._control.network.start(
            self._parts(load.pieces, load.units), partial(self._arrived, load), label="kv-tiers load"
        )
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
        self._loaded.add(sequence)
        self._replica.waiting.push_front(sequence)
        for lane in self._replica.lanes[1:]:
            lane.wake()
        figures = self._figures
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


class KVTiersFeature:
    """See the module.

    Parameters
    ----------
    pools
        Those with tiers.
    """

    name = "kv_tiers"

    def __init__(self, pools: Sequence[PoolTiers]) -> None:
        self._pools = tuple(pools)
        self._made: list[tuple[PoolTiers, Figures, list[Level]]] = []

    def attach(self, control: Control) -> None:
        """Stand behind the prefix caches of the pools' replicas."""
        remote: TierStore | None = None
        for pool in self._pools:
            figures, totals = Figures(), [TierFigures() for _ in pool.tiers]
            levels_made: list[Level] = []
            for index in pool.replicas:
                replica = control.cluster.replicas[index]
                kv = replica.kv
                if not isinstance(kv, TieredKVManager):
                    continue  # nothing has an identity
                unit_bytes = kv.unit_tokens * pool.kv_bytes_per_token
                levels = []
                for spec, total in zip(pool.tiers, totals, strict=True):
                    if spec.where == "remote":
                        if remote is None:
                            remote = _store(spec, unit_bytes, kv.unit_tokens)
                        levels.append(Level(spec, remote, total))
                    else:
                        levels.append(Level(spec, _store(spec, unit_bytes, kv.unit_tokens), total))
                ReplicaTiers(control, replica, kv, levels, pool.choice, unit_bytes, figures)
                levels_made += levels
            self._made.append((pool, figures, levels_made))

    def describe(self) -> dict[str, Any]:
        """Return the summary's section; bytes and tokens over all replicas of a pool."""
        return {"pools": {pool.pool: _described(pool, figures, levels) for pool, figures, levels in self._made}}


def _store(spec: TierSpec, unit_bytes: int, unit_tokens: int) -> TierStore:
    return TierStore(spec.capacity_bytes // unit_bytes, unit_tokens, spec.eviction())


def _described(pool: PoolTiers, figures: Figures, levels: Sequence[Level]) -> dict[str, Any]:
    if not levels:
        return {"tiers": [], "reason": "no KV has an identity: no prefix caching, or a trace without block identities"}
    tiers = []
    unit_tokens = levels[0].store.unit_tokens
    unit_bytes = unit_tokens * pool.kv_bytes_per_token
    for spec in pool.tiers:
        same = [level for level in levels if level.spec is spec]
        stores = list({id(level.store): level.store for level in same}.values())
        total = same[0].figures
        tiers.append(
            {
                "tier": spec.where,
                "write": spec.write,
                "eviction": spec.eviction_name,
                "stores": len(stores),
                "capacity_bytes": sum(store.capacity for store in stores) * unit_bytes,
                "peak_bytes": sum(store.peak for store in stores) * unit_bytes,
                "held_bytes": sum(len(store) for store in stores) * unit_bytes,
                "loaded_tokens": total.loaded * unit_tokens,
                "loaded_bytes": total.loaded * unit_bytes,
                "written_bytes": total.written * unit_bytes,
                "kept_in_passing_bytes": total.passing * unit_bytes,
                "evicted_bytes": total.evicted * unit_bytes,
                "refused_bytes": total.refused * unit_bytes,
            }
        )
    return {
        "tiers": tiers,
        "load_or_recompute": pool.choice,
        "loads": figures.loads,
        "loaded_tokens": figures.loaded_tokens,
        "recomputes": figures.recomputes,
        "recomputed_tokens": figures.recomputed_tokens,
        "loads_given_up": figures.dropped,
        "load_wait_s": _times(figures.waits),
        "memory_wait_s": _times(figures.memory_waits),
        "reason": None,
    }


def _times(times_ns: list[int]) -> dict[str, float | None]:
    """Return mean, median, 99th percentile and maximum of times, s; None without any."""
    if not times_ns:
        return {"mean": None, "p50": None, "p99": None, "max": None}
    p50, p99 = (float(value) / NS_PER_S for value in np.percentile(np.array(times_ns, dtype=np.int64), (50, 99)))
    return {"mean": sum(times_ns) / len(times_ns) / NS_PER_S, "p50": p50, "p99": p99, "max": to_s(max(times_ns))}


__all__ = ["KVTiersFeature", "PoolTiers", "TierSpec"]

"""Prefetching: while a request queues, what it will want is read from flash or the remote pool into host memory.

As SGLang's HiCache does (``--hicache-storage-prefetch-policy``): what is cached on the GPUs or in host memory is looked
up when the request arrives, and reading what follows it begins. When the request could be admitted, ``best-effort``
stops and takes what has come; ``wait-complete`` lets the request stand aside until all of it has. HiCache's timeout
between the two is not modelled, nor its least length (256 tokens).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from simulator.engine.kv import CacheUnit
from simulator.engine.sequence import WAITING
from simulator.engine.sequence import Sequence as Request
from simulator.kv_tiers.levels import Level
from simulator.kv_tiers.store import Item

if TYPE_CHECKING:
    from simulator.engine.control import Control
    from simulator.engine.replica import Replica
    from simulator.network.flows import FlowGroup

Pieces = list[tuple[Level, list[Item]]]


@dataclass(eq=False)
class _Fetch:
    """Units of one level on their way to host memory; those that host memory had room for."""

    level: Level
    items: list[Item]
    group: FlowGroup | None = None


@dataclass(eq=False)
class _Prefetch:
    """What is read for one request."""

    fetches: list[_Fetch] = field(default_factory=list)
    pinned: list[tuple[Level, list[CacheUnit]]] = field(default_factory=list)

    def unpin(self) -> None:
        for level, units in self.pinned:
            level.store.unpin(units)
        self.pinned = []


class Prefetcher:
    """Prefetches for the requests of one replica into its host memory.

    Parameters
    ----------
    host
        That tier.
    find
        Returns where the units of a request are, behind those cached on the GPUs; between two steps.
    gave_up
        Told what host memory gave up for others.
    complete
        Called with a request when all of it has come.
    """

    def __init__(
        self,
        control: Control,
        replica: Replica,
        host: Level,
        unit_bytes: int,
        *,
        find: Callable[[Request], Pieces],
        gave_up: Callable[[Level, Sequence[Item]], None],
        complete: Callable[[Request], None],
    ) -> None:
        self._control = control
        self._replica = replica
        self._host = host
        self._unit_bytes = unit_bytes
        self._find = find
        self._gave_up = gave_up
        self._complete = complete
        self._under_way: dict[Request, _Prefetch] = {}
        replica.enqueued = self._enqueued

    def _enqueued(self, sequence: Request) -> None:
        self._replica.between_steps(partial(self._look, sequence))

    def _look(self, sequence: Request, _: int) -> None:
        if self._control.live.get(sequence.request_id) is not sequence or sequence.state is not WAITING:
            return
        wanted = [(level, items) for level, items in self._find(sequence) if level.spec.prefetch != "none"]
        if wanted:
            pinned = [(level, level.store.pin(item.identity for item in items)) for level, items in wanted]
            self._control.soon(partial(self._begin, sequence, _Prefetch(pinned=pinned), wanted))

    def _begin(self, sequence: Request, prefetch: _Prefetch, wanted: Pieces) -> None:
        live = self._control.live.get(sequence.request_id) is sequence
        if not live or sequence.state is not WAITING or not self._control.is_alive(self._replica.index):
            prefetch.unpin()
            return
        host, network = self._host, self._control.network
        for level, items in wanted:
            accepted, evicted = host.store.reserve([item for item in items if not host.store.knows(item.identity)])
            self._gave_up(host, evicted)
            if accepted:
                fetch = _Fetch(level, accepted)
                parts = network.parts(level.spec.where, "host", self._replica.index, len(accepted) * self._unit_bytes)
                fetch.group = network.start(parts, partial(self._came, sequence, fetch), label="kv-tiers prefetch")
                prefetch.fetches.append(fetch)
        if prefetch.fetches:
            self._under_way[sequence] = prefetch
        else:
            prefetch.unpin()

    def _came(self, sequence: Request, fetch: _Fetch, _: int) -> None:
        prefetch = self._under_way.get(sequence)
        if prefetch is None or fetch not in prefetch.fetches:
            return  # it was given up in this very moment
        self._note(fetch, len(fetch.items))
        prefetch.fetches.remove(fetch)
        if not prefetch.fetches:
            del self._under_way[sequence]
            prefetch.unpin()
            self._complete(sequence)

    def _note(self, fetch: _Fetch, number: int) -> None:
        """Put the first so many units into host memory, and give up the room of the others."""
        self._host.store.written(fetch.items[:number])
        self._host.store.forget(fetch.items[number:])
        fetch.level.figures.prefetched += number

    def is_under_way(self, sequence: Request) -> bool:
        """Tell whether something is being read for a request."""
        return sequence in self._under_way

    def must_wait(self, sequence: Request) -> bool:
        """Tell whether a request that could be admitted stands aside; if not, what hasn't come yet never will."""
        prefetch = self._under_way.get(sequence)
        if prefetch is None:
            return False
        if any(fetch.level.spec.prefetch == "wait-complete" for fetch in prefetch.fetches):
            return True
        del self._under_way[sequence]
        for fetch in prefetch.fetches:
            assert fetch.group is not None
            moved = fetch.group.num_bytes - fetch.group.remaining_bytes
            self._note(fetch, moved // self._unit_bytes)
        self._control.soon(partial(self._stop, prefetch))
        return False

    @staticmethod
    def _stop(prefetch: _Prefetch) -> None:
        prefetch.unpin()
        for fetch in prefetch.fetches:
            if fetch.group is not None:
                fetch.group.cancel()

    def lost(self) -> None:
        """Stop everything: host memory is gone."""
        under_way, self._under_way = self._under_way, {}
        for prefetch in under_way.values():
            self._stop(prefetch)


__all__ = ["Prefetcher"]

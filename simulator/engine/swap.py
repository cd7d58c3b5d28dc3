"""Swapping KV to host memory: what fits there, how long copies take, and which copies are still on their way.

A copy is many calls: one for the keys and one for the values of each layer and of each run of blocks that lie together.
Calls are submitted one after the other and copied as they come, so a copy takes what submitting or what moving its
bytes takes, whichever is longer. The link is full duplex: copies out and in queue separately, first come, first served.
Each tensor-parallel rank moves its own share over its own host link at the same time.

A copy is *waited for* (the step that it makes room for starts when it is done, as in vLLM v0, where cache operations
come before the model runs) or goes on while others compute: the blocks of a request that goes out are then free when
its copy is done, and one that comes in takes its blocks at once and can be scheduled when its copy is done.

Copies may go over links that others use too (`SharedLinks`, of `simulator.swap_links`): when they are done is not known
when they begin then, and the lane hears of it (`Lane.copied`).
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Protocol

from simulator.engine.clock import to_ns
from simulator.engine.links import Link

UNKNOWN_NS = 1 << 62
"""Stands for the time at which a copy over shared links is done."""


class SharedLinks(Protocol):
    """Moves one replica's copies over links that others use too."""

    def begin(self, owner: Hashable, way: str, num_bytes: int, calls_ns: int, waited_for: bool) -> None:
        """Begin a copy, or let it queue: its bytes on each rank, and what submitting its calls takes."""
        ...

    def cancel(self, owner: Hashable) -> None:
        """Give up a request's copies that are not done; nobody hears of them any more."""
        ...


@dataclass(frozen=True, slots=True)
class SwapConfig:
    """How an engine copies blocks.

    Attributes
    ----------
    call_s
        Seconds that submitting one copy takes.
    calls_per_run
        Copies that each run of blocks takes: keys and values of each layer.
    blocks_per_call
        Blocks that lie together: a run has so many, the last one what is left.
    keep_copies
        Keep the copy of a request that comes back, so that only what was added since goes out the next time.
    """

    call_s: float = 0.0
    calls_per_run: int = 1
    blocks_per_call: int = 1
    keep_copies: bool = False


NO_CALLS = SwapConfig()
"""Copies that take what moving their bytes takes."""


class SwapSpace:
    """Host memory for the KV of swapped-out requests, and the link to it.

    Parameters
    ----------
    capacity_blocks
        KV blocks that fit, over all ranks of the replica.
    block_bytes
        Bytes of one block on one rank.

    Attributes
    ----------
    used
        Blocks there, copies kept included.
    refused, swaps_out, swaps_in, bytes_moved
        Totals; those refused didn't fit.
    blocks_kept
        Blocks that needn't go out as their copy had been kept.
    links
        What moves the copies; None: the replica's own link, which nobody else uses.
    """

    __slots__ = (
        "_block_bytes",
        "_busy_until_ns",
        "_capacity",
        "_config",
        "_held",
        "_kept",
        "_link",
        "blocks_kept",
        "bytes_moved",
        "links",
        "refused",
        "swaps_in",
        "swaps_out",
        "used",
    )

    def __init__(self, capacity_blocks: int, block_bytes: int, link: Link | None, config: SwapConfig) -> None:
        self._capacity = capacity_blocks
        self._block_bytes = block_bytes
        self._link = link
        self._config = config
        if link is None and capacity_blocks:
            raise ValueError("swap space needs a link to host memory")
        self._held: dict[Hashable, int] = {}
        # Copies of requests that are back: blocks there, and those of them that are full, which stay what they are.
        self._kept: dict[Hashable, tuple[int, int]] = {}
        self._busy_until_ns = {"out": 0, "in": 0}
        self.used = 0
        self.refused = 0
        self.swaps_out = 0
        self.swaps_in = 0
        self.bytes_moved = 0
        self.blocks_kept = 0
        self.links: SharedLinks | None = None

    @property
    def in_use(self) -> int:
        """Blocks of requests that are out; without those of copies kept of others."""
        return sum(self._held.values())

    def put(self, owner: Hashable, blocks: int, now_ns: int, *, waited_for: bool = True) -> int | None:
        """Move a request's blocks out; return when that is done, None (counted in ``refused``) if they don't fit.

        Over shared links it is done at a time that is not known: `UNKNOWN_NS`.
        """
        there, full = self._kept.get(owner, (0, 0))
        if self.used - there + blocks > self._capacity and self._kept:
            self._drop_kept(self.used - there + blocks - self._capacity, owner)
        if self.used - there + blocks > self._capacity:
            self.refused += 1
            return None
        self._kept.pop(owner, None)
        self._held[owner] = blocks
        self.used += blocks - there
        self.swaps_out += 1
        self.blocks_kept += full
        return self._move(owner, "out", blocks - full, now_ns, waited_for)

    def take(self, owner: Hashable, full_blocks: int, now_ns: int, *, waited_for: bool = True) -> int:
        """Move a request's blocks back, of which so many are full; return when that is done."""
        blocks = self._held.pop(owner)
        if self._config.keep_copies:
            self._kept[owner] = (blocks, full_blocks)
        else:
            self.used -= blocks
        self.swaps_in += 1
        return self._move(owner, "in", blocks, now_ns, waited_for)

    def forget(self, owner: Hashable) -> None:
        """Give up what is there, or on its way, of a request that ended, or that nobody will ask for."""
        if self.links is not None:
            self.links.cancel(owner)
        if owner in self._kept:
            self.used -= self._kept.pop(owner)[0]
        elif owner in self._held:
            self.used -= self._held.pop(owner)

    def _drop_kept(self, blocks: int, owner: Hashable) -> None:
        """Give up copies of others, the oldest first, until there is room for so many blocks more."""
        for other in [each for each in self._kept if each is not owner]:
            if blocks <= 0:
                return
            there = self._kept.pop(other)[0]
            self.used -= there
            blocks -= there

    def _move(self, owner: Hashable, way: str, blocks: int, now_ns: int, waited_for: bool) -> int:
        config = self._config
        assert self._link is not None  # nothing is held without one
        moved = blocks * self._block_bytes
        self.bytes_moved += moved
        calls = -(-blocks // config.blocks_per_call) * config.calls_per_run
        calls_ns = to_ns(calls * config.call_s)
        if self.links is not None:
            self.links.begin(owner, way, moved, calls_ns, waited_for)
            return UNKNOWN_NS
        took_ns = max(self._link.transfer_ns(moved), calls_ns)
        end_ns = max(now_ns, self._busy_until_ns[way]) + took_ns
        self._busy_until_ns[way] = end_ns
        return end_ns

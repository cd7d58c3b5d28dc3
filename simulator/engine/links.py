"""Links that bytes go over. One flow at a time here; sharing among flows comes with the cluster's fabric."""

from __future__ import annotations

from dataclasses import dataclass

from simulator.engine.clock import to_ns


@dataclass(frozen=True, slots=True)
class Link:
    """A link with a latency and a bandwidth.

    Attributes
    ----------
    name
        What it is, for the result, e.g. ``"pcie gen4 x16"``.
    bandwidth
        Bytes/s, one direction.
    latency_s
        Time before the first byte arrives, seconds.
    """

    name: str
    bandwidth: float
    latency_s: float

    def transfer_ns(self, num_bytes: int) -> int:
        """Return the time that so many bytes take alone on the link, whole ns, at least 1."""
        return max(1, to_ns(self.latency_s + num_bytes / self.bandwidth))


class SwapSpace:
    """Host memory for the KV of swapped-out requests, and the link to it.

    A swap is done before the step that it makes room for computes, as in vLLM v0, where cache operations come before
    the model runs. Each tensor-parallel rank moves its own share over its own host link at the same time.

    Parameters
    ----------
    capacity_blocks
        KV blocks that fit, over all ranks of the replica.
    block_bytes
        Bytes of one block on one rank.
    """

    __slots__ = (
        "_block_bytes",
        "_capacity",
        "_held",
        "_link",
        "bytes_moved",
        "refused",
        "swaps_in",
        "swaps_out",
        "used",
    )

    def __init__(self, capacity_blocks: int, block_bytes: int, link: Link | None) -> None:
        self._capacity = capacity_blocks
        self._block_bytes = block_bytes
        self._link = link
        if link is None and capacity_blocks:
            raise ValueError("swap space needs a link to host memory")
        self._held: dict[object, int] = {}
        self.used = 0
        self.refused = 0
        self.swaps_out = 0
        self.swaps_in = 0
        self.bytes_moved = 0

    def put(self, owner: object, blocks: int) -> int | None:
        """Move blocks out; return the time in ns, None (counted in ``refused``) if they don't fit."""
        if self.used + blocks > self._capacity:
            self.refused += 1
            return None
        self._held[owner] = blocks
        self.used += blocks
        self.swaps_out += 1
        return self._move(blocks)

    def take(self, owner: object) -> int:
        """Move an owner's blocks back; return the time in ns."""
        blocks = self._held.pop(owner)
        self.used -= blocks
        self.swaps_in += 1
        return self._move(blocks)

    def drop(self, owner: object) -> None:
        """Forget an owner's blocks: nobody will ask for them."""
        self.used -= self._held.pop(owner)

    def _move(self, blocks: int) -> int:
        assert self._link is not None  # nothing is held without one
        moved = blocks * self._block_bytes
        self.bytes_moved += moved
        return self._link.transfer_ns(moved)

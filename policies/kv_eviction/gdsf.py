"""Greedy-Dual-Size-Frequency."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from policies.protocols import CachedBlockView, KVEvictionPolicy


@dataclass
class Gdsf(KVEvictionPolicy):
    """Greedy-Dual-Size-Frequency: smallest age + frequency x cost / size goes first.

    The age is the rank of the last block evicted, and is part of a block's rank from its last release on, so
    that what is no longer found sinks below what is new. Here

    - frequency is how often the block was found, and once for being written;
    - cost is the tokens to compute again if it is needed after all;
    - size is the KV blocks that it occupies.

    Cost per size is the same for all full blocks of one engine, so that among them this is least frequently
    used with ageing. Attention over the prefix, which makes later tokens dearer, is left out of the cost on
    purpose: it would evict the beginning of a prefix before its end, and an end without its beginning can't
    be found.
    """

    name: ClassVar[str] = "gdsf"
    source: ClassVar[str] = (
        "Cherkasova, Improving WWW Proxies Performance with Greedy-Dual-Size-Frequency Caching Policy, HP Labs"
        " HPL-98-69R1, 1998"
    )

    def reset(self) -> None:
        """Begin at age 0."""
        self._age = 0.0

    def rank(self, block: CachedBlockView) -> float:
        """Return its age at this release plus what it is worth."""
        return self._age + (block.hits + 1) * block.num_tokens / block.num_blocks

    def evicted(self, rank: float) -> None:
        """Advance the age to the rank of what was evicted."""
        self._age = max(self._age, rank)

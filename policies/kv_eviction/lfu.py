"""Least frequently used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from policies.protocols import CachedBlockView, KVEvictionPolicy


@dataclass
class Lfu(KVEvictionPolicy):
    """Least frequently used: the block that was found least often is evicted first, ties by release.

    Hits count since the block was cached, without ageing: what was popular once stays (see ``gdsf`` for
    ageing).
    """

    name: ClassVar[str] = "lfu"
    source: ClassVar[str] = "SGLang python/sglang/srt/mem_cache/evict_policy.py LFUStrategy"

    def rank(self, block: CachedBlockView) -> float:
        """Return how often it was found."""
        return float(block.hits)

"""First in, first out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from policies.protocols import CachedBlockView, KVEvictionPolicy


@dataclass
class Fifo(KVEvictionPolicy):
    """First in, first out: the block that was written first is evicted first, however often it was found since.

    The beginning of a prefix is older than its end and goes before it, which leaves the end unreachable: the
    price of this rule, and the reason to compare others with it.
    """

    name: ClassVar[str] = "fifo"
    source: ClassVar[str] = "SGLang python/sglang/srt/mem_cache/evict_policy.py FIFOStrategy"

    def rank(self, block: CachedBlockView) -> float:
        """Return the order in which it was first written."""
        return float(block.cached_order)

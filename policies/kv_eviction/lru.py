"""Least recently used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from policies.protocols import CachedBlockView, KVEvictionPolicy


@dataclass
class Lru(KVEvictionPolicy):
    """Least recently used: the block that was let go longest ago is evicted first.

    vLLM keeps free blocks in a queue, appends those of an ended request last block first, and takes from its
    head: the order of release, and within one prefix the end before the beginning. A hit takes the block out
    of the queue; it comes back to the end when it is released again.
    """

    name: ClassVar[str] = "lru"
    source: ClassVar[str] = (
        "vLLM vllm/v1/core/kv_cache_utils.py FreeKVCacheBlockQueue; SGLang mem_cache/evict_policy.py"
    )

    in_release_order: ClassVar[bool] = True

    def rank(self, block: CachedBlockView) -> float:
        """Return the order of its release."""
        return float(block.released_order)

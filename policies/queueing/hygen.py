"""Online requests first; offline ones in an order that keeps those together which share a prefix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from policies.protocols import QueueingPolicy, RequestView, param

_MASK = (1 << 64) - 1


@dataclass
class Hygen(QueueingPolicy):
    """Online requests in the order of arrival, then offline ones in the order of a walk through the tree of prefixes.

    An offline request is one of a priority number of at least ``offline_priority``. Offline requests with the same
    first blocks stand together, those with more blocks in common nearer together, as in a depth-first walk through the
    tree of their prefixes: what one computes is still cached when the next one starts. The order of branches is
    arbitrary (by a hash of their blocks), and three levels of blocks are looked at; requests that are alike so far, or
    without block identities, go in the order of arrival.

    From HyGen's prefix sharing maximization. Not modelled: its mixture with the time that a request has waited, which
    keeps offline requests from starving one another while new ones come: here a branch of the tree waits as long as
    others before it get new requests.
    """

    name: ClassVar[str] = "hygen"
    source: ClassVar[str] = (
        "Sun, Wang and Lai, HyGen: Efficient LLM Serving via Elastic Online-Offline Request Co-location, NeurIPS 2025,"
        " arXiv:2501.14808 (prefix sharing maximization)"
    )

    offline_priority: int = param(1, "priority number from which a request is an offline one")
    prefix_sharing: bool = param(True, "order offline requests by prefix, not by arrival")

    def key(self, request: RequestView) -> float:
        """Return 0 for an online request; for an offline one its place in the walk, between 1 and 2."""
        if request.priority < self.offline_priority:
            return 0.0
        place = 0
        for level, bits in enumerate((20, 16, 16) if self.prefix_sharing else ()):
            hashes = request.block_hashes
            place = (place << bits) | (_mixed(hashes[level]) >> (64 - bits) if level < len(hashes) else 0)
        return 1.0 + place / (1 << 52)


def _mixed(identity: int) -> int:
    """Return 64 well mixed bits of a block's identity: the finaliser of SplitMix64."""
    x = (identity * 0x9E3779B97F4A7C15) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)

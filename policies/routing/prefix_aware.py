"""SGLang's cache-aware router."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from policies.protocols import ArrivalView, ClusterView, RoutingPolicy, param


@dataclass
class PrefixAware(RoutingPolicy):
    """The replica that was sent the longest matching prefix, unless the load is out of balance.

    From SGLang's router, which asks replicas nothing and remembers what it sent where:

    - out of balance (the largest and the smallest number of outstanding requests differ by more than
      ``balance_abs_threshold`` and by more than the factor ``balance_rel_threshold``): the least loaded
      replica;
    - else, if more than ``cache_threshold`` of the prompt was sent before: the replica that it was sent to;
    - else the replica that the fewest remembered tokens belong to, which has most room in its cache.

    Prompts are remembered as the chained identities of their blocks. Since equal identities mean equal
    prefixes, and since the least recently sent blocks are forgotten first and of one prompt the last block
    first, what is remembered of a prompt is a beginning of it, and its length is found by bisection. Each
    block is remembered for the replica to which it was sent last (SGLang remembers all replicas and takes any
    of them).

    Requests without block identities go to the least loaded replica. Ties go to the first replica.
    """

    name: ClassVar[str] = "prefix-aware"
    source: ClassVar[str] = "sgl-project/sglang sgl-router/src/policies/cache_aware.rs (commit 026f853)"

    cache_threshold: float = param(0.3, "share of the prompt that must match for its replica to be chosen", ge=0, le=1)
    balance_abs_threshold: int = param(
        64, "difference of outstanding requests above which balance may be lost", unit="requests", ge=0
    )
    balance_rel_threshold: float = param(1.5, "ratio of outstanding requests above which balance may be lost", ge=1)
    max_blocks: int = param(1 << 20, "blocks remembered in all", unit="blocks", ge=1)

    def reset(self) -> None:
        """Begin with nothing remembered."""
        # Block to replica, least recently sent first. A plain dict would look for its first entry among all those that
        # were taken out before it.
        self._replica_of: OrderedDict[int, int] = OrderedDict()
        self._remembered = np.zeros(0, np.int64)

    def route(self, request: ArrivalView, cluster: ClusterView) -> int:
        """Return the replica, and remember that the prompt went there."""
        load = cluster.outstanding_requests
        ids = cluster.replica_ids
        lacking = ids[-1] + 1 - self._remembered.size
        if lacking > 0:
            self._remembered = np.concatenate([self._remembered, np.zeros(lacking, np.int64)])
        least_loaded = int(load.argmin())
        hashes = request.block_hashes
        if not len(hashes):
            return least_loaded
        most, least = int(load[load.argmax()]), int(load[least_loaded])
        if most - least > self.balance_abs_threshold and most > least * self.balance_rel_threshold:
            chosen = least_loaded
        else:
            chosen = self._by_prefix(request, hashes, ids)
        self._remember(hashes, ids[chosen])
        return chosen

    def _by_prefix(self, request: ArrivalView, hashes: Sequence[int], ids: Sequence[int]) -> int:
        known = self._replica_of
        matched, beyond = 0, len(hashes) + 1
        while beyond - matched > 1:
            middle = (matched + beyond) // 2
            if hashes[middle - 1] in known:
                matched = middle
            else:
                beyond = middle
        if matched * request.block_size_tokens > self.cache_threshold * request.prompt_tokens:
            replica = known[hashes[matched - 1]]
            if replica in ids:
                return ids.index(replica)
        remembered = self._remembered
        return int((remembered if len(ids) == remembered.size else remembered[list(ids)]).argmin())

    def _remember(self, hashes: Sequence[int], replica: int) -> None:
        known, remembered = self._replica_of, self._remembered
        replica_of, move_to_end = known.get, known.move_to_end
        added = 0
        for block in reversed(hashes):
            before = replica_of(block, -1)
            if before != replica:
                known[block] = replica
                added += 1
                if before >= 0:
                    remembered[before] -= 1
            if before >= 0:
                move_to_end(block)
        remembered[replica] += added
        while len(known) > self.max_blocks:
            _, forgotten = known.popitem(last=False)
            remembered[forgotten] -= 1

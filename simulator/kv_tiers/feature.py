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

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.engine.clock import NS_PER_S, to_s
from simulator.engine.tiered_kv import TieredKVManager
from simulator.errors import InputError
from simulator.kv_tiers.levels import Figures, Level, PoolTiers, TierFigures, TierSpec
from simulator.kv_tiers.replica_tiers import ReplicaTiers
from simulator.kv_tiers.store import TierStore

if TYPE_CHECKING:
    from simulator.engine.control import Control


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
                            remote = _store(spec, unit_bytes, kv.unit_tokens, pool.pool)
                        levels.append(Level(spec, remote, total))
                    else:
                        levels.append(Level(spec, _store(spec, unit_bytes, kv.unit_tokens, pool.pool), total))
                ReplicaTiers(control, replica, kv, levels, pool.choice, unit_bytes, figures)
                levels_made += levels
            self._made.append((pool, figures, levels_made))

    def describe(self) -> dict[str, Any]:
        """Return the summary's section; bytes and tokens over all replicas of a pool."""
        return {"pools": {pool.pool: _described(pool, figures, levels) for pool, figures, levels in self._made}}


def _store(spec: TierSpec, unit_bytes: int, unit_tokens: int, pool: str) -> TierStore:
    if spec.capacity_bytes < unit_bytes:
        raise InputError(
            f"kv_tiers of pool {pool!r}: the tier {spec.where!r} of {spec.capacity_bytes / 1e6:.3g} MB holds not one "
            f"block of {unit_tokens} tokens, which has {unit_bytes / 1e6:.3g} MB; raise its capacity_gib"
        )
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
                "prefetched_bytes": total.prefetched * unit_bytes,
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
        "prefetch_wait_s": _times(figures.prefetch_waits),
        "reason": None,
    }


def _times(times_ns: list[int]) -> dict[str, float | None]:
    """Return mean, median, 99th percentile and maximum of times, s; None without any."""
    if not times_ns:
        return {"mean": None, "p50": None, "p99": None, "max": None}
    p50, p99 = (float(value) / NS_PER_S for value in np.percentile(np.array(times_ns, dtype=np.int64), (50, 99)))
    return {"mean": sum(times_ns) / len(times_ns) / NS_PER_S, "p50": p50, "p99": p99, "max": to_s(max(times_ns))}


__all__ = ["KVTiersFeature"]

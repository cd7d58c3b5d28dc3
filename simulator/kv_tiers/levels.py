"""What a tier is, and what it did: of a scenario, of a replica, of a pool's summary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from policies.protocols import KVEvictionPolicy
from simulator.kv_tiers.store import TierStore

Where = Literal["host", "flash", "remote"]
Write = Literal["write-through", "on-second-use", "on-evict"]
Choice = Literal["auto", "always-load", "always-recompute"]


Prefetch = Literal["none", "best-effort", "wait-complete"]


@dataclass(frozen=True)
class TierSpec:
    """A tier as the scenario has it, ready to be made.

    Attributes
    ----------
    capacity_bytes
        Of a replica, or of the whole remote pool.
    eviction
        Makes its policy.
    """

    where: Where
    capacity_bytes: int
    eviction: Callable[[], KVEvictionPolicy]
    eviction_name: str
    write: Write
    prefetch: Prefetch = "none"


@dataclass(frozen=True)
class PoolTiers:
    """Tiers of the replicas of one pool.

    Attributes
    ----------
    kv_bytes_per_token
        Of a replica, all heads of all layers once.
    """

    pool: str
    replicas: Sequence[int]
    tiers: Sequence[TierSpec]
    choice: Choice
    kv_bytes_per_token: int


@dataclass
class TierFigures:
    """What one tier of one pool did, over all of its replicas; units of KV."""

    loaded: int = 0
    written: int = 0
    evicted: int = 0
    refused: int = 0
    passing: int = 0
    prefetched: int = 0


@dataclass
class Figures:
    """What became of requests; times in ns, tokens."""

    loads: int = 0
    recomputes: int = 0
    loaded_tokens: int = 0
    recomputed_tokens: int = 0
    dropped: int = 0
    waits: list[int] = field(default_factory=list)
    memory_waits: list[int] = field(default_factory=list)
    prefetch_waits: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Level:
    """A tier as one replica has it."""

    spec: TierSpec
    store: TierStore
    figures: TierFigures


__all__ = ["Choice", "Figures", "Level", "PoolTiers", "Prefetch", "TierFigures", "TierSpec", "Where", "Write"]

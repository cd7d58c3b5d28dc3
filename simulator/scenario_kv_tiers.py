"""The part of a pool that says where cached KV goes when it leaves the GPUs, and what is loaded from there."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from simulator.scenario_base import Part, PolicyRef

ORDER = ("host", "flash", "remote")
"""Tiers from the nearest to the farthest."""


class TierEvictionRef(PolicyRef):
    """The policy that chooses what a tier gives up."""

    kind: ClassVar[str] = "kv_eviction"


class KVTier(Part):
    """One tier behind the GPUs' memory."""

    tier: Literal["host", "flash", "remote"]
    """``host``: memory of the replica's nodes. ``flash``: their local drives. ``remote``: a pool behind the fabric that
    all replicas share, of all pools that name one (Mooncake Store)."""
    capacity_gib: Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
    """Of each replica (``host``, ``flash``), or of the whole pool (``remote``), GiB."""
    eviction: TierEvictionRef = Field(default_factory=lambda: TierEvictionRef(name="lru"))
    """What goes first when it is full."""
    write: Literal["write-through", "on-second-use", "on-evict"] = "write-through"
    """When KV comes here from the tier before (the GPUs, for the first). ``write-through``: when it is there (vLLM's
    offloading, LMCache, HiCache's default). ``on-second-use``: when it is found there again (HiCache's
    write_through_selective). ``on-evict``: when it is evicted there (HiCache's write_back)."""
    prefetch: Literal["none", "best-effort", "wait-complete"] = "none"
    """Read what a request will want from here into host memory while it queues (not for ``host``, which it needs).
    ``best-effort``: until it could be admitted. ``wait-complete``: it is not admitted before (HiCache's policies)."""


class KVTiers(Part):
    """Tiers behind the prefix cache; a list of them alone will do."""

    tiers: Annotated[tuple[KVTier, ...], Field(strict=False, min_length=1)]
    """From the nearest to the farthest."""
    load_or_recompute: Literal["auto", "always-load", "always-recompute"] = "auto"
    """What becomes of a prefix found there. ``auto``: it is loaded as far as that takes less time than computing it."""

    @model_validator(mode="before")
    @classmethod
    def _from_list(cls, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return {"tiers": value}
        if isinstance(value, Mapping) and "tier" in value:
            return {"tiers": [value]}
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [each.tier for each in self.tiers]
        if names != sorted(set(names), key=ORDER.index):
            raise ValueError(f"each tier once, in the order {', '.join(ORDER)}; got {', '.join(names)}")
        if any(each.prefetch != "none" for each in self.tiers) and names[0] != "host":
            raise ValueError("'prefetch' brings KV into host memory; name the tier 'host' too")
        if self.tiers[0].tier == "host" and self.tiers[0].prefetch != "none":
            raise ValueError("'prefetch' brings KV into host memory; leave it out for the tier 'host'")
        return self


__all__ = ["ORDER", "KVTier", "KVTiers"]

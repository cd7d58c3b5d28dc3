"""What KV tiers did, in a line for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def tiers_line(pool: Mapping[str, Any]) -> str:
    """Return one pool's part of the summary's section ``kv_tiers`` in one line."""
    if not pool["tiers"]:
        return f"nothing: {pool['reason']}"
    parts = [
        f"{each['tier']} {each['loaded_bytes'] / 1e9:,.1f} GB loaded, {each['written_bytes'] / 1e9:,.1f} GB written"
        for each in pool["tiers"]
    ]
    parts.append(f"{pool['loads']:,} requests loaded {pool['loaded_tokens']:,} tokens")
    if pool["recomputes"]:
        parts.append(f"{pool['recomputes']:,} computed what was there")
    if pool["load_wait_s"]["p50"] is not None:
        parts.append(f"a load took {1e3 * pool['load_wait_s']['p50']:,.1f} ms (median)")
    return "; ".join(parts)


__all__ = ["tiers_line"]

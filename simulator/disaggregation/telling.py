"""What a disaggregated run did, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def disaggregation_line(section: Mapping[str, Any]) -> str:
    """Return the summary's section in a line: how many requests were handed over, and what they waited for."""
    pools = ", ".join(f"{count} {role}" for role, count in section["replicas"].items() if count)
    if not section["handovers"]:
        return f"{pools}: no request went from one pool to another"
    waits = (("memory", "memory_wait_s"), ("KV", "transfer_s"), ("a step", "entry_s"))
    means = ", ".join(f"{section[key]['mean'] * 1e3:.1f} ms for {what}" for what, key in waits)
    sent = section["bytes"] / section["handovers"] / 1e6
    line = f"{pools}: {section['handovers']:,} requests, {sent:,.1f} MB each, mean wait {means}"
    if section.get("moves_to_mixed"):
        line += f"; {section['moves_to_mixed']:,} times a machine became mixed"
    return line


__all__ = ["disaggregation_line"]

"""What broke, who was let in, and what clients did, for the terminal: lines of label, text and style."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_MOST_REASONS = 2


def control_lines(summary: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield the lines of the sections ``admission``, ``clients`` and ``faults`` that a run has."""
    for name, tell in (("admission", _admission), ("clients", _clients), ("faults", _faults)):
        if summary[name]:
            yield name.capitalize(), tell(summary[name]), ""


def _admission(section: Mapping[str, Any]) -> str:
    line = f"{section['policy']} rejected {section['rejected']:,} of {section['attempts']:,} attempts"
    reasons = list(section["reasons"].items())
    said = "; ".join(f"{count:,}: {reason}" for reason, count in reasons[:_MOST_REASONS])
    more = len(reasons) - _MOST_REASONS
    return line + (f" ({said}{f'; {more} more reasons' if more > 0 else ''})" if said else "")


def _clients(section: Mapping[str, Any]) -> str:
    parts = [f"{section['attempts']:,} attempts at {section['requests']:,} requests"]
    if section["finished_per_attempt"] is not None:
        parts.append(f"{section['finished_per_attempt'] * 100:.1f} % of them finished")
    gave_up = sum(section["gave_up"].values())
    if gave_up:
        parts.append(f"gave up {gave_up:,} times")
    left = section["not_retried"]["budget_empty"]
    if left:
        parts.append(f"{left:,} not tried again for want of budget")
    return ", ".join(parts)


def _faults(section: Mapping[str, Any]) -> str:
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in section["by_kind"].items())
    if not kinds:
        return "nothing broke"
    parts = [kinds]
    if section["availability"] is not None:
        parts.append(f"replicas available {section['availability'] * 100:.2f} % of the time")
    if section["requests_lost"] or section["requests_sent_in_vain"]:
        parts.append(
            f"{section['requests_lost']:,} requests lost and {section['requests_sent_in_vain']:,} sent to dead replicas"
        )
        treated = [f"{count:,} {way}" for way, count in section["lost_requests"].items() if count]
        if treated:
            parts.append(" and ".join(treated))
    return ", ".join(parts)


__all__ = ["control_lines"]

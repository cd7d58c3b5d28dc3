"""A link that bytes go over, one flow at a time; flows that share links are in `simulator.network`."""

from __future__ import annotations

from dataclasses import dataclass

from simulator.engine.clock import to_ns


@dataclass(frozen=True, slots=True)
class Link:
    """A link with a latency and a bandwidth.

    Attributes
    ----------
    name
        What it is, for the result, e.g. ``"pcie gen4 x16"``.
    bandwidth
        Bytes/s, one direction.
    latency_s
        Time before the first byte arrives, seconds.
    """

    name: str
    bandwidth: float
    latency_s: float

    def transfer_ns(self, num_bytes: int) -> int:
        """Return the time that so many bytes take alone on the link, whole ns, at least 1."""
        return max(1, to_ns(self.latency_s + num_bytes / self.bandwidth))

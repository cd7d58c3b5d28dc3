"""A rate limit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from policies.protocols import AdmissionPolicy, AdmissionView, ArrivalView, param


@dataclass
class TokenBucket(AdmissionPolicy):
    """Lets in at a mean rate, with bursts: a bucket fills at ``rate`` up to ``burst``, and each request empties it.

    One bucket for all, or one for each tenant, as the rate limits of model APIs are. A request costs one (``unit:
    requests``), or its prompt and its predicted output, without a predictor the prompt alone (``unit: tokens``). One
    that costs more than a full bucket holds is let in when the bucket is full, and empties it.
    """

    name: ClassVar[str] = "token-bucket"
    source: ClassVar[str] = "Turner, New directions in communications, IEEE Communications Magazine 24(10), 1986"

    rate: float = param(10.0, "what the bucket gains each second", unit="a second", gt=0)
    burst: float = param(20.0, "what it holds at most, and at the beginning", gt=0)
    unit: str = param("requests", "what is counted", choices=("requests", "tokens"))
    per: str = param("all", "who shares a bucket", choices=("all", "tenant"))

    def reset(self) -> None:
        """Begin with full buckets."""
        self._buckets: dict[str, tuple[float, float]] = {}  # of each tenant: level, and at what time

    def admit(self, request: ArrivalView, cluster: AdmissionView) -> str:
        """Take the request's cost out of its bucket, if it is there."""
        cost = 1.0
        if self.unit == "tokens":
            predicted = request.predicted_output_tokens
            cost = request.prompt_tokens + (0.0 if predicted != predicted else predicted)
        whose = request.tenant if self.per == "tenant" else ""
        now = cluster.now_s
        level, before = self._buckets.get(whose, (self.burst, now))
        level = min(self.burst, level + (now - before) * self.rate)
        let_in = level >= min(cost, self.burst)
        self._buckets[whose] = (max(0.0, level - cost) if let_in else level, now)
        of = " of its tenant" if self.per == "tenant" else ""
        return "" if let_in else f"beyond the rate{of}: {self.rate:g} {self.unit} a second"

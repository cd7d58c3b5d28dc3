"""By the time to the first token that is to be expected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from policies.admission._prefill_rate import PrefillRate
from policies.protocols import AdmissionPolicy, AdmissionView, ArrivalView, param


@dataclass
class SloAware(AdmissionPolicy):
    """Rejects a request whose first token is to be expected later than the objective.

    Expected: the prompt tokens that wait for their first token, the request's own among them, over the rate at which
    the cluster computes prompts, measured as the most in any window so far. Until a window has passed everybody is let
    in. That load is uneven between replicas, or prompts are cached, it doesn't see. The objective is the scenario's for
    all requests unless it is given here.
    """

    name: ClassVar[str] = "slo-aware"
    source: ClassVar[str] = (
        "after Zhou et al., Overload Control for Scaling WeChat Microservices (DAGOR), SoCC 2018: load is shed by the"
        " queueing time, not by the response time; Little's law for the estimate"
    )

    ttft_s: float | None = param(None, "longest time to the first token", unit="seconds", gt=0, objective="ttft_s")
    window_s: float = param(10.0, "time over which the rate of prompts is measured", unit="seconds", gt=0)
    margin: float = param(1.0, "share of the objective that the estimate may reach", gt=0)

    def reset(self) -> None:
        """Begin with nothing measured."""
        self._rate = PrefillRate(self.window_s)

    def admit(self, request: ArrivalView, cluster: AdmissionView) -> str:
        """Compare the estimate with the objective."""
        rate = self._rate.look(cluster.now_s, cluster.started_tokens)
        if not rate or self.ttft_s is None:
            return ""
        expected_s = (cluster.waiting_tokens + request.prompt_tokens) / rate
        if expected_s <= self.ttft_s * self.margin:
            return ""
        return f"its first token would come later than {self.ttft_s * self.margin:g} s"

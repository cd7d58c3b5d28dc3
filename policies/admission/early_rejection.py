"""Mooncake's early rejection: by the load that decoding will have when the prompt has been computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from policies.admission._prefill_rate import PrefillRate
from policies.protocols import AdmissionPolicy, AdmissionView, ArrivalView, param


@dataclass
class EarlyRejection(AdmissionPolicy):
    """Rejects, before its prompt is computed, a request that couldn't be decoded within the objectives.

    Rejecting it only when it is to decode wastes its prefill. Looking at the decoding load of the moment instead, when
    it arrives, makes prefill and decoding take turns at being overloaded, since what is decided now weighs on decoding
    a prefill later. So the decoding load at the end of the prefill is predicted: all requests decode for the same time
    ``decode_s``; those that will have done so by then are gone, and those that wait for their prompt now, and stand
    before this one, are there. The request is rejected if more than ``max_decoding`` a replica would decode then, or if
    its first token is to be expected later than ``ttft_s``: the scenario's objective for all requests, unless given
    here.

    Different from Mooncake: the load of decoding is a number of requests, which the user chooses so that the time
    between tokens is met, where Mooncake predicts that time from its profiles; the rate of prompts is measured, not
    predicted from profiles and prefix hits; and ``predict`` off is its early rejection without prediction. With
    disaggregation ``max_decoding`` is for each replica that prefills: those that the router sees.
    """

    name: ClassVar[str] = "early-rejection"
    source: ClassVar[str] = (
        "Qin et al., Mooncake: A KVCache-centric Disaggregated Architecture for LLM Serving, arXiv 2407.00079, section"
        " on overload-oriented scheduling (early rejection based on prediction)"
    )

    max_decoding: int = param(64, "requests that decode at a time on a replica", unit="requests", ge=1)
    ttft_s: float | None = param(None, "longest time to the first token", unit="seconds", gt=0, objective="ttft_s")
    decode_s: float = param(
        0.0, "time that a request decodes; 0: the mean of those that finished", unit="seconds", ge=0
    )
    window_s: float = param(10.0, "time over which the rate of prompts is measured", unit="seconds", gt=0)
    predict: bool = param(True, "look at the end of the prefill; false: at this moment's load")

    def reset(self) -> None:
        """Begin with nothing measured."""
        self._rate = PrefillRate(self.window_s)

    def admit(self, request: ArrivalView, cluster: AdmissionView) -> str:
        """Predict both phases' load; whatever can't be predicted yet is no reason to reject."""
        rate = self._rate.look(cluster.now_s, cluster.started_tokens)
        prefill_s = (cluster.waiting_tokens + request.prompt_tokens) / rate if rate else 0.0
        if self.ttft_s is not None and prefill_s > self.ttft_s:
            return f"its first token would come later than {self.ttft_s:g} s"
        most = self.max_decoding * cluster.num_replicas
        if not self.predict:
            if cluster.decoding(0.0) >= most:
                return f"{most} requests decode"
            return ""
        decode_s = self.decode_s or cluster.mean_decode_s
        if decode_s != decode_s:
            return ""
        then_s = cluster.now_s + prefill_s
        staying = cluster.decoding(then_s - decode_s)
        if staying + cluster.waiting_requests >= most:
            return f"{most} requests would decode when its prompt is computed"
        return ""

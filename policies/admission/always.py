"""Everybody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from policies.protocols import AdmissionPolicy, AdmissionView, ArrivalView


@dataclass
class Always(AdmissionPolicy):
    """Everybody is let in, as by serving engines on their own: under overload queues grow without bound."""

    name: ClassVar[str] = "always"
    source: ClassVar[str] = "vLLM, SGLang: no limit on waiting requests by default"

    def admit(self, request: ArrivalView, cluster: AdmissionView) -> str:
        """Let the request in."""
        return ""

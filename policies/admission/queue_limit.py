"""A bound on what is outstanding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from policies.protocols import AdmissionPolicy, AdmissionView, ArrivalView, param


@dataclass
class QueueLimit(AdmissionPolicy):
    """Rejects while every replica, or the cluster, has as many requests outstanding as it may have.

    The bounded queue of load shedding: what is let in waits no longer than the bound takes to serve. Requests that run
    count as those that wait do, since a gateway can't tell them apart.
    """

    name: ClassVar[str] = "queue-limit"
    source: ClassVar[str] = (
        "Site Reliability Engineering (Beyer et al., 2016), chapter 22, queue management; TensorRT-LLM and SGLang"
        " (--max-queued-requests) bound their queues likewise"
    )

    per_replica: int = param(256, "requests outstanding on a replica; 0: any number", unit="requests", ge=0)
    in_all: int = param(0, "requests outstanding on all replicas; 0: any number", unit="requests", ge=0)

    def admit(self, request: ArrivalView, cluster: AdmissionView) -> str:
        """Look at what is outstanding."""
        outstanding = cluster.outstanding_requests
        if self.per_replica and int(outstanding.min()) >= self.per_replica:
            return f"every replica has {self.per_replica} requests outstanding"
        if self.in_all and int(outstanding.sum()) >= self.in_all:
            return f"{self.in_all} requests are outstanding"
        return ""

"""The part of a scenario that says who is let in."""

from typing import ClassVar

from simulator.scenario_base import PolicyRef


class AdmissionRef(PolicyRef):
    """The policy that lets requests in or rejects them, before they are routed."""

    kind: ClassVar[str] = "admission"


__all__ = ["AdmissionRef"]

"""The part of a scenario that says how many replicas pools have over time, and what starting one takes."""

from typing import ClassVar

from simulator.scenario_base import PolicyRef, Seconds
from simulator.scenario_start import EngineStart


class ScalerRef(PolicyRef):
    """The policy that chooses how many replicas a pool has."""

    kind: ClassVar[str] = "scaling"


class StartUp(EngineStart):
    """What it takes until a replica that was asked for serves, one after the other."""

    provisioning_s: Seconds = 0.0
    """Until its GPUs are at hand and its process starts, seconds: a virtual machine, an image, a pod; 0: they are."""


__all__ = ["ScalerRef", "StartUp"]

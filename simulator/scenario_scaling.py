"""The part of a scenario that says how many replicas pools have over time, and what starting one takes."""

from __future__ import annotations

from typing import ClassVar, Literal

from simulator.scenario_base import Part, PolicyRef, Seconds

INIT_S = 58.0
"""From the start of a vLLM server's process to its readiness, without reading weights: vLLM issue 20264 (June 2025, a
3B model with cached compilation): ready after 59 s, of which 0.9 s read weights, 34 s initialised the engine (17 s of
it captured CUDA graphs), and the rest went into imports and processes. Issue 67 of run-ai/runai-model-streamer has 91 s
for the engine alone, with 46 s of compilation that wasn't cached."""


class ScalerRef(PolicyRef):
    """The policy that chooses how many replicas a pool has."""

    kind: ClassVar[str] = "scaling"


class StartUp(Part):
    """What it takes until a replica that was asked for serves, one after the other."""

    provisioning_s: Seconds = 0.0
    """Until its GPUs are at hand and its process starts, seconds: a virtual machine, an image, a pod; 0: they are."""
    weights: Literal["auto", "storage", "host"] = "auto"
    """Where weights are read from, over the cluster's links (key ``network``). ``storage``: the shared storage.
    ``host``: the host memory of its node. ``auto``: storage the first time, host memory from then on."""
    init_s: Seconds = INIT_S
    """Everything else until it serves, seconds: process, compilation or its cache, memory profiling, CUDA graphs."""


__all__ = ["INIT_S", "ScalerRef", "StartUp"]

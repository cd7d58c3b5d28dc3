"""What starting an engine takes, wherever a scenario starts one: a scaler's new replica, a repaired one."""

from typing import Literal

from simulator.scenario_base import Part, Seconds

INIT_S = 58.0
"""From the start of a vLLM server's process to its readiness, without reading weights: vLLM issue 20264 (June 2025, a
3B model with cached compilation): ready after 59 s, of which 0.9 s read weights, 34 s initialised the engine (17 s of
it captured CUDA graphs), and the rest went into imports and processes. Issue 67 of run-ai/runai-model-streamer has 91 s
for the engine alone, with 46 s of compilation that wasn't cached."""


class EngineStart(Part):
    """How an engine gets its weights, and how long the rest takes; one after the other."""

    weights: Literal["auto", "storage", "host", "none"] = "auto"
    """Where weights are read from, over the cluster's links (key ``network``). ``storage``: the shared storage.
    ``host``: the host memory of its node. ``auto``: host memory if an engine there has read them before and the server
    has not failed since, else storage. ``none``: in no time."""
    init_s: Seconds = INIT_S
    """Everything else until it serves, seconds: process, compilation or its cache, memory profiling, CUDA graphs."""


__all__ = ["INIT_S", "EngineStart"]

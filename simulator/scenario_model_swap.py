"""The part of a scenario that lets pools of different models share their GPUs."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from simulator.scenario_base import Duration, Part, Seconds, Text

WAKE_S = 0.1
"""What waking an engine that kept its process takes beside the copy of its weights: an assumption, from below. vLLM's
post on Sleep Mode (26 October 2025) has wake-ups of 0.1 to 0.8 s for models of 0.6 to 4 billion parameters on an A4000,
copies of their weights over PCIe included. Where a process begins anew (llama-swap), it is the 58 s and the like of
``cluster.start_up.init_s``."""


class ModelSwap(Part):
    """Pools whose i-th replicas are the same GPUs: each serves one pool's model at a time, and loads another's."""

    pools: Annotated[tuple[Text, ...], Field(strict=False, min_length=2)]
    """Names of the pools. Machine i begins with the model of pool i modulo their number loaded."""
    weights: Literal["auto", "storage", "host"] = "auto"
    """Where weights are read from, over the cluster's links (key ``network``). ``storage``: the shared storage.
    ``host``: the host memory of the machine's node. ``auto``: storage the first time, host memory from then on."""
    init_s: Seconds = WAKE_S
    """From when the weights are there until the model serves, seconds."""
    max_wait_s: Seconds = 0.0
    """How long a loaded model goes on taking requests while another one's wait, seconds, since they wait and since it
    was loaded; then it takes no more, and ends those that it has. 0: at once, as llama-swap, which waits for those in
    flight."""
    idle_s: Duration | None = None
    """A machine that has been idle for so long is given to a model whose machines all have as many requests as they
    may run, when one more arrives. Left out: a model that is loaded somewhere gets no further machine."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.pools)) != len(self.pools):
            raise ValueError("'pools' names a pool twice")
        return self


__all__ = ["WAKE_S", "ModelSwap"]

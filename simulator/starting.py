"""Starting engines: weights are read over the cluster's links, then the rest takes its time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from simulator.engine.clock import to_ns
from simulator.engine.control import Control
from simulator.scenario_start import EngineStart


class EngineStarts:
    """Starts the engines of a cluster as one part of its scenario says.

    ``auto`` reads from the host memory of a replica's nodes unless `Control.without_host_weights` names the replica:
    the operating system keeps files that were read in memory. Who starts an engine takes it out of there when it is
    ready. Not modelled: memory that something else takes, and a
    replica of the same model on the same node that has read them before.

    Parameters
    ----------
    weight_bytes
        That each replica of the cluster reads.
    """

    def __init__(self, control: Control, part: EngineStart, weight_bytes: Sequence[int]) -> None:
        self._control, self._part, self._weight_bytes = control, part, weight_bytes

    def start(
        self, indices: Sequence[int], ready: Callable[[], None], loaded: Callable[[int], None] | None = None
    ) -> None:
        """Start one engine.

        Parameters
        ----------
        indices
            Its replicas: one, or its attention data parallel ranks, which read side by side.
        ready
            Called when it could serve.
        loaded
            Called with the time that reading weights took, ns.
        """
        control, source = self._control, self._part.weights
        began = control.now_ns
        left = set(indices)

        def one_loaded(index: int, now: int) -> None:
            left.discard(index)
            if not left:
                if loaded is not None:
                    loaded(now - began)
                control.at(to_ns(self._part.init_s), ready)

        if source == "none":
            left.clear()
            one_loaded(-1, began)
            return
        for index in indices:
            from_host = source == "host" or (source == "auto" and index not in control.without_host_weights)
            read = control.network.host_to_gpu if from_host else control.network.storage_to_gpu
            read(index, self._weight_bytes[index], partial(one_loaded, index), label="weights")


__all__ = ["EngineStarts"]

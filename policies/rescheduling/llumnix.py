"""Llumnix: requests move from the replicas with the least freeness to those with the most."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from policies.protocols import (
    Move,
    ReplicaLoadView,
    ReschedulingPolicy,
    ReschedulingView,
    RunningRequestView,
    param,
)


@dataclass
class Llumnix(ReschedulingPolicy):
    """From the replicas of least freeness to those of most: the least urgent, shortest request first.

    The *freeness* of a replica is what is left of its memory when the virtual usage of its requests is taken off, over
    the requests: for how long its batch can go on growing. Virtual usage is the KV of a running request; of the
    first waiting one what it needs to start, so that room is made for it in one place (defragmentation); of the
    other waiting ones nothing. Running requests of high priority add headroom, so that others leave until the replica's
    memory is used to ``high_priority_blocks`` at most; a replica that is being drained has no freeness at all.

    In each round replicas below ``threshold`` are sources and those above destinations, the lowest paired with the
    highest. A replica sends one request at a time, and goes on with the next as long as it stays a source and
    the destination stays one. A destination has nobody waiting who was preempted; a source may be one for that alone.

    Units: blocks a request, as in the artifact and the later releases, where the default threshold of 3 (blocks of 16
    tokens) comes from; the paper speaks of decode steps. Rounds: the releases poll every 0.05 s.
    """

    name: ClassVar[str] = "llumnix"
    source: ClassVar[str] = (
        "Sun et al., Llumnix: Dynamic Scheduling for Large Language Model Serving, OSDI 2024, section 4.4 and algorithm"
        " 1; AlibabaPAI/llumnix llumnix/global_scheduler/migration_policy.py (defrag), migration_filter.py,"
        " instance_info.py (remaining_steps), config/default.py; artifact/63_serving_performance"
    )

    threshold: float = param(3.0, "freeness below which a replica sends, and above which it takes", unit="blocks", ge=0)
    interval_s: float = param(0.05, "time between two rounds", unit="seconds", gt=0)
    request: str = param(
        "shortest",
        "which request of the least urgent goes first: by its context, or the one admitted last",
        choices=("shortest", "longest", "last"),
    )
    high_priority: int = param(-1, "requests of this priority or a smaller number get headroom; -1: none do", ge=-1)
    high_priority_blocks: int = param(
        100,
        "KV to which a replica with such requests is to be used at most (assumption: 1,600 tokens of 16 a block; the"
        " paper measures at what load decoding is as quick as alone)",
        unit="blocks",
        ge=1,
    )

    def interval(self) -> float:
        """Return the time between two rounds."""
        return self.interval_s

    def freeness(self, load: ReplicaLoadView) -> float:
        """Return a replica's freeness, blocks a request; infinite without requests."""
        if not load.takes_requests:
            return -math.inf
        requests = load.num_running + (load.num_waiting > 0)
        if not requests:
            return math.inf
        return (load.free_blocks - load.first_waiting_blocks - self._headroom(load)) / requests

    def _headroom(self, load: ReplicaLoadView) -> int:
        if self.high_priority < 0 or not any(each.priority <= self.high_priority for each in load.running()):
            return 0
        return max(0, load.total_blocks - self.high_priority_blocks)

    def decide(self, view: ReschedulingView) -> Sequence[Move]:
        """Pair sources, ascending, with destinations, descending."""
        rated = [(self.freeness(load), load.replica, load) for load in view.replicas]
        sources = sorted((each for each in rated if self._sends(each[0], each[2])), key=lambda each: each[:2])
        takers = sorted((each for each in rated if self._takes(each[0], each[2])), key=lambda each: (-each[0], each[1]))
        moves = []
        for (_, _, source), (_, _, taker) in zip(sources, takers, strict=False):
            move = None if view.moving(source.replica) else self._move(source, taker, view)
            if move is not None:
                moves.append(move)
        return moves

    def follow(self, move: Move, view: ReschedulingView) -> Move | None:
        """Go on between the same two, if they still are what they were."""
        loads = {load.replica: load for load in view.replicas}
        source, taker = loads.get(move.source), loads.get(move.destination)
        if source is None or taker is None or view.moving(move.source):
            return None
        if not (self._sends(self.freeness(source), source) and self._takes(self.freeness(taker), taker)):
            return None
        return self._move(source, taker, view)

    def _sends(self, freeness: float, load: ReplicaLoadView) -> bool:
        return load.num_running > 0 and (freeness < self.threshold or load.num_preempted > 0)

    def _takes(self, freeness: float, load: ReplicaLoadView) -> bool:
        return load.takes_requests and freeness > self.threshold and not load.num_preempted

    def _move(self, source: ReplicaLoadView, taker: ReplicaLoadView, view: ReschedulingView) -> Move | None:
        able = [each for each in source.running() if each.is_decoding and not view.is_moving(each.request_id)]
        if not able:
            return None
        if source.takes_requests:
            least = max(each.priority for each in able)
            able = [each for each in able if each.priority == least]
        return Move(self._choose(able).request_id, source.replica, taker.replica)

    def _choose(self, able: Sequence[RunningRequestView]) -> RunningRequestView:
        if self.request == "last":
            return able[-1]
        sign = 1 if self.request == "shortest" else -1
        return min(able, key=lambda each: (sign * each.context_tokens, each.request_id))

"""Small clusters whose requests move between replicas, joined by one slow interface each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from policies.protocols import Move, ReschedulingPolicy, ReschedulingView, param
from simulator.engine.cluster import Cluster
from simulator.rescheduling.feature import MovingPool, ReschedulingFeature
from tests.disaggregation.support import network
from tests.engine.support import Request, build, check_invariants

KV_BYTES = 100_000


@dataclass
class Eager(ReschedulingPolicy):
    """Each round, every replica sends its longest request to the next one: as much moving as there can be."""

    name: ClassVar[str] = "eager"
    source: ClassVar[str] = "this test"
    interval_s: float = param(0.02, "time between rounds")
    goes_on: bool = param(False, "follow a move with another")

    def interval(self) -> float:
        return self.interval_s

    def decide(self, view: ReschedulingView) -> Sequence[Move]:
        takers = [load.replica for load in view.replicas if load.takes_requests]
        moves = []
        for load in view.replicas:
            able = [each for each in load.running() if each.is_decoding and not view.is_moving(each.request_id)]
            others = [taker for taker in takers if taker != load.replica]
            if able and others and not view.moving(load.replica):
                longest = max(able, key=lambda each: (each.context_tokens, each.request_id))
                to = next((taker for taker in others if taker > load.replica), others[0])
                moves.append(Move(longest.request_id, load.replica, to))
        return moves

    def follow(self, move: Move, view: ReschedulingView) -> Move | None:
        if not self.goes_on:
            return None
        return next((other for other in self.decide(view) if other.source == move.source), None)


@dataclass
class Once(Eager):
    """Only the first round moves anything."""

    name: ClassVar[str] = "once"

    def reset(self) -> None:
        self._done = False

    def decide(self, view: ReschedulingView) -> Sequence[Move]:
        if self._done:
            return []
        moves = super().decide(view)
        self._done = bool(moves)
        return moves


def serve(
    requests: Sequence[Request],
    mover: ReschedulingPolicy,
    *,
    replicas: int = 2,
    others: Sequence[Any] = (),
    gbit_per_s: float = 8.0,
    last_stage_max_blocks: int = 2,
    max_stages: int = 3,
    **options: Any,
) -> tuple[Cluster, ReschedulingFeature]:
    """Serve requests to their end, and check what holds for every run; the interface carries 1 GB/s by default."""
    pool = MovingPool("default", range(replicas), mover, KV_BYTES)
    feature = ReschedulingFeature([pool], last_stage_max_blocks=last_stage_max_blocks, max_stages=max_stages)
    cluster = build(requests, replicas=replicas, features=[feature, *others], **options)
    cluster.make_network = partial(network, replicas=replicas, gbit_per_s=gbit_per_s)
    cluster.run()
    cluster.stop()
    check_invariants(cluster, drained=True)
    assert cluster.control is not None
    assert not cluster.control.transits
    assert not feature._migrations
    return cluster, feature

"""Rescheduling as a feature of a cluster: rounds in which a policy chooses moves, and the migrations that follow.

Not modelled: what copying costs the GPUs at both ends (the Llumnix paper measured up to 1 % of a step's time), messages
between instances beside the copies themselves, replicas' loads that are known late (they are those of the instant of
the round). Requests that wait are not moved; those that prefill neither.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from policies.protocols import Move, PolicyError, ReplicaLoadView, ReschedulingPolicy
from simulator.engine.clock import to_ns
from simulator.engine.control import Control
from simulator.engine.recorder import Outcome
from simulator.engine.sequence import DECODING
from simulator.engine.sequence import Sequence as Request
from simulator.metrics import describe
from simulator.rescheduling.migration import Migration


@dataclass(frozen=True)
class MovingPool:
    """Replicas among which requests may move.

    Attributes
    ----------
    name
        Of the pool.
    replicas
        Indices, ascending.
    policy
        Their own instance.
    kv_bytes_per_token
        Of all layers and heads.
    """

    name: str
    replicas: Sequence[int]
    policy: ReschedulingPolicy
    kv_bytes_per_token: int


class PoolView:
    """One pool as its policy sees it: a `policies.protocols.ReschedulingView`."""

    def __init__(self, control: Control, pool: MovingPool, migrations: dict[int, Migration]) -> None:
        self._control, self._pool, self._migrations = control, pool, migrations

    @property
    def now_s(self) -> float:
        """The time, s."""
        return self._control.cluster.now_s

    @property
    def replicas(self) -> Sequence[ReplicaLoadView]:
        """Those that are up."""
        loads = self._control.cluster.loads
        return [loads[index] for index in self._pool.replicas if self._control.is_alive(index)]

    def moving(self, replica: int) -> int:
        """Return how many requests migrate from a replica."""
        return sum(migration.move.source == replica for migration in self._migrations.values())

    def is_moving(self, request_id: int) -> bool:
        """Tell whether a request is on its way, for whatever reason."""
        return request_id in self._control.transits


class ReschedulingFeature:
    """See the module.

    Parameters
    ----------
    pools
        Those whose requests may move.
    last_stage_max_blocks
        With so many blocks left to copy, or fewer, a request stops and they are copied.
    max_stages
        A migration that needs more copies than these is given up.

    Attributes
    ----------
    control
        Of the cluster, once attached.
    """

    name = "rescheduling"

    def __init__(self, pools: Sequence[MovingPool], *, last_stage_max_blocks: int, max_stages: int) -> None:
        self.pools = tuple(pools)
        self.last_stage_max_blocks = last_stage_max_blocks
        self.max_stages = max_stages
        self.control: Control
        self._migrations: dict[int, Migration] = {}  # under way, by row
        self._pool_of: dict[int, MovingPool] = {index: pool for pool in self.pools for index in pool.replicas}
        self._rounds = self._begun = self._moved = self._stages = self._bytes = 0
        self._failed: Counter[str] = Counter()
        self._downtimes: list[int] = []
        self._durations: list[int] = []

    def attach(self, control: Control) -> None:
        """Begin the rounds."""
        self.control = control
        control.on_end.append(self._ended)
        for pool in self.pools:
            control.every(to_ns(pool.policy.interval()), partial(self._round, pool))

    def _round(self, pool: MovingPool) -> None:
        self._rounds += 1
        for move in pool.policy.decide(PoolView(self.control, pool, self._migrations)):
            self._begin(pool, move)

    def _begin(self, pool: MovingPool, move: Move) -> None:
        """Begin a move, if it is possible."""
        control, who = self.control, f"rescheduling policy {pool.policy.name!r}"
        for index in (move.source, move.destination):
            if self._pool_of.get(index) is not pool or not control.is_alive(index):
                raise PolicyError(f"{who}: moves between replica {index}, which is no replica of its pool that is up")
        sequence = control.live.get(move.request_id)
        if sequence is None or sequence.replica != move.source or not sequence.on_replica:
            raise PolicyError(f"{who}: moves request {move.request_id}, which isn't at replica {move.source}")
        if sequence.state is not DECODING or move.request_id in control.transits:
            raise PolicyError(f"{who}: moves request {move.request_id}, which doesn't decode or is on its way already")
        if move.source == move.destination or not control.takes_requests(move.destination):
            raise PolicyError(f"{who}: moves to replica {move.destination}, which takes no requests or is the source")
        self._begun += 1
        self._migrations[move.request_id] = Migration(self, sequence, move, pool.kv_bytes_per_token)

    # --------------------------------------------------------------------------------- what migrations tell of

    def _ended(self, sequence: Request, _: int, __: Outcome) -> None:
        migration = self._migrations.get(sequence.request_id)
        if migration is not None:
            migration.ended()

    def moved(self, migration: Migration, now: int) -> None:
        """Hear that a request goes on at its destination."""
        del self._migrations[migration.sequence.request_id]
        self._moved += 1
        self._downtimes.append(now - migration.stopped_ns)
        self._note(migration, now)

    def failed(self, migration: Migration, reason: str) -> None:
        """Hear that a request stays where it is."""
        del self._migrations[migration.sequence.request_id]
        self._failed[reason] += 1
        self._note(migration, self.control.now_ns)

    def _note(self, migration: Migration, now: int) -> None:
        self._stages += migration.stages
        self._bytes += migration.sent_bytes
        self._durations.append(now - migration.began_ns)

    def follow(self, migration: Migration) -> None:
        """Ask what to move next between the replicas of a migration that is done."""
        pool = self._pool_of[migration.move.source]
        move = pool.policy.follow(migration.move, PoolView(self.control, pool, self._migrations))
        if move is not None:
            self._begin(pool, move)

    # ---------------------------------------------------------------------------------------------------- result

    def describe(self) -> dict[str, Any]:
        """Return the section of the summary; see docs/rescheduling.md."""
        return {
            "policies": {pool.name: pool.policy.name for pool in self.pools},
            "rounds": self._rounds,
            "begun": self._begun,
            "moved": self._moved,
            "failed": dict(sorted(self._failed.items())),
            "under_way": len(self._migrations),
            "copies": self._stages,
            "bytes": self._bytes,
            "downtime_s": describe(np.array(self._downtimes, dtype=np.int64)),
            "duration_s": describe(np.array(self._durations, dtype=np.int64)),
        }


__all__ = ["MovingPool", "PoolView", "ReschedulingFeature"]

"""Scaling as a feature of a cluster: replicas start cold, and are drained before they end.

All replicas that a pool may ever have exist from the beginning, those that it doesn't begin with closed and down, so
that their numbers and places never change. One that is asked for waits for its machine, reads its weights over the
cluster's links, which others may be using, and initialises; then routers may choose it. One that is to end takes no
more requests, and is down when its last one has ended or moved away (`simulator.rescheduling` moves them where there
is a rescheduler that does). Its cached prefixes are gone then. A replica is paid for, and draws idle power, from the
moment at which it is asked for until it is down.

Not modelled: replicas that fail to start, spot instances, different nodes for one replica each time.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Any

import numpy as np

from policies.protocols import PolicyError, ReplicaLoadView, ScalingPolicy
from simulator.engine.clock import NS_PER_S, to_ns, to_s
from simulator.engine.control import Control
from simulator.engine.recorder import Outcome
from simulator.engine.sequence import Sequence as Request
from simulator.metrics import describe
from simulator.scenario_scaling import StartUp
from simulator.starting import EngineStarts


class State(Enum):
    """What a replica of a pool that scales does."""

    DOWN = "down"
    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"


@dataclass
class ScaledPool:
    """Replicas of which some may be down.

    Attributes
    ----------
    name
        Of the pool.
    replicas
        Indices, ascending, of all that it may have.
    initial
        How many serve when the run begins.
    min_replicas
        Fewest that it may have.
    policy
        Its own instance.
    weight_bytes
        Read by a replica that starts.
    """

    name: str
    replicas: Sequence[int]
    initial: int
    min_replicas: int
    policy: ScalingPolicy
    weight_bytes: int
    started: int = 0
    ended: int = 0
    taken_back: int = 0
    peak: int = 0
    start_ns: list[int] = field(default_factory=list)
    load_ns: list[int] = field(default_factory=list)
    drain_ns: list[int] = field(default_factory=list)
    sizes: list[tuple[int, int, int, int]] = field(default_factory=list)
    """(time in ns, serving, starting, draining) after each change."""


@dataclass(frozen=True)
class Ended:
    """A request that ended: a `policies.protocols.EndedView`."""

    end_s: float
    ttft_s: float
    tpot_s: float


class PoolView:
    """One pool as its policy sees it: a `policies.protocols.ScalingView`."""

    def __init__(self, feature: ScalingFeature, pool: ScaledPool) -> None:
        self._feature, self._pool = feature, pool

    @property
    def now_s(self) -> float:
        """The time, s."""
        return self._feature.control.cluster.now_s

    @property
    def min_replicas(self) -> int:
        """Fewest replicas."""
        return self._pool.min_replicas

    @property
    def max_replicas(self) -> int:
        """Most replicas."""
        return len(self._pool.replicas)

    @property
    def replicas(self) -> Sequence[ReplicaLoadView]:
        """Loads of those that serve, without those that a fault has stopped."""
        loads = self._feature.control.cluster.loads
        return [loads[index] for index in self._feature.serving(self._pool)]

    @property
    def num_starting(self) -> int:
        """Replicas that start."""
        return len(self._feature.members(self._pool, State.STARTING))

    @property
    def num_draining(self) -> int:
        """Replicas that are being drained."""
        return len(self._feature.members(self._pool, State.DRAINING))

    @property
    def num_unrouted(self) -> int:
        """Requests for which there is no replica."""
        return self._feature.control.num_homeless

    @property
    def longest_wait_s(self) -> float:
        """The longest wait for a first token, s."""
        control = self._feature.control
        first_token = control.cluster.recorder.first_token
        mine = set(self._pool.replicas)
        arrivals = (
            sequence.arrival_ns
            for row, sequence in control.live.items()
            if first_token[row] < 0 and (sequence.replica in mine or not sequence.on_replica)
        )
        return to_s(control.now_ns - min(arrivals, default=control.now_ns))

    def ended(self, window_s: float) -> Sequence[Ended]:
        """Return those that ended within the window."""
        ended = self._feature.log[self._pool.name]
        return ended[bisect_right(ended, self.now_s - window_s, key=lambda each: each.end_s) :]


class ScalingFeature:
    """See the module.

    Parameters
    ----------
    pools
        Those that scale.
    start_up
        What starting takes.
    requeues
        Whether requests that wait at a replica that is to end are sent elsewhere.

    Attributes
    ----------
    control
        Of the cluster, once attached.
    log
        Requests that ended, by pool.
    """

    name = "scaling"

    def __init__(self, pools: Sequence[ScaledPool], start_up: StartUp, *, requeues: bool) -> None:
        self.pools = tuple(pools)
        self.control: Control
        self.log: dict[str, list[Ended]] = {pool.name: [] for pool in self.pools}
        self._start_up = start_up
        self._requeues = requeues
        self._pool_of = {index: pool for pool in self.pools for index in pool.replicas}
        self._state: dict[int, State] = {}
        self._since: dict[int, int] = {}  # when its state began, ns
        self._turn: dict[int, int] = dict.fromkeys(self._pool_of, 0)
        self._requeued = 0

    def attach(self, control: Control) -> None:
        """Close the replicas that pools don't begin with, and begin to decide."""
        self.control = control
        sizes = [0] * len(control.cluster.replicas)
        for index, pool in self._pool_of.items():
            sizes[index] = pool.weight_bytes
        self._starts = EngineStarts(control, self._start_up, sizes)
        for pool in self.pools:
            for place, index in enumerate(pool.replicas):
                self._state[index] = State.SERVING if place < pool.initial else State.DOWN
                self._since[index] = control.now_ns
            control.without_host_weights.update(self.members(pool, State.DOWN))
            for index in self.members(pool, State.DOWN):
                control.close(index)
                control.lose(index)
                control.goes_down(index)
            self._note(pool)
            control.every(to_ns(pool.policy.interval()), partial(self._decide, pool))
        control.on_end.append(self._ended)
        control.on_left.append(self._left)
        control.on_members.append(self._keep_closed)

    def members(self, pool: ScaledPool, state: State) -> list[int]:
        """Return the pool's replicas in a state."""
        return [index for index in pool.replicas if self._state[index] is state]

    def serving(self, pool: ScaledPool) -> list[int]:
        """Return the pool's replicas that serve, without those that a fault has stopped."""
        return [index for index in self.members(pool, State.SERVING) if self.control.is_alive(index)]

    # ----------------------------------------------------------------------------------------------- decisions

    def _decide(self, pool: ScaledPool) -> None:
        for index in self.members(pool, State.DRAINING):
            self._end_if_empty(index)
        view = PoolView(self, pool)
        wanted = min(max(pool.policy.decide(view), pool.min_replicas), len(pool.replicas))
        change = wanted - len(view.replicas) - view.num_starting
        draining = [index for index in self.members(pool, State.DRAINING) if self.control.is_alive(index)]
        for index in draining[: max(change, 0)]:
            self._take_back(pool, index)
            change -= 1
        for index in self.members(pool, State.DOWN)[: max(change, 0)]:
            self._start(pool, index)
        while change < 0 and len(self.serving(pool)) > min(wanted, 1):
            self._drain(pool, self._to_stop(pool))
            change += 1

    def _to_stop(self, pool: ScaledPool) -> int:
        index = pool.policy.stop(PoolView(self, pool))
        if index not in self.serving(pool):
            raise PolicyError(f"scaling policy {pool.policy.name!r}: stops replica {index!r}, which doesn't serve")
        return index

    def _enter(self, index: int, state: State) -> None:
        self._state[index], self._since[index] = state, self.control.now_ns
        self._turn[index] += 1
        self._note(self._pool_of[index])

    def _note(self, pool: ScaledPool) -> None:
        serving, starting, draining = (
            len(self.members(pool, state)) for state in (State.SERVING, State.STARTING, State.DRAINING)
        )
        pool.peak = max(pool.peak, serving)
        size = (self.control.now_ns, serving, starting, draining)
        if pool.sizes and pool.sizes[-1][0] == size[0]:
            pool.sizes.pop()
        pool.sizes.append(size)

    # ------------------------------------------------------------------------------------------------ starting

    def _start(self, pool: ScaledPool, index: int) -> None:
        pool.started += 1
        self.control.goes_up(index)
        self._enter(index, State.STARTING)
        self.control.at(to_ns(self._start_up.provisioning_s), partial(self._load, pool, index, self.control.now_ns))

    def _load(self, pool: ScaledPool, index: int, asked_ns: int) -> None:
        """Read the weights, and start the engine."""
        self._starts.start((index,), partial(self._ready, pool, index, asked_ns), pool.load_ns.append)

    def _ready(self, pool: ScaledPool, index: int, asked_ns: int) -> None:
        pool.start_ns.append(self.control.now_ns - asked_ns)
        self.control.without_host_weights.discard(index)
        self.control.restore(index)
        self._enter(index, State.SERVING)
        self.control.open(index)

    def _keep_closed(self, _: int) -> None:
        """Close a replica again that isn't to serve and that another feature opened."""
        for index, state in self._state.items():
            if state is not State.SERVING and self.control.takes_requests(index):
                self.control.close(index)

    # ------------------------------------------------------------------------------------------------ draining

    def _drain(self, pool: ScaledPool, index: int) -> None:
        self._enter(index, State.DRAINING)
        self.control.close(index)
        if self._requeues:
            replica = self.control.cluster.replicas[index]
            replica.between_steps(partial(self._requeue, index, self._turn[index]))
        self._look_later(index)

    def _requeue(self, index: int, turn: int, _: int) -> None:
        """Take what waits off a replica that is being drained, between two of its steps."""
        if self._turn[index] != turn:
            return
        control, replica = self.control, self.control.cluster.replicas[index]
        for sequence in [*replica.waiting, *(sequence for _, sequence in replica.arriving)]:
            replica.withdraw(sequence)
            control.cluster.left(sequence)
            self._requeued += 1
            control.soon(partial(self._send_elsewhere, sequence))
        self._look_later(index)

    def _send_elsewhere(self, sequence: Request) -> None:
        if self.control.live.get(sequence.request_id) is sequence and not sequence.on_replica:
            self.control.carry_on(sequence, self.control.now_ns)

    def _take_back(self, pool: ScaledPool, index: int) -> None:
        """Let a replica serve on that was being drained."""
        pool.taken_back += 1
        self._enter(index, State.SERVING)
        self.control.open(index)

    def _ended(self, sequence: Request, now: int, outcome: Outcome) -> None:
        index = sequence.replica
        pool = self._pool_of.get(index)
        if pool is None:
            return
        self.log[pool.name].append(self._figures(sequence, now, outcome))
        self._left(index)

    def _figures(self, sequence: Request, now: int, outcome: Outcome) -> Ended:
        first = self.control.cluster.recorder.first_token[sequence.request_id]
        if outcome is not Outcome.FINISHED or first < 0:
            return Ended(to_s(now), float("inf"), float("inf"))
        more = sequence.base_generated - 1
        return Ended(to_s(now), to_s(first - sequence.arrival_ns), to_s(now - first) / more if more > 0 else 0.0)

    def _left(self, index: int) -> None:
        if self._state.get(index) is State.DRAINING:
            self._look_later(index)

    def _look_later(self, index: int) -> None:
        self.control.soon(partial(self._end_if_empty, index))

    def _end_if_empty(self, index: int) -> None:
        control, pool = self.control, self._pool_of[index]
        if self._state[index] is not State.DRAINING or control.cluster.outstanding_requests[index]:
            return
        pool.ended += 1
        pool.drain_ns.append(control.now_ns - self._since[index])
        control.lose(index)
        control.goes_down(index)
        self._enter(index, State.DOWN)

    # ---------------------------------------------------------------------------------------------------- result

    def describe(self) -> dict[str, Any]:
        """Return the section of the summary; see docs/scaling.md."""
        end_ns = self.control.cluster.end_ns
        return {
            "start_up": self._start_up.model_dump(mode="json"),
            "requeued": self._requeued,
            "pools": {pool.name: self._describe(pool, end_ns) for pool in self.pools},
        }

    def _describe(self, pool: ScaledPool, end_ns: int) -> dict[str, Any]:
        up_ns = sum(self.control.up_ns(index, 0, end_ns) for index in pool.replicas)
        return {
            "policy": pool.policy.name,
            "min_replicas": pool.min_replicas,
            "max_replicas": len(pool.replicas),
            "started": pool.started,
            "ended": pool.ended,
            "taken_back": pool.taken_back,
            "peak_serving": pool.peak,
            "replica_s": up_ns / NS_PER_S,
            "mean_replicas": up_ns / end_ns if end_ns else None,
            "cold_start_s": describe(np.array(pool.start_ns, dtype=np.int64)),
            "weight_load_s": describe(np.array(pool.load_ns, dtype=np.int64)),
            "drain_s": describe(np.array(pool.drain_ns, dtype=np.int64)),
            "sizes": [
                {"t_s": to_s(at), "serving": serving, "starting": starting, "draining": draining}
                for at, serving, starting, draining in pool.sizes
            ],
        }


__all__ = ["ScaledPool", "ScalingFeature", "State"]

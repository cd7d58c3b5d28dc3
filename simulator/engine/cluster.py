"""The cluster: a source of requests, a router, replicas; runs to the end and hands over what was recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from simpy.core import StopSimulation
from simpy.events import Event

from policies.protocols import PolicyError, RoutingPolicy
from simulator.engine.clock import ARRIVALS, NS_PER_S, Boundary, Callbacks, Environment
from simulator.engine.recorder import Outcome, Recorder
from simulator.engine.replica import Replica, ReplicaConfig
from simulator.engine.sequence import ENDED, MOVING, Sequence, load_of

if TYPE_CHECKING:
    from simulator.engine.control import Control, Feature
    from simulator.engine.load import ReplicaLoad
    from simulator.engine.lockstep import Lockstep
    from simulator.network.cluster_network import ClusterNetwork
    from workloads import Source


@dataclass(frozen=True)
class Workload:
    """Requests as the engine takes them: columns of equal length, one row a request.

    Attributes
    ----------
    source
        When each row arrives; told of every end.
    prompt_tokens, output_tokens
        int64, shape (n,).
    predicted_output_tokens
        The predictor's estimate, float64, shape (n,); NaN without a predictor.
    class_codes, priorities, session_ids
        int64, shape (n,); all 0 (sessions: -1) where the trace has none.
    tenants
        Name by row; None where the trace has none.
    hash_offsets, hash_values, hash_block_tokens
        Chained block identities: row i has ``values[offsets[i]:offsets[i+1]]``; None where unknown.
    """

    source: Source
    prompt_tokens: npt.NDArray[np.int64]
    output_tokens: npt.NDArray[np.int64]
    predicted_output_tokens: npt.NDArray[np.float64]
    class_codes: npt.NDArray[np.int64]
    num_classes: int
    priorities: npt.NDArray[np.int64]
    session_ids: npt.NDArray[np.int64]
    tenants: SequenceOf[str] | None = None
    hash_offsets: npt.NDArray[np.int64] | None = None
    hash_values: npt.NDArray[np.int64] | None = None
    hash_block_tokens: int = 0


class Arrival:
    """An arriving request as a router sees it (`policies.protocols.ArrivalView`)."""

    __slots__ = ("_sequence", "block_size_tokens")

    def __init__(self, block_size_tokens: int) -> None:
        self.block_size_tokens = block_size_tokens
        self._sequence: Any = None

    request_id = property(lambda self: self._sequence.request_id)
    prompt_tokens = property(lambda self: self._sequence.prompt_tokens)
    predicted_output_tokens = property(lambda self: self._sequence.predicted_output_tokens)
    session_id = property(lambda self: self._sequence.session_id)
    tenant = property(lambda self: self._sequence.tenant)
    priority = property(lambda self: self._sequence.priority)

    @property
    def block_hashes(self) -> SequenceOf[int]:
        """Identities of the prompt's whole blocks; the trace may know those of the answer too, which nobody may see."""
        sequence = self._sequence
        if not self.block_size_tokens:
            return ()
        hashes: list[int] = sequence.hashes
        return hashes[: sequence.prompt_tokens // self.block_size_tokens]


class Cluster:
    """See the module; to a routing policy it is the `policies.protocols.ClusterView`.

    Parameters
    ----------
    configs
        One entry a replica; attention data parallel ranks are replicas that follow one another.
    rng
        The router's stream of random numbers.
    features
        What it does with requests beyond serving them; none: there is no `Control`.
    make_network
        Makes the links, the first time that a feature asks for them.

    Attributes
    ----------
    network
        The links; None where no feature has asked for them.
    """

    __slots__ = (
        "_arrival",
        "_class",
        "_coming",
        "_configs",
        "_first",
        "_hash_offsets",
        "_loads",
        "_next_arrival",
        "_num_following",
        "_output",
        "_predicted",
        "_priority",
        "_prompt",
        "_requests",
        "_session",
        "_tokens",
        "_when_next",
        "control",
        "end_ns",
        "env",
        "events",
        "in_system_ns",
        "last_event_ns",
        "lockstep",
        "make_network",
        "network",
        "num_arrived",
        "num_ended",
        "num_replicas",
        "num_truncated",
        "outstanding_requests",
        "outstanding_tokens",
        "recorder",
        "replicas",
        "rng",
        "router",
        "workload",
    )

    def __init__(
        self,
        configs: SequenceOf[ReplicaConfig],
        router: RoutingPolicy,
        workload: Workload,
        *,
        rng: np.random.Generator,
        sample_interval_ns: int,
        keep_batches: bool = False,
        fast_forward: bool = True,
        features: SequenceOf[Feature] = (),
        make_network: Callable[[Environment], ClusterNetwork] | None = None,
    ) -> None:
        self.env = Environment(initial_time=0)
        self.workload = workload
        self.recorder = Recorder(
            len(workload.prompt_tokens), workload.num_classes, sample_interval_ns, keep_batches=keep_batches
        )
        self.router = router
        self.rng = rng
        self.num_replicas = len(configs)
        self.outstanding_requests: npt.NDArray[np.int64] = np.zeros(len(configs), dtype=np.int64)
        self.outstanding_tokens: npt.NDArray[np.int64] = np.zeros(len(configs), dtype=np.int64)
        self._requests, self._tokens = self.outstanding_requests.data, self.outstanding_tokens.data
        self.outstanding_requests.flags.writeable = self.outstanding_tokens.flags.writeable = False
        self.replicas = [
            Replica(self.env, i, config, self.recorder, self._ended, fast_forward=fast_forward)
            for i, config in enumerate(configs)
        ]
        self._loads: tuple[ReplicaLoad, ...] | None = None
        self._configs = configs
        self.lockstep: list[Lockstep] = []
        if any(config.ranks > 1 for config in configs):
            from simulator.engine.lockstep import lockstep_groups

            self.lockstep = lockstep_groups(configs, self.replicas)
        self.router = self.by_rank(router)
        self._arrival = Arrival(workload.hash_block_tokens)
        self._prompt = np.ascontiguousarray(workload.prompt_tokens, dtype=np.int64).data
        self._output = np.ascontiguousarray(workload.output_tokens, dtype=np.int64).data
        self._predicted = np.ascontiguousarray(workload.predicted_output_tokens, dtype=np.float64).data
        self._class = np.ascontiguousarray(workload.class_codes, dtype=np.int64).data
        self._priority = np.ascontiguousarray(workload.priorities, dtype=np.int64).data
        self._session = np.ascontiguousarray(workload.session_ids, dtype=np.int64).data
        self._hash_offsets = None if workload.hash_offsets is None else np.ascontiguousarray(workload.hash_offsets).data
        self._first: Iterator[tuple[int, int]] = iter(())
        self._next_arrival = Boundary(self.env)
        self._when_next: Callbacks = [self._next_arrivals]
        self._coming: tuple[int, int] | None = None
        self._num_following = 0  # requests that an earlier one's end caused, and that are still to come
        self.num_arrived = 0
        self.num_ended = 0
        self.num_truncated = 0
        self.last_event_ns = 0
        self.end_ns = 0
        self.events = 0
        # Requests in the system, integrated over time (for Little's law), count x ns: when those left that did, less
        # when those came that did; `stop` adds those that are still there.
        self.in_system_ns = 0
        self.make_network = make_network
        self.network: ClusterNetwork | None = None
        self.control: Control | None = None
        if features:
            from simulator.engine.control import Control

            self.control = Control(self, features)

    def by_rank(self, router: RoutingPolicy) -> RoutingPolicy:
        """Return what a router becomes where replicas have attention data parallel ranks; else the router itself."""
        if not self.lockstep:
            return router
        from simulator.engine.rank_routing import RankRouting

        if isinstance(router, RankRouting):
            return router
        return RankRouting(router, self.replicas, self.lockstep, self._configs)

    @property
    def loads(self) -> tuple[ReplicaLoad, ...]:
        """What each replica reports of its load."""
        if self._loads is None:
            from simulator.engine.load import ReplicaLoad

            self._loads = tuple(ReplicaLoad(replica, self._takes_requests) for replica in self.replicas)
        return self._loads

    def _takes_requests(self, index: int) -> bool:
        return self.control is None or self.control.takes_requests(index)

    @property
    def is_over(self) -> bool:
        """Whether no request is under way or to come."""
        return self._coming is None and not self._num_following and self.num_ended == self.num_arrived

    @property
    def replica_ids(self) -> range:
        return range(self.num_replicas)

    @property
    def now_s(self) -> float:
        return self.env.now / NS_PER_S

    # ------------------------------------------------------------------------------------------------ running

    def run(self, until_ns: int | None = None) -> None:
        """Run until everything has ended, until ``until_ns`` (exclusive), or until `interrupt` is called."""
        self._first = iter(self.workload.source.first())
        self._coming = next(self._first, None)
        self._next_arrival.schedule(0, ARRIVALS, self._when_next)
        if until_ns is not None:
            self._stop_in(until_ns - self.env.now)
        self.env.run()

    def interrupt(self) -> None:
        """End `run` after the event in hand; nothing is lost. Safe to call from a signal handler."""
        self._stop_in(0)

    def _stop_in(self, delay_ns: int) -> None:
        # Before everything else of that instant.
        Boundary(self.env).schedule(delay_ns, -1, [StopSimulation.callback])

    def stop(self) -> None:
        """Close the books: apply what was done before now and leave the rest unfinished."""
        # Events that nobody waits for any more may have moved the clock on after the last request ended.
        self.end_ns = self.last_event_ns if self.num_ended == self.num_arrived else self.env.now
        # SimPy numbers events as it schedules them, so what it executed is known without counting in the hot path.
        self.events = next(self.env._eid) - len(self.env._queue)
        for group in self.lockstep:
            group.stop()
        for replica in self.replicas:
            replica.stop(self.end_ns)
        for sequence in () if self.control is None else self.control.live.values():
            if sequence.state is MOVING:  # on no lane, nor waiting
                self.recorder.write_progress(sequence)
        self.in_system_ns += (self.num_arrived - self.num_ended) * self.end_ns
        for histogram in self.recorder.itl:
            histogram.flush()

    def _next_arrivals(self, _: Event) -> None:
        """Take in the requests of this instant, and come back at the next one."""
        now, coming = self.env.now, self._coming
        while coming is not None:
            at_ns, row = coming
            if at_ns > now:
                self._coming = coming
                self._next_arrival.schedule(at_ns - now, ARRIVALS, self._when_next)
                return
            self._arrive(row, now)
            coming = next(self._first, None)
        self._coming = None

    def _follow_up(self, row: int, _: Event) -> None:
        self._num_following -= 1
        self._arrive(row, self.env.now)

    def _arrive(self, row: int, now: int) -> None:
        """Make the request of a row, ask the router, hand it over."""
        self.in_system_ns -= now
        self.num_arrived += 1
        self.recorder.arrival[row] = now
        workload = self.workload
        prompt = self._prompt[row]
        predicted = self._predicted[row]
        sequence = Sequence(
            row, now, prompt, self._output[row], predicted, self._class[row], self._priority[row], self._session[row]
        )
        sequence.arrival_order = self.num_arrived
        if workload.tenants is not None:
            sequence.tenant = workload.tenants[row]
        if self._hash_offsets is not None and workload.hash_values is not None:
            first, end = self._hash_offsets[row], self._hash_offsets[row + 1]
            sequence.hashes = workload.hash_values[first:end].tolist()
            sequence.hash_tokens = workload.hash_block_tokens
        if self.control is not None:
            self.control.arrive(sequence, now)
            return
        self.send(sequence, self._route(sequence) if self.num_replicas > 1 else 0, now)

    def send(self, sequence: Sequence, index: int, now: int) -> None:
        """Hand a request over to a replica."""
        weight = load_of(sequence)
        self.recorder.replica[sequence.request_id] = sequence.replica = index
        sequence.load_tokens = weight
        sequence.on_replica = True
        self._requests[index] += 1
        self._tokens[index] += weight
        replica = self.replicas[index]
        room = replica.limits.max_model_len - sequence.prompt_tokens
        truncated = 0 < room < sequence._output_tokens
        if truncated:
            sequence._output_tokens = room  # the engine ends it at max_model_len
        replica.enqueue(sequence, now)
        if truncated and sequence.state is not ENDED:
            self.num_truncated += 1

    def arrive_at(self, sequence: Sequence, index: int) -> None:
        """Count a request as one of a replica that it moves to; nothing is queued."""
        self.recorder.replica[sequence.request_id] = sequence.replica = index
        sequence.on_replica = True
        self._requests[index] += 1
        self._tokens[index] += sequence.load_tokens

    def left(self, sequence: Sequence) -> None:
        """Count a request no more as one of the replica that it was on."""
        sequence.on_replica = False
        self._requests[sequence.replica] -= 1
        self._tokens[sequence.replica] -= sequence.load_tokens
        if self.control is not None:
            for listener in self.control.on_left:
                listener(sequence.replica)

    def conclude(self, sequence: Sequence, now: int, outcome: Outcome, reason: str) -> None:
        """End a request that is on no replica."""
        sequence.state = ENDED
        self.recorder.end(sequence, now, outcome, reason)
        self._ended(sequence, now, outcome)

    def arrival_view(self, sequence: Sequence) -> Arrival:
        """Return a request as routers see it, until the next one is asked for."""
        self._arrival._sequence = sequence
        return self._arrival

    def _route(self, sequence: Sequence) -> int:
        index = self.router.route(self.arrival_view(sequence), self)
        if not 0 <= index < self.num_replicas:
            raise PolicyError(
                f"routing policy {self.router.name!r} chose replica {index!r}; it must be 0 to {self.num_replicas - 1}"
            )
        return int(index)

    def _ended(self, sequence: Sequence, end_ns: int, outcome: Outcome) -> None:
        """Count a request as ended, and let what follows from that come."""
        if sequence.on_replica:  # as in `left`, without the call
            sequence.on_replica = False
            self._requests[sequence.replica] -= 1
            self._tokens[sequence.replica] -= sequence.load_tokens
        self.in_system_ns += end_ns
        self.num_ended += 1
        self.last_event_ns = end_ns
        if self.control is not None:
            self.control.ended(sequence, end_ns, outcome)
        for at_ns, row in self.workload.source.ended(sequence.request_id, end_ns):
            self._num_following += 1
            Boundary(self.env).schedule(max(1, at_ns - end_ns), ARRIVALS, [partial(self._follow_up, row)])

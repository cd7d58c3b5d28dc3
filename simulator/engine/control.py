"""What happens to requests beyond arriving, running and ending: sent elsewhere, taken back, moved, lost, tried again.

A cluster without any of that has no `Control`, and pays nothing for it. Features (disaggregation, migration, scaling,
faults, clients that give up ...) each add what they do to one through `Feature.attach`; they know this module, not one
another.

Three rules keep a fast-forwarded run equal to a stepwise one. What changes the requests or the KV of a replica goes
through `Replica.between_steps`. What is read of a replica is read as of the steps that ended before now
(`Replica.used_blocks_at`, `Replica.context_at`), unless it is read between two of its steps. What follows elsewhere
from a replica's step, be it from `Replica.prefilled`, from something done between two of its steps or from the end of a
request, happens a nanosecond later (`Control.soon`). The end of a replica (`Control.lose`) is immediate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Sequence as SequenceOf
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from policies.protocols import PolicyError, RoutingPolicy
from simulator.engine.clock import ARRIVALS, NS_PER_S, Boundary
from simulator.engine.recorder import Outcome
from simulator.engine.sequence import MOVING, Sequence, load_of

if TYPE_CHECKING:
    from simulator.engine.cluster import Cluster
    from simulator.engine.load import ReplicaLoad
    from simulator.engine.replica import Replica
    from simulator.network.cluster_network import ClusterNetwork


_IDLE_TICKS = 1000


class Transit(Protocol):
    """A request between two replicas: its KV being copied, or waiting to be."""

    @property
    def replicas(self) -> SequenceOf[int]:
        """Indices of those that hold or keep KV for it."""
        ...

    def abort(self, now_ns: int) -> Sequence:
        """Stop it, give back what is kept for it elsewhere, and return the sequence, which holds what it held."""
        ...

    def destination_lost(self, now_ns: int) -> None:
        """Hear that the replica that it was going to is gone: go elsewhere, or stay.

        It is no transit any more when this is called, unless it makes itself one again.
        """
        ...


class Feature(Protocol):
    """Something that a cluster may have; made by `simulator.build` from one part of a scenario.

    Attributes
    ----------
    name
        Section of the summary that `describe` fills.
    """

    name: str

    def attach(self, control: Control) -> None:
        """Add what it does to a cluster that is about to run."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return its section of the summary when the run is over."""
        ...


class Scope:
    """Replicas that a router chooses among; to its policy it is the `policies.protocols.ClusterView`.

    Parameters
    ----------
    replica_ids
        Indices of the replicas in the cluster, ascending.
    """

    def __init__(
        self, control: Control, router: RoutingPolicy, replica_ids: SequenceOf[int], rng: np.random.Generator
    ) -> None:
        self._control = control
        self.router = router
        self.rng = rng
        self.members = tuple(replica_ids)
        self.replica_ids: SequenceOf[int] = self.members
        self.refresh()

    def refresh(self) -> None:
        """Look which members take requests now."""
        self.replica_ids = tuple(index for index in self.members if self._control.takes_requests(index))
        self._at = np.array(self.replica_ids, dtype=np.intp)

    @property
    def now_s(self) -> float:
        return self._control.now_ns / NS_PER_S

    @property
    def num_replicas(self) -> int:
        return len(self.replica_ids)

    @property
    def outstanding_requests(self) -> npt.NDArray[np.int64]:
        return self._control.cluster.outstanding_requests[self._at]

    @property
    def outstanding_tokens(self) -> npt.NDArray[np.int64]:
        return self._control.cluster.outstanding_tokens[self._at]

    @property
    def loads(self) -> SequenceOf[ReplicaLoad]:
        loads = self._control.cluster.loads
        return [loads[index] for index in self.replica_ids]

    def choose(self, sequence: Sequence) -> int | None:
        """Return the replica that the policy chooses for a request; None if none takes any."""
        if not self.replica_ids:
            return None
        arrival = self._control.cluster.arrival_view(sequence)
        chosen = self.router.route(arrival, self)
        if not 0 <= chosen < len(self.replica_ids):
            raise PolicyError(
                f"routing policy {self.router.name!r} chose replica {chosen!r}; it must be 0 to "
                f"{len(self.replica_ids) - 1}"
            )
        return self.replica_ids[chosen]


class Control:
    """See the module.

    Attributes
    ----------
    arrivals
        Where requests that arrive, or are tried again, are routed; a feature may replace it.
    before_routing
        Asked in order of each request, with the sequence and the time, before it is routed; True: it was dealt with
        (rejected, kept back), and is not routed.
    before_end
        Asked in order of each request that a feature is about to end (`conclude`), with the sequence, the time, the
        outcome and the reason; True: it was taken over (its client will try again), and doesn't end.
    on_end
        Called with the sequence, the time and the outcome when a request has ended for good; perhaps in a step.
    on_left
        Called with the number of a replica that a request has left without ending there.
    on_no_replica
        Called with the sequence and the time where no replica takes requests; by default the request waits for one.
    on_members
        Called with the time when replicas have begun or stopped to take requests.
    sent_in_vain
        Requests sent to each replica while it was dead.
    without_host_weights
        Replicas on whose nodes no engine has read the weights yet, or whose nodes have failed since.
    transits
        Requests between two replicas, by row.
    live
        Sequence of each request in the system, by row, wherever it is.
    """

    def __init__(self, cluster: Cluster, features: SequenceOf[Feature]) -> None:
        self.cluster = cluster
        self.env = cluster.env
        number = len(cluster.replicas)
        self._closed_by: list[set[str]] = [set() for _ in range(number)]
        self._dead_by: list[set[str]] = [set() for _ in range(number)]
        self._down: dict[int, list[list[int]]] = {}
        self.live: dict[int, Sequence] = {}
        self.transits: dict[int, Transit] = {}
        self._homeless: dict[int, Sequence] = {}
        self._stranded: dict[int, Sequence] = {}
        self.sent_in_vain = [0] * number
        self.without_host_weights: set[int] = set()
        self._ticks = 0
        self._idle_events = 0
        self.scopes: list[Scope] = []
        self.before_routing: list[Callable[[Sequence, int], bool]] = []
        self.before_end: list[Callable[[Sequence, int, Outcome, str], bool]] = []
        self.on_end: list[Callable[[Sequence, int, Outcome], None]] = []
        self.on_left: list[Callable[[int], None]] = []
        self.on_members: list[Callable[[int], None]] = []
        self.on_no_replica: Callable[[Sequence, int], None] = self._wait_for_a_replica
        self.arrivals = self.scope(cluster.router, range(number), cluster.rng)
        self.features = tuple(features)
        for feature in self.features:
            feature.attach(self)

    @property
    def now_ns(self) -> int:
        return self.env.now

    @property
    def network(self) -> ClusterNetwork:
        """The cluster's links, made now if nobody has asked before."""
        cluster = self.cluster
        if cluster.network is None:
            if cluster.make_network is None:
                raise ValueError("this cluster was made without links")
            cluster.network = cluster.make_network(self.env)
        return cluster.network

    def scope(self, router: RoutingPolicy, replica_ids: SequenceOf[int], rng: np.random.Generator) -> Scope:
        """Return a router's view of some replicas, kept up to date."""
        found = Scope(self, self.cluster.by_rank(router), replica_ids, rng)
        self.scopes.append(found)
        return found

    def at(self, delay_ns: int, act: Callable[[], None]) -> Boundary:
        """Do something later, at least 0 ns from now, before the steps of that instant; returns its event."""
        event = Boundary(self.env)
        event.schedule(delay_ns, ARRIVALS, [lambda _: act()])
        return event

    def soon(self, act: Callable[[], None]) -> Boundary:
        """Do something at the next nanosecond: what follows, elsewhere, from a replica's step.

        Of the steps of one instant some have been gone through and others not, and which depends on the replicas'
        numbers and on fast-forwarding; a nanosecond later all have.
        """
        return self.at(1, act)

    def every(self, interval_ns: int, act: Callable[[], None]) -> None:
        """Do something again and again, first after one interval, as long as requests are under way or to come.

        Where nothing but such ticks is to come, 1,000 of them are waited for: nobody can help the requests left then.
        """
        self._ticks += 1
        self.at(interval_ns, partial(self._tick, interval_ns, act, 0))

    def _tick(self, interval_ns: int, act: Callable[[], None], idle: int) -> None:
        self._ticks -= 1
        if self.cluster.is_over:
            return
        act()
        idle = idle + 1 if len(self.env._queue) <= self._ticks else 0
        if idle < _IDLE_TICKS:
            self._ticks += 1
            self.at(interval_ns, partial(self._tick, interval_ns, act, idle))

    def meanwhile(self, delay_ns: int, act: Callable[[], None]) -> None:
        """Do something later, if requests are under way or to come then: what alone keeps no run going.

        Where nothing but such events and ticks is to come, 1,000 of them are waited for, as `every` does.
        """
        self._ticks += 1
        self.at(delay_ns, partial(self._meanwhile, act))

    def _meanwhile(self, act: Callable[[], None]) -> None:
        self._ticks -= 1
        self._idle_events = self._idle_events + 1 if len(self.env._queue) <= self._ticks else 0
        if self._idle_events < _IDLE_TICKS and not self.cluster.is_over:
            act()

    def cancel(self, event: Boundary) -> None:
        """Let an event that has not come do nothing."""
        event.callbacks = []

    # ------------------------------------------------------------------------------------ replicas come and go

    def takes_requests(self, index: int) -> bool:
        """Tell whether routers may choose a replica: whether nobody keeps it closed."""
        return not self._closed_by[index]

    def is_alive(self, index: int) -> bool:
        """Tell whether a replica is up: whether what is sent there gets there."""
        return not self._dead_by[index]

    def open(self, index: int, by: str = "") -> None:
        """Let routers choose a replica again, as far as the one who closed it is concerned; others may keep it so."""
        self._set_closed(index, by, False)

    def close(self, index: int, by: str = "") -> None:
        """Let routers choose a replica no more; what is there stays, and ends there.

        Parameters
        ----------
        by
            Who: the name of a feature. Until all who closed it have opened it, it is closed.
        """
        self._set_closed(index, by, True)

    def _set_closed(self, index: int, by: str, closed: bool) -> None:
        closers = self._closed_by[index]
        accepted = not closers
        if closed:
            closers.add(by)
        else:
            closers.discard(by)
        accepts = not closers
        if accepts == accepted:
            return
        for scope in self.scopes:
            scope.refresh()
        now = self.now_ns
        for listener in self.on_members:
            listener(now)
        if accepts:
            homeless, self._homeless = self._homeless, {}
            for sequence in homeless.values():
                self.route(sequence, now)

    def lose(self, index: int, by: str = "") -> list[Sequence]:
        """Let a replica die at this instant; return the requests that were lost with it, in the order of arrival.

        They are on no replica then, and the caller decides what becomes of each: `try_again`, `carry_on` or
        `conclude`; if not at once, then only where `live` still has this very sequence. Close the replica first, unless
        routers don't know yet.

        Parameters
        ----------
        by
            Who: the name of a feature. Until all who let it die have restored it, it is dead.
        """
        self._dead_by[index].add(by)
        now = self.now_ns
        replica = self.cluster.replicas[index]
        replica.note_blocks()
        go_on = self._abort_transits(index)
        here = (sequence for sequence in self.live.values() if sequence.replica == index and sequence.on_replica)
        lost = [sequence for sequence in here if sequence.state is MOVING]
        for sequence in lost:
            replica.withdraw(sequence)
        lost += replica.lose_everything()
        for sequence in lost:
            self.cluster.left(sequence)
        for transit in go_on:
            transit.destination_lost(now)
        return sorted(lost, key=lambda sequence: sequence.arrival_order)

    def restore(self, index: int, by: str = "") -> None:
        """Let a replica that died be up again, empty, unless it is dead for another reason; routers: see `open`."""
        self._dead_by[index].discard(by)
        self.cluster.replicas[index].lanes[0].wake()  # for those who asked for something between its steps meanwhile

    def abandon(self, index: int) -> None:
        """Let requests on their way to a dead replica, that were sent since it died, hear that it is."""
        now = self.now_ns
        for transit in self._abort_transits(index):
            transit.destination_lost(now)

    def _abort_transits(self, index: int) -> list[Transit]:
        """Stop what is under way from or to a replica; return what can go on elsewhere, its request not there."""
        go_on = []
        for transit in [transit for transit in self.transits.values() if index in transit.replicas]:
            sequence = transit.abort(self.now_ns)
            del self.transits[sequence.request_id]
            is_there = sequence.on_replica or self.is_stranded(sequence.request_id)  # else it was never sent, or left
            if sequence.replica != index or not is_there:
                go_on.append(transit)
        return go_on

    def goes_down(self, index: int) -> None:
        """Note that a replica is paid for no more, and draws no power: its GPUs are given back."""
        self._down.setdefault(index, []).append([self.now_ns])

    def goes_up(self, index: int) -> None:
        """Note that one that was given back is paid for again."""
        self._down[index][-1].append(self.now_ns)

    @property
    def any_down(self) -> bool:
        """Whether a replica was ever given back."""
        return bool(self._down)

    def up_ns(self, index: int, start_ns: int, end_ns: int) -> int:
        """Return for how long between two times a replica was paid for."""
        up = end_ns - start_ns
        for begin, *end in self._down.get(index, ()):
            up -= max(0, min(end_ns, end[0] if end else end_ns) - max(start_ns, begin))
        return up

    # ---------------------------------------------------------------------------------------------- requests

    @property
    def num_homeless(self) -> int:
        """Requests that wait because no replica takes any."""
        return len(self._homeless)

    def arrive(self, sequence: Sequence, now: int) -> None:
        """Take in a request that has just reached the cluster."""
        self.live[sequence.request_id] = sequence
        self.route(sequence, now)

    def route(self, sequence: Sequence, now: int, scope: Scope | None = None) -> None:
        """Choose a replica for a request that is on none, and send it there."""
        row = sequence.request_id
        self.live[row] = sequence
        for ask in self.before_routing:
            if ask(sequence, now):
                return
        index = (scope or self.arrivals).choose(sequence)
        if index is None:
            self.on_no_replica(sequence, now)
        else:
            self.send(sequence, index, now)

    def _wait_for_a_replica(self, sequence: Sequence, now: int) -> None:
        self._homeless[sequence.request_id] = sequence

    def send(self, sequence: Sequence, index: int, now: int) -> None:
        """Send a request that is on no replica to one; it is stranded there if that is dead and nobody noticed yet."""
        self.live[sequence.request_id] = sequence
        if not self._dead_by[index]:
            self.cluster.send(sequence, index, now)
        else:
            self.sent_in_vain[index] += 1
            self.strand(sequence, index)

    def strand(self, sequence: Sequence, index: int) -> None:
        """Let a request that is on no replica wait for an answer from a dead one, among whose requests it counts."""
        sequence.load_tokens = load_of(sequence)
        self.cluster.arrive_at(sequence, index)
        sequence.on_replica = False
        self.live[sequence.request_id] = self._stranded[sequence.request_id] = sequence

    def recover(self, index: int) -> list[Sequence]:
        """Return the requests that are stranded on a replica, in the order of arrival; they are nowhere then."""
        found = [sequence for sequence in self._stranded.values() if sequence.replica == index]
        for sequence in found:
            transit = self.transits.pop(sequence.request_id, None)
            if transit is not None:
                transit.abort(self.now_ns)
            self._leave_stranded(sequence.request_id)
        return sorted(found, key=lambda sequence: sequence.arrival_order)

    def is_stranded(self, row: int) -> bool:
        """Tell whether a request waits for an answer from a dead replica."""
        return row in self._stranded

    def _leave_stranded(self, row: int) -> bool:
        sequence = self._stranded.pop(row, None)
        if sequence is None:
            return False
        self.cluster.left(sequence)
        return True

    def hold(self, sequence: Sequence) -> Sequence:
        """Keep a request that is on no replica for later; return what it is from now on, with the tokens it has.

        Others who knew it before see that it is another one now, and leave it alone.
        """
        held = sequence.successor()
        held.carry_on(sequence)
        held.recompute()
        self.live[sequence.request_id] = held
        return held

    def replica_of(self, sequence: Sequence) -> Replica:
        """Return the replica that a sequence was last sent to."""
        return self.cluster.replicas[sequence.replica]

    def withdraw(self, row: int, then: Callable[[Sequence, int], None]) -> None:
        """Take a request back from wherever it is, and hand it over with its progress; nothing if it ends before.

        It happens just after the step in flight has ended, if it is on a replica.
        """
        sequence = self.live.get(row)
        if sequence is None:
            return
        transit = self.transits.pop(row, None)
        if transit is not None:
            sequence = transit.abort(self.now_ns)
            self.live[row] = sequence
        self._homeless.pop(row, None)
        if self._leave_stranded(row) or not sequence.on_replica:
            then(sequence, self.now_ns)
            return
        self.replica_of(sequence).between_steps(partial(self._take_back, row, sequence, then))

    def _take_back(self, row: int, sequence: Sequence, then: Callable[[Sequence, int], None], now: int) -> None:
        if self.live.get(row) is not sequence or row in self.transits or row in self._stranded:
            self.soon(lambda: self.withdraw(row, then))  # it has ended, moved on, or been lost meanwhile
            return
        if sequence.on_replica:
            self.replica_of(sequence).withdraw(sequence)
            self.cluster.left(sequence)
        self.soon(partial(self._hand_over, row, sequence, then))

    def _hand_over(self, row: int, sequence: Sequence, then: Callable[[Sequence, int], None]) -> None:
        if self.live.get(row) is sequence:
            then(sequence, self.now_ns)
        else:
            self.withdraw(row, then)  # somebody else took it in that nanosecond

    def try_again(self, sequence: Sequence, now: int) -> None:
        """Begin a request that is on no replica anew: a new attempt, nothing kept of the one before."""
        recorder, row = self.cluster.recorder, sequence.request_id
        recorder.forget(row)
        recorder.attempts[row] += 1
        self.route(sequence.successor(), now)

    def carry_on(self, sequence: Sequence, now: int, scope: Scope | None = None) -> None:
        """Send a request that is on no replica to one that recomputes its KV, and keep the tokens that it has."""
        following = sequence.successor()
        following.carry_on(sequence)
        following.recompute()
        self.route(following, now, scope)

    def conclude(self, sequence: Sequence, now: int, outcome: Outcome, reason: str) -> None:
        """End a request that is on no replica, unless somebody takes it over (`before_end`)."""
        self._homeless.pop(sequence.request_id, None)
        self._leave_stranded(sequence.request_id)
        for ask in self.before_end:
            if ask(sequence, now, outcome, reason):
                return
        self.cluster.conclude(sequence, now, outcome, reason)

    def ended(self, sequence: Sequence, now: int, outcome: Outcome) -> None:
        """Hear from the cluster that a request has ended for good."""
        del self.live[sequence.request_id]
        for listener in self.on_end:
            listener(sequence, now, outcome)

    def describe(self) -> Mapping[str, dict[str, Any]]:
        """Return the features' sections of the summary."""
        return {feature.name: feature.describe() for feature in self.features}

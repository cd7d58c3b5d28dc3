"""Faults as a feature of a cluster: replicas die and come back, steps and links become slow.

A replica that dies loses its requests, its queue and all KV at that instant, the step in flight included. Until that is
noticed, the gateway waits for answers that won't come and routers go on choosing it. Then its requests are begun
anew, carried on elsewhere or failed. After its repair it loads its weights over the links, starts, and serves when
health checks find it.

Not modelled: a GPU's loss doesn't shrink the replica to fewer GPUs, spare nodes don't take its place, collectives
within a replica don't see slow links, probes find neither stragglers nor slow links, silent corruption, and what a
connection that breaks at once tells the gateway before a probe does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from simulator.engine.clock import Boundary, to_ns, to_s
from simulator.engine.control import Control
from simulator.engine.recorder import Outcome
from simulator.engine.sequence import Sequence as Request
from simulator.errors import InputError
from simulator.faults.components import Component, Components
from simulator.faults.times import noticed_down_ns, noticed_up_ns, time_to_failure_ns, time_to_repair_ns
from simulator.rng import FAULTS, stream
from simulator.scenario_faults import Faults, RandomKind, ScriptedFault
from simulator.starting import EngineStarts

if TYPE_CHECKING:
    import numpy as np

    from simulator.engine.replica import Replica

MOST_SHOWN = 1000
"""Events and outages in the summary, the first ones."""


@dataclass(eq=False)
class Event:
    """A fault that happened; times in ns, -1: not yet."""

    at_ns: int
    what: str
    component: Component
    factor: float | None = None
    repaired_ns: int = -1
    is_bad: bool = True  # false while what flaps is good
    requests_lost: int = 0
    kv_tokens_lost: int = 0
    output_tokens_lost: int = 0

    def describe(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "at_s": to_s(self.at_ns),
            "what": self.what,
            "component": self.component.name,
            "replicas": list(self.component.units),
            "factor": self.factor,
            "repaired_s": None if self.repaired_ns < 0 else to_s(self.repaired_ns),
            "requests_lost": self.requests_lost,
            "kv_tokens_lost": self.kv_tokens_lost,
            "output_tokens_lost": self.output_tokens_lost,
        }


@dataclass(eq=False)
class Outage:
    """A time in which a replica was dead, started again, and was found; times in ns, -1: not yet."""

    unit: int
    died_ns: int
    noticed_ns: int = -1
    ready_ns: int = -1
    serving_ns: int = -1
    requests_in_vain: int = 0

    def describe(self, end_ns: int) -> dict[str, Any]:
        """Return it as plain data; an outage that isn't over lasts until the end of the run."""
        times = {"noticed": self.noticed_ns, "ready": self.ready_ns, "serving": self.serving_ns}
        return {
            "replica": self.unit,
            "died_s": to_s(self.died_ns),
            **{f"{name}_s": None if at_ns < 0 else to_s(at_ns) for name, at_ns in times.items()},
            "detection_s": None if self.noticed_ns < 0 else to_s(self.noticed_ns - self.died_ns),
            "downtime_s": to_s(self.lasts_ns(end_ns)),
            "requests_sent_in_vain": self.requests_in_vain,
        }

    def lasts_ns(self, end_ns: int) -> int:
        """Return for how long the replica didn't serve, ns."""
        return max(0, (end_ns if self.serving_ns < 0 else min(self.serving_ns, end_ns)) - self.died_ns)


@dataclass(eq=False)
class _Unit:
    """A replica of the scenario: one of the cluster, or its attention data parallel ranks, which live and die together.

    Attributes
    ----------
    causes
        Faults that keep it dead.
    lost
        Which of its ranks died with it; others were not up.
    in_vain_before
        Requests that had been sent to it in vain before.
    slow
        Factors of what makes it slow.
    turn
        Counts its deaths, so that a start which was under way is not taken for the present one.
    """

    number: int
    ranks: tuple[int, ...]
    causes: set[Event] = field(default_factory=set)
    lost: tuple[int, ...] = ()
    in_vain_before: int = 0
    slow: list[float] = field(default_factory=list)
    turn: int = 0
    outage: Outage | None = None
    noticing: Boundary | None = None
    opening: Boundary | None = None


class FaultsFeature:
    """See the module; to `Control` it is a `simulator.engine.control.Feature`.

    Parameters
    ----------
    seed
        Of the run: every component draws from a stream of its own.
    weight_bytes
        That each replica of the cluster loads when it starts.
    """

    name = "faults"

    def __init__(self, part: Faults, seed: int, weight_bytes: Sequence[int]) -> None:
        self._part = part
        self._seed = seed
        self._weight_bytes = tuple(weight_bytes)
        self._events: list[Event] = []
        self._outages: list[Outage] = []
        self._not_reached = 0
        self._treated: Counter[str] = Counter()
        self._tries: Counter[int] = Counter()
        self._link_factors: dict[int, list[float]] = {}

    # ------------------------------------------------------------------------------------------------- attaching

    def attach(self, control: Control) -> None:
        """Schedule what is scripted, and the first failure of every component that fails at random."""
        self._control = control
        self._components = components = Components(control)
        self._units = [_Unit(number, ranks) for number, ranks in enumerate(components.units)]
        self._starts = EngineStarts(control, self._part.restart, self._weight_bytes)
        control.on_end.append(self._ended)
        if self._part.restart.weights != "none" and self._may_die():
            _ = control.network  # so that what is missing is said now
        for i, fault in enumerate(self._part.script):
            try:
                component = self._named(fault)
            except InputError as error:
                raise InputError(f"faults.script.{i}.which: {error}") from None
            control.at(to_ns(fault.at_s), partial(self._scripted, fault, component))
        for kind in ("gpu", "node", "process", "nic", "link"):
            part: RandomKind | None = getattr(self._part.random, kind)
            for component in components.all_of(kind) if part is not None else ():
                assert part is not None
                self._next(kind, part, component, stream(self._seed, f"{FAULTS}.{kind}.{component.name}"))

    def _may_die(self) -> bool:
        random = self._part.random
        return any(fault.what not in ("link", "nic", "straggler") for fault in self._part.script) or any(
            part is not None for part in (random.gpu, random.node, random.process)
        )

    def _named(self, fault: ScriptedFault) -> Component:
        """Return the component that a scripted fault is about."""
        which = fault.which
        if isinstance(which, int):
            return self._components.node(which) if fault.what == "node" else self._components.replica(which)
        find = {"gpu": self._components.gpu, "nic": self._components.nic, "link": self._components.link}
        return find[fault.what](which)

    def _scripted(self, fault: ScriptedFault, component: Component) -> None:
        """Let a scripted fault happen, unless all requests have ended."""
        if self._control.cluster.is_over:
            self._not_reached += 1
            return
        lasts_ns = None if fault.lasts_s is None else to_ns(fault.lasts_s)
        if fault.what == "slow-start":
            self._restart(component, fault.factor or 1.0, lasts_ns)
            return
        factor = fault.factor
        if fault.what in ("link", "nic"):
            factor = factor or 0.0
        flaps = None
        if fault.on_s is not None and fault.off_s is not None:
            flaps = to_ns(fault.off_s), to_ns(fault.on_s)
        event = self._begin(fault.what, component, factor, flaps)
        if lasts_ns is not None:
            self._control.at(lasts_ns, partial(self._repair, event))

    def _next(self, kind: str, part: RandomKind, component: Component, rng: np.random.Generator) -> None:
        """Draw when a component fails next."""
        act = partial(self._fail, kind, part, component, rng)
        self._control.meanwhile(time_to_failure_ns(kind, part, rng), act)

    def _fail(self, kind: str, part: RandomKind, component: Component, rng: np.random.Generator) -> None:
        event = self._begin(kind, component, part.factor if component.links else None, None)

        def repaired() -> None:
            self._repair(event)
            self._next(kind, part, component, rng)

        self._control.at(time_to_repair_ns(part, rng), repaired)

    # ---------------------------------------------------------------------------------------- one fault after another

    def _begin(self, what: str, component: Component, factor: float | None, flaps: tuple[int, int] | None) -> Event:
        """Let something break now."""
        event = Event(self._control.now_ns, what, component, factor)
        self._events.append(event)
        if component.links:
            self._degrade(event)
            if flaps is not None:
                self._control.meanwhile(flaps[0], partial(self._flap, event, flaps))
        elif what == "straggler":
            assert factor is not None
            self._slow_down(component, factor)
        else:
            self._kill(event)
        return event

    def _repair(self, event: Event) -> None:
        """Let something be whole again."""
        event.repaired_ns = self._control.now_ns
        if event.component.links:
            if event.is_bad:
                self._restore_links(event)
        elif event.what == "straggler":
            assert event.factor is not None
            self._speed_up(event.component, event.factor)
        else:
            for number in event.component.units:
                unit = self._units[number]
                unit.causes.discard(event)
                if not unit.causes:
                    self._start(unit)

    # ---------------------------------------------------------------------------------------------- slow replicas

    def _slow_down(self, component: Component, factor: float) -> None:
        for number in component.units:
            self._units[number].slow.append(factor)
            self._stretch(self._units[number])

    def _speed_up(self, component: Component, factor: float) -> None:
        for number in component.units:
            self._units[number].slow.remove(factor)
            self._stretch(self._units[number])

    def _stretch(self, unit: _Unit) -> None:
        """Let steps take as long as the slowest part makes them, from the next one on."""
        stretch = max(unit.slow, default=1.0)
        for index in unit.ranks:
            replica = self._control.cluster.replicas[index]
            replica.between_steps(partial(_set_stretch, replica, stretch))

    # -------------------------------------------------------------------------------------------------------- links

    def _degrade(self, event: Event) -> None:
        assert event.factor is not None
        for link in event.component.links:
            self._link_factors.setdefault(link, []).append(event.factor)
            self._set_capacity(link)

    def _restore_links(self, event: Event) -> None:
        assert event.factor is not None
        for link in event.component.links:
            self._link_factors[link].remove(event.factor)
            self._set_capacity(link)

    def _set_capacity(self, link: int) -> None:
        """Give a link what the worst of its faults leaves."""
        self._control.network.network.set_capacity(link, min(self._link_factors[link], default=1.0))

    def _flap(self, event: Event, flaps: tuple[int, int]) -> None:
        """Change between bad and good, until it is repaired."""
        if event.repaired_ns >= 0:
            return
        off_ns, on_ns = flaps
        if event.is_bad:
            self._restore_links(event)
        else:
            self._degrade(event)
        event.is_bad = not event.is_bad
        self._control.meanwhile(off_ns if event.is_bad else on_ns, partial(self._flap, event, flaps))

    # ------------------------------------------------------------------------------------------------ dead replicas

    def _kill(self, event: Event) -> None:
        """Let all replicas of a component die at once; what is known at once is dealt with when all are dead."""
        control, now = self._control, self._control.now_ns
        immediate = self._part.health.kind == "immediate"
        known: list[_Unit] = []
        for unit in [self._units[number] for number in event.component.units]:
            unit.causes.add(event)
            if len(unit.causes) > 1:
                continue
            unit.turn += 1
            if event.what == "node":  # its memory is empty then
                control.without_host_weights.update(unit.ranks)
            if unit.outage is not None and unit.outage.ready_ns < 0:
                continue  # it was just starting: the outage goes on
            unit.lost = tuple(index for index in unit.ranks if control.is_alive(index))
            was_closed = unit.opening is not None
            if unit.opening is not None:
                control.cancel(unit.opening)
                unit.opening = None
            if unit.outage is not None:
                unit.outage.serving_ns = now  # ready and not found yet: one outage after the other
            unit.outage = outage = Outage(unit.number, now)
            if unit.lost:  # else it was not up anyway; it may be meant to be meanwhile
                self._outages.append(outage)
            unit.in_vain_before = self._sent_in_vain(unit)
            for index in unit.ranks:
                for sequence in control.lose(index, self.name):
                    event.requests_lost += 1
                    event.kv_tokens_lost += sequence.computed_tokens
                    event.output_tokens_lost += sequence.base_generated
                    control.strand(sequence, index)
            if immediate or was_closed:
                known.append(unit)
            else:
                at_ns = noticed_down_ns(self._part.health, now)
                unit.noticing = control.at(at_ns - now, partial(self._notice, [unit]))
        self._notice(known)

    def _notice(self, units: Sequence[_Unit]) -> None:
        """Mark replicas down, and deal with the requests that have no answer from them."""
        control, now = self._control, self._control.now_ns
        for unit in units:
            assert unit.outage is not None
            unit.noticing = None
            unit.outage.noticed_ns = now
            for index in unit.ranks:
                control.close(index, self.name)
        self._answer_for(units)

    def _answer_for(self, units: Sequence[_Unit]) -> None:
        """Deal with the requests that are stranded on replicas."""
        control = self._control
        found: list[Request] = []
        for unit in units:
            assert unit.outage is not None
            for index in unit.ranks:
                control.abandon(index)
                found += control.recover(index)
            unit.outage.requests_in_vain = self._sent_in_vain(unit) - unit.in_vain_before
        for sequence in sorted(found, key=lambda sequence: sequence.arrival_order):
            self._treat(sequence)

    def _sent_in_vain(self, unit: _Unit) -> int:
        return sum(self._control.sent_in_vain[index] for index in unit.ranks)

    def _treat(self, sequence: Request) -> None:
        """Begin a lost request anew, carry it on or fail it."""
        control, now, row = self._control, self._control.now_ns, sequence.request_id
        way = self._part.on_loss
        self._tries[row] += 1
        if way == "fail" or self._tries[row] > self._part.max_retries:
            self._treated["failed"] += 1
            times = self._tries.pop(row)
            said = "its replica was lost" + (f", {times} times" if times > 1 else "")
            control.conclude(sequence, now, Outcome.FAILED, said)
        elif way == "retry":
            self._treated["retried"] += 1
            control.try_again(sequence, now)
        else:
            self._treated["recomputed"] += 1
            control.carry_on(sequence, now)

    def _ended(self, sequence: Request, now: int, outcome: Outcome) -> None:
        self._tries.pop(sequence.request_id, None)

    # ------------------------------------------------------------------------------------------------------ coming back

    def _restart(self, component: Component, factor: float, slow_ns: int | None) -> None:
        """Let a replica die and start at once, slowly for a while then."""
        event = self._begin("slow-start", component, None, None)
        event.factor = factor
        for number in component.units:
            self._units[number].causes.discard(event)
        event.repaired_ns = self._control.now_ns
        for number in component.units:
            if not self._units[number].causes:
                self._start(self._units[number], factor, slow_ns)

    def _start(self, unit: _Unit, factor: float | None = None, slow_ns: int | None = None) -> None:
        """Start the engine again, all ranks side by side."""
        restart = self._part.restart
        if factor is None:
            factor, slow_ns = restart.slow_factor, to_ns(restart.slow_s)
        if not unit.lost:
            self._ready(unit, unit.turn, 1.0, None)
            return
        self._starts.start(unit.lost, partial(self._ready, unit, unit.turn, factor, slow_ns))

    def _ready(self, unit: _Unit, turn: int, factor: float, slow_ns: int | None) -> None:
        """Let a replica be up, unless it has died again."""
        if turn != unit.turn or unit.causes:
            return
        control, now, outage = self._control, self._control.now_ns, unit.outage
        assert outage is not None
        outage.ready_ns = now
        control.without_host_weights.difference_update(unit.lost)
        for index in unit.ranks:
            control.restore(index, self.name)
        if unit.noticing is not None:
            # Nobody noticed: connections to the old process break now.
            control.cancel(unit.noticing)
            unit.noticing = None
            self._answer_for([unit])
        if factor > 1.0 and slow_ns != 0:
            component = Component("", (unit.number,))
            self._slow_down(component, factor)
            if slow_ns is not None:
                control.at(slow_ns, partial(self._speed_up, component, factor))
        if outage.noticed_ns < 0:
            self._serves(unit)
        elif self._part.health.kind == "immediate":
            self._open(unit)
        else:
            unit.opening = control.at(noticed_up_ns(self._part.health, now) - now, partial(self._open, unit))

    def _open(self, unit: _Unit) -> None:
        """Let routers choose a replica that was found to be up."""
        unit.opening = None
        self._serves(unit)
        for index in unit.ranks:
            self._control.open(index, self.name)

    def _serves(self, unit: _Unit) -> None:
        assert unit.outage is not None
        unit.outage.serving_ns = self._control.now_ns
        unit.outage = None

    # -------------------------------------------------------------------------------------------------------- result

    def describe(self) -> dict[str, Any]:
        """Return the section of the summary."""
        end_ns = self._control.cluster.end_ns
        for unit in self._units:
            if unit.noticing is not None and unit.outage is not None:
                unit.outage.requests_in_vain = self._sent_in_vain(unit) - unit.in_vain_before
        down_ns = [0] * len(self._units)
        for outage in self._outages:
            down_ns[outage.unit] += outage.lasts_ns(end_ns)
        shares = [1 - down / end_ns if end_ns else None for down in down_ns]
        noticed = [outage.noticed_ns - outage.died_ns for outage in self._outages if outage.noticed_ns >= 0]
        links = any(event.component.links for event in self._events)
        return {
            "faults": len(self._events),
            "by_kind": dict(sorted(Counter(event.what for event in self._events).items())),
            "not_reached": self._not_reached,
            "outages": len(self._outages),
            "availability": 1 - sum(down_ns) / (end_ns * len(self._units)) if end_ns else None,
            "availability_by_replica": shares,
            "mean_detection_s": to_s(sum(noticed)) / len(noticed) if noticed else None,
            "requests_lost": sum(event.requests_lost for event in self._events),
            "requests_sent_in_vain": sum(self._control.sent_in_vain),
            "lost_requests": {way: self._treated[way] for way in ("retried", "recomputed", "failed")},
            "kv_tokens_lost": sum(event.kv_tokens_lost for event in self._events),
            "output_tokens_lost": sum(event.output_tokens_lost for event in self._events),
            "events": [event.describe() for event in self._events[:MOST_SHOWN]],
            "outage_list": [outage.describe(end_ns) for outage in self._outages[:MOST_SHOWN]],
            "left_out": max(0, len(self._events) - MOST_SHOWN) + max(0, len(self._outages) - MOST_SHOWN),
            "note": "links carry what moves between replicas and weights that are loaded, not collectives"
            if links
            else None,
        }


def _set_stretch(replica: Replica, stretch: float, _: int) -> None:
    replica.stretch = stretch


__all__ = ["FaultsFeature"]

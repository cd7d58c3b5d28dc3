"""Flows that share links: a fluid model, max-min fair, on the integer clock of the engine.

A flow first pays the latencies of its path and the cost of its messages, then moves its bytes at a rate that is the
same until another flow begins or ends on a link that connects with one of its own, or a capacity changes. Rates are
max-min fair (`simulator.network.max_min`), which is what per-flow fair queueing gives, and what congestion control
aims at; its transients, packets, losses and priorities are not modelled. What happens on other links doesn't touch a
flow: rates are worked out for connected links only.

Flows over the same path have the same rate, so rates are worked out for the routes in use, not for each flow.

The end of a flow is rounded to whole ns. Bytes are counted exactly: a link has carried what its flows were
asked for, or, of a cancelled flow, whole bytes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import chain, count
from typing import TypeAlias

from simpy.events import Event

from simulator.engine.clock import NS_PER_S, Boundary, Callbacks, Environment, to_ns
from simulator.network.max_min import max_min_rates

FLOWS = 0
"""Priority of what happens to flows: before arrivals (1) and all steps of the same instant, so that the order of an
instant does not depend on which event was scheduled first."""

Path: TypeAlias = tuple[int, ...]
"""Links that a flow crosses, by index; one that stands there twice carries the flow twice. Empty: nothing limits it."""

Done: TypeAlias = Callable[[int], None]
"""Called once with the time in ns, when the last byte is there."""


@dataclass(frozen=True, slots=True)
class LinkSpec:
    """One direction of a link.

    Attributes
    ----------
    name
        Unique, for the result, e.g. ``"node0/nic3/tx"``.
    bandwidth
        Bytes/s that flows can have together.
    latency_s
        Paid once by a flow that crosses it, before its first byte moves.
    per_message_s
        Paid for each message of a flow, before its first byte moves.
    never_full
        Promises that the other links of its flows' paths never let through more than it can carry, so that rates are
        worked out without it, as long as it has all of its bandwidth.
    """

    name: str
    bandwidth: float
    latency_s: float = 0.0
    per_message_s: float = 0.0
    never_full: bool = False

    def __post_init__(self) -> None:
        if not (self.bandwidth > 0 and math.isfinite(self.bandwidth)):
            raise ValueError(f"link {self.name!r} needs a bandwidth above 0 bytes/s, got {self.bandwidth!r}")
        if self.latency_s < 0 or self.per_message_s < 0:
            raise ValueError(f"link {self.name!r}: latency and cost of a message must be at least 0 s")


@dataclass(frozen=True, slots=True)
class LinkUse:
    """What one link did until some time.

    Attributes
    ----------
    bytes
        That it carried, those of unfinished flows included (whole bytes).
    busy_ns
        Time with at least one flow on it, stalled ones included.
    peak_flows
        Most flows at a time.
    """

    name: str
    bandwidth: float
    bytes: int
    busy_ns: int
    peak_flows: int


class _Route:
    """A path, made once for all flows that ever take it, and those that are on it now."""

    __slots__ = ("alone", "carried", "flows", "latency_s", "limits", "links", "path", "per_message_s", "sharing")

    def __init__(self, path: Path, links: Sequence[LinkSpec]) -> None:
        self.path = path
        self.links = tuple(dict.fromkeys(path))
        """Each once."""
        self.limits: Path = ()
        """Links that may be full, as often as the path crosses them."""
        self.sharing: list[dict[_Route, None]] = []
        """Routes in use over each of those, itself among them."""
        self.alone: dict[int, float] = {}
        """Rate of so many flows on this route if no others are on its links, as far as it was asked for."""
        self.latency_s = math.fsum(links[i].latency_s for i in path)
        self.per_message_s = math.fsum(links[i].per_message_s for i in path)
        self.flows: dict[Flow, None] = {}
        self.carried = 0
        """Bytes of the flows that have left."""

    @property
    def is_alone(self) -> bool:
        """Whether no link that may be full has flows on other routes, while this one has some."""
        for others in self.sharing:  # noqa: SIM110  # asked for whenever a flow begins, and twice as quick as `all`
            if len(others) > 1:
                return False
        return True

    def latency_ns(self, messages: int) -> int:
        """Return the time before the first byte of a flow moves."""
        return to_ns(self.latency_s + messages * self.per_message_s)


class Flow:
    """Bytes on their way over one path; made by `Network.start`."""

    __slots__ = (
        "_done",
        "_left",
        "_network",
        "_route",
        "_since",
        "_version",
        "active",
        "ended",
        "flow_id",
        "label",
        "num_bytes",
        "rate",
        "started_ns",
    )

    def __init__(self, network: Network, flow_id: int, route: _Route, num_bytes: int, done: Done, label: str) -> None:
        self._network = network
        self._done: Done | None = done
        self._left = float(num_bytes)
        self._route = route
        self._since = 0
        self._version = 0
        self.flow_id = flow_id
        self.num_bytes = num_bytes
        self.label = label
        self.started_ns = network.env.now
        self.active = False
        """Whether it is on its links: its latency is over, its bytes are not."""
        self.ended = False
        """Whether its last byte is there, or it was cancelled."""
        self.rate = 0.0
        """Bytes/s."""

    @property
    def path(self) -> Path:
        """Links that it crosses."""
        return self._route.path

    @property
    def link_names(self) -> tuple[str, ...]:
        """Links that it crosses, by name."""
        return tuple(self._network.links[link].name for link in self._route.path)

    @property
    def remaining_bytes(self) -> int:
        """Bytes that have not arrived by now, a part of one counted as one."""
        return math.ceil(self._left_at(self._network.env.now))

    def cancel(self) -> int:
        """Take it off its links at once; `done` is not called. Return the bytes that it moved."""
        return self._network._cancel(self)

    def _left_at(self, now: int) -> float:
        if not self.active or not self.rate:
            return self._left
        return max(0.0, self._left - self.rate * ((now - self._since) / NS_PER_S))

    def _settle(self, now: int) -> None:
        self._left = self._left_at(now)
        self._since = now


class FlowGroup:
    """Flows that are done when the last of them is: stripes of one transfer, ranks that send at the same time."""

    __slots__ = ("_done", "_missing", "flows")

    def __init__(self, done: Done) -> None:
        self._done: Done | None = done
        self._missing = 0
        self.flows: tuple[Flow, ...] = ()

    @property
    def num_bytes(self) -> int:
        """Bytes asked for."""
        return sum(flow.num_bytes for flow in self.flows)

    @property
    def remaining_bytes(self) -> int:
        """Bytes that have not arrived by now."""
        return sum(flow.remaining_bytes for flow in self.flows)

    @property
    def ended(self) -> bool:
        """Whether all have arrived, or it was cancelled."""
        return self._done is None

    def cancel(self) -> int:
        """Cancel all of them; return the bytes that they moved, those that had arrived included."""
        self._done = None
        return sum(flow.cancel() for flow in self.flows)

    def _one_done(self, now: int) -> None:
        self._missing -= 1
        if not self._missing and self._done is not None:
            done, self._done = self._done, None
            done(now)


class Network:
    """Links and the flows on them.

    Parameters
    ----------
    env
        The engine's environment.
    links
        Names must differ; paths name links by their index here.
    keep_timeline
        Keep every change of a link's rate in `timeline`, and the flows that are over in `past`.
    """

    def __init__(self, env: Environment, links: Sequence[LinkSpec], *, keep_timeline: bool = False) -> None:
        self.env = env
        self.links = tuple(links)
        self._index = {link.name: i for i, link in enumerate(self.links)}
        if len(self._index) != len(self.links):
            raise ValueError("two links have the same name")
        self._capacity = [link.bandwidth for link in self.links]
        self.capacity_changes = 0
        """How often `set_capacity` was called."""
        self._loose = [link.never_full for link in self.links]
        self._routes: dict[Path, _Route] = {}
        self._crossing: list[list[_Route]] = [[] for _ in self.links]  # all that ever did
        self._on: list[dict[_Route, None]] = [{} for _ in self.links]  # those with flows
        self._flows = [0] * len(self.links)
        self._busy_ns = [0] * len(self.links)
        self._busy_since = [0] * len(self.links)
        self._peak = [0] * len(self.links)
        self._ids = count()
        self._joining: list[tuple[int, int, list[Flow]]] = []  # (at ns, first flow, flows): a heap
        self._ending: list[tuple[int, int, int, Flow]] = []  # (at ns, flow, version, flow): a heap
        self._dirty: dict[_Route, None] = {}  # routes that a flow joined or left
        self._dirty_links: set[int] = set()  # whose capacity changed
        self._event = Boundary(env)
        self._when: Callbacks = [self._wake]
        self._wake_at: int | None = None
        self._advancing = False
        self.timeline: list[tuple[int, int, float]] | None = [] if keep_timeline else None
        """(time in ns, link, bytes/s from then on), where it was asked for."""
        self.past: list[tuple[Flow, int]] | None = [] if keep_timeline else None
        """Flows that are over, cancelled ones too, and when they ended, ns; where it was asked for."""

    # ---------------------------------------------------------------------------------------------------- asking

    def index(self, name: str) -> int:
        """Return the index of a link by name."""
        return self._index[name]

    @property
    def active(self) -> tuple[Flow, ...]:
        """Flows that have not ended, those that still pay their latency included, in the order of their start."""
        flows = [flow for route in self._routes.values() for flow in route.flows]
        return tuple(sorted(flows + self._pending(), key=lambda flow: flow.flow_id))

    def capacity(self, link: int) -> float:
        """Return the present capacity of a link, bytes/s."""
        return self._capacity[link]

    def overhead_s(self, path: Path) -> tuple[float, float]:
        """Return a path's latency, and what it adds for each message, seconds."""
        route = self._route(path)
        return route.latency_s, route.per_message_s

    def latency_ns(self, path: Path, messages: int = 1) -> int:
        """Return the time before the first byte of a flow moves, ns."""
        return self._route(path).latency_ns(messages)

    def estimate_ns(self, path: Path, num_bytes: int, messages: int = 1) -> int | None:
        """Return what a flow would take if it were alone, ns; None if a link of its path is down."""
        rate = max_min_rates(self._capacity, [path])[0]
        if not rate:
            return None
        return self.latency_ns(path, messages) + round(num_bytes * NS_PER_S / rate)

    def expected_ns(self, parts: Sequence[tuple[Path, int]]) -> int | None:
        """Return what flows that begin together now would take if the present ones stayed; None if a link is down.

        They share links with the present flows and with each other, each to its end at the rate that it would get now.
        """
        flows = Counter({route: len(route.flows) for route in self._routes.values() if route.flows})
        flows.update(flow._route for flow in self._pending())
        asked = [self._route(path) for path, _ in parts]
        flows.update(asked)
        found = max_min_rates(self._capacity, [route.limits for route in flows], list(flows.values()))
        rates = dict(zip(flows, found, strict=True))
        longest = 0
        for route, (path, num_bytes) in zip(asked, parts, strict=True):
            rate = rates[route]
            if num_bytes and not rate:
                return None
            moving_ns = round(num_bytes * NS_PER_S / rate) if num_bytes and path else 0
            longest = max(longest, route.latency_ns(1) + moving_ns)
        return longest

    def use(self, link: int) -> LinkUse:
        """Return what a link did until now."""
        now, spec = self.env.now, self.links[link]
        carried, busy = 0, self._busy_ns[link]
        for route in self._crossing[link]:
            under_way = sum(flow.num_bytes - math.ceil(flow._left_at(now)) for flow in route.flows)
            carried += route.path.count(link) * (route.carried + under_way)
        if self._flows[link]:
            busy += now - self._busy_since[link]
        return LinkUse(spec.name, spec.bandwidth, carried, busy, self._peak[link])

    # ---------------------------------------------------------------------------------------------------- acting

    def start(self, path: Path, num_bytes: int, done: Done, *, messages: int = 1, label: str = "") -> Flow:
        """Begin a flow now.

        Parameters
        ----------
        num_bytes
            May be 0: it then pays latency and messages only.
        done
            Called from an event, never from within `start`.
        messages
            How many of them the bytes are sent in; each costs the sum of the path's ``per_message_s``.
        label
            For people.
        """
        return self._begin([(path, num_bytes)], done, messages, label)[0]

    def start_group(
        self, parts: Sequence[tuple[Path, int]], done: Done, *, messages: int = 1, label: str = ""
    ) -> FlowGroup:
        """Begin several flows now that are done together.

        Parameters
        ----------
        parts
            Path and bytes of each, at least one.
        messages
            Of each.
        """
        if not parts:
            raise ValueError("a group needs at least one flow")
        group = FlowGroup(done)
        group._missing = len(parts)
        group.flows = tuple(self._begin(parts, group._one_done, messages, label))
        return group

    def start_striped(
        self, paths: Sequence[Path], num_bytes: int, done: Done, *, messages: int = 1, label: str = ""
    ) -> FlowGroup:
        """Begin one transfer in equal stripes over several paths (of several NICs); done with the last of them.

        Parameters
        ----------
        messages
            Of the whole transfer: they are spread over the stripes.
        """
        parts = stripe(paths, num_bytes)
        return self.start_group(parts, done, messages=math.ceil(messages / max(1, len(parts))), label=label)

    def set_capacity(self, link: int, factor: float) -> None:
        """Give a link this share of its bandwidth from now on; at 0 its flows stall until it has some again."""
        if not 0 <= factor <= 1:
            raise ValueError(f"a link has 0 to 1 times its bandwidth, got {factor!r}")
        self._capacity[link] = self.links[link].bandwidth * factor
        for route in self._crossing[link]:
            route.alone.clear()
        self.capacity_changes += 1
        if self._loose[link] and factor < 1:
            self._loose[link] = False
            for route in self._crossing[link]:
                self._set_limits(route)
        self._dirty_links.add(link)
        self._wake_by(self.env.now)

    def _set_limits(self, route: _Route) -> None:
        """Note which links of a route may be full."""
        route.limits = tuple(link for link in route.path if not self._loose[link])
        route.sharing = [self._on[link] for link in dict.fromkeys(route.limits)]

    def _route(self, path: Path) -> _Route:
        route = self._routes.get(path)
        if route is None:
            route = self._routes[path] = _Route(path, self.links)
            self._set_limits(route)
            for link in route.links:
                self._crossing[link].append(route)
        return route

    def _pending(self) -> list[Flow]:
        """Return the flows whose latency is not over yet."""
        return [flow for _, _, flows in self._joining for flow in flows if not flow.ended]

    def _begin(self, parts: Sequence[tuple[Path, int]], done: Done, messages: int, label: str) -> list[Flow]:
        """Make flows; those with the same latency will join together."""
        now, flows = self.env.now, []
        together: dict[int, list[Flow]] = {}
        for path, num_bytes in parts:
            if num_bytes < 0 or messages < 0:
                raise ValueError(f"a flow can't have {num_bytes} bytes in {messages} messages")
            route = self._route(path)
            flow = Flow(self, next(self._ids), route, num_bytes, done, label)
            flows.append(flow)
            at_ns = now + route.latency_ns(messages)
            if at_ns in together:
                together[at_ns].append(flow)
            else:
                together[at_ns] = [flow]
        for at_ns, joining in together.items():
            heappush(self._joining, (at_ns, joining[0].flow_id, joining))
            self._wake_by(at_ns)
        return flows

    def _cancel(self, flow: Flow) -> int:
        flow._done = None
        if flow.ended:
            return flow.num_bytes - math.ceil(flow._left)
        now = self.env.now
        flow._settle(now)
        moved = flow.num_bytes - math.ceil(flow._left)
        if flow.active:
            self._leave(flow, now, moved)
            self._wake_by(now)
        flow.ended = True
        if self.past is not None:
            self.past.append((flow, now))
        return moved

    # ------------------------------------------------------------------------------------------------- happening

    def _wake_by(self, at_ns: int) -> None:
        """See to it that `_wake` is called at that time or before."""
        if self._advancing:  # the loop looks again before it is over
            return
        now = self.env.now
        if self._wake_at is None:
            self._event.schedule(at_ns - now, FLOWS, self._when)
        elif at_ns < self._wake_at:
            self._event = self._event.sooner(at_ns - now, FLOWS)
        else:
            return
        self._wake_at = at_ns

    def _wake(self, _: Event) -> None:
        """Let happen what is due: ends and beginnings of this instant, then new rates, then who waited is told."""
        self._wake_at = None
        self._advancing = True
        try:
            while ended := self._due():
                if self.past is not None:
                    self.past += [(flow, self.env.now) for flow in ended]
                for flow in ended:
                    done, flow._done = flow._done, None
                    if done is not None:
                        done(self.env.now)
        finally:
            self._advancing = False
        joining, ending = self._joining, self._ending
        while joining and all(flow.ended for flow in joining[0][2]):
            heappop(joining)
        while ending and ending[0][2] != ending[0][3]._version:
            heappop(ending)
        if joining or ending:
            self._wake_by(min(coming[0][0] for coming in (joining, ending) if coming))

    def _due(self) -> list[Flow]:
        """Take flows off and on until nothing more is due now; return those that ended, rates being up to date."""
        now, joining, ending = self.env.now, self._joining, self._ending
        ended: list[Flow] = []
        while True:
            while ending and ending[0][0] <= now:
                _, _, version, flow = heappop(ending)
                if version == flow._version:
                    self._leave(flow, now, flow.num_bytes)
                    flow._left = 0.0
                    flow.ended = True
                    ended.append(flow)
            while joining and joining[0][0] <= now:
                ended += self._join(heappop(joining)[2], now)
            if not (self._dirty or self._dirty_links):
                return ended
            self._share(now)

    def _join(self, flows: list[Flow], now: int) -> list[Flow]:
        """Put flows on their links; return those with nothing to move or nothing to wait for, which have ended."""
        ended = []
        on, counts, peaks = self._on, self._flows, self._peak
        for flow in flows:
            route = flow._route
            if flow.ended:  # cancelled
                continue
            if not flow.num_bytes or not route.path:
                flow._left = 0.0
                flow.ended = True
                ended.append(flow)
                continue
            flow.active = True
            flow._since = now
            if not route.flows:
                for link in route.links:
                    if not on[link]:
                        self._busy_since[link] = now
                    on[link][route] = None
            route.flows[flow] = None
            for link in route.links:
                count = counts[link] = counts[link] + 1
                if count > peaks[link]:
                    peaks[link] = count
            self._dirty[route] = None
        return ended

    def _leave(self, flow: Flow, now: int, moved: int) -> None:
        """Take a flow off its links."""
        flow.active = False
        flow.rate = 0.0
        flow._version += 1
        route, counts = flow._route, self._flows
        route.carried += moved
        del route.flows[flow]
        for link in route.links:
            counts[link] -= 1
        if not route.flows:
            for link in route.links:
                on = self._on[link]
                del on[route]
                if not on:
                    self._busy_ns[link] += now - self._busy_since[link]
        self._dirty[route] = None

    def _share(self, now: int) -> None:
        """Work out new rates on the links that changed and all that connect with them."""
        changed = [self._on[link] for link in self._dirty_links if not self._loose[link]]
        for route in self._dirty:
            if not route.flows:
                changed += [others for others in route.sharing if others]
            elif route.is_alone:
                self._give(route, self._rate_alone(route), now)
            else:
                changed.append({route: None})
        parts = _connected(changed)
        for routes in parts:
            counts = [len(route.flows) for route in routes]
            rates = max_min_rates(self._capacity, [route.limits for route in routes], counts)
            for route, rate in zip(routes, rates, strict=True):
                self._give(route, rate, now)
        if self.timeline is not None:
            touched = chain(self._dirty, *parts)
            for link in sorted(self._dirty_links.union(*(route.path for route in touched))):
                flows = [(route, flow) for route in self._on[link] for flow in route.flows]
                carried = math.fsum(flow.rate * route.path.count(link) for route, flow in flows)
                self.timeline.append((now, link, carried))
        self._dirty.clear()
        self._dirty_links.clear()

    def _rate_alone(self, route: _Route) -> float:
        """Return the rate of a route's flows where no others are on its links: that of the narrowest."""
        count = len(route.flows)
        rate = route.alone.get(count)
        if rate is None:
            rate = route.alone[count] = max_min_rates(self._capacity, [route.limits], [count])[0]
        return rate

    def _give(self, route: _Route, rate: float, now: int) -> None:
        """Let a route's flows go on at this rate."""
        for flow in route.flows:
            before = flow.rate
            if rate == before:
                continue
            left = flow._left
            if before:
                left = flow._left = max(0.0, left - before * ((now - flow._since) / NS_PER_S))
            flow._since = now
            flow.rate = rate
            flow._version += 1
            if rate:
                at_ns = now + round(left * NS_PER_S / rate)
                heappush(self._ending, (at_ns, flow.flow_id, flow._version, flow))


def _connected(changed: Iterable[Iterable[_Route]]) -> list[list[_Route]]:
    """Return these routes in use with all that links connect them with, apart where nothing does."""
    parts: list[list[_Route]] = []
    seen: set[_Route] = set()
    for first in chain.from_iterable(changed):
        if first in seen:
            continue
        seen.add(first)
        routes = [first]
        for route in routes:  # which grows
            for others in route.sharing:
                if len(others) > 1:
                    for other in others:
                        if other not in seen:
                            seen.add(other)
                            routes.append(other)
        parts.append(routes)
    return parts


def stripe(paths: Sequence[Path], num_bytes: int) -> list[tuple[Path, int]]:
    """Return paths and how many of the bytes go over each: equal shares, the first ones a byte more."""
    if not paths:
        raise ValueError("a transfer needs at least one path")
    used = paths[: max(1, min(len(paths), num_bytes))]
    each, more = divmod(num_bytes, len(used))
    return [(path, each + (i < more)) for i, path in enumerate(used)]


__all__ = ["FLOWS", "Done", "Flow", "FlowGroup", "LinkSpec", "LinkUse", "Network", "Path", "stripe"]

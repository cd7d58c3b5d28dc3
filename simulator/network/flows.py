"""Flows that share links: a fluid model, max-min fair, on the integer clock of the engine.

A flow first pays the latencies of its path and the cost of its messages, then moves its bytes at a rate that is the
same until another flow begins or ends on a link that connects with one of its own, or a capacity changes. Rates are
max-min fair (`simulator.network.max_min`), which is what per-flow fair queueing gives, and what congestion control
aims at; its transients, packets, losses and priorities are not modelled. What happens on other links doesn't touch a
flow: rates are worked out for connected links only.

The end of a flow is rounded to whole ns. Bytes are counted exactly: a link has carried what its flows were
asked for, or, of a cancelled flow, whole bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
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

_END, _JOIN = 0, 1


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


class Flow:
    """Bytes on their way over one path; made by `Network.start`."""

    __slots__ = (
        "_done",
        "_left",
        "_limits",
        "_network",
        "_since",
        "_version",
        "active",
        "ended",
        "flow_id",
        "label",
        "num_bytes",
        "path",
        "rate",
        "started_ns",
    )

    def __init__(self, network: Network, flow_id: int, path: Path, num_bytes: int, done: Done, label: str) -> None:
        self._network = network
        self._done: Done | None = done
        self._left = float(num_bytes)
        self._limits = network._limits(path)
        self._since = 0
        self._version = 0
        self.flow_id = flow_id
        self.path = path
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
        Keep every change of a link's rate in `timeline`.
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
        self._on: list[dict[Flow, None]] = [{} for _ in self.links]
        self._bytes = [0] * len(self.links)
        self._busy_ns = [0] * len(self.links)
        self._busy_since = [0] * len(self.links)
        self._peak = [0] * len(self.links)
        self._ids = count()
        self._pending: dict[Flow, None] = {}  # latency not over yet
        self._coming: list[tuple[int, int, int, int, Flow]] = []  # (at ns, end or join, flow, version, flow): a heap
        self._dirty: set[int] = set()
        self._event = Boundary(env)
        self._when: Callbacks = [self._wake]
        self._wake_at: int | None = None
        self._advancing = False
        self.timeline: list[tuple[int, int, float]] | None = [] if keep_timeline else None
        """(time in ns, link, bytes/s from then on), where it was asked for."""

    # ---------------------------------------------------------------------------------------------------- asking

    def index(self, name: str) -> int:
        """Return the index of a link by name."""
        return self._index[name]

    @property
    def active(self) -> tuple[Flow, ...]:
        """Flows that have not ended, those that still pay their latency included, in the order of their start."""
        flows = {flow: None for on in self._on for flow in on}
        return tuple(sorted([*flows, *self._pending], key=lambda flow: flow.flow_id))

    def capacity(self, link: int) -> float:
        """Return the present capacity of a link, bytes/s."""
        return self._capacity[link]

    def overhead_s(self, path: Path) -> tuple[float, float]:
        """Return a path's latency, and what it adds for each message, seconds."""
        links = [self.links[i] for i in path]
        return math.fsum(link.latency_s for link in links), math.fsum(link.per_message_s for link in links)

    def latency_ns(self, path: Path, messages: int = 1) -> int:
        """Return the time before the first byte of a flow moves, ns."""
        latency_s, per_message_s = self.overhead_s(path)
        return to_ns(latency_s + messages * per_message_s)

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
        flows = self.active
        limits = [flow._limits for flow in flows] + [self._limits(path) for path, _ in parts]
        rates = max_min_rates(self._capacity, limits)[len(flows) :]
        longest = 0
        for (path, num_bytes), rate in zip(parts, rates, strict=True):
            if num_bytes and not rate:
                return None
            moving_ns = round(num_bytes * NS_PER_S / rate) if num_bytes and path else 0
            longest = max(longest, self.latency_ns(path) + moving_ns)
        return longest

    def use(self, link: int) -> LinkUse:
        """Return what a link did until now."""
        now, spec = self.env.now, self.links[link]
        carried, busy = self._bytes[link], self._busy_ns[link]
        for flow in self._on[link]:
            carried += flow.path.count(link) * (flow.num_bytes - math.ceil(flow._left_at(now)))
        if self._on[link]:
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
        if num_bytes < 0 or messages < 0:
            raise ValueError(f"a flow can't have {num_bytes} bytes in {messages} messages")
        flow = Flow(self, next(self._ids), path, num_bytes, done, label)
        self._pending[flow] = None
        at_ns = self.env.now + self.latency_ns(path, messages)
        heappush(self._coming, (at_ns, _JOIN, flow.flow_id, flow._version, flow))
        self._wake_by(at_ns)
        return flow

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
        group.flows = tuple(
            self.start(path, num_bytes, group._one_done, messages=messages, label=label) for path, num_bytes in parts
        )
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
        self.capacity_changes += 1
        if self._loose[link] and factor < 1:
            self._loose[link] = False
            for flow in self.active:
                flow._limits = self._limits(flow.path)
        self._dirty.add(link)
        self._wake_by(self.env.now)

    def _limits(self, path: Path) -> Path:
        """Return the links of a path that may be full."""
        return tuple(link for link in path if not self._loose[link])

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
        else:
            del self._pending[flow]
        flow.ended = True
        flow._version += 1
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
                for flow in ended:
                    done, flow._done = flow._done, None
                    if done is not None:
                        done(self.env.now)
        finally:
            self._advancing = False
        coming = self._coming
        while coming and coming[0][3] != coming[0][4]._version:
            heappop(coming)
        if coming:
            self._wake_by(coming[0][0])

    def _due(self) -> list[Flow]:
        """Take flows off and on until nothing more is due now; return those that ended, rates being up to date."""
        now, coming = self.env.now, self._coming
        ended = []
        while True:
            while coming and coming[0][0] <= now:
                _, kind, _, version, flow = heappop(coming)
                if version != flow._version:
                    continue
                if kind == _END:
                    self._leave(flow, now, flow.num_bytes)
                elif self._join(flow, now):
                    continue
                flow._left = 0.0
                flow.ended = True
                flow._version += 1
                ended.append(flow)
            if not self._dirty:
                return ended
            self._share(now)

    def _join(self, flow: Flow, now: int) -> bool:
        """Put a flow on its links; False if it has nothing to move or nothing to wait for, and so has ended."""
        del self._pending[flow]
        if not flow.num_bytes or not flow.path:
            return False
        flow.active = True
        flow._since = now
        for link in flow.path:
            on = self._on[link]
            if not on:
                self._busy_since[link] = now
            on[flow] = None
            self._peak[link] = max(self._peak[link], len(on))
        self._dirty.update(flow.path)
        return True

    def _leave(self, flow: Flow, now: int, moved: int) -> None:
        """Take a flow off its links."""
        flow.active = False
        flow.rate = 0.0
        for link in flow.path:
            self._bytes[link] += moved
            on = self._on[link]
            if flow in on:  # not so when a path crosses a link for the second time
                del on[flow]
                if not on:
                    self._busy_ns[link] += now - self._busy_since[link]
        self._dirty.update(flow.path)

    def _share(self, now: int) -> None:
        """Work out new rates on the links that changed and all that connect with them."""
        links, flows = self._connected()
        rates = max_min_rates(self._capacity, [flow._limits for flow in flows])
        for flow, rate in zip(flows, rates, strict=True):
            if rate == flow.rate:
                continue
            flow._settle(now)
            flow.rate = rate
            flow._version += 1
            if rate:
                at_ns = now + round(flow._left * NS_PER_S / rate)
                heappush(self._coming, (at_ns, _END, flow.flow_id, flow._version, flow))
        if self.timeline is not None:
            for link in sorted(links.union(*(flow.path for flow in flows))):
                carried = math.fsum(flow.rate * flow.path.count(link) for flow in self._on[link])
                self.timeline.append((now, link, carried))
        self._dirty.clear()

    def _connected(self) -> tuple[set[int], list[Flow]]:
        """Return the links that changed with all that flows connect them with, and those flows by start."""
        links = set(self._dirty)
        reached = [link for link in links if not self._loose[link]]
        flows: set[Flow] = set()
        while reached:
            for flow in self._on[reached.pop()]:
                if flow not in flows:
                    flows.add(flow)
                    fresh = set(flow._limits) - links
                    links |= fresh
                    reached += fresh
        return links, sorted(flows, key=lambda flow: flow.flow_id)


def stripe(paths: Sequence[Path], num_bytes: int) -> list[tuple[Path, int]]:
    """Return paths and how many of the bytes go over each: equal shares, the first ones a byte more."""
    if not paths:
        raise ValueError("a transfer needs at least one path")
    used = paths[: max(1, min(len(paths), num_bytes))]
    each, more = divmod(num_bytes, len(used))
    return [(path, each + (i < more)) for i, path in enumerate(used)]


__all__ = ["FLOWS", "Done", "Flow", "FlowGroup", "LinkSpec", "LinkUse", "Network", "Path", "stripe"]

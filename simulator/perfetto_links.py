"""Tracks of links in a Perfetto trace: a slice for each flow on each link that it crosses, and how full the links are.

Flows share links, so that they overlap in any way, while slices of one thread must nest: a link has as many threads as
it had flows at a time, and a flow stands on the first that is free. Where more than `MAX_TRACKS` links were used, links
that differ in numbers alone (``node0/nic3/tx``, ``node0/nic4/tx``) share a track, within a node if that is enough. A
slice lasts from the start of the flow, latency included, to its last byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from heapq import heappop, heappush
from itertools import chain
from typing import TYPE_CHECKING

from simulator.perfetto_format import Event, Threads, microseconds, process_names

if TYPE_CHECKING:
    from simulator.network.flows import Flow, Network

MAX_TRACKS = 256
MAX_SLICES = 100_000
MAX_RATES = 100_000
MAX_AT_A_TIME = 32
"""Threads of a track."""


def link_events(
    network: Network, pid: int, horizon_ns: int, threads: Threads, notes: list[str], *, max_tracks: int = MAX_TRACKS
) -> Iterator[Event]:
    """Return the events of the links, as one process; say in ``notes`` what is left out.

    Parameters
    ----------
    network
        Whose past was kept.
    horizon_ns
        Where the trace ends: flows under way are drawn to there.
    threads
        Gets those of the links; writing their names is the caller's.
    """
    past = [] if network.past is None else network.past
    ended = [(flow, min(end, horizon_ns)) for flow, end in past if flow.started_ns <= horizon_ns]
    flows = ended + [(flow, horizon_ns) for flow in network.active if flow.started_ns <= horizon_ns]
    flows.sort(key=lambda each: each[0].flow_id)
    used = sorted({link for flow, _ in flows for link in flow.path})
    if not used:
        return iter(())
    names = [network.links[link].name for link in used]
    grouped = track_names(names, max_tracks)
    if grouped != names:
        notes.append(f"{len(names):,} links share {len(set(grouped)):,} tracks; * stands for their numbers")
    track_of = dict(zip(used, grouped, strict=True))
    shown = _as_many(flows, track_of, MAX_SLICES)
    if len(shown) < len(flows):
        notes.append(f"flows over links: the first {len(shown):,} of {len(flows):,} are shown")
    rates = [each for each in network.timeline or () if each[0] <= horizon_ns and each[1] in track_of]
    if len(rates) > MAX_RATES:
        notes.append(f"use of links: shown until {rates[MAX_RATES][0] / 1e9:.3f} s")
        rates = rates[:MAX_RATES]
    slices, beyond = _slices(shown, track_of, pid, threads)
    if beyond:
        notes.append(f"links: {beyond:,} slices are left out where more than {MAX_AT_A_TIME} flows shared a track")
    return chain(process_names(pid, "links"), slices, _use(network, rates, track_of, pid))


def track_names(names: Sequence[str], most: int) -> list[str]:
    """Return the track of each link: its name, with * for numbers where there would be more than ``most`` tracks.

    The number of the node, in the first part of a name, stays if that is enough.
    """
    if len(names) <= most:
        return list(names)
    parts = [name.partition("/") for name in names]
    found = [first + slash + _starred(rest) for first, slash, rest in parts]
    return found if len(set(found)) <= most else [_starred(name) for name in names]


def _starred(text: str) -> str:
    return re.sub(r"\d+", "*", text)


def _as_many(flows: list[tuple[Flow, int]], track_of: dict[int, str], most: int) -> list[tuple[Flow, int]]:
    """Return the first flows, as many as make ``most`` slices at most."""
    slices = 0
    for place, (flow, _) in enumerate(flows):
        slices += len({track_of[link] for link in flow.path})
        if slices > most:
            return flows[:place]
    return flows


def _slices(
    flows: Sequence[tuple[Flow, int]], track_of: Mapping[int, str], pid: int, threads: Threads
) -> tuple[list[Event], int]:
    """Draw flows in the order of their start, each on the first free thread of each track that it crosses.

    Returns
    -------
    tuple
        The slices, and how many were left out because `MAX_AT_A_TIME` threads of their track were taken.
    """
    slices: list[Event] = []
    beyond = 0
    idle: dict[str, list[int]] = {track: [] for track in track_of.values()}  # threads of a track by number: heaps
    busy: dict[str, list[tuple[int, int]]] = {track: [] for track in idle}  # (free again at ns, thread): heaps
    places = {track: place * MAX_AT_A_TIME for place, track in enumerate(idle)}
    for flow, end_ns in flows:
        args = {
            "bytes": flow.num_bytes,
            "bytes_moved": flow.num_bytes - flow.remaining_bytes,
            "path": " > ".join(flow.link_names),
        }
        for track in dict.fromkeys(track_of[link] for link in flow.path):
            free, taken = idle[track], busy[track]
            while taken and taken[0][0] <= flow.started_ns:
                heappush(free, heappop(taken)[1])
            if len(taken) == MAX_AT_A_TIME:
                beyond += 1
                continue
            thread = heappop(free) if free else len(taken)
            heappush(taken, (end_ns, thread))
            name = track if not thread else f"{track} ({thread + 1})"
            slices.append(
                {
                    "ph": "X",
                    "pid": pid,
                    "tid": threads.number(pid, (track, thread), name, places[track] + thread),
                    "name": flow.label or "flow",
                    "cat": "flow",
                    "ts": microseconds(flow.started_ns),
                    "dur": microseconds(end_ns - flow.started_ns),
                    "args": args,
                }
            )
    return slices, beyond


def _use(
    network: Network, rates: Sequence[tuple[int, int, float]], track_of: Mapping[int, str], pid: int
) -> Iterator[Event]:
    """Draw the share of each track's bandwidth that is in use, whenever it changes."""
    bandwidth: dict[str, float] = {}
    for link, track in track_of.items():
        bandwidth[track] = bandwidth.get(track, 0.0) + network.links[link].bandwidth
    now = dict.fromkeys(track_of, 0.0)
    total = dict.fromkeys(bandwidth, 0.0)
    last: dict[str, float] = {}
    for place, (t_ns, link, rate) in enumerate(rates):
        track = track_of[link]
        total[track] += rate - now[link]
        now[link] = rate
        following = rates[place + 1] if place + 1 < len(rates) else None
        if following is not None and following[0] == t_ns and track_of[following[1]] == track:
            continue  # of several changes at an instant the last one stands
        percent = round(100 * total[track] / bandwidth[track], 3)
        if last.get(track) != percent:
            last[track] = percent
            name = f"{track} in use"
            yield {"ph": "C", "pid": pid, "name": name, "ts": microseconds(t_ns), "args": {"%": abs(percent)}}

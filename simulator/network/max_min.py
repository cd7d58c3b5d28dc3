"""Max-min fair rates by progressive filling (D. Bertsekas, R. Gallager, *Data Networks*, 2nd ed. 1992, section 6.5.2).

All flows' rates rise together; when a link is full, the flows on it keep what they have, and the others go on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence


def max_min_rates(
    capacities: Sequence[float] | Mapping[int, float],
    paths: Sequence[Sequence[int]],
    counts: Sequence[int] | None = None,
) -> list[float]:
    """Return the max-min fair rate of each flow.

    Parameters
    ----------
    capacities
        Of each link, by its index, at least 0; bytes/s, or any other unit.
    paths
        Links of each flow, shape (flows,). A link that stands in a path twice carries the flow twice. A flow without
        links has an infinite rate.
    counts
        How many flows go over each of the paths, at least 1, shape (flows,): all have the same rate. None: one.

    Returns
    -------
    list of float
        Shape (flows,), in the unit of the capacities. A rate can't be raised but at the cost of one that is not larger.
        The rates depend on the order neither of the flows nor of the links, not even in the last bit, nor on whether
        flows over one path are given one by one or counted.
    """
    weights = [1] * len(paths) if counts is None else counts
    users: dict[int, list[int]] = {}  # paths over each link in order, one once for each time that it crosses the link
    for flow, path in enumerate(paths):
        for link in path:
            if link in users:
                users[link].append(flow)
            else:
                users[link] = [flow]
    own = [math.inf] * len(paths)  # what the links that a path has for itself let through
    left: dict[int, float] = {}  # of each link that paths share: capacity that flows with a rate leave over
    count: dict[int, int] = {}  # and how many flows have none yet
    for link, flows in users.items():
        if flows[0] == flows[-1]:
            own[flows[0]] = min(own[flows[0]], capacities[link] / (len(flows) * weights[flows[0]]))
        else:
            left[link], count[link] = float(capacities[link]), sum([weights[flow] for flow in flows])
    shared = [[link for link in path if link in count] for path in paths]
    by_own = sorted((flow for flow, path in enumerate(paths) if path), key=own.__getitem__)
    rates = [math.inf] * len(paths)
    settled = [False] * len(paths)
    floor, first = 0.0, 0
    while True:
        while first < len(by_own) and settled[by_own[first]]:
            first += 1
        if first == len(by_own):
            return rates
        # The links that fill first, at the level that the rising rates have then.
        levels = {link: left[link] / count[link] for link in count}
        lowest = min(min(levels.values(), default=math.inf), own[by_own[first]])
        full = [link for link, level in levels.items() if level == lowest]
        reached = [flow for link in full for flow in users[link]]
        for flow in by_own[first:]:
            if own[flow] > lowest:
                break
            reached.append(flow)
        # A level falls below the last one by rounding only, and capacity that is left by rounding may be below 0.
        floor = max(floor, lowest)
        taken: dict[int, int] = {}
        for flow in reached:
            if not settled[flow]:
                settled[flow] = True
                rates[flow] = floor
                for link in shared[flow]:
                    taken[link] = taken.get(link, 0) + weights[flow]
        for link, times in taken.items():
            count[link] -= times
            left[link] -= times * floor
            if not count[link]:
                del count[link]


def completion_times(
    capacities: Sequence[float] | Mapping[int, float], paths: Sequence[Sequence[int]], amounts: Sequence[float]
) -> list[float]:
    """Return when each of some flows that begin together ends, if they have the links to themselves.

    Parameters
    ----------
    amounts
        What each has to move, at least 0, in the unit of the capacities times seconds.

    Returns
    -------
    list of float
        Seconds, shape (flows,); infinite for a flow over a link without capacity.
    """
    times = [0.0] * len(paths)
    left = [float(amount) for amount in amounts]
    going = [i for i, amount in enumerate(left) if amount > 0]
    now = 0.0
    while going:
        rates = max_min_rates(capacities, [paths[i] for i in going])
        spans = [left[i] / rate if rate else math.inf for i, rate in zip(going, rates, strict=True)]
        span = min(spans)
        now += span
        still = []
        for i, rate, own in zip(going, rates, spans, strict=True):
            if own == span:  # all of them where nothing moves any more
                times[i] = now
            else:
                left[i] -= rate * span
                still.append(i)
        going = still
    return times

"""Max-min fair rates by progressive filling (D. Bertsekas, R. Gallager, *Data Networks*, 2nd ed. 1992, section 6.5.2).

All flows' rates rise together; when a link is full, the flows on it keep what they have, and the others go on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence


def max_min_rates(capacities: Sequence[float] | Mapping[int, float], paths: Sequence[Sequence[int]]) -> list[float]:
    """Return the max-min fair rate of each flow.

    Parameters
    ----------
    capacities
        Of each link, by its index, at least 0; bytes/s, or any other unit.
    paths
        Links of each flow, shape (flows,). A link that stands in a path twice carries the flow twice. A flow without
        links has an infinite rate.

    Returns
    -------
    list of float
        Shape (flows,), in the unit of the capacities. A rate can't be raised but at the cost of one that is not larger.
        The rates depend on the order neither of the flows nor of the links, not even in the last bit.
    """
    rates = [math.inf] * len(paths)
    left: dict[int, float] = {}  # capacity that flows with a rate leave over
    open_flows: dict[int, list[int]] = {}  # of each link, once for each time that it stands in a path
    for flow, path in enumerate(paths):
        for link in path:
            if link not in left:
                left[link] = float(capacities[link])
                open_flows[link] = []
            open_flows[link].append(flow)
    count = {link: len(flows) for link, flows in open_flows.items()}
    settled = [False] * len(paths)
    floor = 0.0
    while count:
        # The links that fill first, at the level that the rising rates have then.
        levels = {link: left[link] / count[link] for link in count}
        lowest = min(levels.values())
        # A level falls below the last one by rounding only, and capacity that is left by rounding may be below 0.
        floor = max(floor, lowest)
        taken: dict[int, int] = {}
        for link in [link for link, level in levels.items() if level == lowest]:
            for flow in open_flows[link]:
                if not settled[flow]:
                    settled[flow] = True
                    rates[flow] = floor
                    for crossed in paths[flow]:
                        taken[crossed] = taken.get(crossed, 0) + 1
        for link, times in taken.items():
            count[link] -= times
            left[link] -= times * floor
            if not count[link]:
                del count[link]
    return rates


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

"""The integer programme: the cheapest numbers of replicas whose capacities add up to what is wanted.

PuLP states it, HiGHS or CBC solves it, whichever is at hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pulp

Counts = tuple[int, ...]
"""Replicas by configuration."""
MOST_REPLICAS = 100_000
"""Of one configuration at most, as a scenario's pool."""


def cheapest(
    prices: Sequence[float],
    capacities: Sequence[Mapping[str, float]],
    needed: Mapping[str, float],
    *,
    gpus: Sequence[int] = (),
    types: Sequence[str] = (),
    at_most: Mapping[str, int] | None = None,
    beyond: Sequence[Counts] = (),
) -> Counts | None:
    """Return the cheapest numbers of replicas that do what is needed; None: none does.

    Each class of requests may be split over the configurations. A replica that serves several classes gives each a part
    of its time: shares of its capacities add up to 1 at most.

    Parameters
    ----------
    prices
        Of a replica, by configuration.
    capacities
        By configuration, and class: what a replica does that serves nothing else; a class that it can't serve is 0 or
        left out.
    needed
        By class, in the same unit.
    gpus, types
        GPUs of a replica, and their type, by configuration: for ``at_most``.
    at_most
        GPUs by type.
    beyond
        Fleets that were seen to be too small: what is returned has more of something than each of them.

    Notes
    -----
    Minimise sum_c p_c n_c over whole n_c >= 0 and y_ck >= 0, where sum_c y_ck = d_k for each class k, sum_k y_ck / a_ck
    <= n_c for each configuration c, and sum_{c of type t} g_c n_c <= limit_t. Of each fleet m that is too small, whole
    z_c in {0, 1}: n_c >= (m_c + 1) z_c, sum_c z_c >= 1.
    """
    problem = pulp.LpProblem("fleet", pulp.LpMinimize)
    numbers = [problem.add_variable(f"n_{c}", 0, MOST_REPLICAS, pulp.LpInteger) for c in range(len(prices))]
    problem += pulp.lpSum(price * number for price, number in zip(prices, numbers, strict=True))
    shares: dict[tuple[int, str], Any] = {}
    for c, having in enumerate(capacities):
        for k in needed:
            if having.get(k, 0.0) > 0:
                shares[c, k] = problem.add_variable(f"y_{c}_{len(shares)}", 0)
        problem += pulp.lpSum(shares[c, k] / having[k] for k in needed if (c, k) in shares) <= numbers[c]
    for k, amount in needed.items():
        able = [shares[c, k] for c in range(len(prices)) if (c, k) in shares]
        if not able:
            return None
        problem += pulp.lpSum(able) == amount
    for kind, limit in (at_most or {}).items():
        problem += pulp.lpSum(gpus[c] * numbers[c] for c in range(len(prices)) if types[c] == kind) <= limit
    for index, fleet in enumerate(beyond):
        more = [problem.add_variable(f"z_{index}_{c}", 0, 1, pulp.LpInteger) for c in range(len(prices))]
        for number, count, chosen in zip(numbers, fleet, more, strict=True):
            problem += number >= (count + 1) * chosen
        problem += pulp.lpSum(more) >= 1
    problem.solve(_solver())
    if pulp.LpStatus[problem.status] != "Optimal":
        return None
    return tuple(round(float(number.value())) for number in numbers)


def _solver() -> Any:
    """Return a solver that is installed, told to leave no gap."""
    bundled = getattr(pulp.PULP_CBC_CMD, "pulp_cbc_path", None)  # a class that warns when one makes an object of it
    for name, path in (("HiGHS", None), ("COIN_CMD", None), ("COIN_CMD", bundled)):
        where = {} if path is None else {"path": path}
        solver = pulp.getSolver(name, msg=False, gapRel=0.0, **where)
        if solver.available():
            return solver
    raise RuntimeError("PuLP finds neither HiGHS nor CBC; install highspy, or PuLP with its solver")


__all__ = ["Counts", "cheapest"]

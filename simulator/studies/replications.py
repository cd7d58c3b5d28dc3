"""Seeds as replications: which ones, and a replayed trace drawn anew for each."""

from __future__ import annotations

from collections.abc import Sequence

from simulator.errors import InputError

MOST_SEEDS = 10_000
"""Of one point; a choice, well above what an interval needs."""


def list_seeds(seeds: int | Sequence[int], first: int = 0) -> list[int]:
    """Return the seeds of replications.

    Parameters
    ----------
    seeds
        How many, counted up from ``first``; or the seeds themselves.
    first
        The scenario's own.

    Raises
    ------
    InputError
        If there are none, too many, a negative one or one twice.
    """
    if isinstance(seeds, int):
        if not 1 <= seeds <= MOST_SEEDS:
            raise InputError(f"seeds: from 1 to {MOST_SEEDS:,} replications, got {seeds:,}")
        return list(range(first, first + seeds))
    found = list(seeds)
    if not found or len(found) > MOST_SEEDS:
        raise InputError(f"seeds: from 1 to {MOST_SEEDS:,} replications, got {len(found):,}")
    for seed in found:
        if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**63:
            raise InputError(f"seeds: a seed is a whole number from 0 to 2^63 - 1, got {seed!r}")
    twice = next((seed for seed in found if found.count(seed) > 1), None)
    if twice is not None:
        raise InputError(f"seeds: {twice} is there twice; a replication is of use once")
    return found

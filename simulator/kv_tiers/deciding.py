"""Load a prefix or compute it: the break-even, and what it is worked out from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from simulator.cost.shape import BatchShape, CostModel


def prefill_ns(cost: CostModel, cached: int, tokens: int, chunk: int) -> int:
    """Return how long computing some tokens of a prompt takes an engine that has nothing else to do, ns.

    Parameters
    ----------
    cached
        Tokens before them that are in KV.
    chunk
        Most tokens of a step.
    """
    total = 0
    while tokens > 0:
        new = min(chunk, tokens)
        shape = BatchShape()
        shape.chunks = [(new, cached)]
        shape.prefill_tokens = new
        shape.logit_rows = 1
        total += cost.step_ns(shape)
        cached += new
        tokens -= new
    return total


def best_load(ends: Sequence[int], load_ns: Callable[[int], int | None], compute_ns: Callable[[int], int]) -> int:
    """Return how many units to load: those up to one of ``ends``, or 0, whichever is sooner done.

    Parameters
    ----------
    ends
        Units up to where one tier holds them, and then another; ascending.
    load_ns
        What loading so many takes; None: they can't be.
    compute_ns
        What computing the rest of the prompt takes, if so many units are loaded.

    Notes
    -----
    Both are compared as they would be on an engine with nothing else to do. While KV is loaded the GPU serves others;
    that is not counted in its favour. Of equal times the shorter load wins.
    """
    best, best_ns = 0, compute_ns(0)
    for end in ends:
        loading = load_ns(end)
        if loading is None:
            break
        total = loading + compute_ns(end)
        if total < best_ns:
            best, best_ns = end, total
    return best


__all__ = ["best_load", "prefill_ns"]

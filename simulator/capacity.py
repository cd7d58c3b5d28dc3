"""Whether a cluster can hold any of its requests at all: said before the run, not after it refused each of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator.errors import InputError

if TYPE_CHECKING:
    from simulator.resolve import Resolved, ResolvedPool
    from workloads import Trace


def longest_prompt(each: ResolvedPool) -> int:
    """Return the longest prompt that a replica of a pool takes, tokens: room for one output token is left."""
    limit = each.pool.engine.max_model_len
    assert limit is not None  # it is resolved
    return min(limit - 1, each.memory.kv_tokens)


def check_capacity(resolved: Resolved, trace: Trace) -> None:
    """Raise if no pool takes even the shortest prompt, so that every request would be refused.

    Raises
    ------
    InputError
        With what limits the pool that takes the longest, and the remedy.
    """
    if not len(trace):
        return
    shortest = int(trace.prompt_tokens.min())
    best = max(resolved.pools, key=longest_prompt)
    longest = longest_prompt(best)
    if shortest <= longest:
        return
    limit, held = best.pool.engine.max_model_len, best.memory.kv_tokens
    raise InputError(
        f"no replica takes even the shortest prompt of {shortest} tokens: pool {best.pool.name!r} takes {longest} at "
        f"most (max_model_len {limit}, KV memory for {held} tokens); use more GPUs a replica, narrower weights or KV, "
        "or a larger max_model_len"
    )

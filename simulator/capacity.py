"""Whether a cluster can hold any of its requests at all: said before the run, not after it refused each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

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

    Where prompts are computed on some pools and tokens generated on others, one of either must.

    Raises
    ------
    InputError
        With what limits the pool that takes the longest, and the remedy.
    """
    for left_out, which in (("decode", "no replica"), ("prefill", "no replica that decodes")):
        pools = [each for each in resolved.pools if each.pool.role != left_out]
        _check(pools, trace.prompt_tokens, f"{which} takes even the shortest prompt")


def _check(pools: Sequence[ResolvedPool], prompts: npt.NDArray[np.int64], what: str) -> None:
    if not len(prompts):
        return
    shortest = int(prompts.min())
    best = max(pools, key=longest_prompt)
    longest = longest_prompt(best)
    if shortest <= longest:
        return
    limit, held = best.pool.engine.max_model_len, best.memory.kv_tokens
    raise InputError(
        f"{what} of {shortest} tokens: pool {best.pool.name!r} takes {longest} at most (max_model_len {limit}, KV "
        f"memory for {held} tokens); use more GPUs a replica, narrower weights or KV, or a larger max_model_len"
    )

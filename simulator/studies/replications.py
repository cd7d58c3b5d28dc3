"""Seeds as replications: which ones, and a replayed trace drawn anew for each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from simulator.errors import InputError
from simulator.scenario import Resample, Scenario

if TYPE_CHECKING:
    from workloads import Trace

BLOCKS = 10
"""Blocks that a trace is cut into at least where their length isn't given: a choice."""
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
    if isinstance(seeds, int | np.integer):
        if not 1 <= seeds <= MOST_SEEDS:
            raise InputError(f"seeds: from 1 to {MOST_SEEDS:,} replications, got {seeds:,}")
        return list(range(first, first + int(seeds)))
    found = list(seeds)
    if not found or len(found) > MOST_SEEDS:
        raise InputError(f"seeds: from 1 to {MOST_SEEDS:,} replications, got {len(found):,}")
    for seed in found:
        if not isinstance(seed, int | np.integer) or isinstance(seed, bool) or not 0 <= seed < 2**63:
            raise InputError(f"seeds: a seed is a whole number from 0 to 2^63 - 1, got {seed!r}")
    twice = next((seed for seed in found if found.count(seed) > 1), None)
    if twice is not None:
        raise InputError(f"seeds: {twice} is there twice; a replication is of use once")
    return [int(seed) for seed in found]


@dataclass(frozen=True)
class Replications:
    """What seeds stand for.

    Attributes
    ----------
    resample
        How the trace is drawn anew for each; None: it isn't.
    text
        The same in words.
    """

    resample: Resample | None
    text: str


def replications(scenario: Scenario, trace: Trace, *, wanted: bool | None = None) -> Replications:
    """Decide what several seeds of a scenario stand for.

    A replayed trace is the same whatever the seed, and intervals over runs that are all alike would be of width zero
    and say nothing. So it is drawn anew for each seed (`workload.resample`) where that can be: the seeds then are other
    days like the recorded one.

    Parameters
    ----------
    trace
        Its requests, as `simulator.build.load_trace` gives them.
    wanted
        Whether the trace is drawn anew; None: if it can be.

    Raises
    ------
    InputError, workloads.TraceError
        If it is wanted and can't be.
    """
    part = scenario.workload
    if part.resample is not None:
        return Replications(part.resample, _drawn(part.resample))
    if part.generator is not None:
        if wanted:
            raise InputError("only a replayed trace is resampled; this one is generated, anew for each seed")
        return Replications(None, f"the generator {part.generator.kind} makes other requests with each seed")
    if wanted is False:
        return Replications(None, "the same requests with each: only what draws random numbers differs")
    why = _not_resampled(scenario, trace)
    if why and wanted:
        raise InputError(why)
    if why:
        return Replications(None, f"the same requests with each, as {why}")
    span = float(trace.arrival_s[-1])
    usual = Resample()
    found = Resample(block_s=min(usual.block_s, _rounded(span / BLOCKS)), within_s=usual.within_s)
    return Replications(found, _drawn(found, ", so that seeds are other days like it"))


def _not_resampled(scenario: Scenario, trace: Trace) -> str:
    """Say why a trace can't be drawn anew; empty if it can."""
    from workloads import TraceError, resample_trace

    if not len(trace) or not trace.arrival_s[-1] > 0:
        return "a trace whose requests all arrive at once can't be resampled"
    if scenario.workload.loop.kind == "sessions":
        return "turns of sessions belong together and can't be resampled"
    try:
        resample_trace(trace, block_s=float(trace.arrival_s[-1]), within_s=1.0)
    except TraceError as error:
        return str(error)
    return ""


def _drawn(how: Resample, why: str = "") -> str:
    return (
        f"the trace is drawn anew for each, in blocks of {how.block_s:g} s from within {how.within_s:g} s "
        f"(workload.resample){why}"
    )


def _rounded(value: float) -> float:
    """Return a number with two significant digits."""
    return round(value, 1 - math.floor(math.log10(value)))


__all__ = ["Replications", "list_seeds", "replications"]

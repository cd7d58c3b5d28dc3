"""Other days like the one that was recorded: a trace put together anew from pieces of itself.

A replayed trace is one sample of the traffic. Runs on several resampled traces (one a seed) say how much a figure owes
to that sample.
"""

from __future__ import annotations

import math

import numpy as np

from workloads.streams import stream
from workloads.trace import Trace, TraceError


def resample_trace(trace: Trace, *, block_s: float, within_s: float, seed: int = 0) -> Trace:
    """Return a trace whose blocks of time are drawn from the trace's own, near their place: a local block bootstrap.

    Block ``i``, from ``i * block_s`` on, gets what the trace has in a window as long that starts at most ``within_s``
    earlier or later and lies on the trace, drawn uniformly. So bursts shorter than a block and the rate's course over
    spans longer than ``within_s`` stay as they were, as do the lengths that go with the arrivals; what is drawn anew
    lies between. What lies on two sides of a seam is taken as independent. A trace that spans less than two blocks has
    hardly anything to draw from.

    Parameters
    ----------
    trace
        Requests whose prompts have no known parts (``block_hashes``). Turns of sessions are drawn one by one, as
        requests that nothing precedes: right for an open loop, which sends every request at its own time anyway.
    block_s
        Length of a block, seconds.
    within_s
        How far from its place a block may come, seconds.
    seed
        0 or more; one seed, one trace.

    Returns
    -------
    Trace
        About as many requests, not exactly as many.

    Raises
    ------
    TraceError
        If a length isn't above 0, nothing is drawn, or prompts are known: one drawn twice would be found in prefix
        caches where none of the real traffic is.

    References
    ----------
    E. Paparoditis, D. N. Politis, *Local block bootstrap*, Comptes Rendus Mathematique 335 (2002) 959-962.
    """
    for name, value in (("block_s", block_s), ("within_s", within_s)):
        if not 0 < value < math.inf:
            raise TraceError(f"{name} must be above 0 and finite, got {value}")
    if trace.block_hashes is not None:
        raise TraceError(
            "a trace with identities of blocks can't be resampled: prompts would repeat; replay it as it is"
        )
    arrival = trace.arrival_s
    span = float(arrival[-1])
    starts = np.arange(0.0, max(span, block_s / 2), block_s)
    last = max(span - block_s, 0.0)
    # uniform over what is within reach and on the trace: cut off at the trace's ends after the draw, the first and the
    # last window would come again and again
    earliest, latest = np.clip(starts - within_s, 0.0, last), np.clip(starts + within_s, 0.0, last)
    sources = stream(seed, "resampling").uniform(earliest, latest)
    lengths = np.minimum(block_s, np.append(starts[1:], span + math.ulp(span)) - starts)
    begin, end = np.searchsorted(arrival, sources), np.searchsorted(arrival, sources + lengths)
    counts = end - begin
    if not counts.any():
        raise TraceError("nothing was drawn: there are too few requests for blocks of this length; make them longer")
    rows = np.repeat(begin - (np.cumsum(counts) - counts), counts) + np.arange(int(counts.sum()))
    shifted = arrival[rows] - np.repeat(sources, counts) + np.repeat(starts, counts)
    # rounding may put a block's last arrival a hair after the next block's first
    return trace.rearranged(rows, np.maximum.accumulate(shifted)).with_notes(
        f"requests were drawn from the trace in blocks of {block_s:g} s from within {within_s:g} s (seed {seed}): "
        f"{int(counts.sum()):,} of {len(trace):,}"
    )

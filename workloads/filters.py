"""Parts of a trace, and the same trace faster or slower."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from workloads.streams import mix, uniform_of_key
from workloads.trace import Categorical, Trace, TraceError, did_you_mean


def filter_trace(
    trace: Trace,
    *,
    start_s: float | None = None,
    end_s: float | None = None,
    limit: int | None = None,
    model: str | Sequence[str] | None = None,
    request_class: str | Sequence[str] | None = None,
    log_type: str | Sequence[str] | None = None,
    rate_scale: float = 1.0,
    time_scale: float = 1.0,
    sample: float = 1.0,
    seed: int = 0,
) -> Trace:
    """Return the rows that pass every filter, then scaled in time.

    The order is: window, model, class, sample, limit; then the window's start becomes 0, and times are scaled.

    Parameters
    ----------
    trace
        The trace.
    start_s, end_s
        Window on ``arrival_s``, seconds: start included, end not. With a start given it becomes the new zero.
    limit
        Most requests, the first ones.
    model, request_class
        Names to keep; ``log_type`` is BurstGPT's name for the class.
    rate_scale
        Arrivals come this many times as fast; lengths, think times and deadlines stay.
    time_scale
        Arrivals and think times are this many times as long.
    sample
        Fraction of the requests to keep, 0 to 1. What becomes of a row depends on ``seed`` and on the row alone (its
        time and lengths as read; for a session on its name, so that conversations stay whole). So a larger fraction
        keeps all that a smaller one keeps, and other filters don't change the choice.
    seed
        Seed of the sample, 0 or more.

    Returns
    -------
    Trace
        With a note and a count for what each filter dropped. A turn whose parent was dropped has none, and starts at
        its own arrival.

    Raises
    ------
    TraceError
        If a value is out of range, a name is unknown, or nothing is left.
    """
    _check(start_s, end_s, limit, rate_scale, time_scale, sample, seed)
    if log_type is not None:
        if request_class is not None:
            raise TraceError("'log_type' and 'request_class' are the same filter; give one of them")
        request_class = log_type
    if trace.row_key is None:
        trace = replace(trace, row_key=_keys(trace))
    keep = np.ones(len(trace), np.bool_)
    notes: list[str] = []
    counts: dict[str, int] = {}

    def drop(passing: npt.NDArray[np.bool_], name: str, what: str) -> None:
        dropped = int(np.count_nonzero(keep & ~passing))
        np.logical_and(keep, passing, out=keep)
        if dropped:
            notes.append(f"left out {dropped} requests {what}")
            counts[name] = counts.get(name, 0) + dropped

    if start_s is not None or end_s is not None:
        low, high = -math.inf if start_s is None else start_s, math.inf if end_s is None else end_s
        drop((trace.arrival_s >= low) & (trace.arrival_s < high), "outside_window", f"outside {low:g} to {high:g} s")
    for names, column, label in ((model, trace.model, "model"), (request_class, trace.request_class, "class")):
        if names is not None:
            wanted = [names] if isinstance(names, str) else list(names)
            drop(_named(column, wanted, label), f"other_{label}", f"of another {label} than {', '.join(wanted)}")
    if sample < 1 and trace.row_key is not None:
        drop(uniform_of_key(trace.row_key, seed) < sample, "not_sampled", f"by sampling {sample:g} (seed {seed})")
    if limit is not None:
        drop(np.cumsum(keep) <= limit, "beyond_limit", f"beyond the limit of {limit}")
    if not keep.any():
        raise TraceError(
            f"no request is left of {len(trace)} ({'; '.join(notes) or 'the trace is empty'}); widen the filter"
        )
    result = trace if keep.all() else trace.select(keep)
    if trace.parent_id is not None and result.parent_id is not None:
        lost = int(np.count_nonzero((trace.parent_id[keep] >= 0) & (result.parent_id < 0)))
        if lost:
            notes.append(f"{lost} turns lost their parent to a filter; they start at their own arrival")
            counts["orphaned_turns"] = lost
    return _scaled(result, start_s, rate_scale, time_scale).with_notes(*notes, **counts)


def _check(
    start_s: float | None,
    end_s: float | None,
    limit: int | None,
    rate_scale: float,
    time_scale: float,
    sample: float,
    seed: int,
) -> None:
    for name, scale in (("rate_scale", rate_scale), ("time_scale", time_scale)):
        if not 0 < scale < math.inf:
            raise TraceError(f"{name} must be above 0 and finite, got {scale}")
    if not 0 < sample <= 1:
        raise TraceError(f"sample must be above 0 and at most 1, got {sample}")
    if limit is not None and limit < 1:
        raise TraceError(f"limit must be at least 1, got {limit}")
    if seed < 0:
        raise TraceError(f"seed must be at least 0, got {seed}")
    for name, bound in (("start_s", start_s), ("end_s", end_s)):
        if bound is not None and not (bound >= 0):
            raise TraceError(f"{name} must be at least 0, got {bound}")
    if start_s is not None and end_s is not None and end_s <= start_s:
        raise TraceError(f"the window ends ({end_s:g} s) before it starts ({start_s:g} s)")


def _named(column: Categorical | None, wanted: Sequence[str], label: str) -> npt.NDArray[np.bool_]:
    if column is None:
        raise TraceError(f"the trace has no column {label!r}, so it can't be filtered by it")
    for name in wanted:
        if name not in column.names:
            raise TraceError(f"no request has {label} {name!r}{did_you_mean(name, column.names)}")
    return np.isin(column.codes, [column.names.index(name) for name in wanted])


def _scaled(trace: Trace, start_s: float | None, rate_scale: float, time_scale: float) -> Trace:
    arrival = trace.arrival_s
    origin = trace.time_origin
    if start_s:
        arrival = arrival - start_s
        origin = f"{origin} + {start_s:g} s" if origin else f"{start_s:g} s on the source's clock"
    factor = time_scale / rate_scale
    if factor != 1:
        arrival = arrival * factor
    think = trace.think_time_s
    if think is not None and time_scale != 1:
        think = think * time_scale
    trace = replace(trace, arrival_s=arrival, think_time_s=think, time_origin=origin)
    if rate_scale != 1:
        trace = trace.with_notes(f"arrivals come {rate_scale:g} times as fast as in the source")
    if time_scale != 1:
        trace = trace.with_notes(f"arrivals and think times are {time_scale:g} times as long as in the source")
    return trace


def _keys(trace: Trace) -> npt.NDArray[np.uint64]:
    from workloads.readers._base import content_keys

    instant = np.rint(trace.arrival_s * 1e6).astype(np.int64)
    keys = content_keys((instant, trace.prompt_tokens, trace.output_tokens))
    if trace.session_id is None:
        return keys
    return np.where(trace.session_id >= 0, mix(~trace.session_id), keys)

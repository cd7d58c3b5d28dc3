"""Statistics of a trace: rate, burstiness, lengths, sessions, and how much a prefix cache could save."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from workloads.trace import Floats, Ints, Trace, TraceError

PERCENTILES = (1, 10, 50, 90, 99)
_WINDOWS_S = (1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400)


def window_s(span_s: float, most: int = 120) -> float:
    """Return a round window of which a span has at most this many, seconds (1 s at least)."""
    return float(next((w for w in _WINDOWS_S if span_s / w <= most), math.ceil(span_s / most / 86400) * 86400))


def window_counts(arrival_s: Floats, width_s: float) -> Ints:
    """Count arrivals by window of ``width_s`` from time 0 to the last whole window (at least one)."""
    if not len(arrival_s):
        raise TraceError("an empty trace has no rate")
    windows = max(1, int(arrival_s[-1] // width_s))
    counts = np.bincount((arrival_s // width_s).astype(np.int64), minlength=windows)
    return counts[:windows].astype(np.int64)


def interarrival_cv(arrival_s: Floats) -> float:
    """Return the coefficient of variation of the gaps between arrivals: 1 for Poisson, more if bursty; NaN below 3."""
    gaps = np.diff(arrival_s)
    if len(gaps) < 2 or gaps.mean() == 0:
        return math.nan
    return float(gaps.std() / gaps.mean())


def dispersion(counts: Ints) -> float:
    """Return the index of dispersion of counts, variance over mean: 1 for Poisson; NaN without two windows."""
    if len(counts) < 2 or counts.mean() == 0:
        return math.nan
    return float(counts.var() / counts.mean())


def infinite_cache_hit_tokens(trace: Trace) -> Ints:
    """Return how many prompt tokens of each request an infinite prefix cache would hold already.

    Every earlier row of the trace counts as cached, with all the blocks that its identities cover. Only full blocks
    of the prompt hit, one after the other from its start, and at least one prompt token is computed anew. No cache of
    the same block size can hit more.

    Returns
    -------
    Ints
        Tokens for each row; 0 throughout without block hashes.
    """
    hits = np.zeros(len(trace), np.int64)
    blocks = trace.block_hashes
    if blocks is None or not len(blocks.values):
        return hits
    lengths = blocks.lengths()
    row = np.repeat(np.arange(len(trace)), lengths)
    _, first, inverse = np.unique(blocks.values, return_index=True, return_inverse=True)
    fresh = row[first][inverse] >= row  # the first row with this identity isn't an earlier one
    usable = np.minimum((trace.prompt_tokens - 1) // trace.block_size_tokens, lengths)
    place = np.arange(len(blocks.values)) - blocks.offsets[row]
    filled = np.flatnonzero(lengths)
    leading = np.where(fresh, place, np.iinfo(np.int64).max)
    hits[filled] = np.minimum.reduceat(leading, blocks.offsets[:-1][filled])
    return np.minimum(hits, usable) * trace.block_size_tokens


def describe(trace: Trace) -> dict[str, Any]:
    """Return statistics of a trace as plain data (numbers, texts, lists, dicts), for printing and for JSON.

    Rates are requests a second; ``rate_peak`` and ``rate_min`` are over the whole windows of ``window_s`` seconds, as
    is ``dispersion`` (variance over mean of their counts).
    """
    if not len(trace):
        raise TraceError("an empty trace has no statistics")
    span = float(trace.arrival_s[-1] - trace.arrival_s[0])
    width = window_s(float(trace.arrival_s[-1]))
    counts = window_counts(trace.arrival_s, width)
    result: dict[str, Any] = {
        "source": trace.source,
        "sha256": trace.sha256,
        "time_origin": trace.time_origin,
        "requests": len(trace),
        "span_s": span,
        "rate_mean": (len(trace) - 1) / span if span > 0 else math.nan,
        "window_s": width,
        "rate_peak": float(counts.max() / width),
        "rate_min": float(counts.min() / width),
        "interarrival_cv": interarrival_cv(trace.arrival_s),
        "dispersion": dispersion(counts),
        "prompt_tokens": _lengths(trace.prompt_tokens),
        "output_tokens": _lengths(trace.output_tokens),
    }
    for name in ("model", "request_class", "adapter", "tenant"):
        if (column := getattr(trace, name)) is not None:
            counted = np.bincount(column.codes[column.codes >= 0], minlength=len(column.names)).tolist()
            result[name] = {text: count for text, count in zip(column.names, counted, strict=True) if count}
    if trace.session_id is not None and (in_session := trace.session_id[trace.session_id >= 0]).size:
        turns = np.unique(in_session, return_counts=True)[1]
        result["sessions"] = {
            "count": len(turns),
            "turns_mean": float(turns.mean()),
            "turns_p50": float(np.median(turns)),
            "turns_max": int(turns.max()),
            "requests_outside": int(len(trace) - in_session.size),
        }
    if trace.block_hashes is not None:
        hit = infinite_cache_hit_tokens(trace)
        result["prefix"] = {
            "block_size_tokens": trace.block_size_tokens,
            "hit_tokens_most": int(hit.sum()),
            "hit_share_most": float(hit.sum() / trace.prompt_tokens.sum()),
            "requests_with_hit": int(np.count_nonzero(hit)),
        }
    result["counts"] = dict(trace.counts)
    result["notes"] = list(trace.notes)
    return result


def _lengths(tokens: Ints) -> dict[str, Any]:
    quantiles = np.percentile(tokens, PERCENTILES, method="inverted_cdf")
    return {
        "mean": float(tokens.mean()),
        "min": int(tokens.min()),
        **{f"p{p}": int(value) for p, value in zip(PERCENTILES, quantiles, strict=True)},
        "max": int(tokens.max()),
        "total": int(tokens.sum()),
    }

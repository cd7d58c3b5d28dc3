"""Figures by tenant, and how evenly the tenants were served.

Service is counted in tokens, a prompt token as 1 and an output token as 2, as in Sheng et al., Fairness in Serving
Large Language Models (OSDI 2024). A prompt counts when its request was first scheduled, output tokens evenly between
the first and the last (their exact times are not recorded by request).
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from simulator.engine.clock import NS_PER_S
from simulator.metrics import Ints, Rows, count_outcomes, describe, per_second, queue_ns, ttft_ns

if TYPE_CHECKING:
    from workloads.trace import Categorical

Floats = npt.NDArray[np.float64]

INPUT_WEIGHT, OUTPUT_WEIGHT = 1.0, 2.0
"""What a prompt token and an output token count as service: the paper's choice, after the prices of public services."""

MOST_COMPARED = 16
"""Tenants that are compared pair by pair, those with the most service."""

INSTANTS = 2001
"""Instants at which service is compared, evenly over the run."""


def describe_tenants(rows: Rows, tenants: Categorical, start_ns: int, end_ns: int) -> dict[str, Any]:
    """Return the summary's section ``tenants``.

    Parameters
    ----------
    rows
        Requests that figures cover.
    tenants
        Tenant of each row of the trace.
    start_ns, end_ns
        The window that rates are over.

    Returns
    -------
    dict
        ``by_tenant``, ``jain_index`` of their service (1: all equal,
        1/n: one has it all), and ``backlogged``: over all pairs of tenants and all times during which both had
        requests waiting without a pause, the largest difference between the service that the two received.
    """
    codes: Ints = tenants.codes[rows.row].astype(np.int64)
    codes[codes < 0] = len(tenants.names)
    names = [*tenants.names, "(none)"]
    present = [int(code) for code in np.unique(codes)]
    parts = {code: rows.take(codes == code) for code in present}
    services = {code: _service_of(part) for code, part in parts.items()}
    return {
        "by_tenant": {
            names[code]: {
                "requests": {"arrived": len(part), **count_outcomes(part)},
                "prompt_tokens": int(part.prompt[part.scheduled >= 0].sum()),
                "output_tokens": int(part.output.sum(dtype=np.int64)),
                "service": services[code],
                "service_per_s": per_second(services[code], end_ns - start_ns),
                "ttft_s": describe(ttft_ns(part)),
                "queue_s": describe(queue_ns(part)),
            }
            for code, part in parts.items()
        },
        "jain_index": jain_index(np.array(list(services.values()))),
        "backlogged": _backlogged(parts, services, names, end_ns),
        "service": f"{INPUT_WEIGHT:g} x prompt tokens + {OUTPUT_WEIGHT:g} x output tokens",
        "reason": None if present else "no request arrived in the window",
    }


def jain_index(values: Floats) -> float | None:
    """Return Jain's index of fairness, (sum x)^2 / (n sum x^2), between 1/n and 1; None if all are zero."""
    squares = float((values * values).sum())
    return float(values.sum()) ** 2 / (len(values) * squares) if squares else None


def _service_of(rows: Rows) -> float:
    prompt = int(rows.prompt[rows.scheduled >= 0].sum())
    return INPUT_WEIGHT * prompt + OUTPUT_WEIGHT * int(rows.output.sum(dtype=np.int64))


def _backlogged(parts: dict[int, Rows], services: dict[int, float], names: list[str], end_ns: int) -> dict[str, Any]:
    """Compare the service of each pair of tenants over the times during which both wait."""
    compared = sorted(parts, key=lambda code: (-services[code], code))[:MOST_COMPARED]
    at = np.unique(np.linspace(0, max(end_ns, 1), INSTANTS).astype(np.int64))
    service = {code: service_until(parts[code], at) for code in compared}
    waits = {code: waiting_at(parts[code], at) > 0 for code in compared}
    largest, pair, shared_ns = 0.0, None, 0
    step_ns = int(at[-1]) / max(1, len(at) - 1)
    for one, other in combinations(compared, 2):
        both = waits[one] & waits[other]
        shared_ns = max(shared_ns, int(both.sum() * step_ns))
        found = _largest_change(service[one] - service[other], both)
        if found > largest:
            largest, pair = found, [names[one], names[other]]
    return {
        "max_service_difference": largest if shared_ns else None,
        "between": pair,
        "longest_shared_s": shared_ns / NS_PER_S,
        "tenants_compared": len(compared),
        "reason": None if shared_ns else "no two tenants had requests waiting at the same time",
    }


def _largest_change(difference: Floats, both: npt.NDArray[np.bool_]) -> float:
    """Return by how much a difference changed at most between two instants of one stretch in which ``both`` holds."""
    edges = np.diff(np.concatenate(([0], both.astype(np.int8), [0])))
    stretches = zip(np.flatnonzero(edges == 1).tolist(), np.flatnonzero(edges == -1).tolist(), strict=True)
    return max((float(np.ptp(difference[first:after])) for first, after in stretches), default=0.0)


def service_until(rows: Rows, at_ns: Ints) -> Floats:
    """Return the service that requests received until each instant, shape (n,), instants ascending."""
    started = rows.scheduled >= 0
    total = np.zeros(len(at_ns))
    order = np.argsort(rows.scheduled[started])
    prompt = np.concatenate(([0.0], np.cumsum(INPUT_WEIGHT * rows.prompt[started][order])))
    total += prompt[np.searchsorted(rows.scheduled[started][order], at_ns, side="right")]
    got = (rows.first >= 0) & (rows.output > 0)
    first, last, output = rows.first[got], rows.last[got], rows.output[got].astype(np.float64)
    # One token at the first instant, the others evenly until the last: ramps, each a slope that begins and ends.
    order = np.argsort(first)
    ones = np.searchsorted(first[order], at_ns, side="right").astype(np.float64)
    slope = (output - 1) / np.maximum(last - first, 1)
    total += OUTPUT_WEIGHT * (ones + _ramp(first, slope, at_ns) - _ramp(last, slope, at_ns))
    return total


def _ramp(begin: Ints, slope: Floats, at_ns: Ints) -> Floats:
    """Return the sum over all of slope x (t - begin) where that is positive, at each instant."""
    order = np.argsort(begin)
    index = np.searchsorted(begin[order], at_ns, side="right")
    slopes = np.concatenate(([0.0], np.cumsum(slope[order])))
    offsets = np.concatenate(([0.0], np.cumsum(slope[order] * begin[order])))
    return np.asarray(slopes[index] * at_ns - offsets[index])


def waiting_at(rows: Rows, at_ns: Ints) -> Ints:
    """Return how many requests waited to be scheduled for the first time at each instant, shape (n,)."""
    left = np.where(rows.scheduled >= 0, rows.scheduled, rows.ended)
    left = np.where(left < 0, np.iinfo(np.int64).max, left)
    came = np.searchsorted(np.sort(rows.arrival), at_ns, side="right")
    return np.asarray(came - np.searchsorted(np.sort(left), at_ns, side="right"))

"""The figures that sides are compared by: their names, units, and which way is better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from simulator.errors import InputError, did_you_mean
from simulator.studies.points import LATENCIES

STATISTICS = ("mean", "p50", "p99")


@dataclass(frozen=True)
class Metric:
    """One figure.

    Attributes
    ----------
    name
        As users write it.
    figure
        Key of `simulator.studies.points.figures_of`.
    label
        In words, without the unit.
    unit
        Empty for a share.
    higher_is_better
        Which way is better.
    is_share
        Whether it is a share of requests: told in %, and compared by its difference.
    """

    name: str
    figure: str
    label: str
    unit: str
    higher_is_better: bool
    is_share: bool = False


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        *(
            Metric(f"{latency}_{statistic}", f"{latency}_s_{statistic}", f"{latency.upper()} {statistic}", "s", False)
            for latency in LATENCIES
            for statistic in STATISTICS
        ),
        Metric("goodput", "goodput_requests_per_s", "goodput", "requests/s", True),
        Metric("attainment", "attainment", "attainment", "", True, is_share=True),
        Metric("requests", "requests_per_s", "requests served", "requests/s", True),
        Metric("throughput", "output_tokens_per_s", "throughput", "output tokens/s", True),
        Metric("cost", "cost_per_million_output_tokens", "cost", "per million output tokens", False),
        Metric("energy", "energy_j_per_output_token", "energy", "J per output token", False),
    )
}
"""In the order of tables."""


def metric(name: str) -> Metric:
    """Return a metric by its name; ``ttft_s_p99`` and ``ttft-p99`` are ``ttft_p99``.

    Raises
    ------
    InputError
        If there is none.
    """
    wanted = name.strip().lower().replace("-", "_").replace("_s_", "_")
    if wanted not in METRICS:
        raise InputError(f"unknown metric {name!r}{did_you_mean(wanted, METRICS)}")
    return METRICS[wanted]


__all__ = ["METRICS", "Metric", "metric"]

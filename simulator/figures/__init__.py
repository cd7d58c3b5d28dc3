"""Figures of results, for notebooks and reports: functions that return a Matplotlib figure.

Each takes a result (what `simulator.run` or `simulator.load_result` returns) or a tidy table, and ``ax`` to draw on
axes of your own; without, it makes a figure that a notebook shows and that ``figure.savefig`` writes. Nothing here
touches pyplot.
"""

from simulator.figures.latency import cdf, cdf_points, latency_cdf
from simulator.figures.loads import load_attainment
from simulator.figures.over_time import over_time, timeline
from simulator.figures.published import published
from simulator.figures.results import latencies
from simulator.figures.studies import forest, sweep_heatmap, sweep_line, sweep_points
from simulator.figures.svg import to_svg
from simulator.figures.tradeoffs import load_goodput, pareto, pareto_front
from simulator.figures.utilization import gpu_utilization, link_utilization

__all__ = [
    "cdf",
    "cdf_points",
    "forest",
    "gpu_utilization",
    "latencies",
    "latency_cdf",
    "link_utilization",
    "load_attainment",
    "load_goodput",
    "over_time",
    "pareto",
    "pareto_front",
    "published",
    "sweep_heatmap",
    "sweep_line",
    "sweep_points",
    "timeline",
    "to_svg",
]

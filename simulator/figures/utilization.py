"""How busy GPUs and links were."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from simulator.errors import InputError
from simulator.figures.labels import percents, shortened
from simulator.figures.results import Floats, Result
from simulator.figures.style import SERIES, axes_of, context, figure_of, legend_above, line_style, marker_style

_MOST_BARS = 16
"""So many replicas have a bar each; more are a line, the busiest first."""
_MOST_LINKS = 12


def gpu_utilization(result: Result, *, ax: Axes | None = None) -> Figure:
    """Draw the share of the run in which each replica's GPUs had a batch in flight.

    Raises
    ------
    InputError
        If it isn't known.
    """
    replicas = [each for each in result.summary["replicas"] if each["utilization"] is not None]
    if not replicas:
        raise InputError("no replica's utilisation is known: nothing to draw")
    pools = {each["pool"] for each in replicas}
    shares = np.array([each["utilization"] for each in replicas])
    with context():
        if len(replicas) > _MOST_BARS:
            axes = axes_of(ax, height_in=2.4)
            for place, pool in enumerate(sorted(pools)):
                part = sorted((each["utilization"] for each in replicas if each["pool"] == pool), reverse=True)
                label = f"{shortened(pool, 24)} ({len(part)})"
                axes.plot(range(1, len(part) + 1), part, drawstyle="steps-mid", label=label, **line_style(place))
            axes.set(xlabel="replicas, the busiest first", ylabel="busy", ylim=(0, 1.02))
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.yaxis.set_major_formatter(percents())
            if len(pools) > 1:
                axes.legend()
        else:
            axes = axes_of(ax, height_in=0.75 + 0.22 * len(replicas))
            names = [
                f"replica {each['replica']}" + (f" ({shortened(each['pool'], 20)})" if len(pools) > 1 else "")
                for each in replicas
            ]
            _bars(axes, names, shares)
            axes.set_xlabel("share of the run with a batch in flight")
    return figure_of(axes)


def link_utilization(result: Result, *, ax: Axes | None = None) -> Figure:
    """Draw how much of what it could carry each link carried, and how long it carried anything; the twelve busiest.

    Raises
    ------
    InputError
        If no link carried anything.
    """
    section = result.summary["links"]
    links = [each for each in section["links"] if each["utilization"] is not None][:_MOST_LINKS]
    if not links:
        raise InputError(f"{section['reason'] or 'no link carried anything'}: nothing to draw")
    with context():
        axes = axes_of(ax, height_in=1.15 + 0.22 * len(links))
        _bars(
            axes,
            [shortened(each["name"], 30) for each in links],
            np.array([each["utilization"] for each in links]),
            label="of its bandwidth",
        )
        busy = [each["busy"] for each in links]
        axes.plot(busy, range(len(links)), linestyle="none", label="of the time in use", **marker_style(1))
        axes.set_xlabel("share of the run")
        legend_above(axes, own=ax is None, columns=2)
    return figure_of(axes)


def _bars(axes: Axes, names: list[str], shares: Floats, label: str = "") -> None:
    axes.barh(range(len(names)), shares, color=SERIES[0][0], height=0.65, label=label)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlim(0, 1.02)
    axes.xaxis.set_major_formatter(percents())

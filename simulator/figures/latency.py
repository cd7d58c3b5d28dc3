"""Latencies of requests: cumulative distributions with objectives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from simulator.errors import InputError
from simulator.figures.labels import latency as latency_words
from simulator.figures.labels import percents, shortened, time_unit
from simulator.figures.results import LATENCIES, Floats, Result, by_name, covered, latencies_of, objectives
from simulator.figures.style import SOFT, axes_of, context, figure_of, line_style

_WIDE = 30.0
"""Latencies whose largest is so many times the smallest stand on a logarithmic axis."""

_FAR = 4.0
"""Objectives that are more times the largest latency are named at the edge, so that the latencies can be seen."""

_SHARES = np.concatenate([np.linspace(0.0, 0.9, 226)[1:], np.linspace(0.9, 0.99, 91)[1:], np.linspace(0.99, 1, 81)[1:]])
"""Where the distribution of many requests is drawn: 395 points, half of them above the 94th percentile."""


def cdf_points(values: Floats) -> tuple[Floats, Floats]:
    """Return points of the empirical cumulative distribution: of all values up to 400, of at most 395 beyond.

    Returns
    -------
    tuple of ndarray
        Values in ascending order, and of each the share of all values that are not above it.
    """
    ordered = np.sort(values)
    count = len(ordered)
    ranks = np.arange(1, count + 1) if count <= 400 else np.unique(np.ceil(_SHARES * count - 1e-9).astype(np.int64))
    return ordered[ranks - 1], ranks / max(count, 1)


def latency_cdf(
    results: Result | Mapping[str, Result], latency: str = "ttft_s", *, by_class: bool = False, ax: Axes | None = None
) -> Figure:
    """Draw how a latency is distributed over requests, with the objectives on it.

    Parameters
    ----------
    results
        A result, or several by name.
    latency
        ``"ttft_s"``, ``"tpot_s"``, ``"itl_s"`` (the largest gap of each request), ``"e2e_s"`` or ``"queue_s"``.
    by_class
        A line for each class of request too.

    Raises
    ------
    InputError
        If no request has that latency.
    """
    series: dict[str, Floats] = {}
    for name, result in by_name(results).items():
        requests = covered(result)
        series[name or "all requests"] = latencies_of(requests, latency)
        for value, part in requests.groupby("class", observed=True) if by_class else ():
            label = str(value) or "unclassified"
            series[f"{name}: {label}" if name else label] = latencies_of(part, latency)
    series = {name: values for name, values in series.items() if len(values)}
    if not series:
        raise InputError(f"no request has a {LATENCIES[latency]}: nothing to draw")
    limits = sorted({limit for result in by_name(results).values() for limit in objectives(result, latency)})
    with context():
        axes = axes_of(ax)
        _draw(axes, series, limits, LATENCIES[latency])
    return figure_of(axes)


def cdf(
    series: Mapping[str, Floats], latency: str = "ttft_s", *, limits: Sequence[float] = (), ax: Axes | None = None
) -> Figure:
    """Draw how latencies are distributed that are given as numbers: by name, seconds.

    Parameters
    ----------
    latency
        What they are, as for `latency_cdf`.
    limits
        Objectives, seconds.

    Raises
    ------
    InputError
        If there are none.
    """
    known = {name: np.asarray(values, dtype=np.float64) for name, values in series.items() if len(values)}
    if not known:
        raise InputError(f"no request has a {LATENCIES[latency]}: nothing to draw")
    with context():
        axes = axes_of(ax)
        _draw(axes, known, sorted(limits), LATENCIES[latency])
    return figure_of(axes)


def _draw(axes: Axes, series: Mapping[str, Floats], limits: list[float], label: str) -> None:
    low = min(float(values.min()) for values in series.values())
    high = max(float(values.max()) for values in series.values())
    unit, scale = time_unit(high)
    for place, (name, values) in enumerate(series.items()):
        x, share = cdf_points(values)
        axes.plot(x * scale, share, drawstyle="steps-post", label=shortened(name), **line_style(place))
    near = [limit for limit in limits if limit <= _FAR * high]
    for limit in near:
        axes.axvline(limit * scale, color=SOFT[0], linewidth=1.2, linestyle=(0, (1, 1)))
        said = f"objective {latency_words(limit)}"
        _note(axes, said, (limit * scale, 0.02), axes.transData, rotation=90, ha="right", va="bottom", xytext=(-3, 0))
    if len(near) < len(limits):
        said = ", ".join(latency_words(limit) for limit in limits if limit > _FAR * high)
        _note(axes, f"objective {said} →", (1, 0.5), axes.transAxes, ha="right", va="center", xytext=(0, 0))
    if low > 0 and max([high, *near]) / low >= _WIDE:
        axes.set_xscale("log")
        plain_logarithms(axes.xaxis, low * scale, max([high, *near]) * scale)
    axes.set(xlabel=f"{label} ({unit})", ylabel="share of requests", ylim=(0, 1.02))
    axes.yaxis.set_major_formatter(percents())
    if len(series) > 1:
        axes.legend(loc="best")


def _note(axes: Axes, text: str, place: tuple[float, float], within: Any, **how: Any) -> None:
    axes.annotate(text, place, xycoords=within, textcoords="offset points", fontsize=9, color=SOFT[0], **how)


def plain_logarithms(axis: Any, low: float, high: float) -> None:
    """Label a logarithmic axis with plain numbers, between the powers of ten too where there are few of those."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    few = np.log10(high / low) < 2.5
    axis.set_minor_formatter(
        FuncFormatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else "") if few else NullFormatter()
    )

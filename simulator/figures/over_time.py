"""What replicas did over time: queue, batch, KV memory, power, by replica or all in a band."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simulator.errors import InputError, did_you_mean
from simulator.figures.labels import clock_unit, percents
from simulator.figures.results import Result
from simulator.figures.style import SERIES, WIDTH_IN, Picture, axes_of, context, figure_of, line_style

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = {
    "waiting": "queue (requests)",
    "running": "batch (requests)",
    "kv_utilization": "KV memory used",
    "utilization": "busy",
    "power_w": "power (W)",
    "decode_tokens_per_s": "output tokens/s",
    "prefill_tokens_per_s": "prompt tokens/s",
}
"""Columns of the time series that `over_time` draws."""

_SHARES = ("kv_utilization", "utilization")
_MOST_LINES = 3
"""So many replicas have lines of their own; more are a mean and a band."""
_MOST_POINTS = 240
"""Points of a line; samples beyond are averaged over equal spans."""


def binned(timeseries: pd.DataFrame, column: str, most: int = _MOST_POINTS) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the mean of a column over spans of time, and what the replicas had at least and at most within each.

    Returns
    -------
    tuple of DataFrame
        Means, a column a replica, by the time that the span begins (s); and ``low``, ``high``, ``mean`` over replicas.
    """
    wide = timeseries.pivot(index="t_s", columns="replica", values=column)
    every = max(1, -(-len(wide) // most))
    groups = np.arange(len(wide)) // every
    times = wide.index.to_numpy()[::every]
    means = wide.groupby(groups).mean().set_axis(times)
    band = wide.agg(["min", "max"], axis=1).groupby(groups).agg({"min": "min", "max": "max"}).set_axis(times)
    return means, band.assign(mean=means.mean(axis=1)).rename(columns={"min": "low", "max": "high"})


def over_time(result: Result, column: str, *, ax: Axes | None = None) -> Figure:
    """Draw a column of the time series: a line a replica up to three, else their mean, least and most.

    Parameters
    ----------
    column
        One of `COLUMNS`.

    Raises
    ------
    InputError
        If there is no such column, or the result has no values of it.
    """
    if column not in COLUMNS:
        raise InputError(f"unknown column {column!r}{did_you_mean(column, COLUMNS)}")
    frame = result.timeseries
    if not len(frame) or frame[column].isna().all():
        raise InputError(f"the result has no {COLUMNS[column]} over time: nothing to draw")
    with context():
        axes = axes_of(ax, height_in=1.7)
        _draw(axes, frame, column)
        unit, _ = clock_unit(float(frame["t_s"].max()))
        axes.set_xlabel(f"time ({unit})")
    return figure_of(axes)


def timeline(result: Result) -> Figure:
    """Draw queue, batch, KV memory and power over time, one below the other; power only where it is known.

    Raises
    ------
    InputError
        If the result has no samples.
    """
    frame = result.timeseries
    shown = [name for name in ("waiting", "running", "kv_utilization", "power_w") if not frame[name].isna().all()]
    if not len(frame):
        raise InputError("the result has no samples over time: nothing to draw")
    with context():
        figure = Picture(figsize=(WIDTH_IN, 0.4 + 1.35 * len(shown)), layout="constrained")
        places = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
        for axes, column in zip(places, shown, strict=True):
            _draw(axes, frame, column)
        unit, _ = clock_unit(float(frame["t_s"].max()))
        places[-1].set_xlabel(f"time ({unit})")
        figure.align_ylabels()
    return figure


def _draw(axes: Axes, frame: pd.DataFrame, column: str) -> None:
    means, band = binned(frame, column)
    _, scale = clock_unit(float(frame["t_s"].max()))
    times = means.index.to_numpy() * scale
    if means.shape[1] <= _MOST_LINES:
        for place, replica in enumerate(means.columns):
            axes.plot(times, means[replica].to_numpy(), label=f"replica {replica}", **line_style(place))
    else:
        axes.fill_between(
            times,
            band["low"].to_numpy(),
            band["high"].to_numpy(),
            color=SERIES[0][0],
            alpha=0.25,
            linewidth=0,
            label=f"least to most of {means.shape[1]} replicas",
        )
        axes.plot(times, band["mean"].to_numpy(), label="mean", **line_style(0))
    axes.set_ylabel(COLUMNS[column].replace(" (", "\n("))
    axes.set_ylim(bottom=0, top=None if band["high"].max() > 0 else 1)
    if column in _SHARES:
        axes.yaxis.set_major_formatter(percents())
    if column == "waiting" and means.shape[1] > 1:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0, columnspacing=1)

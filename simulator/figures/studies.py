"""Figures of many runs: paired differences, a parameter against a figure, two parameters against a figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from simulator.figures.labels import quantity, scaled, shortened, wrapped
from simulator.figures.style import SERIES, SOFT, axes_of, context, figure_of, line_style, marker_style
from simulator.figures.tables import checked
from simulator.terminal import number

if TYPE_CHECKING:
    import pandas as pd

_MOST_WRITTEN = 80
"""Cells of a heatmap that have their figure written in them."""

_WHITE, _BLACK = "#fefefe", "#010101"
"""On the cells of a heatmap, whatever the page's colours are."""


def forest(frame: pd.DataFrame, *, unit: str = "", reference: float = 0.0, ax: Axes | None = None) -> Figure:
    """Draw estimates with their intervals, a row each; filled where the interval leaves the reference out.

    Parameters
    ----------
    frame
        Columns ``name``, ``estimate``, ``low``, ``high``.
    unit
        Of the estimates.
    reference
        Where there is no difference.

    Raises
    ------
    InputError
        If a column is missing or no row has an estimate.
    """
    frame = checked(frame, ["name", "estimate", "low", "high"], ["estimate"])
    with context():
        axes = axes_of(ax, height_in=0.75 + 0.24 * len(frame))
        axes.axvline(reference, color=SOFT[0], linewidth=1, linestyle="--")
        for place, (estimate, low, high) in enumerate(frame[["estimate", "low", "high"]].to_numpy(dtype="float64")):
            sure = low > reference or high < reference
            axes.plot([low, high], [place, place], color=SERIES[0][0], linewidth=1.5)
            axes.plot(
                estimate,
                place,
                marker="s",
                markersize=5.5,
                color=SERIES[0][0],
                markerfacecolor=SERIES[0][0] if sure else "white",
            )
        axes.set_yticks(range(len(frame)), [shortened(str(name), 30) for name in frame["name"]])
        axes.set_ylim(len(frame) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(f"difference ({unit})" if unit else "difference")
    return figure_of(axes)


def sweep_line(
    frame: pd.DataFrame,
    x: str,
    y: str,
    *,
    by: str | None = None,
    low: str | None = None,
    high: str | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Draw a figure against a parameter: points in the order of the parameter, joined.

    Parameters
    ----------
    x, y
        Columns: the parameter (numbers, or names in the order of the table) and the figure.
    by
        Column with a line for each of its values.
    low, high
        Columns with the interval of the figure.

    Raises
    ------
    InputError
        If a column is missing or no row has both.
    """
    bounds = [column for column in (low, high) if column]
    frame = checked(frame, [x, y, *bounds, *([by] if by else [])], [x, y])
    numbers = frame[x].dtype.kind in "iuf"
    places = {name: place for place, name in enumerate(dict.fromkeys(frame[x]))}
    y_label, scale = scaled(y, float(frame[y].max()))
    frame = frame.assign(**{column: frame[column] * scale for column in (y, *bounds)})
    with context():
        axes = axes_of(ax)
        for index, (name, part) in enumerate(frame.groupby(by, sort=False) if by else [("", frame)]):
            at = part[x] if numbers else part[x].map(places)
            part = part.assign(**{"_at": at}).sort_values("_at", kind="stable")
            style = {**line_style(index), **marker_style(index), "markersize": 4.5}
            label = f"{quantity(by)}: {shortened(str(name), 30)}" if by else None
            axes.plot(part["_at"], part[y], label=label, **style)
            if low and high:
                least, most = (part[each].to_numpy(dtype="float64") for each in (low, high))
                axes.vlines(part["_at"], least, most, color=style["color"], linewidth=1.2)
        if not numbers:
            _name(axes, list(places))
        axes.set(xlabel=quantity(x), ylabel=wrapped(y_label))
        if by:
            axes.legend()
    return figure_of(axes)


def sweep_points(
    frame: pd.DataFrame, x: str, y: str, *, low: str | None = None, high: str | None = None, ax: Axes | None = None
) -> Figure:
    """Draw a figure against a parameter, a dot each row: for names, and designs in which other parameters vary too.

    Parameters
    ----------
    x, y
        Columns: the parameter (numbers, or names in the order of the table) and the figure.
    low, high
        Columns with the interval of the figure.

    Raises
    ------
    InputError
        If a column is missing or no row has both.
    """
    bounds = [column for column in (low, high) if column]
    frame = checked(frame, [x, y, *bounds], [x, y])
    y_label, scale = scaled(y, float(frame[y].max()))
    frame = frame.assign(**{column: frame[column] * scale for column in (y, *bounds)})
    names = [] if frame[x].dtype.kind in "iuf" else list(dict.fromkeys(frame[x]))
    at = frame[x].map({name: place for place, name in enumerate(names)}) if names else frame[x]
    with context():
        axes = axes_of(ax)
        axes.plot(at, frame[y], linestyle="", marker="o", markersize=4.5, color=SERIES[0][0])
        if low and high:
            least, most = (frame[each].to_numpy(dtype="float64") for each in (low, high))
            axes.vlines(at, least, most, color=SERIES[0][0], linewidth=1.2)
        if names:
            _name(axes, names)
            axes.set_xlim(-0.5, len(names) - 0.5)
        axes.set(xlabel=quantity(x), ylabel=wrapped(y_label))
    return figure_of(axes)


def _name(axes: Axes, names: Sequence[object]) -> None:
    """Give the places 0, 1 ... of the x axis names."""
    axes.set_xticks(range(len(names)), [shortened(str(name), 18) for name in names])
    if max(len(str(name)) for name in names) * len(names) > 40:
        axes.tick_params(axis="x", rotation=35)


def sweep_heatmap(frame: pd.DataFrame, x: str, y: str, value: str, *, ax: Axes | None = None) -> Figure:
    """Draw a figure against two parameters, a cell each combination (several rows of one: their mean).

    Colours are *cividis* (Nuñez et al., PLoS ONE 13(7), 2018): dark to light in even steps, for any colour vision.

    Raises
    ------
    InputError
        If a column is missing or no row has all three.
    """
    frame = checked(frame, [x, y, value], [x, y, value])
    cells = frame.pivot_table(index=y, columns=x, values=value, aggfunc="mean", sort=True, observed=True)
    label, scale = scaled(value, float(np.nanmax(cells.to_numpy(dtype="float64"))))
    table = cells.to_numpy(dtype="float64") * scale
    colours = colormaps["cividis"].resampled(32)
    low, high = float(np.nanmin(table)), float(np.nanmax(table))
    norm = Normalize(low, high if high > low else low + 1)
    with context():
        axes = axes_of(ax, height_in=1.4 + 0.3 * max(3, len(table)))
        axes.grid(visible=False)
        mesh = axes.pcolormesh(np.ma.masked_invalid(table), cmap=colours, norm=norm)
        if table.size <= _MOST_WRITTEN:
            for (row, column), each in np.ndenumerate(table):
                known = not np.isnan(each)
                ink = (_BLACK if norm(each) > 0.5 else _WHITE) if known else SOFT[0]
                said = number(float(each)) if known else "–"
                axes.text(column + 0.5, row + 0.5, said, ha="center", va="center", fontsize=8.5, color=ink)
        for axis, names in ((axes.xaxis, cells.columns), (axes.yaxis, cells.index)):
            axis.set_ticks(np.arange(len(names)) + 0.5, [shortened(_said(name), 16) for name in names])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        if max(len(_said(name)) for name in cells.columns) * table.shape[1] > 40:
            axes.tick_params(axis="x", rotation=35)
        figure_of(axes).colorbar(mesh, ax=axes, label=wrapped(label, 24), shrink=0.9, drawedges=False)
        axes.set(xlabel=quantity(x), ylabel=wrapped(quantity(y)))
    return figure_of(axes)


def _said(name: object) -> str:
    return f"{name:g}" if isinstance(name, float) else str(name)

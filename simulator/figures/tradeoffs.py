"""What is bought with what: Pareto fronts, and load against goodput."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simulator.figures.labels import scaled, shortened, wrapped
from simulator.figures.style import SERIES, SOFT, axes_of, context, figure_of, line_style, marker_style
from simulator.figures.tables import checked
from simulator.studies.pareto import pareto_front as front_of

if TYPE_CHECKING:
    import pandas as pd

_LONGEST = 36
"""Characters of a line of an axis's words."""

_MOST_NAMED = 8
"""Points of a front that are named below the figure; all of them are in the table that it is drawn from."""


def pareto_front(
    x: npt.ArrayLike, y: npt.ArrayLike, *, lower_x: bool = True, lower_y: bool = True
) -> npt.NDArray[np.bool_]:
    """Tell of each point whether no other is at least as good in both and better in one; not a number: never.

    Parameters
    ----------
    lower_x, lower_y
        Whether less is better.
    """
    points = np.column_stack([np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)])
    known = np.isfinite(points).all(axis=1)
    front = np.zeros(len(points), dtype=bool)
    front[known] = front_of(points[known].tolist(), lower=[lower_x, lower_y])
    return front


def pareto(
    frame: pd.DataFrame,
    x: str,
    y: str,
    label: str | None = None,
    *,
    lower_x: bool = True,
    lower_y: bool = True,
    ax: Axes | None = None,
) -> Figure:
    """Draw two figures of each row against one another, those on the Pareto front joined and named.

    Parameters
    ----------
    x, y, label
        Columns.
    lower_x, lower_y
        Whether less is better.

    Raises
    ------
    InputError
        If the table lacks a column, or has no row with both figures.
    """
    frame = checked(frame, [x, y, *([label] if label else [])], [x, y])
    values = frame[x].to_numpy(dtype="float64"), frame[y].to_numpy(dtype="float64")
    (x_label, x_scale), (y_label, y_scale) = (scaled(name, at.max()) for name, at in zip((x, y), values, strict=True))
    values = values[0] * x_scale, values[1] * y_scale
    front = pareto_front(*values, lower_x=lower_x, lower_y=lower_y)
    order = np.flatnonzero(front)[np.argsort(values[0][front], kind="stable")]
    named = order[:_MOST_NAMED] if label else order[:0]
    with context():
        axes = axes_of(ax, height_in=3.0 + 0.19 * len(named))
        others = ~front
        if others.any():
            axes.plot(
                values[0][others],
                values[1][others],
                linestyle="none",
                marker="o",
                markersize=4,
                markerfacecolor="none",
                color=SOFT[0],
                label="others",
            )
        style: dict[str, Any] = {"color": SERIES[1][0], "marker": "D", "markersize": 5, "linewidth": 1}
        axes.plot(values[0][order], values[1][order], linestyle=":", label="Pareto front", **style)
        for number, place in enumerate(named, 1):
            axes.annotate(
                str(number),
                (values[0][place], values[1][place]),
                xytext=(4, 4),
                textcoords="offset points",
                fontsize=9,
                annotation_clip=False,
            )
        axes.set(xlabel=_with_direction(x_label, lower_x), ylabel=_with_direction(y_label, lower_y))
        axes.margins(0.08)
        if label and ax is None:
            for number, place in enumerate(named, 1):
                axes.plot([], [], linestyle="none", label=f"{number}: {shortened(str(frame[label].iloc[place]), 46)}")
        if label and ax is None:
            figure_of(axes).legend(loc="outside lower left", ncols=1, handletextpad=0.4, labelspacing=0.25)
        else:
            axes.legend()
    return figure_of(axes)


def _with_direction(name: str, lower: bool) -> str:
    said = f"{name}, {'less' if lower else 'more'} is better"
    return said if len(said) <= _LONGEST else f"{wrapped(name, _LONGEST)},\n{'less' if lower else 'more'} is better"


def load_goodput(frame: pd.DataFrame, *, ax: Axes | None = None) -> Figure:
    """Draw goodput against offered load; on the dotted line every request meets its objectives.

    Parameters
    ----------
    frame
        Columns ``offered`` and ``goodput``, requests/s; where known ``low`` and ``high``, the interval of goodput, and
        ``name``, one line for each.

    Raises
    ------
    InputError
        If a column is missing or no row has both figures.
    """
    frame = checked(frame, ["offered", "goodput"], ["offered", "goodput"])
    with context():
        axes = axes_of(ax)
        most = float(frame["offered"].max())
        axes.plot([0, most], [0, most], color=SOFT[0], linewidth=1, linestyle=":", label="all that is offered")
        groups = frame.groupby("name", sort=False) if "name" in frame else [("goodput", frame)]
        for place, (name, part) in enumerate(groups):
            part = part.sort_values("offered")
            style = {**line_style(place), **marker_style(place)}
            axes.plot(part["offered"], part["goodput"], label=shortened(str(name)), markersize=4, **style)
            if {"low", "high"} <= {*part}:
                low, high = (part[each].to_numpy(dtype="float64") for each in ("low", "high"))
                axes.fill_between(part["offered"], low, high, color=style["color"], alpha=0.2, linewidth=0)
        axes.set(xlabel="offered load (requests/s)", ylabel="goodput (requests/s)")
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.legend()
    return figure_of(axes)

"""A figure of a study: what was simulated over what was published."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simulator.figures.labels import wrapped
from simulator.figures.style import SERIES, SOFT, axes_of, context, figure_of
from simulator.figures.tables import checked

if TYPE_CHECKING:
    import pandas as pd

_NARROWEST = 2.4
"""Factor that the axis reaches to either side at least, so that a few per cent don't look like much."""
_MARKS = (2, 5, 10, 20, 50, 100)
"""Factors that the axis names, to either side."""
_CHARACTERS, _LINES = 34, 3
"""Of a row's name: characters of a line, and most lines."""


def published(frame: pd.DataFrame, *, ax: Axes | None = None) -> Figure:
    """Draw each simulated figure over the published one, a row each, on a logarithmic axis with 1 in its middle.

    Parameters
    ----------
    frame
        Columns ``name``, ``published``, ``simulated``; rows where one is missing or not above 0 are left out.
    ax
        Axes to draw on; None: those of a new figure.

    Raises
    ------
    InputError
        If a column is missing or no row is left.
    """
    frame = checked(frame, ["name", "published", "simulated"], ["published", "simulated"])
    frame = checked(frame[(frame["published"] > 0) & (frame["simulated"] > 0)], ["name"], ["simulated"])
    ratios = (frame["simulated"] / frame["published"]).to_numpy(dtype="float64")
    reach = max(_NARROWEST, float(np.exp(np.abs(np.log(ratios)).max())) * 1.15)
    with context():
        names = [_named(str(name)) for name in frame["name"]]
        axes = axes_of(ax, height_in=0.75 + (0.12 + 0.13 * max(name.count("\n") + 1 for name in names)) * len(frame))
        axes.axvline(1.0, color=SOFT[0], linewidth=1, linestyle="--")
        for place, ratio in enumerate(ratios):
            axes.plot([1.0, ratio], [place, place], color=SERIES[0][0], linewidth=1.5)
            axes.plot(ratio, place, marker="o", markersize=5.5, color=SERIES[0][0])
        axes.set_yticks(range(len(frame)), names)
        axes.set_ylim(len(frame) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.set_xscale("log")
        axes.set_xlim(1 / reach, reach)
        marks = [mark for mark in _MARKS if mark <= reach]
        places = [*(1 / mark for mark in reversed(marks)), 1.0, *marks]
        axes.set_xticks(places, [f"{place:g}" for place in places])
        axes.minorticks_off()
        axes.set_xlabel("simulated / published")
    return figure_of(axes)


def _named(name: str) -> str:
    lines = wrapped(name, _CHARACTERS).split("\n")
    return "\n".join(lines[:_LINES]) + ("…" if len(lines) > _LINES else "")

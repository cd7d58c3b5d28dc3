"""How figures look: colours, lines and markers that tell series apart, fonts; no state of pyplot's is touched.

Colours are Okabe and Ito's (*Color Universal Design*, 2008, https://jfly.uni-koeln.de/color/), told apart by people
with any kind of colour vision. Each series has one for light and one for dark paper, so that both stand out from it by
at least 3:1 (WCAG 2.2, 1.4.11): their yellow, orange and sky blue don't on white, their black doesn't on dark.
"""

from __future__ import annotations

import io
from contextlib import AbstractContextManager
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

PAPER = ("#ffffff", "#0d1117")
"""Background, light and dark."""

INK = ("#1b1f24", "#e6edf3")
"""Text and axes."""

SOFT = ("#57606a", "#9aa7b4")
"""What is beside the point: limits, diagonals, whatever isn't highlighted."""

SERIES = (
    ("#0072b2", "#56b4e9"),  # blue, sky blue
    ("#d55e00", "#e69f00"),  # vermillion, orange
    ("#009e73", "#009e73"),  # bluish green
    ("#cc79a7", "#cc79a7"),  # reddish purple
    ("#000000", "#f0e442"),  # black, yellow
)
"""Of each series, light and dark."""

LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

WIDTH_IN = 4.2
"""Inches: with 9 points of text, a figure as wide as a phone (328 pixels of 360) still has text of 9 pixels."""

_RC: Any = {
    "figure.facecolor": "white",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with Matplotlib: the same layout everywhere
    "font.size": 9.5,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9.5,
    "legend.fontsize": 9.0,
    "xtick.labelsize": 9.0,
    "ytick.labelsize": 9.0,
    "text.color": INK[0],
    "axes.labelcolor": INK[0],
    "axes.edgecolor": INK[0],
    "xtick.color": INK[0],
    "ytick.color": INK[0],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": INK[0],
    "grid.alpha": 0.14,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.5,
    "legend.frameon": False,
    "text.parse_math": False,  # names of users may have dollar signs
    "svg.fonttype": "none",
    "svg.hashsalt": "simulator",
}


class Picture(Figure):
    """A Matplotlib figure that notebooks show without pyplot."""

    def _repr_svg_(self) -> str:
        buffer = io.StringIO()
        with context():
            self.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
        return buffer.getvalue()


def context() -> AbstractContextManager[None]:
    """Return what figures are made and saved in: Matplotlib's settings are as before after it."""
    return rc_context(_RC)


def axes_of(ax: Axes | None, *, width_in: float = WIDTH_IN, height_in: float = 2.9) -> Axes:
    """Return the axes given, else those of a new figure; to be called within `context`."""
    return ax if ax is not None else Picture(figsize=(width_in, height_in), layout="constrained").subplots()


def figure_of(ax: Axes) -> Figure:
    """Return the figure that axes are in."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    return figure


def legend_above(axes: Axes, *, own: bool, columns: int) -> None:
    """Put the legend above the axes; of a figure of our own, from its left edge, so that long names have room."""
    how: dict[str, Any] = {"ncols": columns, "columnspacing": 1}
    if own:
        figure_of(axes).legend(loc="outside upper left", **how)
    else:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0, **how)


def line_style(index: int) -> dict[str, Any]:
    """Return colour and dashes of the series with this index; up to 25 differ in one or both."""
    turn, place = divmod(index, len(SERIES))
    return {"color": SERIES[place][0], "linestyle": LINES[(place + turn) % len(LINES)]}


def marker_style(index: int) -> dict[str, Any]:
    """Return colour and marker of the series with this index."""
    turn, place = divmod(index, len(SERIES))
    return {"color": SERIES[place][0], "marker": MARKERS[(place + turn) % len(MARKERS)]}

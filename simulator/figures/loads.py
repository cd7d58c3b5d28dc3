"""The share of requests within the objectives against the load: where it falls below what is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simulator.figures.labels import percents, quantity
from simulator.figures.style import SERIES, SOFT, axes_of, context, figure_of, legend_above
from simulator.figures.tables import checked

if TYPE_CHECKING:
    import pandas as pd

_SHOWN: dict[str, tuple[str, dict[str, Any]]] = {
    "sustained": ("sustained", {"marker": "o", "color": SERIES[0][0]}),
    "undecided": ("undecided", {"marker": "D", "color": SERIES[0][0], "markerfacecolor": "white"}),
    "missed": ("missed", {"marker": "s", "color": SERIES[1][0]}),
    "bound": ("missed, at most", {"marker": "v", "color": SERIES[1][0]}),
}


def load_attainment(frame: pd.DataFrame, x: str, *, share: float, ax: Axes | None = None) -> Figure:
    """Draw the share of requests within the objectives at each load that was tried, with its interval.

    Parameters
    ----------
    frame
        Columns ``answer`` (``sustained``, ``missed``, ``undecided``), ``attainment``, ``attainment_low``,
        ``attainment_high`` and ``given_up``, as `simulator.highest_load(...).frame()` has them. Where runs were given
        up the upper end alone is drawn.
    x
        Column of the load, ``offered_requests_per_s`` or ``load``.
    share
        That is asked for.

    Raises
    ------
    InputError
        If a column is missing or no row has a load.
    """
    frame = checked(
        frame, [x, "answer", "attainment", "attainment_low", "attainment_high", "given_up"], [x, "attainment"]
    )
    bounded = frame["given_up"] > 0
    kinds = frame["answer"].where(~(bounded & (frame["answer"] == "missed")), "bound")
    with context():
        axes = axes_of(ax)
        axes.axhline(share, color=SOFT[0], linewidth=1, linestyle="--", label="asked for")
        for kind, (label, style) in _SHOWN.items():
            part = frame[kinds == kind]
            if not len(part):
                continue
            at_most = part["given_up"] > 0
            whole = part[~at_most]
            axes.vlines(
                whole[x], whole["attainment_low"], whole["attainment_high"], color=style["color"], linewidth=1.2
            )
            height = part["attainment"].where(~at_most, part["attainment_high"])
            axes.plot(part[x], height, linestyle="none", markersize=5, label=label, **style)
        said = {"offered_requests_per_s": "offered load (requests/s)", "load": "load"}
        axes.set(xlabel=said.get(x, quantity(x)), ylabel="within the objectives")
        axes.yaxis.set_major_formatter(percents())
        axes.set_xlim(left=0)
        legend_above(axes, own=ax is None, columns=3)
    return figure_of(axes)

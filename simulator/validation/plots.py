"""Pictures of a validation as SVG that stands in a page: text and axes take the page's colour."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from simulator.validation.rows import Floats

Points = Mapping[str, tuple[Floats, Floats]]
"""Measured and simulated values by the name of the series."""


def parity(points: Points, title: str, unit: str, *, name: str) -> str:
    """Return a parity plot, both axes logarithmic, as SVG: on the line the simulator is right.

    Parameters
    ----------
    points
        Values above 0; others are left out.
    unit
        Of both axes.
    name
        Makes the picture's ids its own in a page of several.
    """
    from matplotlib.ticker import FuncFormatter, NullFormatter

    from simulator.figures.style import INK, axes_of, context, figure_of, marker_style
    from simulator.figures.svg import to_svg

    series = {label: _positive(*pair) for label, pair in points.items()}
    values = np.concatenate([np.concatenate(pair) for pair in series.values()] or [np.array([1.0])])
    values = values if len(values) else np.array([1.0])
    low, high = 10 ** math.floor(math.log10(values.min() / 1.2)), 10 ** math.ceil(math.log10(values.max() * 1.2))
    with context():
        axes = axes_of(None, height_in=4.1)
        line = np.array([low, high])
        axes.plot(line, line, color=INK[0], linewidth=1)
        axes.plot(line, line * 1.2, color=INK[0], linewidth=0.7, linestyle=":")
        axes.plot(line, line / 1.2, color=INK[0], linewidth=0.7, linestyle=":")
        for index, (label, (measured, simulated)) in enumerate(series.items()):
            style = {"linestyle": "none", "markersize": 4.5, "alpha": 0.7, "markeredgewidth": 0, **marker_style(index)}
            axes.plot(measured, simulated, label=f"{label} ({len(measured)})", **style)
        axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high), title=title)
        axes.set(xlabel=f"measured, {unit}", ylabel=f"simulated, {unit}", aspect="equal")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())
        if series:
            axes.legend(loc="upper left")
    return to_svg(figure_of(axes), label=title, prefix=name)


def _positive(measured: Floats, simulated: Floats) -> tuple[Floats, Floats]:
    keep = (measured > 0) & (simulated > 0) & np.isfinite(measured) & np.isfinite(simulated)
    return measured[keep], simulated[keep]


def by_series(names: Sequence[str], measured: Floats, simulated: Floats) -> dict[str, tuple[Floats, Floats]]:
    """Return points by the name of their series, in the order of the names' first appearance."""
    labels = np.array(names, dtype=object)
    return {name: (measured[labels == name], simulated[labels == name]) for name in dict.fromkeys(names)}

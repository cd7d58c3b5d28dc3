"""Pictures of a validation as SVG that stands in a page: text and axes take the page's colour."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from simulator.validation.rows import Floats

_INK = "#010203"
"""Stands for the page's own text colour, and is replaced by ``currentColor``."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's colours, told apart by people with any kind of colour vision."""

MARKERS = ("o", "s", "^", "D", "v", "P")

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
    from matplotlib import rc_context, rcParams
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter

    series = {label: _positive(*pair) for label, pair in points.items()}
    values = np.concatenate([np.concatenate(pair) for pair in series.values()] or [np.array([1.0])])
    values = values if len(values) else np.array([1.0])
    low, high = 10 ** math.floor(math.log10(values.min() / 1.2)), 10 ** math.ceil(math.log10(values.max() * 1.2))
    with rc_context():
        rcParams.update({"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 10, "font.family": "sans-serif"})
        for key in ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"):
            rcParams[key] = _INK
        figure = Figure(figsize=(5.4, 5.2), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        line = np.array([low, high])
        axes.plot(line, line, color=_INK, linewidth=1)
        axes.plot(line, line * 1.2, color=_INK, linewidth=0.7, linestyle=":")
        axes.plot(line, line / 1.2, color=_INK, linewidth=0.7, linestyle=":")
        for index, (label, (measured, simulated)) in enumerate(series.items()):
            axes.plot(
                measured,
                simulated,
                linestyle="none",
                marker=MARKERS[index % len(MARKERS)],
                markersize=4.5,
                color=COLOURS[index % len(COLOURS)],
                alpha=0.7,
                markeredgewidth=0,
                label=f"{label} ({len(measured)})".replace("$", r"\$"),
            )
        axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high), title=title)
        axes.set(xlabel=f"measured, {unit}", ylabel=f"simulated, {unit}", aspect="equal")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())
        axes.grid(color=_INK, alpha=0.12, linewidth=0.6)
        if series:
            axes.legend(frameon=False, loc="upper left", fontsize=9)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _for_a_page(buffer.getvalue(), title)


def _for_a_page(svg: str, title: str) -> str:
    """Return the element alone, as wide as its place, in the page's colour, and named for those who can't see it."""
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = svg.replace("*{stroke", "svg *{stroke")  # Matplotlib's style sheet would be the whole page's
    label = title.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return re.sub(
        r'<svg [^>]*?viewBox="([^"]*)"[^>]*>',
        rf'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="\1" role="img" '
        rf'aria-label="{label}">',
        svg,
        count=1,
    )


def _positive(measured: Floats, simulated: Floats) -> tuple[Floats, Floats]:
    keep = (measured > 0) & (simulated > 0) & np.isfinite(measured) & np.isfinite(simulated)
    return measured[keep], simulated[keep]


def by_series(names: Sequence[str], measured: Floats, simulated: Floats) -> dict[str, tuple[Floats, Floats]]:
    """Return points by the name of their series, in the order of the names' first appearance."""
    labels = np.array(names, dtype=object)
    return {name: (measured[labels == name], simulated[labels == name]) for name in dict.fromkeys(names)}

"""A figure as an SVG element that stands in a page: in the page's colours, with ids of its own, named for everybody."""

from __future__ import annotations

import io
import re
from html import escape

from matplotlib.figure import Figure

from simulator.figures.style import INK, PAPER, SERIES, SOFT, context

VARIABLES = {
    INK: "--ink",
    SOFT: "--soft",
    PAPER: "--paper",
    **{pair: f"--series-{place}" for place, pair in enumerate(SERIES, 1)},
}
"""Custom properties by which a page sets the colours, by (light, dark)."""

_VARIABLE_OF = {light: f"var({name}, {light})" for (light, _), name in VARIABLES.items()}
_COLOUR = re.compile(r"#[0-9a-f]{6}\b")
_STYLE = re.compile(r'style="([^"]*)"')
_REFERENCE = re.compile(r'(url\(#|xlink:href="#|href="#)([^")]+)')
_ID = re.compile(r' id="([^"]*)"')
_FONT = re.compile(r"font-family: [^;]*; ?")
_PLACES = re.compile(r' (?:d|x|y|transform)="[^"]*"')
_DIGITS = re.compile(r"(\.\d\d)\d+")


def to_svg(figure: Figure, *, label: str, prefix: str) -> str:
    """Return a figure as an ``svg`` element, the same bytes each time.

    Colours of `simulator.figures.style` become custom properties (`VARIABLES`), with the light colour where the page
    sets none; the background is transparent; text is text.

    Parameters
    ----------
    label
        What those who can't see it are told.
    prefix
        Goes before each id, so that several figures can stand in one page.
    """
    buffer = io.StringIO()
    with context():
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    # Matplotlib's style sheet would be the whole page's.
    svg = re.sub(r'<style type="text/css">.*?</style>\s*', "", svg, flags=re.DOTALL)
    svg = _STYLE.sub(lambda found: f'style="{_page_colours(found[1])}"', svg)
    svg = _PLACES.sub(lambda found: _DIGITS.sub(r"\1", found[0]), svg)  # a hundredth of a point is enough
    svg = _own_ids(svg, prefix)
    opening = (
        r'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="\1" role="img" '
        rf'aria-label="{_template(escape(label))}" stroke-linejoin="round" stroke-linecap="butt">'
    )
    return re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', opening, svg, count=1).rstrip()


def _page_colours(style: str) -> str:
    style = _COLOUR.sub(lambda found: _VARIABLE_OF.get(found[0], found[0]), style)
    return _FONT.sub("", style)  # the page's own font is narrower: nothing overlaps


def _own_ids(svg: str, prefix: str) -> str:
    """Return the SVG with a prefix before the ids that something refers to, and without the others."""
    wanted = {name for _, name in _REFERENCE.findall(svg)}
    svg = _ID.sub(lambda found: f' id="{prefix}-{found[1]}"' if found[1] in wanted else "", svg)
    return _REFERENCE.sub(lambda found: f"{found[1]}{prefix}-{found[2]}", svg)


def _template(text: str) -> str:
    """Return text that stands for itself in a replacement of `re.sub`."""
    return text.replace("\\", r"\\")

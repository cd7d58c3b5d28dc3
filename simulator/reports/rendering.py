"""From a document to its page."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from simulator.figures.style import INK, PAPER, SERIES, SOFT
from simulator.figures.svg import to_svg
from simulator.reports.document import Block, Cell, Document, Plot, Table
from simulator.terminal import number

_WITH_UNIT = re.compile(r"[+−<-]?\d[\d,.]*\+?( ?(%|ms|s|min|h|days|W|x))?( \([^ ]+ %\))?")

LINE = ("#d0d7de", "#30363d")
STRIPE = ("#f6f8fa", "#161b22")
MARK = ("#e7f0f8", "#12283a")
"""Background of marked rows."""
LINK = ("#0a5c8f", "#6cb6ff")

COLOURS = {
    "paper": PAPER,
    "ink": INK,
    "soft": SOFT,
    "line": LINE,
    "stripe": STRIPE,
    "mark": MARK,
    "link": LINK,
    **{f"series-{place}": pair for place, pair in enumerate(SERIES, 1)},
}
"""Custom properties of the page, (light, dark)."""


@dataclass
class _Numbering:
    """Counts tables and figures, in the order in which the template asks for them."""

    tables: int = field(default=0)
    plots: int = field(default=0)

    def next_table(self) -> int:
        self.tables += 1
        return self.tables

    def next_plot(self) -> int:
        self.plots += 1
        return self.plots


def render(document: Document) -> str:
    """Return a document as one HTML page that fetches nothing; the same bytes for the same document."""
    environment = Environment(
        loader=PackageLoader("simulator.reports", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(cell=cell_text)
    environment.tests.update(text=lambda cell: isinstance(cell, str))
    template = environment.get_template("page.html")
    return template.render(
        document=document,
        colours=COLOURS,
        groups=_groups,
        numeric=numeric_columns,
        numbering=_Numbering(),
        svg=_svg,
    )


def cell_text(cell: Cell) -> str:
    """Return a cell as the page shows it."""
    if cell is None:
        return "–"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, int):
        return f"{cell:,}"
    if isinstance(cell, float):
        return number(cell).replace("-", "−") if abs(cell) != float("inf") and cell == cell else "–"
    return cell


def numeric_columns(table: Table) -> list[bool]:
    """Tell of each column whether it holds numbers, with units or without: they stand to the right."""
    columns: list[Sequence[Any]] = list(zip(*table.rows, strict=True)) or [() for _ in table.columns]
    return [any(cell is not None for cell in cells) and all(_is_number(cell) for cell in cells) for cells in columns]


def _is_number(cell: Cell) -> bool:
    """Tell whether a cell is a number, one with a unit, or nothing."""
    if isinstance(cell, str):
        return not cell or _WITH_UNIT.fullmatch(cell) is not None
    return not isinstance(cell, bool)


def _groups(blocks: Sequence[Block]) -> Iterator[tuple[bool, list[Block]]]:
    """Yield runs of blocks, plots apart from the others."""
    for plots, run in groupby(blocks, key=lambda block: isinstance(block, Plot)):
        yield plots, list(run)


def _svg(plot: Plot, place: int) -> Markup:
    return Markup(to_svg(plot.figure, label=plot.alt, prefix=f"fig{place}"))  # labels in it were escaped by Matplotlib

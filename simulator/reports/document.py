"""What a report is made of: an answer, then sections of tables, plots and text. Plain data; `render` makes the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Cell = str | bool | int | float | None
"""Of a table. Numbers are shown with three significant digits, None as a dash; text stands as it is."""


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    items: Sequence[str]


@dataclass(frozen=True)
class Facts:
    """Terms, each with what there is to say of it."""

    items: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Code:
    """Text as a file or a terminal has it.

    Attributes
    ----------
    label
        What it is, in a few words.
    folded
        Shown only when a reader opens it (and in print).
    """

    label: str
    text: str
    folded: bool = False


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes
    ----------
    caption
        What it shows, in a sentence, with units that aren't in ``columns``.
    columns
        Headings; the first column heads the rows.
    rows
        Cells, as many as there are columns.
    marked
        Rows (from 0) that stand out, as the best of a ranking; the text must say it too.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    marked: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"{self.caption!r}: a row has {len(row)} cells for {len(self.columns)} columns")


@dataclass(frozen=True)
class Plot:
    """A figure.

    Attributes
    ----------
    figure
        Of `simulator.figures` or any other, in the colours of `simulator.figures.style`.
    caption
        What it shows, in a sentence.
    alt
        What one sees in it, for those who don't: the point, with the figures that make it.
    data
        Its figures as a table, which a reader can open below it.
    """

    figure: Figure
    caption: str
    alt: str
    data: Table | None = None


Block = Text | Bullets | Facts | Code | Table | Plot


@dataclass(frozen=True)
class Section:
    """A part of the page under a heading. Neighbouring plots stand side by side where there is room."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Document:
    """A report.

    Attributes
    ----------
    title
        What was asked: ``Run of llama-3.1-8b on 4 x h100-sxm``.
    answer
        The answer in a sentence or two of plain words, with the figures that decide.
    sections
        In this order, as far as there are such: the table, plots, assumptions, sources of costs, known errors, the
        scenario and how to run it again, version and what it took (`simulator.reports.common` makes the later ones).
    """

    title: str
    answer: str
    sections: Sequence[Section]

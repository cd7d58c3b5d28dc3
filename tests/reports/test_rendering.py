"""A page of the frame: self-contained, accessible, in colours that can be read, the same bytes each time."""

from __future__ import annotations

import re
from itertools import product

import pytest

from simulator.figures import style
from simulator.figures.svg import VARIABLES
from simulator.reports import Bullets, Code, Document, Facts, Plot, Section, Table, Text, render
from simulator.reports.rendering import COLOURS, LINK, MARK, STRIPE, cell_text, numeric_columns
from tests.reports.page import faults, read

HOSTILE = "</svg><script>alert('1')</script> & \"quoted\" <img src=x onerror=alert(1)> $x^2$ \\1"


def plot(name: str = "a") -> Plot:
    with style.context():
        axes = style.axes_of(None, width_in=16)
        for place in range(5):
            axes.plot([0, 1], [place, 1], marker="o", label=name, **style.line_style(place))
        axes.set(title=name, xlabel="time (s)")
        axes.legend()
    return Plot(axes.figure, f"caption {name}", f"alt {name}", Table(f"data {name}", ["t", "v"], [[0, 1.5], [1, None]]))


def document(name: str = "a") -> Document:
    table = Table(name, [name, "n"], [[name, 1], ["other", 2.5]], marked=frozenset({1}))
    return Document(
        title=name,
        answer=name,
        sections=[
            Section(name, [table, Text(name), Bullets([name]), Facts([(name, name)])]),
            Section("Plots", [plot(name), plot(name), table]),
            Section("Code", [Code(name, name), Code(name, name, folded=True)]),
        ],
    )


def test_a_page_needs_nothing_else_and_is_named_for_everybody() -> None:
    html = render(document())
    assert faults(html) == []
    assert len(read(html).all("svg")) == 2


def test_names_of_users_are_text_wherever_they_stand() -> None:
    html = render(document(HOSTILE))
    assert faults(html) == []
    root = read(html)
    shown = [each for each in root.all() if HOSTILE in each.text]
    assert {"h1", "title", "p", "h2", "a", "th", "li", "dt", "dd", "pre", "summary", "text"} <= {
        each.tag for each in shown
    }
    assert any(HOSTILE in each.whole_text for each in root.all("caption"))
    assert root.all("svg")[0].attributes["aria-label"] == f"alt {HOSTILE}"


def test_the_faults_that_pages_are_looked_at_for_are_found() -> None:
    html = render(document())
    spoilt = {
        "may be fetched": html.replace("<h1>", '<h1><img src="x.png">', 1),
        "<script>": html.replace("<h1>", "<h1><script>1</script>", 1),
        "has url(": html.replace("<style>", "<style>a { background: url(x) }", 1),
        "2 times": html.replace("<h1>", '<h1 id="content">', 1),
        "accessible name": html.replace('role="img"', "", 1),
        "scope": html.replace(' scope="col"', "", 1),
        "headings": html.replace("h2", "h4"),
        "refers to nothing": html.replace('href="#content"', 'href="#nowhere"', 1),
    }
    for fault, page in spoilt.items():
        assert any(fault in each for each in faults(page)), fault


def test_a_page_is_the_same_bytes_each_time() -> None:
    assert render(document()) == render(document())


def test_the_policy_of_the_page_allows_nothing_but_its_own_styles() -> None:
    (policy,) = (each for each in read(render(document())).all("meta") if "http-equiv" in each.attributes)
    assert policy.attributes["http-equiv"] == "Content-Security-Policy"
    assert policy.attributes["content"].startswith("default-src 'none'; style-src 'unsafe-inline'")


def test_numbers_stand_to_the_right_and_are_written_for_people() -> None:
    table = Table("t", ["name", "n", "mixed", "none"], [["a", 1, "x", None], ["b", 2.5, 1, None]])
    assert numeric_columns(table) == [False, True, False, False]
    assert [cell_text(cell) for cell in (None, True, 1234567, 0.012345, -3.14159, float("inf"), "1.50")] == [
        "–",
        "yes",
        "1,234,567",
        "0.0123",
        "−3.14",
        "–",
        "1.50",
    ]


def test_a_row_has_as_many_cells_as_there_are_columns() -> None:
    with pytest.raises(ValueError, match="a row has 1 cells for 2 columns"):
        Table("t", ["a", "b"], [["a"]])


# ------------------------------------------------------------------------------------------------------------ colours


def luminance(colour: str) -> float:
    """Return the relative luminance of an sRGB colour (WCAG 2.2)."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_the_formula_of_contrast() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)  # a known near miss of 4.5


@pytest.mark.parametrize("scheme", [0, 1])
def test_text_and_series_stand_out_from_every_background(scheme: int) -> None:
    grounds = [pair[scheme] for pair in (style.PAPER, STRIPE, MARK)]
    for text, ground in product((style.INK, style.SOFT, LINK), grounds):
        assert contrast(text[scheme], ground) >= 4.5
    for series in style.SERIES:
        assert contrast(series[scheme], style.PAPER[scheme]) >= 3


def test_both_schemes_set_every_colour_that_figures_use() -> None:
    (sheet,) = read(render(document())).all("style")
    assert {name.removeprefix("--") for name in VARIABLES.values()} <= set(COLOURS)
    for name, (light, dark) in COLOURS.items():
        assert re.findall(rf"--{name}: (#\w+);", sheet.text) == [light, dark]


def test_series_differ_in_colour_or_line_up_to_25() -> None:
    assert len({str(style.line_style(place)) for place in range(25)}) == 25
    assert len({str(style.marker_style(place)) for place in range(25)}) == 25
    assert len({style.line_style(place)["color"] for place in range(5)}) == 5

"""How Sphinx makes the site of these pages: ``sphinx-build -W docs FOLDER``, with the extra 'docs' and no network.

A page that has ``<!-- generated: NAME -->`` gets there what `simulator.reference.pages` makes of the code as it is, so
that no text of the reference is kept anywhere.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import simulator
from simulator.reference.pages import PAGES

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "LLM cluster simulator"
release = simulator.__version__
html_title = project
default_role = "code"  # of single backticks in docstrings
autodoc_typehints = "none"  # docstrings say what each is
autodoc_member_order = "bysource"
nitpick_ignore_regex = [("py:.*", ".*")]  # types of other packages

html_theme = "furo"  # brings its own fonts and scripts: a page fetches nothing from elsewhere
html_theme_options = {"light_css_variables": {"toc-item-spacing-vertical": "0.65rem"}}  # room to touch each
html_favicon = "icon.svg"
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
highlight_language = "text"
smartquotes = False  # they make a dash of the two before an option

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
nb_execution_mode = "off"  # notebooks are kept with what they printed and drew
myst_enable_extensions = ["attrs_inline", "deflist"]
myst_heading_anchors = 3  # links such as validation.md#deepseek-on-h200
myst_disable_syntax = [
    "myst_line_comment",
    "myst_block_break",
]  # a line may begin with "%", as on the repository's pages

_HERE = Path(__file__).resolve().parent
_NOTEBOOKS = _HERE / "notebooks"  # Sphinx reads only what lies below its own folder; git doesn't keep these copies


def _copy_notebooks(_app: Sphinx, _config: object) -> None:
    """Copy the notebooks beside the pages; links to pages are from one folder up there, not from two."""
    _NOTEBOOKS.mkdir(exist_ok=True)
    for path in sorted((_HERE.parent / "notebooks").glob("*.ipynb")):
        text = path.read_text(encoding="utf-8").replace("](../docs/", "](../")
        (_NOTEBOOKS / path.name).write_text(text, encoding="utf-8")


_GENERATED = re.compile(r"<!-- generated: ([a-z-]+) -->")
_AT_THE_TOP = re.compile(r"\]\((?:\.\./)+(CONTRIBUTING|CHANGELOG)\.md")


def _complete(_app: Sphinx, _page: str, source: list[str]) -> None:
    """Put generated text where a page asks for it, and lead links to files at the top of the repository to their pages.

    A name that can't be generated is an error.
    """
    text = _GENERATED.sub(lambda found: PAGES[found[1]](), source[0])
    source[0] = _AT_THE_TOP.sub(lambda found: f"](/{found[1].lower()}.md", text)


_ACCESSIBLE = {
    "<pre>": '<pre tabindex="0">',
    "<th></th>": "<td></td>",  # the corner of a table of pandas
    '<div class="output text_html">': '<div tabindex="0" style="overflow-x: auto" class="output text_html">',
    '<div class="table-wrapper': '<div tabindex="0" class="table-wrapper',
    'class="caption" role="heading"': 'class="caption" role="heading" aria-level="2"',
    '<aside class="sidebar-drawer"': '<aside aria-label="All pages" class="sidebar-drawer"',
    '<aside class="toc-drawer"': '<aside aria-label="On this page" class="toc-drawer"',
}
"""What Sphinx and the theme leave out for those who use a keyboard or a screen reader: wide boxes that scroll can be
reached, headings have a level, landmarks a name."""


def _make_accessible(app: Sphinx, error: Exception | None) -> None:
    if error is None:
        for page in Path(app.outdir).rglob("*.html"):
            text = page.read_text(encoding="utf-8")
            for written, better in _ACCESSIBLE.items():
                text = text.replace(written, better)
            page.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register what is done with each page as it is read, and once all are written."""
    app.connect("config-inited", _copy_notebooks)
    app.connect("source-read", _complete)
    app.connect("build-finished", _make_accessible)
    return {"parallel_read_safe": True}

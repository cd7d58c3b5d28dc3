"""How Sphinx makes the site of these pages: ``sphinx-build -W docs FOLDER``, with the extra 'docs' and no network.

A page that has ``<!-- generated: NAME -->`` gets there what `simulator.reference.pages` makes of the code as it is, so
that no text of the reference is kept anywhere.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import simulator
from simulator.reference.pages import PAGES

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "LLM cluster simulator"
release = simulator.__version__
html_title = project
html_theme = "furo"  # brings its own fonts and scripts: a page fetches nothing from elsewhere
html_copy_source = False
html_show_sphinx = False

extensions = ["myst_parser"]
myst_enable_extensions = ["attrs_inline", "deflist"]
myst_heading_anchors = 3  # links such as validation.md#deepseek-on-h200
myst_disable_syntax = [
    "myst_line_comment",
    "myst_block_break",
]  # a line may begin with "%", as on the repository's pages

_GENERATED = re.compile(r"<!-- generated: ([a-z-]+) -->")


def _generate(_app: Sphinx, _page: str, source: list[str]) -> None:
    """Put generated text where a page asks for it; a name that there isn't is an error."""
    source[0] = _GENERATED.sub(lambda found: PAGES[found[1]](), source[0])


def setup(app: Sphinx) -> dict[str, bool]:
    """Register what is done with each page as it is read."""
    app.connect("source-read", _generate)
    return {"parallel_read_safe": True}

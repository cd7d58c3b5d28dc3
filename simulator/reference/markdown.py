"""Pieces of Markdown: docstrings, tables, definition lists, targets of links."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_ROLE = re.compile(r":\w+:`~?([^`]+)`")
_CODE = re.compile(r"``(.+?)``", re.DOTALL)
_SPAN = re.compile(r"(`[^`]+`)")
_ARXIV = re.compile(r"arXiv[: ](\d{4}\.\d{4,5})")
_UNMODELLED = re.compile(r"(?m)^(\s*)(Not modelled|Not seen here)(:| here)")


def prose(docstring: str) -> str:
    """Return a docstring as Markdown: its code spans, and what it doesn't model stands out."""
    text = _CODE.sub(r"`\1`", _ROLE.sub(r"`\1`", docstring))
    text = "".join(part if part.startswith("`") else _escaped(part) for part in _SPAN.split(text))
    return _UNMODELLED.sub(r"\1**\2**\3", text)


def cited(source: str) -> str:
    """Return what a thing follows as Markdown, with links to the papers on arXiv."""
    return _ARXIV.sub(r"[\g<0>](https://arxiv.org/abs/\1)", prose(source))


def _escaped(text: str) -> str:
    """Keep what isn't code from being read as a tag, a comment, a heading or a rule."""
    text = re.sub(r"<(?=\w)", r"\\<", text)
    return re.sub(r"(?m)^(\s*)([%+#=>])", r"\1\\\2", text)


def anchor(*words: str) -> str:
    """Return the target of a link for a name: lower case, words with hyphens between them."""
    return re.sub(r"[^a-z0-9]+", "-", " ".join(words).lower()).strip("-")


def heading(level: int, text: str, *anchors: str) -> str:
    """Return a heading with targets of links before it."""
    return "".join(f"({each})=\n" for each in anchors) + f"{'#' * level} {text}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; an upright line in a cell is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def definition(term: str, *paragraphs: str) -> str:
    """Return a term and what it means."""
    lines = "\n\n".join(each for each in paragraphs if each).splitlines()
    first, *rest = lines or [""]
    return "\n".join([term, f": {first}", *(f"  {line}".rstrip() for line in rest)])

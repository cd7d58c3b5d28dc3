"""Reads a page as browsers do, and says what is wrong with it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import pairwise

VOID = {"meta", "link", "br", "hr", "img", "input", "col", "area", "base", "embed", "source", "track", "wbr"}
FETCHING = {"src", "srcset", "data", "poster", "action", "formaction", "background", "ping", "cite", "manifest"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    parent: Element | None
    children: list[Element] = field(default_factory=list)
    text: str = ""

    def all(self, tag: str | None = None) -> list[Element]:
        found = [self] if tag in (None, self.tag) else []
        return found + [each for child in self.children for each in child.all(tag)]

    @property
    def whole_text(self) -> str:
        return self.text + "".join(child.whole_text for child in self.children)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("", {}, None)
        self.open = self.root
        self.faults: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs}, self.open)
        self.open.children.append(element)
        if tag not in VOID:
            self.open = element

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.open.tag != tag:
            self.faults.append(f"</{tag}> closes <{self.open.tag}> at {self.getpos()}")
            return
        assert self.open.parent is not None
        self.open = self.open.parent

    def handle_data(self, data: str) -> None:
        self.open.text += data


def read(html: str) -> Element:
    """Return the root of a page whose every tag is closed in its turn."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    assert reader.faults == [] and reader.open is reader.root
    return reader.root


def faults(html: str) -> list[str]:
    """Return what keeps a page from being self-contained, valid and accessible, as far as its source tells."""
    root = read(html)
    elements = root.all()
    found = [f"<{each.tag}>" for each in elements if each.tag in {"script", "link", "iframe", "object", "base", "form"}]
    for each in elements:
        for name, value in each.attributes.items():
            if name in FETCHING or (name.endswith("href") and not value.startswith("#")) or "://" in value:
                if name.startswith("xmlns"):
                    continue
                found.append(f"<{each.tag} {name}={value!r}> may be fetched")
            if name.startswith("on"):
                found.append(f"<{each.tag} {name}> runs a script")
    styles = "".join(each.text for each in root.all("style"))
    found += [f"style sheet has {word}" for word in ("url(", "@import") if word in styles]
    ids = Counter(each.attributes["id"] for each in elements if "id" in each.attributes)
    found += [f"id {name!r} {count} times" for name, count in ids.items() if count > 1]
    for each in elements:
        for name in ("href", "xlink:href", "aria-labelledby"):
            target = each.attributes.get(name, "").removeprefix("#")
            if target and target not in ids:
                found.append(f"{name}={target!r} refers to nothing")
        if each.attributes.get("clip-path", "").startswith("url(#"):
            target = each.attributes["clip-path"][5:-1]
            if target not in ids:
                found.append(f"clip-path {target!r} refers to nothing")
    for svg in root.all("svg"):
        if svg.attributes.get("role") != "img" or not svg.attributes.get("aria-label", "").strip():
            found.append("an svg has no accessible name")
    for table in root.all("table"):
        if not table.all("caption") or any("scope" not in cell.attributes for cell in table.all("th")):
            found.append("a table without a caption or with a heading without scope")
    levels = [int(each.tag[1]) for each in elements if each.tag in {"h1", "h2", "h3", "h4"}]
    if levels.count(1) != 1 or levels[0] != 1 or any(b > a + 1 for a, b in pairwise(levels)):
        found.append(f"headings are {levels}")
    (page,) = root.all("html")
    if not page.attributes.get("lang") or not root.all("main") or not root.all("title")[0].text:
        found.append("no language, main or title")
    return found

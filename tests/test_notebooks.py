"""Notebooks as they are kept: run from top to bottom, nothing of anybody's machine in them, links that lead somewhere.

That they run is shown where Jupyter is installed (`.ci/run`).
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent.parent / "notebooks"
NOTEBOOKS = sorted(HERE.glob("*.ipynb"))
LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")


def cells(path: Path, kind: str) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_was_run_from_top_to_bottom_without_an_error_and_its_pictures_have_words(path: Path) -> None:
    code = cells(path, "code")
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]
    drawn = [cell for cell in code if any("image/svg+xml" in output.get("data", {}) for output in cell["outputs"])]
    assert drawn
    for cell in drawn:  # what the site says of a picture to those who can't see it
        assert cell["metadata"]["mystnb"]["image"]["alt"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_tells_before_it_computes_and_names_no_machine(path: Path) -> None:
    notebook = json.loads(path.read_text())
    first = notebook["cells"][0]
    assert first["cell_type"] == "markdown" and "".join(first["source"]).startswith("# ")
    assert not re.search(r"(?<![\w.])/(?:home|root|tmp|Users|work)/", path.read_text())


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_its_links_lead_somewhere(path: Path) -> None:
    links = [link for cell in cells(path, "markdown") for link in LINK.findall("".join(cell["source"]))]
    missing = [link for link in links if "://" not in link and not (HERE / link).exists()]
    assert not missing

"""Pages and kinds of policies are where readers look; YAML in pages is a scenario; commands have their options."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from policies.registry import KINDS
from simulator import scenario_yaml
from simulator.cli import app
from simulator.scenario import Scenario

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))


def examples() -> Iterator[tuple[str, str]]:
    """Yield (page and line, YAML) of each scenario that a page shows."""
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES]:
        text = page.read_text(encoding="utf-8")
        for found in re.finditer(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            yield f"{page.name}:{text.count(chr(10), 0, found.start()) + 2}", found[1]


def test_the_readme_lists_every_page_once() -> None:
    table = re.findall(r"^\| \[docs/[^\]]+\]\(docs/([^)]+)\)", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(table) == [page.name for page in PAGES]


def test_contributing_has_every_kind_of_policy_once() -> None:
    rows = re.findall(r"^\| `([a-z_]+)` \| `\w+Policy` \|", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted(KINDS)


@pytest.mark.parametrize(("where", "text"), [pytest.param(*each, id=each[0]) for each in examples()])
def test_yaml_in_the_documentation_is_a_scenario(tmp_path: Path, where: str, text: str) -> None:
    file = tmp_path / "scenario.yaml"
    file.write_text(text, encoding="utf-8")
    data, _ = scenario_yaml.read(file)
    Scenario.from_mapping(data.get("scenario", data))  # a preset's keys are under 'scenario'


def commands() -> Iterator[tuple[str, list[str]]]:
    """Yield (page and line, words) of each command that a page shows, without what it says of several at once."""
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES]:
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
            if line.startswith("simulate ") and " | " not in line and "--engine" not in line:
                yield f"{page.name}:{number}", shlex.split(line, comments=True)[1:]


@pytest.mark.parametrize("words", [pytest.param(words, id=where) for where, words in commands()])
def test_commands_in_the_documentation_have_options_that_there_are(words: list[str]) -> None:
    command: Any = typer.main.get_command(app)
    while hasattr(command, "resolve_command"):
        _, command, words = command.resolve_command(command.context_class(command), words)
    known = {option for param in command.params for option in (*param.opts, *param.secondary_opts)}
    assert {word for word in words if word.startswith("-")} <= known

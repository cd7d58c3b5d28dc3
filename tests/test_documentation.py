"""Pages and kinds of policies are where readers look; YAML in pages is a scenario; commands have their options."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from policies.registry import KINDS
from simulator import scenario_yaml
from simulator.cli import app, main
from simulator.scenario import Scenario

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
FRAME = {"index.md", "contributing.md", "changelog.md"}
"""Pages of the site alone: its home, and two that stand at the top of the repository."""


def examples() -> Iterator[tuple[str, str]]:
    """Yield (page and line, YAML) of each scenario that a page shows."""
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES]:
        text = page.read_text(encoding="utf-8")
        for found in re.finditer(r"^( *)```yaml\n(.*?)^\1```", text, re.MULTILINE | re.DOTALL):
            yield f"{page.name}:{text.count(chr(10), 0, found.start()) + 2}", textwrap.dedent(found[2])


def test_the_readme_lists_every_page_once() -> None:
    table = re.findall(r"^\| \[docs/[^\]]+\]\(docs/([^)]+)\)", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)
    topics = {page.name for page in (ROOT / "docs").glob("*.md")} - FRAME
    folders = {f"{page.relative_to(ROOT / 'docs').parts[0]}/index.md" for page in PAGES if page.parent.name != "docs"}
    assert sorted(table) == sorted(topics | folders)


def toctree(page: Path) -> Iterator[Path]:
    """Yield the pages that a page's tables of contents name."""
    for found in re.finditer(r"^```\{toctree\}\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL):
        for line in found[1].splitlines():
            if line and not line.startswith(":"):
                yield (page.parent / f"{line}.md").resolve()


def test_the_site_shows_every_page_once() -> None:
    """Add a new page to one of the tables of contents at the end of docs/index.md."""
    shown = [entry for page in PAGES for entry in toctree(page)]
    notebooks = [ROOT / "docs" / "notebooks" / f"{each.stem}.md" for each in (ROOT / "notebooks").glob("*.ipynb")]
    assert sorted(shown) == sorted([page for page in PAGES if page != ROOT / "docs" / "index.md"] + notebooks)


@pytest.mark.parametrize("page", [pytest.param(page, id=str(page.relative_to(ROOT))) for page in PAGES])
def test_links_to_files_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


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
            command = line.strip()
            if command.startswith("simulate ") and " | " not in command and "--engine" not in command:
                yield f"{page.name}:{number}", shlex.split(command, comments=True)[1:]


@pytest.mark.parametrize("words", [pytest.param(words, id=where) for where, words in commands()])
def test_commands_in_the_documentation_have_options_that_there_are(words: list[str]) -> None:
    command: Any = typer.main.get_command(app)
    while hasattr(command, "resolve_command"):
        _, command, words = command.resolve_command(command.context_class(command), words)
    known = {option for param in command.params for option in (*param.opts, *param.secondary_opts)}
    assert {word for word in words if word.startswith("-")} <= known


def test_the_commands_of_the_tutorial_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the order of the page, in one folder, on the first requests of the trace."""
    monkeypatch.chdir(tmp_path)
    shown = [words for where, words in commands() if where.startswith("tutorial.md:")]
    assert len(shown) > 6
    for words in shown:
        limited = [*words, "--limit", "50"] if words[1:2] == ["bundled:burstgpt-style"] else words
        limited += ["--workers", "1"] if words[0] in ("sweep", "compare", "plan") else []
        with pytest.raises(SystemExit) as ended:
            main(limited)
        assert ended.value.code == 0, (words, capsys.readouterr().err)


def test_the_policy_that_a_how_to_shows_keeps_the_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "how-to" / "add-a-policy.md").read_text(encoding="utf-8")
    policy, check = (textwrap.dedent(code) for code in re.findall(r"^ *```python\n(.*?)^ *```", page, re.M | re.S))
    (tmp_path / "few_starts.py").write_text(policy, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    exec(compile(check, "add-a-policy.md", "exec"), {})

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

import simulator
from hardware_profiles import list_accelerators, list_nodes
from hardware_profiles.prices import load_offers
from policies import registry
from simulator import cli
from simulator.engines import list_engines
from simulator.models import list_models
from simulator.presets import list_presets
from simulator.reference import markdown
from simulator.reference.commands import all_commands
from simulator.reference.keys import scenario_keys
from simulator.reference.pages import PAGES, key_anchor, policy_anchor

TEXTS = {name: make() for name, make in PAGES.items()}
"""Every page as it is generated."""

ROOT = Path(__file__).parents[2]


def targets(text: str) -> list[str]:
    """Return the targets of links that a page has, explicit ones."""
    return re.findall(r"^\(([a-z0-9-]+)\)=$", text, re.MULTILINE) + re.findall(r"\{#([a-z0-9-]+)\}", text)


def test_every_key_has_a_target() -> None:
    assert {key_anchor(key.path) for key in scenario_keys()} <= set(targets(TEXTS["scenario-keys"]))


@pytest.mark.parametrize("kind", registry.KINDS)
def test_every_policy_is_there_with_its_source_and_parameters(kind: str) -> None:
    text = TEXTS[f"policies-{kind.replace('_', '-')}"]
    assert markdown.anchor("kind", kind) in targets(text)
    for info in registry.describe(kind):
        assert policy_anchor(kind, info.name) in targets(text)
        start = text.index(f"({policy_anchor(kind, info.name)})=")
        entry = text[start : text.find(")=\n#", start + 50)]
        assert f"**Source**: {markdown.cited(info.source)}" in entry
        for parameter in info.parameters:
            assert f"\n**`{parameter.name}`** *" in entry


def test_what_a_policy_does_not_model_stands_out() -> None:
    assert TEXTS["policies-batching"].count("**Not modelled**") > 10


def test_every_catalogue_is_whole() -> None:
    for names, kind, page in (
        (list_models(), "model", "models"),
        (list_accelerators(), "gpu", "hardware"),
        (list_nodes(), "node", "hardware"),
        (list_engines(), "engine", "engines"),
        (list_presets(), "preset", "presets"),
    ):
        assert {markdown.anchor(kind, name) for name in names} <= set(targets(TEXTS[page]))


def test_prices_have_their_day_and_source() -> None:
    rows = [line for line in TEXTS["hardware"].splitlines() if re.search(r"\[20\d\d-\d\d-\d\d\]\(https://", line)]
    assert len(rows) == len(load_offers())


def test_targets_are_unique_in_all_pages_together() -> None:
    found = [target for text in TEXTS.values() for target in targets(text)]
    assert sorted(set(found)) == sorted(found)


def test_every_link_leads_to_a_target_or_a_page() -> None:
    known = {target for text in TEXTS.values() for target in targets(text)}
    links = {link for text in TEXTS.values() for link in re.findall(r"\]\(#([^)]+)\)", text)}
    assert links <= known
    assert len(links) > 100


def test_commands_name_the_keys_that_their_flags_set() -> None:
    by_words = {command.words: command for command in all_commands()}
    run = {parameter.names.split()[0]: parameter for parameter in by_words["simulate run"].options}
    assert run["--tp"].key == "cluster.pools[].parallel.tp"
    assert run["--tp"].doc == "Tensor parallel ranks of a replica."
    assert run["--router"].key == "router"
    assert run["--out"].key == ""
    required = {parameter.names.split()[0]: parameter for parameter in by_words["simulate trace fit"].options}
    assert required["--out"].key == ""  # "[required]" is no key
    keys = {key.path for key in scenario_keys()}
    flagged = [parameter.key for command in by_words.values() for parameter in command.options if parameter.key]
    assert len(flagged) > 50
    assert set(flagged) <= keys


def test_every_command_is_there_with_those_of_its_group() -> None:
    words = [command.words for command in all_commands()]
    assert {"simulate", "simulate run", "simulate trace inspect", "simulate calibrate import aiconfigurator"} <= set(
        words
    )
    for command in all_commands():
        assert set(command.commands) <= set(words)
        assert markdown.anchor("command", command.words) in targets(TEXTS["commands"])


def test_help_of_every_command_is_plain() -> None:
    """A command's own application is made as the others are: no frames around help, no options for completion."""
    for command in all_commands():
        assert not [option for option in command.options if "completion" in option.names], command.words
    for module, _ in cli._LAZY.values():
        assert importlib.import_module(module).app.rich_markup_mode is None, module


def test_every_public_function_and_class_is_asked_for() -> None:
    asked = set(re.findall(r"^\.\. auto(?:function|class):: simulator\.(\w+)(?:\(\))?$", TEXTS["python"], re.MULTILINE))
    public = {name for name in simulator.__all__ if callable(getattr(simulator, name))}
    assert {"run", "Scenario"} <= asked <= public
    assert "model_config" in TEXTS["python"]  # left out


def test_pages_ask_for_what_can_be_generated_each_once() -> None:
    pages = [path.read_text(encoding="utf-8") for path in (ROOT / "docs").rglob("*.md")]
    asked = [name for text in pages for name in re.findall(r"<!-- generated: ([^ ]+) -->", text)]
    assert sorted(asked) == sorted(PAGES)


@pytest.mark.parametrize(
    ("docstring", "text"),
    [
        ("``a_b`` and `c`", "`a_b` and `c`"),
        (":class:`~policies.protocols.Policy`", "`policies.protocols.Policy`"),
        ("Not modelled: x", "**Not modelled**: x"),
        ("a <b> ``<c>``", r"a \<b> `<c>`"),
        ("about\n# 5", "about\n\\# 5"),
        ("2 < 3", "2 < 3"),
    ],
)
def test_docstrings_become_markdown(docstring: str, text: str) -> None:
    assert markdown.prose(docstring) == text


def test_papers_on_arxiv_are_links() -> None:
    said = markdown.cited("Lin, arXiv:2411.17651, section 3")
    assert said == "Lin, [arXiv:2411.17651](https://arxiv.org/abs/2411.17651), section 3"


def test_definitions_hold_several_paragraphs() -> None:
    assert markdown.definition("`a`", "first", "", "- x\n- y") == "`a`\n: first\n\n  - x\n  - y"


def test_a_cell_may_have_an_upright_line() -> None:
    assert markdown.table(("a",), [("x | y",)]).splitlines()[-1] == r"| x \| y |"

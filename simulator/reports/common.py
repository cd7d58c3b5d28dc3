"""Sections that reports of all kinds end with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import simulator
from simulator.errors import InputError
from simulator.reports.document import Block, Bullets, Code, Facts, Section, Text
from simulator.terminal import duration


def read_json(path: Path) -> dict[str, Any]:
    """Return what a file of a result holds.

    Raises
    ------
    InputError
        If it can't be read or isn't an object.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict):
        raise InputError(f"cannot read {path}: it holds no object")
    return found


def read_study(path: Path, study: str, version: int, again: str) -> dict[str, Any]:
    """Return what a study's own file holds.

    Parameters
    ----------
    study
        What it is of, in words.
    version
        Its ``schema_version`` that this program reads.
    again
        What to do with another, as an order.

    Raises
    ------
    InputError
        As `read_json`, or if it is of another version.
    """
    found = read_json(path)
    if found.get("schema_version") != version:
        raise InputError(
            f"cannot read the {study} in {path.parent}: its schema_version is {found.get('schema_version')}, this "
            f"version reads {version}; {again}"
        )
    return found


def assumptions(notes: Sequence[str], *, none: str = "None was noted beyond the scenario below.") -> Section:
    """Return what was substituted, dropped or isn't modelled."""
    return Section("Assumptions and what isn't modelled", [Bullets(notes) if notes else Text(none)])


def cost_sources(sources: Sequence[str]) -> Section:
    """Return where step times come from; estimates are called so."""
    said = "Where the times of engine steps come from. What is called an estimate was not measured."
    return Section("Sources of costs", [Text(said), Bullets(sources)] if sources else [Text("Not known.")])


def scenario_yaml(scenario: Mapping[str, Any]) -> str:
    """Return a scenario as its file."""
    import yaml

    from simulator.write import plain

    return str(yaml.safe_dump(plain(scenario), sort_keys=False, allow_unicode=True, width=100))


def again(command: str, scenario: Mapping[str, Any] | None, *, where: str = "") -> Section:
    """Return how to run it again: the command, what it needs, and the scenario.

    Parameters
    ----------
    where
        What a reader needs to know before running the command; a sentence.
    """
    blocks: list[Block] = [Text(where)] if where else []
    blocks.append(Code("Command", command))
    if scenario is not None:
        blocks.append(Code("Scenario, every default written out", scenario_yaml(scenario), folded=True))
    return Section("Run it again", blocks)


def made_by(took_s: float | None, *facts: tuple[str, str], version: str | None = None) -> Section:
    """Return the version and what it took.

    Parameters
    ----------
    version
        That made the result; None: not recorded, the page then names the one that made the page.
    """
    known = version or simulator.__version__
    known = "version not known: it was not installed as a package" if known == "unknown" else known
    items = [("Simulator" if version else "Page made by simulator", known)]
    if took_s is not None:
        items.append(("Took", duration(took_s)))
    return Section("Version and time taken", [Facts([*items, *facts])])

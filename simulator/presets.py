"""Presets: scenario keys under one name, for systems that take policies of several kinds together.

A preset is a YAML file, ``policies/presets/NAME.yaml`` or one of the user's own::

    summary: one sentence
    source: paper, or repository and version
    scenario:
      cluster:
        pools:
          - batching: {name: ..., params: {...}}

Its keys lie *under* what the user gives: a scenario file's keys and flags go before them, key by key. A preset with one
pool without a name means every pool; pools with names are put together with the user's by name, and those that the user
doesn't name are added. A policy that the user replaces by another takes the preset's parameters with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from simulator import scenario_yaml
from simulator.errors import InputError, did_you_mean
from simulator.scenario_errors import ScenarioError
from simulator.scenario_keys import SHORT_KEYS

_PARTS = ("summary", "source", "scenario")


@dataclass(frozen=True)
class Preset:
    """Keys of a scenario under one name.

    Attributes
    ----------
    summary, source
        What it is, in a sentence, and whom it follows.
    scenario
        The keys, plain data.
    """

    name: str
    summary: str
    source: str
    scenario: Mapping[str, Any]


def list_presets() -> list[str]:
    """Return the names of the project's presets, sorted."""
    folder = resources.files("policies") / "presets"
    return sorted(each.name.removesuffix(".yaml") for each in folder.iterdir() if each.name.endswith(".yaml"))


def load_preset(ref: str) -> Preset:
    """Return a preset by its name, or by the path of a YAML file.

    Raises
    ------
    InputError
        If there is none of that name, or the file isn't a preset.
    """
    if ref.lower().endswith((".yaml", ".yml")):
        data, _ = scenario_yaml.read(Path(ref).expanduser())
        return _preset(Path(ref).stem, data, ref)
    if ref not in list_presets():
        raise InputError(f"unknown preset {ref!r}{did_you_mean(ref, list_presets())}")
    file = resources.files("policies") / "presets" / f"{ref}.yaml"
    data, _ = scenario_yaml.parse(file.read_text(encoding="utf-8"), f"preset {ref}")
    return _preset(ref, data, f"preset {ref}")


def _preset(name: str, data: Mapping[str, Any], where: str) -> Preset:
    for key in data:
        if key not in _PARTS:
            raise InputError(f"{where}: unknown key {key!r}{did_you_mean(str(key), _PARTS)}")
    for key, kind in (("summary", str), ("source", str), ("scenario", dict)):
        if not isinstance(data.get(key), kind):
            what = "a mapping of scenario keys" if kind is dict else "a text"
            raise InputError(f"{where}: a preset needs {key!r}, {what}")
    from simulator.scenario import Scenario

    if "preset" in data["scenario"]:
        raise InputError(f"{where}: a preset can't name another ('preset')")
    try:
        Scenario.from_mapping(deepcopy(data["scenario"]))
    except ScenarioError as error:
        raise InputError(f"{where}: {error}") from None
    return Preset(name, data["summary"].strip(), data["source"].strip(), data["scenario"])


def with_preset(data: Mapping[str, Any], ref: str | None = None) -> dict[str, Any]:
    """Return plain scenario data with a preset's keys under them.

    Parameters
    ----------
    data
        What the user gives; its key ``preset`` names one, and is not in what is returned.
    ref
        A preset that goes before the one that ``data`` names.
    """
    given = dict(data)
    named = given.pop("preset", None)
    ref = ref if ref is not None else named
    if ref is None:
        return given
    if not isinstance(ref, str):
        raise InputError(f"preset: must be the name of a preset or of a YAML file, got {ref!r}")
    return merged(load_preset(ref).scenario, given)


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return scenario data with ``over`` laid over ``under``, key by key; neither is changed."""
    found = deepcopy(dict(under))
    for key, value in over.items():
        found[key] = _laid_over(key, found.get(key), value)
    return found


def _laid_over(key: str, under: Any, over: Any) -> Any:
    if key == "pools" and isinstance(under, list) and isinstance(over, list):
        return _pools(under, over)
    short = SHORT_KEYS.get(key, "name")
    if isinstance(under, dict) and isinstance(over, str):
        over = {short: over}
    if isinstance(over, dict) and isinstance(under, str):
        under = {short: under}
    if not (isinstance(under, dict) and isinstance(over, dict)):
        return deepcopy(over)
    if short in under and short in over and under[short] != over[short]:
        return deepcopy(over)  # another policy, with parameters of its own
    return merged(under, over)


def _pools(under: list[Any], over: list[Any]) -> list[Any]:
    """Lay the user's pools over the preset's; the user's come first, in their order, as their lines do."""
    if len(under) == 1 and isinstance(under[0], dict) and "name" not in under[0]:
        return [merged(under[0], pool) if isinstance(pool, dict) else pool for pool in over]
    by_name = {pool["name"]: pool for pool in under}
    found = [
        merged(by_name.pop(pool["name"]), pool) if isinstance(pool, dict) and pool.get("name") in by_name else pool
        for pool in over
    ]
    return [*deepcopy(found), *deepcopy(list(by_name.values()))]

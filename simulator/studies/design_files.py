"""Designs in files: a list of points as CSV or YAML, and one YAML that says a whole sweep."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulator import scenario_yaml
from simulator.errors import InputError, did_you_mean
from simulator.scenario_keys import anchor_paths, set_key
from simulator.studies.design import changes_of

_KEYS = ("scenario", "over", "variants", "points", "lhs", "seeds", "by")


@dataclass(frozen=True)
class SweepFile:
    """What a sweep's file says.

    Attributes
    ----------
    scenario
        Keys of the base scenario, or the path of its file; None: not said.
    design
        Arguments of `make_design`.
    others
        ``seeds`` and ``by``, where they are given.
    """

    scenario: Mapping[str, Any] | Path | None
    design: Mapping[str, Any]
    others: Mapping[str, Any]


def read_sweep(path: Path) -> SweepFile:
    """Read a sweep's file: ``scenario``, ``over``, ``variants``, ``points``, ``lhs``, ``seeds`` and ``by``.

    Relative paths in it are relative to the file.

    Raises
    ------
    InputError
        If it can't be read, or has another key or a value of another kind.
    """
    data, lines = scenario_yaml.read(path)
    for key, value in data.items():
        if key not in _KEYS:
            line = f"line {lines[key,]}: " if (key,) in lines else ""
            raise InputError(f"{path}: {line}unknown key {key!r}{did_you_mean(str(key), _KEYS)}")
        wanted: dict[str, tuple[Any, str]] = {
            "scenario": (str | dict, "the keys of a scenario, or the path of its file"),
            "over": (dict, "values by key"),
            "variants": (dict, "keys by the variant's name"),
            "points": (list, "a list of mappings"),
            "lhs": (int, "a number of points"),
            "by": (str, "the name of a figure"),
            "seeds": (int | list, "a number of seeds, or a list of them"),
        }
        if not isinstance(value, wanted[key][0]) or isinstance(value, bool):
            raise InputError(f"{path}: {key}: must be {wanted[key][1]}, got {value!r}")
    folder = path.resolve().parent
    given = data.get("scenario")
    if isinstance(given, dict):
        anchor_paths(given, folder)
    design: dict[str, Any] = {key: data[key] for key in ("over", "variants", "points", "lhs") if key in data}
    if "over" in design:
        design["over"] = {
            str(key): [_anchored(str(key), value, folder) for value in axis] if isinstance(axis, list) else axis
            for key, axis in design["over"].items()
        }
    if "variants" in design:
        design["variants"] = {
            name: _anchored_keys(f"{path}: variants.{name}", keys, folder) for name, keys in design["variants"].items()
        }
    if "points" in design:
        design["points"] = [_anchored_keys(f"{path}: points", keys, folder) for keys in design["points"]]
    return SweepFile(
        folder / Path(given).expanduser() if isinstance(given, str) else given,
        design,
        {key: data[key] for key in ("seeds", "by") if key in data},
    )


def read_points(path: Path) -> list[dict[str, Any]]:
    """Read a list of points: a CSV with a column a key, or a YAML list of mappings; ``name`` names a point.

    An empty cell of a CSV leaves its key as the scenario has it; values are YAML. Relative paths are relative to the
    file.

    Raises
    ------
    InputError
        If it can't be read or holds something else.
    """
    if path.suffix.lower() not in (".csv", ".yaml", ".yml"):
        raise InputError(f"{path}: a list of points is a file .csv or .yaml")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"{path}: can't be read ({why})") from None
    try:
        found = _of_csv(path, text) if path.suffix.lower() == ".csv" else scenario_yaml.value(text)
    except ValueError as error:
        raise error if isinstance(error, InputError) else InputError(f"{path}: {error}") from None
    if not isinstance(found, list) or not found:
        raise InputError(
            f"{path}: holds no points; write a YAML list of mappings, or a CSV with keys in its first line"
        )
    return [_anchored_keys(str(path), keys, path.resolve().parent) for keys in found]


def _of_csv(path: Path, text: str) -> list[dict[str, Any]]:
    points = []
    reader = csv.reader(text.splitlines())
    header = [cell.strip() for cell in next(reader, [])]
    if len(set(header)) != len(header) or not all(header):
        raise InputError(f"{path}: line 1: names of keys, each once, got {', '.join(header) or 'nothing'}")
    for row in reader:
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != len(header):
            raise InputError(f"{path}: line {reader.line_num}: {len(row)} cells, and line 1 has {len(header)}")
        cells = {key: cell.strip() for key, cell in zip(header, row, strict=True) if cell.strip()}
        points.append({key: cell if key == "name" else scenario_yaml.value(cell) for key, cell in cells.items()})
    return points


def _anchored_keys(where: str, keys: Any, folder: Path) -> dict[str, Any]:
    if not isinstance(keys, Mapping):
        raise InputError(f"{where}: must be a mapping of keys, got {keys!r}")
    return {str(key): value if key == "name" else _anchored(str(key), value, folder) for key, value in keys.items()}


def _anchored(name: str, value: Any, folder: Path) -> Any:
    """Return a value with the relative paths in it made absolute, as those of a scenario file."""
    changes = changes_of(name, value)
    if len(changes) != 1 or "preset" in changes:  # no flag of several keys names a file
        return value
    (key,) = changes
    steps = ["0" if step.isdecimal() else step for step in key.split(".")]
    data: dict[str, Any] = {}
    set_key(data, ".".join(steps), value)
    anchor_paths(data, folder)
    held: Any = data
    for step in steps:
        held = held[0] if isinstance(held, list) else held.get(step) if isinstance(held, dict) else value
    return held


__all__ = ["SweepFile", "read_points", "read_sweep"]

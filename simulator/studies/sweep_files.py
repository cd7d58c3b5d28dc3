"""What a sweep leaves in a directory: ``sweep.csv``, ``points.csv``, ``sweep.json`` and a scenario a point."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import simulator
from simulator import scenario_yaml
from simulator.resolve import resolve
from simulator.scenario import ScenarioError
from simulator.scenario_keys import anchor_paths
from simulator.studies.directories import check_own, csv_text, json_text, write_all
from simulator.studies.identity import program_digest
from simulator.studies.intervals import CONFIDENCE
from simulator.write import REPORT, plain

if TYPE_CHECKING:
    from simulator.studies.design import Point
    from simulator.studies.sweep import SweepResult

SCHEMA_VERSION = 1
RUNS = "sweep.csv"
POINTS = "points.csv"
SWEEP = "sweep.json"
SCENARIOS = "scenarios"
OWN_FILES = frozenset({RUNS, POINTS, SWEEP, SCENARIOS, REPORT})


def is_sweep(path: Path) -> bool:
    """Tell whether a YAML file is a sweep's: a scenario has no key ``scenario``."""
    try:
        return "scenario" in scenario_yaml.read(path)[0]
    except ScenarioError:
        return False


def table(result: SweepResult) -> list[dict[str, Any]]:
    """Return a row a run: ``point``, a column a key, ``seed``, the figures, ``reason`` and ``digest``.

    It says nothing of where and when runs took place: the same sweep has the same table.
    """
    keys = list(dict.fromkeys(name for point in result.points for name in point.keys))
    figures = list(dict.fromkeys(name for run in result.runs for name in run.figures))
    return [
        {
            "point": run.point.name,
            **{name: run.point.keys.get(name) for name in keys},
            "seed": run.seed,
            **{name: plain(run.figures.get(name)) for name in figures},
            "reason": run.failure or None,
            "digest": None if run.done is None else run.done.digest or None,
        }
        for run in result.runs
    ]


def scenario_file(place: int) -> str:
    """Return the name of a point's scenario; points are counted from 1."""
    return f"{SCENARIOS}/{place:04}.yaml"


def check_dir(place: Path, *, overwrite: bool) -> Path:
    """Return the directory, absolute, if a sweep may be written there; for a check before a long sweep.

    Raises
    ------
    InputError
        If it is a file, can't be made, or holds anything but an earlier sweep that may be replaced.
    """
    return check_own(place, "sweep", OWN_FILES.__contains__, overwrite=overwrite)


def write(result: SweepResult, place: Path) -> None:
    """Write a sweep to a directory that `check_dir` returned."""
    means = result.means()
    files = {
        RUNS: csv_text(table(result)),
        POINTS: csv_text([_without_nan(row) for row in means.to_dict("records")], list(means.columns)),
        SWEEP: json_text(described(result)),
    }
    for number, scenario in enumerate(result.scenarios, 1):
        data = scenario.to_mapping()
        anchor_paths(data, Path.cwd())
        files[scenario_file(number)] = scenario_yaml.dump(data)
    write_all(place, files, OWN_FILES.__contains__)


def _without_nan(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(name): None if isinstance(value, float) and value != value else value for name, value in row.items()}


def described(result: SweepResult) -> dict[str, Any]:
    """Return a sweep as plain data, its table apart."""
    ranked = [point.name for point in result.ranked()]
    return {
        "schema_version": SCHEMA_VERSION,
        "version": simulator.__version__,
        "program": program_digest(),
        "base": result.base.to_mapping(),
        "points": [_point(place, point) for place, point in enumerate(result.points, 1)],
        "seeds": result.seeds,
        "confidence": CONFIDENCE,
        "by": None
        if result.by is None
        else {"target": result.by.name, "figure": result.by.figure, "unit": result.by.unit, "higher": result.by.higher},
        "ranked": None if result.by is None else ranked,
        "runs": len(result.runs),
        "failed": len(result.failed),
        "kept": result.kept,
        "simulated": result.simulated,
        "interrupted": result.interrupted,
        "lost": result.lost,
        "notes": result.notes,
        "assumptions": assumptions(result),
        "sources": sources(result),
        "kinds": kinds(result),
        "took_s": result.took_s,
    }


def _point(place: int, point: Point) -> dict[str, Any]:
    return {"name": point.name, "keys": point.keys, "changes": point.changes, "scenario": scenario_file(place)}


def assumptions(result: SweepResult) -> list[str]:
    """Return the notes of all runs; those that differ by numbers alone once, with how many runs have them."""
    found: dict[str, list[str]] = {}
    ended = [run.done.outcome.summary for run in result.runs if run.done is not None and not run.failure]
    for summary in ended:
        for note in summary["notes"]:
            found.setdefault(re.sub(r"\d+([.,]\d+)*", "#", note), []).append(note)
    told = []
    for notes in found.values():
        others = "" if len(set(notes)) == 1 else "; this of one of them, others with other numbers"
        some = len(notes) < len(ended) or others
        told.append(f"{notes[0]} ({len(notes)} of {len(ended)} runs{others})" if some else notes[0])
    return told


def kinds(result: SweepResult) -> list[dict[str, Any]]:
    """Return what was simulated on what, each kind once: model, and of each pool GPU, engine and source of costs.

    They are keys of a scenario with everything decided, which is worked out once a kind.
    """
    found: dict[str, dict[str, Any] | None] = {}
    for scenario in result.scenarios:
        given = repr(_kind(scenario.to_mapping(everything=True)))
        if given not in found:
            try:
                found[given] = _kind(resolve(scenario).scenario.to_mapping(everything=True))
            except ValueError:  # a point that can't run
                found[given] = None
    return [kind for kind in found.values() if kind is not None]


def _kind(scenario: Mapping[str, Any]) -> dict[str, Any]:
    pools = [
        {
            "accelerator": pool.get("accelerator"),
            "model": pool.get("model"),
            "engine": {"name": pool.get("engine", {}).get("name")},
            "cost": {"kind": pool.get("cost", {}).get("kind")},
            "role": pool.get("role"),
        }
        for pool in scenario["cluster"]["pools"]
    ]
    return plain({"model": scenario["model"], "cluster": {"pools": pools}})  # type: ignore[no-any-return]


def sources(result: SweepResult) -> list[str]:
    """Return where step times come from, of all runs."""
    found: dict[str, None] = {}
    for run in result.runs:
        if run.done is not None and not run.failure:
            found.update(dict.fromkeys(run.done.outcome.summary["costs"]["sources"]))
    return list(found)


__all__ = ["check_dir", "described", "is_sweep", "scenario_file", "sources", "table", "write"]

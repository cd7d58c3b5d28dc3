"""What a search for the highest load leaves in a directory: ``loads.csv``, ``load.json`` and ``best.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulator.studies import search_files
from simulator.studies.directories import csv_text, json_text, write_all
from simulator.write import REPORT

if TYPE_CHECKING:
    from simulator.studies.highest_load import HighestLoad
    from simulator.studies.load_study import Probe

SCHEMA_VERSION = 1
LOADS = "loads.csv"
LOAD = "load.json"
BEST = search_files.BEST
OWN_FILES = frozenset({LOADS, LOAD, BEST, REPORT})


def table(found: HighestLoad) -> list[dict[str, Any]]:
    """Return a row a load that was tried, ascending.

    ``load``, ``offered_requests_per_s``, ``answer``, ``attainment`` with its interval ``low`` to ``high`` (bounds from
    above where runs were given up), ``runs``, ``given_up``, ``overloaded`` and figures.
    """
    return [_row(each) for each in found.probes]


def _row(probe: Probe) -> dict[str, Any]:
    return {
        "load": probe.load,
        "offered_requests_per_s": probe.offered_requests_per_s,
        "answer": probe.answer,
        "attainment": probe.estimate.mean,
        "attainment_low": probe.estimate.low,
        "attainment_high": probe.estimate.high,
        "runs": probe.runs,
        "given_up": probe.given_up,
        "overloaded": probe.overloaded,
        **probe.figures,
    }


def check_dir(place: Path, *, overwrite: bool) -> Path:
    """Return the directory as `simulator.studies.search_files.check_dir` does."""
    return search_files.check_dir(place, overwrite=overwrite, own=OWN_FILES)


def write(found: HighestLoad, place: Path) -> None:
    """Write what was found to a directory that `check_dir` returned."""
    files = {LOADS: csv_text(table(found), ["load"]), LOAD: json_text(described(found))}
    if found.best_scenario is not None:
        files[BEST] = found.best_scenario.to_yaml()
    write_all(place, files, OWN_FILES.__contains__)


def described(found: HighestLoad) -> Mapping[str, Any]:
    """Return what was found as plain data; only ``took_s`` differs between two searches of the same."""
    return {
        "schema_version": SCHEMA_VERSION,
        "answer": found.answer,
        "model": found.model,
        "key": found.key,
        "share": found.share,
        "objectives": dict(found.objectives),
        "sustained": found.bracket.sustained,
        "missed": found.bracket.missed,
        "undecided": list(found.bracket.undecided),
        "replicated": found.replicated,
        "notes": list(found.notes),
        "interrupted": found.interrupted,
        "loads": [
            {**row, "seeds": list(probe.seeds), "resample": probe.resample}
            for row, probe in zip(table(found), found.probes, strict=True)
        ],
        "scenario": None if found.best_scenario is None else found.best_scenario.to_mapping(everything=True),
        "took_s": found.took_s,
    }

"""What a comparison leaves in a directory: tables, everything as JSON, and the scenario of each side."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import simulator
from simulator import scenario_yaml
from simulator.studies.directories import check_own, csv_text, json_text, write_all
from simulator.write import REPORT, plain

if TYPE_CHECKING:
    from simulator.studies.compare import CompareResult, Comparison, SideResult
    from simulator.studies.intervals import Interval

SCHEMA_VERSION = 1
TABLE = "compare.csv"
RUNS = "runs.csv"
COMPARE = "compare.json"
_SCENARIO = re.compile(r"side-\d+-[\w.-]*\.yaml")


def table(result: CompareResult) -> list[dict[str, Any]]:
    """Return a row a metric and side.

    ``n`` seeds have the side's ``mean`` with its interval (``low``, ``high``); ``pairs`` of them, which the baseline
    has too, the ``difference`` from the baseline and the ``ratio`` to it with theirs. ``p_value`` is of no difference,
    ``p_holm`` the same corrected for the number of sides.
    """
    return [_row(result, each) for each in result.comparisons]


def _row(result: CompareResult, each: Comparison) -> dict[str, Any]:
    pair = each.pair
    return {
        "metric": each.metric.name,
        "unit": each.metric.unit or "share",
        "side": each.side,
        "baseline": result.baseline,
        "n": each.own.n,
        **_columns("mean", "", each.own),
        "pairs": None if pair is None else pair.n,
        **_columns("difference", "difference_", None if pair is None else pair.difference),
        **_columns("ratio", "ratio_", None if pair is None else pair.ratio),
        "p_value": None if pair is None else pair.p_value,
        "p_holm": each.corrected,
        "verdict": each.verdict or None,
    }


def _columns(mean: str, bounds: str, found: Interval | None) -> dict[str, float | None]:
    names = (mean, f"{bounds}low", f"{bounds}high")
    return dict.fromkeys(names) if found is None else dict(zip(names, (found.mean, found.low, found.high), strict=True))


def runs(result: CompareResult) -> list[dict[str, Any]]:
    """Return a row a simulation: ``side``, ``seed``, ``digest`` of all that it depends on, and the figures."""
    return [
        {"side": side.name, "seed": seed, "digest": done.digest, **done.outcome.figures}
        for side in result.sides
        for seed, done in side.done.items()
    ]


def _is_own(name: str) -> bool:
    return name in (TABLE, RUNS, COMPARE, REPORT) or _SCENARIO.fullmatch(name) is not None


def check_dir(place: Path, *, overwrite: bool) -> Path:
    """Return the directory, absolute, if a comparison may be written there; for a check before a long one.

    Raises
    ------
    InputError
        If it is a file, can't be made, or holds anything but an earlier comparison that may be replaced.
    """
    return check_own(place, "comparison", _is_own, overwrite=overwrite)


def write(result: CompareResult, place: Path) -> None:
    """Write a comparison to a directory that `check_dir` returned, in place of an earlier one."""
    sides = zip(scenario_files(result.sides), result.sides, strict=True)
    files = {
        TABLE: csv_text(table(result)),
        RUNS: csv_text(runs(result)),
        COMPARE: json_text(described(result)),
        **{name: scenario_yaml.dump(plain(side.scenario)) for name, side in sides},
    }
    write_all(place, files, _is_own)


def scenario_files(sides: Sequence[SideResult]) -> list[str]:
    """Return the name of each side's scenario file."""
    slugs = (re.sub(r"[^\w.-]+", "-", side.name, flags=re.ASCII).strip("-.")[:60] for side in sides)
    return [f"side-{place}-{slug}.yaml" for place, slug in enumerate(slugs, 1)]


def described(result: CompareResult) -> Mapping[str, Any]:
    """Return a comparison as plain data; only ``simulated``, ``kept`` and ``took_s`` differ between two of the same."""
    return {
        "schema_version": SCHEMA_VERSION,
        "version": simulator.__version__,
        "baseline": result.baseline,
        "by": result.by.name,
        "seeds": list(result.seeds),
        "seeds_text": result.seeds_text,
        "trace_sha256": result.trace or None,
        "notes": list(result.notes),
        "interrupted": result.interrupted,
        "sides": [
            {
                "name": side.name,
                "failure": side.failure or None,
                "differs": [asdict(each) for each in side.differs],
                "scenario_file": file,
                "runs": [{"seed": seed, "digest": done.digest} for seed, done in side.done.items()],
                "cost_sources": side.cost_sources,
                "latency_distribution_s": side.distribution,
                "scenario": side.scenario,
            }
            for file, side in zip(scenario_files(result.sides), result.sides, strict=True)
        ],
        "comparisons": table(result),
        "requests": [{"side": side, **asdict(each)} for side, pairs in result.requests.items() for each in pairs],
        "simulated": result.simulated,
        "kept": result.kept,
        "took_s": result.took_s,
    }

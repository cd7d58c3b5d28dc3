"""What a search leaves in a directory: ``plans.csv``, ``search.json`` and ``best.yaml``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulator.studies.directories import check_own, csv_text, json_text, write_all
from simulator.studies.plan_space import POOL, Plan, count_by_kind, dimensions
from simulator.write import REPORT

if TYPE_CHECKING:
    from simulator.studies.search_result import Row, SearchResult

SCHEMA_VERSION = 1
PLANS = "plans.csv"
SEARCH = "search.json"
BEST = "best.yaml"
OWN_FILES = frozenset({PLANS, SEARCH, BEST, REPORT})


def table(result: SearchResult) -> list[dict[str, Any]]:
    """Return a row a plan: those simulated, best first, then those that can't run.

    ``rank`` (null where there is no figure), ``plan``, a column a dimension, ``replicas``, ``gpus``, one a limit that
    was tried, ``baseline``, ``pareto`` (where a front was asked for), ``screened_only``, ``kv_tokens`` and the figures;
    ``kind`` and ``reason`` say why there are none.
    """
    rows = [_simulated(result, row, place) for place, row in enumerate(result.rows, 1)]
    front = {row.plan for row in result.pareto()} if result.pareto_by else set()
    for found, row in zip(rows, result.rows, strict=True):
        if result.pareto_by:
            found["pareto"] = row.plan in front
    if result.baseline is not None and all(row.plan != result.baseline.plan for row in result.rows):
        rows.append(_simulated(result, result.baseline, None))
    columns: dict[str, None] = {}
    for found in rows:
        columns.update(dict.fromkeys(found))
    for each in result.infeasible:
        rows.append({"rank": None, **_layout(each.plan), "kind": each.kind, "reason": each.reason})
        columns.update(dict.fromkeys(rows[-1]))
    return [{column: row.get(column) for column in columns} for row in rows]


def _simulated(result: SearchResult, row: Row, place: int | None) -> dict[str, Any]:
    return {
        "rank": None if row.value(result.by) is None else place,
        **_layout(row.plan),
        "baseline": result.baseline is not None and row.plan == result.baseline.plan,
        "screened_only": row.screened_only,
        "kv_tokens": row.kv_tokens,
        "kind": "failed" if row.failure else None,
        "reason": row.failure or None,
        **row.figures,
    }


def _layout(plan: Plan) -> dict[str, Any]:
    sizes = {each.name: plan.by_name[each.name] for each in dimensions()}
    limits = {key.removeprefix(f"{POOL}."): value for key, value in plan.limits}
    return {"plan": plan.text, "replicas": plan.replicas, **sizes, "gpus": plan.gpus, **limits}


def check_dir(place: Path, *, overwrite: bool, own: Collection[str] = OWN_FILES) -> Path:
    """Return the directory, absolute, if a search may be written there; for a check before a long search.

    Raises
    ------
    InputError
        If it is a file, can't be made, or holds anything but an earlier search that may be replaced.
    """
    return check_own(place, "search", own.__contains__, overwrite=overwrite)


def write(result: SearchResult, place: Path) -> None:
    """Write a search to a directory that `check_dir` returned."""
    files = {PLANS: csv_text(table(result), ["rank", "plan"]), SEARCH: json_text(described(result))}
    if result.best_scenario is not None:
        files[BEST] = result.best_scenario.to_yaml()
    write_all(place, files, OWN_FILES.__contains__)


def described(result: SearchResult) -> Mapping[str, Any]:
    """Return a search as plain data; only ``took_s`` differs between two searches of the same."""
    best, baseline = result.best, result.baseline
    return {
        "schema_version": SCHEMA_VERSION,
        "model": result.model,
        "nodes": result.budget.nodes,
        "node": result.budget.node,
        "gpus": result.budget.gpus,
        "by": {"target": result.by.name, "figure": result.by.figure, "unit": result.by.unit},
        "best": None if best is None else {"plan": best.plan.text, "value": best.value(result.by)},
        "baseline": None if baseline is None else {"plan": baseline.plan.text, "value": baseline.value(result.by)},
        "gain_over_baseline": result.gain,
        "pareto": None
        if not result.pareto_by
        else {
            "by": [each.name for each in result.pareto_by],
            "figures": [each.figure for each in result.pareto_by],
            "plans": [row.plan.text for row in result.pareto()],
        },
        "stages": list(result.stages),
        "notes": list(result.notes),
        "interrupted": result.interrupted,
        "infeasible": count_by_kind(result.infeasible),
        "plans": table(result),
        "scenario": None if result.best_scenario is None else result.best_scenario.to_mapping(everything=True),
        "took_s": result.took_s,
    }

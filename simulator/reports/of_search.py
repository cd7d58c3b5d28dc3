"""The report of a search of parallel plans."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulator import figures
from simulator.figures.labels import quantity
from simulator.reports import common, known
from simulator.reports.document import Block, Bullets, Cell, Document, Plot, Section, Table, Text
from simulator.studies.search_files import SCHEMA_VERSION, SEARCH
from simulator.terminal import number, percent, plural

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS: tuple[tuple[str, str, float], ...] = (
    ("output tokens/s", "output_tokens_per_s", 1.0),
    ("goodput (requests/s)", "goodput_requests_per_s", 1.0),
    ("TTFT p99 (s)", "ttft_s_p99", 1.0),
    ("TPOT mean (ms)", "tpot_s_mean", 1e3),
    ("ITL p99 (ms)", "itl_s_p99", 1e3),
    ("E2E mean (s)", "e2e_s_mean", 1.0),
    ("price per million output tokens", "cost_per_million_output_tokens", 1.0),
    ("J per output token", "energy_j_per_output_token", 1.0),
)
"""Heading, figure, and what the figure is multiplied by."""

_MOST_PLANS = 25
"""Plans in the table, the best first; plans.csv has all."""
_MOST_REASONS = 20

_FRONTS: tuple[tuple[str, str, bool], ...] = (
    ("tpot_s_mean", "output_tokens_per_s", False),
    ("ttft_s_p99", "output_tokens_per_s", False),
    ("e2e_s_mean", "cost_per_million_output_tokens", True),
    ("e2e_s_mean", "energy_j_per_output_token", True),
)
"""Pairs of figures that are weighed against one another: x, of which less is better, y, and whether less of it is."""


def document(directory: Path) -> Document:
    """Return the report of what ``simulate search --out`` wrote."""
    found = common.read_study(directory / SEARCH, "search", SCHEMA_VERSION, "search again")
    scenario = found["scenario"]
    return Document(
        title=f"Parallel plans of {found['model']} on {_nodes(found)}",
        answer=" ".join(_answer(found)),
        sections=[
            Section("Plans", list(_tables(found))),
            Section("Plots", list(_plots(found)) or [Text("Nothing to draw: no two plans have figures.")]),
            common.assumptions(found["notes"]),
            *([known.section(known.subjects_of(scenario))] if scenario else []),
            _again(found),
            common.made_by(found["took_s"], ("Simulated", "; ".join(found["stages"]))),
        ],
    )


def _nodes(found: Mapping[str, Any]) -> str:
    return f"{found['nodes']} x {found['node']}, {plural(found['gpus'], 'GPU')}"


def _answer(found: Mapping[str, Any]) -> Iterator[str]:
    if found["interrupted"]:
        yield "INTERRUPTED: of the plans that were simulated until then."
    best, base, by = found["best"], found["baseline"], found["by"]
    simulated = sum(1 for plan in found["plans"] if plan["kind"] is None)
    if best is None:
        yield f"No plan of {found['model']} on {_nodes(found)} was simulated to its end."
        return
    yield (
        f"Of {plural(simulated, 'plan')} for {found['model']} on {_nodes(found)}, {best['plan']} is the best by "
        f"{by['target']}: {number(best['value'])} {by['unit']}."
    )
    if base is None:
        yield "The heuristic plan of engines' guides can't run or was not simulated."
    elif base["plan"] == best["plan"]:
        yield "It is the heuristic plan of engines' guides."
    elif base["value"] is None or found["gain_over_baseline"] is None:
        yield f"The heuristic plan of engines' guides, {base['plan']}, has no such figure."
    else:
        yield (
            f"That is {found['gain_over_baseline']:.2f} times as good as the heuristic plan of engines' guides, "
            f"{base['plan']}: {number(base['value'])}."
        )


def _simulated(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [plan for plan in found["plans"] if plan["kind"] is None]


def _tables(found: Mapping[str, Any]) -> Iterator[Block]:
    rows = _simulated(found)
    shown = [plan for place, plan in enumerate(rows) if place < _MOST_PLANS or plan["baseline"]]
    if shown:
        yield _plans(found, shown, len(rows))
    refused = [plan for plan in found["plans"] if plan["kind"] is not None]
    if refused:
        counts = ", ".join(f"{count} {kind}" for kind, count in found["infeasible"].items())
        yield Text(f"{plural(len(refused), 'plan')} can't run or failed{f' ({counts})' if counts else ''}.")
        by_reason: dict[str, list[str]] = {}
        for plan in refused:
            by_reason.setdefault(f"{plan['kind']}: {plan['reason']}", []).append(plan["plan"])
        order = sorted(by_reason.items(), key=lambda each: -len(each[1]))
        yield Bullets([f"{plans[0]}{_more(len(plans))}: {why}" for why, plans in order[:_MOST_REASONS]])
        if len(order) > _MOST_REASONS:
            yield Text(f"{len(order) - _MOST_REASONS} more reasons are in plans.csv.")


def _more(count: int) -> str:
    return f" and {count - 1} more" if count > 1 else ""


def _plans(found: Mapping[str, Any], shown: Sequence[Mapping[str, Any]], count: int) -> Table:
    by = found["by"]["figure"]
    columns = [each for each in _COLUMNS if any(plan[each[1]] is not None for plan in shown)]
    if by not in {figure for _, figure, _ in columns}:
        columns.insert(0, (quantity(by), by, 1.0))
    columns.sort(key=lambda each: each[1] != by)  # what it is ranked by comes first
    rows: list[list[Cell]] = [
        [
            plan["plan"],
            plan["rank"],
            plan["gpus"],
            *(None if plan[figure] is None else float(plan[figure] * scale) for _, figure, scale in columns),
            None if plan["peak_kv_utilization"] is None else percent(plan["peak_kv_utilization"]),
            "; ".join(_remarks(plan)),
        ]
        for plan in shown
    ]
    part = "" if len(shown) >= count else f" (the best {_MOST_PLANS} of {count}; plans.csv has all)"
    caption = f"Plans by {found['by']['target']}, the best first{part}; the best and the heuristic one are marked."
    headings = ("plan", "rank", "GPUs", *(heading for heading, _, _ in columns), "KV used, at most", "remark")
    marked = {place for place, plan in enumerate(shown) if plan["rank"] == 1 or plan["baseline"]}
    return Table(caption, headings, rows, frozenset(marked))


def _remarks(plan: Mapping[str, Any]) -> Iterator[str]:
    if plan["rank"] == 1:
        yield "best"
    if plan["baseline"]:
        yield "heuristic"
    if plan.get("pareto"):
        yield "Pareto front"
    if plan["screened_only"]:
        yield "screened only"
    if plan["overloaded"]:
        yield "overloaded"
    if plan["attainment"] is not None:
        yield f"{percent(plan['attainment'])} met the objectives"
    if plan["unserved"]:
        yield f"{plan['unserved']:,} not served"


def _plots(found: Mapping[str, Any]) -> Iterator[Plot]:
    import pandas as pd

    rows = [plan for plan in _simulated(found) if not plan["screened_only"]]
    for x, y, lower_y in _FRONTS:
        frame = pd.DataFrame([plan for plan in rows if plan.get(x) is not None and plan.get(y) is not None])
        if len(frame) > 1:
            yield _front(frame, x, y, lower_y)


def _front(frame: pd.DataFrame, x: str, y: str, lower_y: bool) -> Plot:
    front = figures.pareto_front(frame[x], frame[y], lower_y=lower_y)
    best = frame[front].sort_values(x)
    names = [str(name) for name in best["plan"]]
    rows: list[list[Cell]] = [[row["plan"], float(row[x]), float(row[y])] for _, row in best.iterrows()]
    return Plot(
        figures.pareto(frame, x, y, "plan", lower_y=lower_y),
        f"{quantity(x)} against {quantity(y)}, a point a plan. No plan is better in both than one on the front.",
        f"{plural(len(names), 'plan')} of {len(frame)} on the Pareto front, from the lowest {quantity(x)}: "
        f"{', '.join(names[:8])}{' and more' if len(names) > 8 else ''}.",
        Table("Plans on the Pareto front.", ("plan", quantity(x), quantity(y)), rows),
    )


def _again(found: Mapping[str, Any]) -> Section:
    words = ["simulate", "search", "--scenario", "best.yaml", "--node", found["node"], "--nodes", str(found["nodes"])]
    command = "simulate run --scenario best.yaml\n" + shlex.join([*words, "--by", found["by"]["target"]])
    if found["scenario"] is None:
        return Section("Run it again", [Text("No plan was simulated to its end, so there is no scenario to run.")])
    where = (
        "In the directory of the result, which holds best.yaml: the best plan, and the search, which takes requests, "
        "engine and objectives from that file and not its layout. What --only and the like narrowed is not kept."
    )
    return common.again(command, found["scenario"], where=where)

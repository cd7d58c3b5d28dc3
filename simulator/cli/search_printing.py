"""What ``simulate search`` prints of the plans that it tried."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from simulator.studies.plan_space import Plan
    from simulator.studies.search_result import Row, SearchResult

_SHOWN = 10
"""Plans in the table without --all."""
_LIMIT_WIDTH = 9
"""Characters of a limit's column, whose heading is broken."""
_REMARK_WIDTH = 9


def print_search(result: SearchResult, show_all: bool, out: str | None) -> None:
    """Print the answer, a table of plans, and what to know of them."""
    from rich.text import Text

    from simulator.cli.several import console_of_study, labelled
    from simulator.studies.plan_space import count_by_kind
    from simulator.studies.search_files import BEST
    from simulator.terminal import plural, span

    console = console_of_study()
    if result.interrupted:
        console.print(Text("INTERRUPTED: of the plans that were simulated until then.", style="bold yellow"))
    console.print(Text(headline(result), style="bold"))
    console.print()
    _print_plans(result, console, show_all)
    console.print()
    lines = [("Simulated", "; ".join(result.stages))]
    if result.pareto_by:
        weighed = ", ".join(each.name for each in result.pareto_by)
        lines.append(("Pareto", f"{plural(len(result.pareto()), 'plan')} on the front of {weighed}: marked"))
    if result.infeasible:
        counts = ", ".join(f"{count} {kind}" for kind, count in count_by_kind(result.infeasible).items())
        hint = "" if show_all else "; --all lists them"
        lines.append(("Can't run", f"{plural(len(result.infeasible), 'plan')} ({counts}){hint}"))
    lines += [("Note", note) for note in result.notes]
    lines.append(("Took", span(result.took_s)))
    if out is not None:
        lines.append(("Results in", out))
        if result.best_scenario is not None:
            lines.append(("Again", f"simulate run --scenario {Path(out) / BEST}"))
    console.print(labelled(lines))
    if show_all:
        console.print()
        for each in result.infeasible:
            console.print(Text(f"{each.plan.text}: {each.kind}: {each.reason}", style="dim"))


def headline(result: SearchResult) -> str:
    """Return the answer in a line."""
    from simulator.terminal import number

    gpus = f"{result.budget.nodes} x {result.budget.node}" if result.budget.nodes > 1 else result.budget.node
    where = f"{result.model} on {gpus}"
    best = result.best
    if best is None:
        return f"{where}: no plan was simulated to its end."
    value = best.value(result.by)
    assert value is not None
    said = f"{where}: best by {result.by.name} is {best.plan.text}: {number(value)} {result.by.unit}"
    base = result.baseline
    if base is None:
        return f"{said}; the heuristic plan can't run or was not simulated."
    if base.plan == best.plan:
        return f"{said}; it is the heuristic plan."
    gain = result.gain
    return f"{said}, {'' if gain is None else f'{gain:.2f} times as good as '}the heuristic plan {base.plan.text}."


_COLUMNS: tuple[tuple[str, str, float], ...] = (
    ("tokens/s", "output_tokens_per_s", 1.0),
    ("TTFT p99 (s)", "ttft_s_p99", 1.0),
    ("TPOT (ms)", "tpot_s_mean", 1e3),
    ("E2E (s)", "e2e_s_mean", 1.0),
    ("goodput/s", "goodput_requests_per_s", 1.0),
    ("cost/Mtok", "cost_per_million_output_tokens", 1.0),
    ("J/token", "energy_j_per_output_token", 1.0),
    ("ITL p99 (ms)", "itl_s_p99", 1e3),
    ("KV peak", "peak_kv_utilization", 1.0),
)
"""Label, figure and scale, what people look at first in front; those that don't fit are left out from the end."""


def _print_plans(result: SearchResult, console: Console, show_all: bool) -> None:
    rows = list(result.rows)
    front = {row.plan for row in result.pareto()} if result.pareto_by else set()
    shown = rows if show_all else [row for place, row in enumerate(rows) if place < _SHOWN or row.plan in front]
    base = result.baseline
    if base is not None and all(row.plan != base.plan for row in shown):
        shown = [*shown, base]
    known = {figure: (label, figure, scale) for label, figure, scale in _COLUMNS}
    asked = [known.get(each.figure, (each.name, each.figure, 1.0)) for each in (result.by, *result.pareto_by)]
    columns = [
        each
        for each in dict.fromkeys((*asked, *_COLUMNS))
        if any(row.figures.get(each[1]) is not None for row in shown)
    ]
    while True:
        table = _table(result, shown, columns, front)
        needed = console.measure(table, options=console.options.update(width=10_000)).maximum
        if needed <= console.width or len(columns) == 1:
            break
        columns.pop()
    console.print(table)


def _table(
    result: SearchResult, shown: Sequence[Row], columns: Sequence[tuple[str, str, float]], front: Collection[Plan]
) -> Table:
    from rich.table import Table

    from simulator.terminal import number, percent

    places = {row.plan: str(place) for place, row in enumerate(result.rows, 1)}
    limits = list(dict.fromkeys(key for row in shown for key, _ in row.plan.limits))
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("#", justify="right")
    table.add_column("plan", no_wrap=True)
    table.add_column("GPUs", justify="right", no_wrap=True)
    for key in limits:
        widest = max(len(str(dict(row.plan.limits).get(key, "-"))) for row in shown)
        heading = key.rpartition(".")[2].replace("_", " ")
        table.add_column(heading, justify="right", min_width=widest, max_width=max(widest, _LIMIT_WIDTH))
    for label, figure, _ in columns:
        table.add_column(label + ("*" if figure == result.by.figure else ""), justify="right", no_wrap=True)
    table.add_column("remark", overflow="fold", min_width=_REMARK_WIDTH)
    for row in shown:
        cells = []
        for _, figure, scale in columns:
            value = row.figures.get(figure)
            as_share = figure == "peak_kv_utilization"
            cells.append("-" if value is None else percent(value) if as_share else number(float(value) * scale))
        chosen = dict(row.plan.limits)
        table.add_row(
            places.get(row.plan, ""),
            replace(row.plan, limits=()).text,
            str(row.plan.gpus),
            *(str(chosen.get(key, "-")) for key in limits),
            *cells,
            ", ".join(_remarks(result, row, is_on_front=row.plan in front)),
        )
    return table


def _remarks(result: SearchResult, row: Row, *, is_on_front: bool) -> Iterator[str]:
    from simulator.studies.targets import sustains
    from simulator.terminal import percent

    if result.baseline is not None and row.plan == result.baseline.plan:
        yield "heuristic"
    if row.failure:
        yield row.failure
        return
    if is_on_front:
        yield "Pareto"
    if row.screened_only:
        yield "screened only"
    if row.figures["overloaded"]:
        yield "overloaded"
    if row.figures["attainment"] is not None and not sustains(row.figures):
        yield f"SLO {percent(row.figures['attainment'])}"
    if row.figures["unserved"]:
        yield f"{row.figures['unserved']:,} not served"

"""``simulate search``: the best parallel plan on given nodes, with the plan of the engines' guides beside."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from simulator.cli.run_command import register_with, scenario_of
from simulator.cli.several import counting
from simulator.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from simulator.studies.search import Row, SearchResult

HELP = """Find the best parallel plan of a model on given nodes, by simulating every plan that fits.

Everything but the layout (--tp, --pp, --replicas) is said as for 'simulate run'. Beside the best stands the
heuristic plan of engines' guides: tensor parallelism over a node, stages over nodes only as far as needed, replicas
over the rest.

With --by load it finds the highest load that a scenario, its own layout included, carries within its objectives."""

_SHOWN = 10
"""Plans in the table without --all."""
_LAYOUT = ("tp", "pp", "replicas")
"""Flags of a layout: what a search finds, or what the highest load is of."""
_OF_PLANS: Mapping[str, Any] = {
    "nodes": None,
    "gpus": None,
    "only": None,
    "fewer": None,
    "screen": None,
    "finalists": None,
    "show_all": False,
}
_OF_LOADS: Mapping[str, Any] = {"attain": None, "tolerance": None, "seeds": None, "resample": None}
"""Options that only the one or the other search takes, and their values where they were not given."""

_OPTIONS: tuple[tuple[str, Any, Any, Any], ...] = (
    ("nodes", int | None, typer.Option("--nodes", metavar="N", help="Nodes of the type --node (1)."), None),
    ("gpus", int | None, typer.Option("--gpus", metavar="N", help="GPUs, without --node; or of one node."), None),
    (
        "by",
        str,
        typer.Option(
            "--by",
            metavar="TARGET",
            help="goodput, throughput, cost, energy, or a latency: ttft_p99, tpot_mean, itl_p99, e2e_mean ...; "
            "load: the highest load of the scenario as it is.",
        ),
        "throughput",
    ),
    (
        "only",
        list[str] | None,
        typer.Option("--only", metavar="DIM=N[,N]", help="Sizes to try: tp=4,8 or replicas=2 (repeatable)."),
        None,
    ),
    (
        "fewer",
        bool | None,
        typer.Option(
            "--fewer/--all-gpus",
            help="Try plans that leave GPUs idle, or not; left out: by cost and energy only.",
            show_default=False,
        ),
        None,
    ),
    (
        "screen",
        int | None,
        typer.Option(
            "--screen",
            metavar="N",
            help="Screen plans on the first N requests, then run the best on all; 0: run every plan on all. Left out: "
            "2,500 where there are more than 10,000.",
            show_default=False,
        ),
        None,
    ),
    (
        "finalists",
        int | None,
        typer.Option("--finalists", metavar="N", help="Plans of the screening that run on all (6)."),
        None,
    ),
    (
        "attain",
        float | None,
        typer.Option(
            "--attain", metavar="SHARE", help="By load: share of requests within the objectives (0.9); 0.99 is a p99."
        ),
        None,
    ),
    (
        "tolerance",
        float | None,
        typer.Option("--tolerance", metavar="SHARE", help="By load: width of the answer, as a share of it (0.05)."),
        None,
    ),
    ("seeds", int | None, typer.Option("--seeds", metavar="N", help="By load: most replications of a load (9)."), None),
    (
        "resample",
        bool | None,
        typer.Option(
            "--resample/--no-resample",
            help="By load: draw a replayed trace anew for each seed, or not; left out: where it can be.",
            show_default=False,
        ),
        None,
    ),
    (
        "store",
        str | None,
        typer.Option("--store", metavar="DIR", help="Where results are kept (default: in the user's cache)."),
        None,
    ),
    ("no_store", bool, typer.Option("--no-store", help="Keep nothing, and use nothing that was kept."), False),
    ("workers", int | None, typer.Option("--workers", help="Processes (default: one a processor)."), None),
    ("show_all", bool, typer.Option("--all", help="List every plan, and every one that can't run with why."), False),
    (
        "out",
        str | None,
        typer.Option("--out", metavar="DIR", help="Write plans.csv (loads.csv), search.json and best.yaml there."),
        None,
    ),
    ("overwrite", bool, typer.Option("--overwrite", help="Replace an earlier search in DIR."), False),
    ("quiet", bool, typer.Option("--quiet", "-q", help="Print nothing but errors."), False),
    ("no_progress", bool, typer.Option("--no-progress", help="No progress bar (without a terminal: lines)."), False),
)


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    register_with(app, "search", HELP, _OPTIONS, _search)


def _search(ctx: Any, trace: str | None, values: dict[str, Any]) -> None:
    from simulator.studies.search import FINALISTS, search

    scenario = scenario_of(ctx, trace, values)
    if scenario.workload.trace is None and scenario.workload.generator is None:
        raise InputError("which requests? name a trace, as in: simulate search trace.csv (or bundled:NAME)")
    by_load = values["by"] == "load"
    _check_options(values, by_load)
    if by_load:
        from simulator.cli.search_load import search_load

        search_load(scenario, values)
        return
    with counting(not values["quiet"] and not values["no_progress"]) as progress:
        result = search(
            scenario,
            nodes=1 if values["nodes"] is None else values["nodes"],
            gpus=values["gpus"],
            by=values["by"],
            only=_sizes(values["only"] or []),
            fewer=values["fewer"],
            screen=values["screen"],
            finalists=FINALISTS if values["finalists"] is None else values["finalists"],
            workers=values["workers"],
            store=False if values["no_store"] else values["store"] or True,
            out=values["out"],
            overwrite=values["overwrite"],
            progress=progress,
        )
    if not values["quiet"]:
        _print(result, values["show_all"], values["out"])
    if result.interrupted:
        raise typer.Exit(130)
    if any(row.failure for row in result.rows):
        raise typer.Exit(1)


def _check_options(values: Mapping[str, Any], by_load: bool) -> None:
    """Refuse what the search that was asked for doesn't take."""
    if values["no_store"] and values["store"] is not None:
        raise InputError("give --store or --no-store, not both")
    for name, absent in (_OF_PLANS if by_load else _OF_LOADS).items():
        if values[name] != absent:
            option = "--all" if name == "show_all" else f"--{name}"
            if by_load:
                raise InputError(
                    f"{option} is for a search of plans; --by load takes the layout as it is (--tp, --set)"
                )
            raise InputError(f"{option} is for --by load; leave it out, or ask for the highest load with --by load")
    for name in () if by_load else _LAYOUT:
        if (size := values[f"{name}_flag"]) is not None:
            sizes = f"--only {name}={size}"
            raise InputError(f"--{name} gives a layout, and the layout is searched; to keep that size: {sizes}")


def _sizes(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return the sizes of ``tp=4,8`` by dimension."""
    found: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, equals, listed = text.partition("=")
        pieces = listed.split(",")
        if not equals or not all(piece.strip().isdecimal() and int(piece) for piece in pieces):
            raise InputError(f"--only {text}: write a dimension and whole numbers, as in --only tp=4,8")
        found[name.strip()] = (*found.get(name.strip(), ()), *(int(piece) for piece in pieces))
    return found


# ---------------------------------------------------------------------------------------------------------- table


def _print(result: SearchResult, show_all: bool, out: str | None) -> None:
    from rich.console import Console
    from rich.text import Text

    from simulator.studies.plan_space import count_by_kind
    from simulator.terminal import plural, span

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 130)
    if result.interrupted:
        console.print(Text("INTERRUPTED: of the plans that were simulated until then.", style="bold yellow"))
    console.print(Text(headline(result), style="bold"))
    console.print()
    _print_plans(result, console, show_all)
    console.print()
    lines = [("Simulated", "; ".join(result.stages))]
    if result.infeasible:
        counts = ", ".join(f"{count} {kind}" for kind, count in count_by_kind(result.infeasible).items())
        hint = "" if show_all else "; --all lists them"
        lines.append(("Can't run", f"{plural(len(result.infeasible), 'plan')} ({counts}){hint}"))
    lines += [("Note", note) for note in result.notes]
    lines.append(("Took", span(result.took_s)))
    if out is not None:
        best = "; best.yaml runs again with: simulate run --scenario best.yaml" if result.best_scenario else ""
        lines.append(("Results in", f"{out}{best}"))
    width = max(len(label) for label, _ in lines)
    for label, text in lines:
        console.print(Text.assemble((f"{label:<{width}}  ", "bold"), text))
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


def _print_plans(result: SearchResult, console: Console, show_all: bool) -> None:
    from rich.table import Table

    from simulator.terminal import number, percent

    rows = list(result.rows)
    shown = rows if show_all else rows[:_SHOWN]
    base = result.baseline
    if base is not None and all(row.plan != base.plan for row in shown):
        shown = [*shown, base]
    columns: list[tuple[str, str, float]] = [
        ("tokens/s", "output_tokens_per_s", 1.0),
        ("TTFT p99 (s)", "ttft_s_p99", 1.0),
        ("TPOT (ms)", "tpot_s_mean", 1e3),
        ("ITL p99 (ms)", "itl_s_p99", 1e3),
        ("E2E (s)", "e2e_s_mean", 1.0),
        ("goodput/s", "goodput_requests_per_s", 1.0),
        ("cost/Mtok", "cost_per_million_output_tokens", 1.0),
        ("J/token", "energy_j_per_output_token", 1.0),
    ]
    if result.by.figure not in {figure for _, figure, _ in columns}:
        columns.append((result.by.name, result.by.figure, 1.0))
    columns = [each for each in columns if any(row.figures.get(each[1]) is not None for row in shown)]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("#", justify="right")
    table.add_column("plan", no_wrap=True)
    table.add_column("GPUs", justify="right")
    for label, figure, _ in columns:
        table.add_column(label + ("*" if figure == result.by.figure else ""), justify="right", no_wrap=True)
    table.add_column("KV peak", justify="right", no_wrap=True)
    table.add_column("remark", overflow="fold")
    for row in shown:
        place = next((str(place) for place, each in enumerate(rows, 1) if each.plan == row.plan), "")
        cells = [
            "-" if row.figures.get(figure) is None else number(float(row.figures[figure]) * scale)
            for _, figure, scale in columns
        ]
        peak = row.figures.get("peak_kv_utilization")
        table.add_row(
            place,
            row.plan.text,
            str(row.plan.gpus),
            *cells,
            "-" if peak is None else percent(peak),
            ", ".join(_remarks(result, row)),
        )
    console.print(table)


def _remarks(result: SearchResult, row: Row) -> Iterator[str]:
    from simulator.studies.search import sustains
    from simulator.terminal import percent

    if result.baseline is not None and row.plan == result.baseline.plan:
        yield "heuristic"
    if row.failure:
        yield row.failure
        return
    if row.screened_only:
        yield "screened only"
    if row.figures["overloaded"]:
        yield "overloaded"
    if row.figures["attainment"] is not None and not sustains(row):
        yield f"SLO {percent(row.figures['attainment'])}"
    if row.figures["unserved"]:
        yield f"{row.figures['unserved']:,} not served"

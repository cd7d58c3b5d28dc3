"""``simulate sweep``: the same scenario with other keys, many times over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from simulator.cli.run_command import register_with, scenario_of
from simulator.cli.several import (
    RUNNING,
    SEEDS,
    console_of_study,
    counting,
    labelled,
    seeds_of,
    store_of,
    variants_of,
    writing,
)
from simulator.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from simulator.studies.design import Point
    from simulator.studies.store import Store
    from simulator.studies.sweep import SweepResult

HELP = """Run a scenario with other keys: along axes, from a list, as named variants, or in a Latin hypercube.

Everything else is said as for 'simulate run'. Every point is run with every seed, and shown with its mean and 95 %
confidence interval. Results are kept: a sweep that was killed goes on where it was, one that is repeated is there at
once. Exit code 1: a run failed (the others are there)."""

_SHOWN = 20
"""Points in the table without --all."""
_MOST_REASONS = 3

_OPTIONS: tuple[tuple[str, Any, Any, Any], ...] = (
    (
        "vary",
        list[str] | None,
        typer.Option(
            "--vary",
            metavar="KEY=VALUES",
            help="Values to try, all combinations (repeatable): tp=1,2,4; rate-scale=0.5..2:4; max-num-seqs=16..64:*2. "
            "A dotted scenario key, or a flag's name.",
        ),
        None,
    ),
    (
        "variant",
        list[str] | None,
        typer.Option(
            "--variant", metavar="NAME KEY=VALUE ...", help="Keys that are set together, under a name (repeatable)."
        ),
        None,
    ),
    (
        "list_file",
        str | None,
        typer.Option("--list", metavar="FILE", help="Points as .csv (a column a key) or .yaml (a list of mappings)."),
        None,
    ),
    (
        "lhs",
        int | None,
        typer.Option(
            "--lhs",
            metavar="N",
            help="N points of a Latin hypercube over the ranges of --vary: KEY=low..high, with :log, :int or both.",
        ),
        None,
    ),
    (
        "design",
        str | None,
        typer.Option("--design", metavar="FILE", help="A whole sweep as YAML: scenario, over, variants, lhs, seeds."),
        None,
    ),
    (
        "seeds",
        str | None,
        typer.Option("--seeds", metavar="N", help=f"{SEEDS}, of every point."),
        None,
    ),
    (
        "by",
        str | None,
        typer.Option(
            "--by",
            metavar="FIGURE",
            help="Rank points: goodput, throughput, cost, energy, or a latency: ttft_p99, tpot_mean, e2e_mean ...",
        ),
        None,
    ),
    *RUNNING,
    (
        "cluster",
        str | None,
        typer.Option("--cluster", metavar="ADDRESS", help="Dask scheduler whose workers run it: tcp://host:8786."),
        None,
    ),
    ("show_all", bool, typer.Option("--all", help="List every point, and every run that failed."), False),
    *writing("sweep", "sweep.csv, points.csv, sweep.json and scenarios"),
)


def _sweep(ctx: Any, trace: str | None, values: dict[str, Any]) -> None:
    from simulator.studies.store import open_store
    from simulator.studies.sweep import run_sweep

    store = open_store(store_of(values))
    base, design, seeds, by = _design(values)
    if isinstance(base, Path):
        values["scenario"], base = str(base), None
    scenario = scenario_of(ctx, trace, values, base=base)
    with counting(not values["quiet"] and not values["no_progress"]) as progress:
        result = run_sweep(
            scenario,
            **design,
            seeds=seeds,
            by=by,
            workers=values["workers"],
            cluster=values["cluster"],
            store=store,
            out=values["out"],
            overwrite=values["overwrite"],
            progress=progress,
        )
    if not values["quiet"]:
        _print(result, show_all=values["show_all"], out=values["out"], store=store)
    if result.interrupted:
        raise typer.Exit(130)
    if result.failed or result.lost:
        raise typer.Exit(1)


def _design(values: Mapping[str, Any]) -> tuple[Any, dict[str, Any], int | list[int] | None, str | None]:
    """Return the base scenario where a file says it, what varies, the seeds, and what points are ranked by."""
    from simulator.studies.design_files import read_points, read_sweep

    given = {"--vary": values["vary"], "--variant": values["variant"], "--list": values["list_file"]}
    named = [name for name, value in {**given, "--lhs": values["lhs"]}.items() if value is not None]
    seeds = None if values["seeds"] is None else seeds_of(values["seeds"])
    if values["design"] is None:
        design = {
            "over": _axes(values["vary"] or []),
            "variants": None if values["variant"] is None else variants_of(values["variant"]),
            "points": None if values["list_file"] is None else read_points(Path(values["list_file"])),
            "lhs": values["lhs"],
        }
        return None, design, seeds, values["by"]
    if named:
        raise InputError(f"--design says what varies; leave out {' and '.join(named)}, or write it there")
    file = read_sweep(Path(values["design"]))
    if file.scenario is not None and values["scenario"] is not None:
        raise InputError(f"{values['design']} has a 'scenario'; leave out --scenario, or the key")
    return (
        file.scenario,
        dict(file.design),
        file.others.get("seeds") if seeds is None else seeds,
        values["by"] or file.others.get("by"),
    )


def _axes(texts: Sequence[str]) -> dict[str, Any]:
    """Return the axes of ``KEY=VALUES``: a range as its text, else a list of YAML values."""
    from simulator.scenario_yaml import value
    from simulator.studies.design import values_of

    found: dict[str, Any] = {}
    for text in texts:
        name, equals, given = text.partition("=")
        name = name.strip().lstrip("-")
        name = name if "." in name else name.replace("-", "_")
        if not equals or not name:
            raise InputError(f"--vary {text}: write a key and values, as in --vary tp=1,2,4")
        if name in found:
            raise InputError(f"--vary {name}: is given twice; name all its values at once")
        try:
            found[name] = given if values_of(given) is not None else value(f"[{given}]")
        except ValueError as error:
            raise InputError(f"--vary {name}: {error}") from None
    return found


# ---------------------------------------------------------------------------------------------------------- table


def _print(result: SweepResult, *, show_all: bool, out: str | None, store: Store | None) -> None:
    from rich.text import Text

    from simulator.studies.intervals import CONFIDENCE
    from simulator.studies.sweep_files import scenario_file
    from simulator.terminal import plural, span

    console = console_of_study()
    if result.interrupted or result.lost:
        what = "INTERRUPTED" if result.interrupted else "THE CLUSTER WAS LOST"
        console.print(Text(f"{what}: of the runs that were simulated until then.", style="bold yellow"))
    console.print(Text(headline(result), style="bold"))
    console.print()
    begun = {run.point.name for run in result.runs if run.done is not None}
    points = [point for point in result.ranked() if point.name in begun]
    shown = points if show_all else points[:_SHOWN]
    if shown:
        console.print(_fitting(result, shown, console))
        console.print()
    lines = []
    if len(points) < len(result.points):
        lines.append(("Left out", f"{plural(len(result.points) - len(points), 'point')}, not begun"))
    if len(shown) < len(points):
        lines.append(("Not shown", f"{plural(len(points) - len(shown), 'point')}; --all lists them"))
    where = "nothing is kept (--no-store)" if store is None else f"results are kept in {store.root}"
    lines.append(("Runs", f"{result.simulated:,} simulated, {result.kept:,} there already; {where}"))
    if len(result.seeds) > 1:
        lines.append(("Intervals", f"{100 * CONFIDENCE:g} %, Student's t over {len(result.seeds)} seeds"))
    reasons: dict[str, int] = {}
    for run in result.failed:
        reasons[run.failure] = reasons.get(run.failure, 0) + 1
    told = list(reasons.items()) if show_all else list(reasons.items())[:_MOST_REASONS]
    lines += [("Failed", f"{plural(count, 'run')}: {reason}") for reason, count in told]
    if len(told) < len(reasons):
        lines.append(("Failed", f"for {plural(len(reasons) - len(told), 'other reason')}; --all lists them"))
    lines += [("Note", note) for note in result.notes]
    lines.append(("Took", span(result.took_s)))
    if out is not None:
        lines.append(("Results in", f"{out}"))
        first = (points or result.points)[0]
        file = Path(out) / scenario_file(result.points.index(first) + 1)
        lines.append(("Again", f"simulate run --scenario {file} --seed {result.seeds[0]}   ({first.name})"))
    console.print(labelled(lines))


def headline(result: SweepResult) -> str:
    """Return the answer in a line."""
    from simulator.studies.intervals import interval
    from simulator.terminal import number, plural

    count = f"{plural(len(result.points), 'point')}, {plural(len(result.seeds), 'seed')}"
    said = f"{count}: {plural(len(result.runs), 'run')}"
    if result.failed:
        said += f", {len(result.failed):,} failed"
    if result.by is None:
        return f"{said}."
    best = result.ranked()[0]
    found = interval(_values(result, best, result.by.figure))
    if found.mean is None:
        return f"{said}; none has a figure for {result.by.name!r}."
    spread = f" (± {number(found.half)})" if found.half else ""
    return f"{said}. Best by {result.by.name}: {best.name}: {number(found.mean)}{spread} {result.by.unit}."


def _values(result: SweepResult, point: Point, figure: str) -> list[float | None]:
    return [run.figures.get(figure) for run in result.runs_of(point)]


_COLUMNS: tuple[tuple[str, str, float], ...] = (
    ("goodput/s", "goodput_requests_per_s", 1.0),
    ("TTFT p99 (s)", "ttft_s_p99", 1.0),
    ("TPOT (ms)", "tpot_s_mean", 1e3),
    ("E2E (s)", "e2e_s_mean", 1.0),
    ("tokens/s", "output_tokens_per_s", 1.0),
    ("cost/Mtok", "cost_per_million_output_tokens", 1.0),
    ("J/token", "energy_j_per_output_token", 1.0),
    ("ITL p99 (ms)", "itl_s_p99", 1e3),
)
"""Label, figure and scale, what people look at first in front."""


def _fitting(result: SweepResult, points: Sequence[Point], console: Console) -> Table:
    """Return the table with as many figures as there is room for."""
    columns = [each for each in _COLUMNS if any(run.figures.get(each[1]) is not None for run in result.runs)]
    by = result.by
    if by is not None:
        own = next((each for each in _COLUMNS if each[1] == by.figure), (f"{by.name} ({by.unit})", by.figure, 1.0))
        columns = [own, *(each for each in columns if each != own)]
    while True:
        table = _table(result, points, columns)
        needed = console.measure(table, options=console.options.update(width=10_000)).maximum
        if len(columns) <= 2 or needed <= console.width:
            return table
        columns.pop()


def _table(result: SweepResult, points: Sequence[Point], columns: Sequence[tuple[str, str, float]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    from simulator.studies.design import labels_of, name_of, shown
    from simulator.studies.intervals import interval
    from simulator.terminal import number

    keys = list(result.points[0].keys)
    labels = labels_of(keys)
    alike = all(list(point.keys) == keys and point.name == name_of(point.keys, labels) for point in result.points)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    if result.by is not None:
        table.add_column("#", justify="right")
    for name in [labels[key] for key in keys] if alike else ["point"]:
        table.add_column(Text(name), overflow="fold")
    for label, figure, _ in columns:
        starred = result.by is not None and figure == result.by.figure
        table.add_column(label + ("*" if starred else ""), justify="right", no_wrap=True)
    table.add_column("remark", overflow="fold")
    for place, point in enumerate(points, 1):
        cells = [Text(shown(point.keys[key])) for key in keys] if alike else [Text(point.name)]
        for _, figure, scale in columns:
            found = interval(_values(result, point, figure))
            spread = f" ±{number(found.half * scale)}" if found.half else ""
            cells.append(Text("-" if found.mean is None else f"{number(found.mean * scale)}{spread}"))
        remarks = Text(", ".join(_remarks(result, point)))
        table.add_row(*([str(place)] if result.by is not None else []), *cells, remarks)
    return table


def _remarks(result: SweepResult, point: Point) -> Iterator[str]:
    from simulator.studies.verdict import MIN_ATTAINMENT
    from simulator.terminal import number, percent

    runs = result.runs_of(point)
    failed = [run for run in runs if run.done is not None and run.failure]
    missing = sum(run.done is None for run in runs)
    if failed:
        yield "failed" if len(failed) == len(runs) else f"{len(failed)} of {len(runs)} runs failed"
    if missing:
        yield f"{missing} of {len(runs)} runs left out"
    means = result.mean_figures(point)
    if means.get("overloaded"):
        yield "overloaded"
    attainment = means.get("attainment")
    if attainment is not None and attainment < MIN_ATTAINMENT:
        yield f"SLO {percent(attainment)}"
    if unserved := means.get("unserved"):
        yield f"{number(unserved)} not served"


app = typer.Typer(name="sweep", add_completion=False, rich_markup_mode=None)
register_with(app, "sweep", HELP, _OPTIONS, _sweep)

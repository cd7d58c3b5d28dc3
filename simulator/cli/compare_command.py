"""``simulate compare``: policies, GPUs or scenarios on the same requests and seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from simulator.cli.run_command import register_with, scenario_of
from simulator.cli.several import (
    RESAMPLE,
    RUNNING,
    SEEDS,
    VARIANT,
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

    from simulator.scenario import Scenario
    from simulator.studies.compare import CompareResult

HELP = """Compare policies, GPUs, routers, variants or scenario files on the same requests and seeds.

The first named is the baseline; the others are compared with it seed by seed, so that what a busy day does to all drops
out. Everything else is said as for 'simulate run'."""

_AXES = {"policies": "--policy", "gpus": "--gpu", "routers": "--router"}
_STYLES = {"better": "green", "worse": "red", "(better)": "yellow", "(worse)": "yellow"}
_MOST_DIFFERENCES = 8

_OPTIONS: tuple[tuple[str, Any, Any, Any], ...] = (
    ("policies", str | None, typer.Option("--policies", metavar="A,B", help="Batching policies, a side each."), None),
    ("gpus", str | None, typer.Option("--gpus", metavar="A,B", help="GPUs, a side each."), None),
    ("routers", str | None, typer.Option("--routers", metavar="A,B", help="Routers, a side each."), None),
    (
        "variant",
        list[str] | None,
        typer.Option(
            VARIANT, metavar="NAME KEY=V ...", help="A side of this name, with these scenario keys (repeatable)."
        ),
        None,
    ),
    (
        "baseline",
        str | None,
        typer.Option(
            "--baseline", metavar="NAME", help="What the others are compared with (default: the first); base: as given."
        ),
        None,
    ),
    ("seeds", str, typer.Option("--seeds", metavar="N", help=f"{SEEDS}."), "5"),
    ("resample", bool | None, RESAMPLE, None),
    ("by", str, typer.Option("--by", metavar="METRIC", help="What sides are ordered by."), "ttft_p99"),
    (
        "requests",
        bool,
        typer.Option("--requests/--no-requests", help="Compare the first seed's requests one by one too."),
        True,
    ),
    ("show_all", bool, typer.Option("--all", help="Every metric and difference in the table."), False),
    *RUNNING,
    *writing("comparison", "compare.csv, runs.csv, compare.json and scenarios"),
)


def _compare(ctx: Any, given: list[str] | None, values: dict[str, Any]) -> None:
    from simulator.studies.compare import compare

    trace, files = _sources(given or [])
    axes = {name: _names(values[name], name) for name in _AXES}
    variants = variants_of(values["variant"] or [])
    base, scenarios = _scenarios(ctx, trace, files, values, bool(variants or any(axes.values())))
    for scenario in [*([] if base is None else [base]), *scenarios.values()]:
        if scenario.workload.trace is None and scenario.workload.generator is None:
            raise InputError(
                "which requests? name a trace, as in: simulate compare trace.csv --policies vllm-v1,sarathi"
            )
    with counting(not values["quiet"] and not values["no_progress"]) as progress:
        result = compare(
            base,
            policies=axes["policies"],
            gpus=axes["gpus"],
            routers=axes["routers"],
            variants=variants,
            scenarios=scenarios,
            baseline=values["baseline"],
            seeds=seeds_of(values["seeds"]),
            resample=values["resample"],
            by=values["by"],
            requests=values["requests"],
            workers=values["workers"],
            store=store_of(values),
            out=values["out"],
            overwrite=values["overwrite"],
            progress=progress,
        )
    if not values["quiet"]:
        print_result(result, show_all=values["show_all"], out=values["out"])
    if result.interrupted:
        raise typer.Exit(130)
    if result.failed:
        raise typer.Exit(1)


def _sources(given: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return the trace and the scenario files among the arguments."""
    files = [each for each in given if each.lower().endswith((".yaml", ".yml"))]
    traces = [each for each in given if each not in files]
    if len(traces) > 1:
        raise InputError(
            f"one trace for all sides, got {len(traces)} ({', '.join(traces)}); scenario files end in .yaml"
        )
    return (traces[0] if traces else None), files


def _names(text: str | None, option: str) -> list[str]:
    if text is None:
        return []
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise InputError(f"--{option} {text}: write names with commas between them, as in --{option} A,B")
    return names


def _scenarios(
    ctx: Any, trace: str | None, files: Sequence[str], values: dict[str, Any], has_changes: bool
) -> tuple[Scenario | None, dict[str, Scenario]]:
    """Return the scenario that sides are changes of, and the sides that are files."""
    if files and values["scenario"] is not None:
        raise InputError("name scenario files as arguments or with --scenario, not both")
    for name, flag in _AXES.items():
        if values[name] is not None and values[f"{flag.lstrip('-')}_flag"] is not None:
            raise InputError(f"--{name} says what is compared: leave out {flag}, or add its value to --{name}")
    if values["policies"] is not None and values["policy_param"]:
        raise InputError("--policy-param is of one policy: write a variant, as in --variant small policy=sarathi ...")
    if not files:
        return (scenario_of(ctx, trace, values), {}) if has_changes else (None, {})
    if has_changes:
        if len(files) > 1:
            raise InputError(
                f"policies, GPUs, routers and variants are changes of one scenario, got {len(files)} files"
            )
        return scenario_of(ctx, trace, {**values, "scenario": files[0]}), {}
    stems = [Path(file).stem for file in files]
    names = stems if len(set(stems)) == len(stems) else files
    if len(set(names)) < len(names):
        raise InputError("a scenario file is named twice; each is compared once")
    return None, {
        name: scenario_of(ctx, trace, {**values, "scenario": file}) for name, file in zip(names, files, strict=True)
    }


# ---------------------------------------------------------------------------------------------------------- print


def print_result(result: CompareResult, *, show_all: bool = False, out: str | None = None) -> None:
    """Print a comparison: the table, what it says of each side, and what to know of it."""
    from rich.text import Text

    from simulator.studies.compare_files import table

    console = console_of_study()
    if result.interrupted:
        console.print(Text("INTERRUPTED: figures are of the simulations that were done.", style="bold yellow"))
    rows = table(result)
    if rows:
        _print_table(result, rows, console, show_all)
        console.print()
    for text, style in _sentences(result, rows):
        console.print(Text(text, style=style))
    console.print()
    console.print(labelled(_details(result, rows, show_all, out)))


def _print_table(result: CompareResult, rows: Sequence[Mapping[str, Any]], console: Console, show_all: bool) -> None:
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    from simulator.studies.compare_metrics import METRICS
    from simulator.studies.compare_words import SHOWN, change, judged, own, unit_of

    def empty(narrow: bool) -> Table:
        made = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
        made.add_column("side" if narrow else "metric", no_wrap=not narrow, overflow="fold")
        if not narrow:
            made.add_column("side", overflow="fold")
        made.add_column("mean ± 95 %" if len(result.seeds) > 1 else "figure", justify="right", no_wrap=True)
        made.add_column(f"against {result.baseline}", no_wrap=True)
        made.add_column("", no_wrap=True)
        return made

    wide, narrow = empty(False), empty(True)
    for name, metric in METRICS.items():
        mine = [row for row in rows if row["metric"] == name]
        if not mine or not (show_all or name in SHOWN or metric == result.by):
            continue
        unit, scale = unit_of(mine)
        label = f"{metric.label} ({unit})" + ("*" if metric == result.by else "")
        metric_name, _, unit_name = label.partition(" (")
        narrow.add_row(Text(metric_name, style="bold"), Text(f"({unit_name}" if unit_name else ""))
        for place, row in enumerate(mine):
            said = judged(row)
            cells = (
                own(row, scale),
                "baseline" if row["side"] == result.baseline else change(row),
                Text(said, style=_STYLES.get(said, "dim")),
            )
            wide.add_row("" if place else label, row["side"], *cells)
            narrow.add_row(f"  {row['side']}", *cells)
    fits = Measurement.get(console, console.options, wide).maximum < console.width
    console.print(wide if fits else narrow)


def _sentences(result: CompareResult, rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    from simulator.studies.compare_words import sentence

    found = [
        (sentence(rows, side.name, len(result.seeds), result.by.name), "bold")
        for side in result.sides
        if side.name != result.baseline and side.done
    ]
    return [*found, *((f"{side.name} FAILED: {side.failure}", "bold red") for side in result.sides if side.failure)]


def _details(
    result: CompareResult, rows: Sequence[Mapping[str, Any]], show_all: bool, out: str | None
) -> list[tuple[str, str]]:
    """Return the lines below the table, label and text."""
    from simulator.studies.compare_words import request_line, verdict_notes
    from simulator.terminal import plural, span

    lines = [("Seeds", result.seeds_text)]
    lines += [("Verdicts", text) for text in verdict_notes(rows)]
    for name, pairs in result.requests.items():
        lines.append(("Requests", f"{name}, seed {result.seeds[0]}: {request_line([vars(pair) for pair in pairs])}"))
    for side in result.sides:
        differs = side.differs if show_all else side.differs[:_MOST_DIFFERENCES]
        more = len(side.differs) - len(differs)
        if differs:
            listed = "; ".join(map(str, differs)) + (f"; and {more} more (--all)" if more else "")
            lines.append(("Also differs", f"{side.name}: {listed}"))
    lines += [("Note", note) for note in result.notes]
    kept = f", {result.kept:,} kept from earlier" if result.kept else ""
    lines.append(("Took", f"{span(result.took_s)}: {plural(result.simulated, 'simulation')}{kept}"))
    if out is not None:
        lines.append(("Results in", out))
    return lines


app = typer.Typer(name="compare", add_completion=False, rich_markup_mode=None)
_SOURCES = typer.Argument(metavar="TRACE|SCENARIO.yaml", help="Trace file, or bundled:NAME; scenario files.")
register_with(app, "compare", HELP, _OPTIONS, _compare, argument=(list[str] | None, _SOURCES))

"""``simulate validate``: measured servers and kernels beside what the simulator says of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import pandas as pd

    from simulator.validation.judging import Verdict
    from simulator.validation.validating import Progress

app = typer.Typer(name="validate", add_completion=False, rich_markup_mode=None)

_MOST_LINES = 15
"""Verdicts on kernels shown on a terminal; the files have all."""


@app.command()
def validate(
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="DIR", help="Measured data (default: ../shared/data if it is there)."),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option("--out", metavar="DIR", help="Write validation.csv, .html and known_errors.json there."),
    ] = None,
    only: Annotated[
        str | None, typer.Option("--only", metavar="DATASET", help="One dataset: vllm_runs, silicon or kernels.")
    ] = None,
    match: Annotated[
        str | None,
        typer.Option("--match", metavar="PATTERN", help="Cases by name, * for anything: 'h200_sxm/*/DeepSeek-*'."),
    ] = None,
    measured: Annotated[
        str | None,
        typer.Option("--measured", metavar="FILE", help="Your server: what vllm bench serve --save-result wrote."),
    ] = None,
    scenario: Annotated[
        str | None, typer.Option("--scenario", metavar="FILE", help="Model and cluster that --measured was run on.")
    ] = None,
    kernel_tables: Annotated[
        str | None,
        typer.Option(
            "--kernel-tables", metavar="DIR", help="Kernel tables SYSTEM_BACKEND.parquet (simulate calibrate import)."
        ),
    ] = None,
    assume: Annotated[
        str,
        typer.Option(
            "--assume",
            metavar="NAME",
            help="Load of the serving points: published (as the scripts of those who measured, where known), fixed, "
            "inferencemax or steady.",
        ),
    ] = "published",
    workers: Annotated[int | None, typer.Option("--workers", help="Processes (default: one a processor).")] = None,
    no_progress: Annotated[
        bool, typer.Option("--no-progress", help="No progress bar (none without a terminal).")
    ] = False,
) -> None:
    """Run every comparison that there is data for, and print how far off the simulator is."""
    from simulator.errors import InputError, did_you_mean
    from simulator.validation import validate as run_validation
    from simulator.validation.silicon import ASSUMPTIONS

    if assume not in ASSUMPTIONS:
        raise InputError(f"unknown assumptions {assume!r}{did_you_mean(assume, ASSUMPTIONS)}")

    with _bar(not no_progress) as progress:
        frame = run_validation(
            data,
            only=only,
            match=match,
            measured=measured,
            scenario=scenario,
            kernel_tables=kernel_tables,
            assumptions=ASSUMPTIONS[assume],
            out=out,
            workers=workers,
            progress=progress,
        )
    _print(frame, out)


@contextmanager
def _bar(wanted: bool) -> Iterator[Progress]:
    """Yield what shows progress on standard error, if that is a terminal."""
    import sys

    if not wanted or not sys.stderr.isatty():
        yield lambda done, total, name: None
        return
    from simulator.cli.progress import counting_bar

    with counting_bar() as progress:
        yield progress


def _print(frame: pd.DataFrame, out: str | None) -> None:
    import sys

    from rich.console import Console
    from rich.text import Text

    from simulator.validation.judging import headline, kernel_verdicts, left_out, run_verdicts, serving_verdicts

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    console.print(Text(headline(frame), style="bold"))
    for dataset, title in (("vllm_runs", "vLLM servers"), ("measured", "Your server")):
        _print_rows(frame[(frame["dataset"] == dataset) & frame["error"].notna()], title, console)
    _print_verdicts(run_verdicts(frame), "vLLM servers: bars, worst first", console)
    _print_verdicts(
        serving_verdicts(frame), "Serving points: medians of absolute errors by group, worst first", console
    )
    kernels = kernel_verdicts(frame)
    shown = kernels[:_MOST_LINES]
    more = f" ({len(kernels) - len(shown)} more in the files)" if len(kernels) > len(shown) else ""
    _print_verdicts(shown, f"Kernels: worst first{more}", console)
    omitted = left_out(frame)
    if len(omitted):
        console.print(Text("\nLeft out", style="bold"))
        for row in omitted.itertuples(index=False):
            console.print(Text(f"  {row.cases} of {row.dataset}, {str(row.metric).replace('_', ' ')}: {row.reason}"))
    for costs in dict.fromkeys(frame.loc[frame["dataset"] == "measured", "costs"]):
        console.print(Text(f"\nCosts and notes: {costs}"))
    if out is not None:
        console.print(Text(f"\nwrote {out}/validation.csv, validation.html and known_errors.json"))


def _print_rows(rows: pd.DataFrame, title: str, console: object) -> None:
    from rich.console import Console
    from rich.table import Table

    from simulator.validation.judging import metric_words

    assert isinstance(console, Console)
    if not len(rows):
        return
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    for name in ("case", "metric"):
        table.add_column(name, overflow="fold")
    for name in ("measured", "simulated", "error", "peer"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows.itertuples(index=False):
        cells = [_number(row.measured), _number(row.simulated), _percent(row.error), _percent(row.peer_error)]
        table.add_row(str(row.case), metric_words(str(row.metric)), *cells)
    console.print()
    console.print(table)


def _print_verdicts(verdicts: list[Verdict], title: str, console: object) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from simulator.validation.judging import metric_words

    assert isinstance(console, Console)
    if not verdicts:
        return
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    table.add_column("what", overflow="fold")
    for name in ("metric", "error", "bar", "rows", "verdict", "costs", "remark"):
        table.add_column(name, justify="right" if name in ("error", "bar", "rows") else "left")
    styles = {"pass": "green", "fail": "bold red", "not judged": "dim"}
    for each in verdicts:
        bar = "-" if each.bar is None else f"{each.bar:.0%}"
        word = Text(each.word, style=styles[each.word])
        cells = (metric_words(each.metric), _percent(each.value), bar, str(each.rows))
        table.add_row(each.subject, *cells, word, each.costs, each.why)
    console.print()
    console.print(table)


def _percent(value: object) -> str:
    return "-" if not isinstance(value, float) or value != value else f"{value:+.1%}"


def _number(value: object) -> str:
    return "-" if not isinstance(value, float) or value != value else f"{value:.4g}"

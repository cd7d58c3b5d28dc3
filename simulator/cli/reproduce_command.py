"""``simulate reproduce``: published results beside the simulator's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from simulator.reproduce import Reproduction

app = typer.Typer(name="reproduce", add_completion=False, rich_markup_mode=None)


@app.command()
def reproduce(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Study; left out: list them.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer requests and cases: the direction, in seconds.")
    ] = False,
    trace: Annotated[
        str | None, typer.Option("--trace", metavar="FILE", help="Trace in place of generated requests.")
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out", metavar="DIR", help="Write figures.csv, study.json and the scenarios of the figures there."
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No line for each part that ends.")] = False,
) -> None:
    """Repeat what a paper reports: its figures beside the simulator's, and why they differ."""
    from simulator.reproduce import reproduce as run_study

    if name is None:
        _list()
        return
    done = run_study(
        name, quick=quick, trace=trace, out=out, progress=None if quiet else lambda line: typer.echo(line, err=True)
    )
    _print(done, out)


def _list() -> None:
    """List the studies: a line each where the output is read by a program, wrapped beside the names on a terminal."""
    import sys
    import textwrap

    from simulator.reproduce import load_study, study_names

    studies = [load_study(name) for name in study_names()]
    width = max((len(study.name) for study in studies), default=0) + 2
    if not sys.stdout.isatty():
        for study in studies:
            typer.echo(f"{study.name:<{width}}{study.claim}")
        return
    from shutil import get_terminal_size

    columns = max(get_terminal_size().columns, width + 30)
    for study in studies:
        said = textwrap.wrap(f"{study.claim} ({study.paper})", columns - width)
        typer.echo(f"{study.name:<{width}}{said[0]}")
        for line in said[1:]:
            typer.echo(" " * width + line)
    typer.echo("\n'simulate reproduce NAME' runs one and sets the paper's figures beside; --quick takes seconds.")


def _print(done: Reproduction, out: str | None) -> None:
    import sys

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from simulator.terminal import duration, number

    study = done.study
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    console.print(Text(f"{study.paper}", style="bold"))
    console.print(Text(study.claim))
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("what", overflow="fold")
    for column in ("paper", "simulated"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    table.add_column("remark", overflow="fold")
    for row in done.table():
        cells = ["-" if row[key] is None else number(row[key]) for key in ("paper", "simulated")]
        remark = "; ".join(text for text in (row["source"], row["remark"]) if text)
        table.add_row(row["what"], *cells, row["unit"], remark)
    console.print()
    console.print(table)
    quick = ", quick: figures of fewer requests and cases" if done.quick else ""
    notes = [("Setup", study.setup), ("Why they differ", study.differences)]
    if study.without_runs:
        notes.append(("Not simulated", study.without_runs))
    for label, text in notes:
        console.print()
        console.print(Text.assemble((f"{label}. ", "bold"), text))
    console.print()
    console.print(Text(f"Took {duration(done.took_s)}{quick}.{_where(done, out)}"))


def _where(done: Reproduction, out: str | None) -> str:
    """Return where the figures and the scenarios behind them are, or how to get them."""
    runs = sum(bool(row.runs) for row in done.rows)
    if not runs:
        return "" if out is None else f" Results in {out}."
    if out is None:
        return " With --out DIR the scenario of each figure is written to DIR/runs, for 'simulate run --scenario'."
    return (
        f" Results in {out}; the last column of {out}/figures.csv names the scenarios of each figure, which "
        "'simulate run --scenario FILE' repeats."
    )

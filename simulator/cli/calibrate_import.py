"""``simulate calibrate import``: kernel tables that others measured, into a file of our schema."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from simulator.calibration.aiconfigurator import Import

_WIDTH = 118

app = typer.Typer(
    name="import",
    help="Bring kernel tables of others into the measurement schema.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def _sources() -> None:
    """Bring kernel tables of others into the measurement schema."""


@app.command("aiconfigurator")
def aiconfigurator(
    system: Annotated[str, typer.Option("--system", help="As the package names it: h200_sxm, b200_sxm ...")],
    backend: Annotated[str, typer.Option("--backend", help="Engine: vllm, sglang or trtllm.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Parquet file to write.")],
    version: Annotated[
        str | None,
        typer.Option("--version", help="Newest version of the engine to take; by default the package's current one."),
    ] = None,
    family: Annotated[
        list[str] | None, typer.Option("--family", help="Only this family of tables: gemm, moe ... (repeatable).")
    ] = None,
) -> None:
    """Import the kernel tables of the installed package aiconfigurator-core.

    Says what was taken from which version and day, and what was left out and why. Never reads the package's sample of
    serving measurements.
    """
    from simulator.calibration.aiconfigurator import import_report
    from simulator.calibration.schema import write_measurements

    done = import_report(system, backend, version=version, families=family)
    write_measurements(done.table, out)
    for line in _report(done, out):
        typer.echo(line)


def _report(done: Import, out: Path) -> list[str]:
    """Return what the import took and left out, in lines."""
    rows = [("family", "table", "rows", "version", "date", "power", "dropped, merged")]
    for each in done.taken:
        counts = [f"{each.impossible:,} impossible"] if each.impossible else []
        counts += [f"{each.merged:,} repeated"] if each.merged else []
        rows.append(
            (
                each.family,
                each.table,
                f"{each.rows:,}",
                f"{each.software} {each.version}",
                each.date if each.dated else f"<= {each.date}",
                "yes" if each.power else "no",
                ", ".join(counts) or "-",
            )
        )
    lines = [*_columns(rows), ""]
    if not all(each.dated for each in done.taken):
        lines += ["<=: the day is not recorded; the date is the newest that the package names.", ""]
    if done.left_out:
        lines.append("Left out:")
        for left in done.left_out:
            count = "" if left.rows is None else f" ({left.rows:,} rows)"
            lines += textwrap.wrap(f"  {left.what}: {left.why}{count}", _WIDTH, subsequent_indent="    ")
        lines.append("")
    hardware = done.table["hardware"].iloc[0]
    lines.append(f"{len(done.table):,} measurements on {hardware} written to {out}")
    return lines


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]

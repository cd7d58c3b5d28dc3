"""``simulate report``: from any result, one HTML page."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(name="report", add_completion=False, rich_markup_mode=None)


@app.command()
def report(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="What --out of another command wrote.")],
    out: Annotated[
        str | None, typer.Option("--out", metavar="FILE", help="The page (default: report.html in DIR).")
    ] = None,
) -> None:
    """Write what a result says as one self-contained HTML page: the answer first, then tables, plots, assumptions."""
    from simulator.reports import report as write_report

    written = write_report(directory, out=out)
    typer.echo(written.answer)
    typer.echo(f"wrote {written.path}")

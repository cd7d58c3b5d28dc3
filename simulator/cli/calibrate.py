"""``simulate calibrate``: kernel times, from where they are measured to the profiles that carry them."""

from __future__ import annotations

import typer

from simulator.cli import calibrate_fit, calibrate_import, calibrate_run

app = typer.Typer(
    name="calibrate",
    help="Measure kernels, and import measurements.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)

app.add_typer(calibrate_import.app)
app.add_typer(calibrate_fit.app)
app.command("run")(calibrate_run.run)

"""``simulate calibrate fit``: compact profiles from kernel measurements."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from hardware_profiles.fits import FittedProfile

app = typer.Typer(rich_markup_mode=None)

_MEDIAN_BAR, _P90_BAR = 0.05, 0.15
_WIDTH = 118  # of what is piped


@app.command("fit")
def fit(
    measurements: Annotated[
        list[Path],
        typer.Argument(metavar="FILE.parquet|LAYER_PROFILE_DIR...", help="Measurements, the preferred first."),
    ],
    accelerator: Annotated[str, typer.Option("--accelerator", help="Name of the accelerator they were measured on.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE.yaml", help="Profile to write.")],
) -> None:
    """Fit kernel times of an accelerator, and judge each fit by points kept out of it.

    What the first measurements lack, the next ones fill.
    """
    from rich.console import Console

    from hardware_profiles import load_accelerator
    from simulator.calibration.fitting.profile import fit_profile
    from simulator.calibration.fitting.writing import write_profile
    from simulator.calibration.load import load_measurements
    from simulator.errors import InputError

    card = load_accelerator(accelerator)
    tables = []
    for path in measurements:
        table = load_measurements(path)
        for hardware in sorted(set(table["hardware"])):
            try:
                known = load_accelerator(hardware).name
            except ValueError:
                continue  # a machine without a profile of ours
            if known != card.name:
                raise InputError(f"{path}: was measured on {known}, not on {card.name}; choose that accelerator")
        tables.append(table)
    console = Console()
    if not console.is_terminal:
        console.width = _WIDTH
    # Where the files lay is nobody's business; a layer profile is known by <gpu>/<organisation>/<model>/<dtype>.
    names = " ".join(path.name if path.is_file() else "/".join(path.parts[-4:]) for path in measurements)
    command = f"simulate calibrate fit {names} --accelerator {card.name} --out {out.name}"
    with console.status("fitting") as status:
        profile = fit_profile(tables, card, command=command, progress=lambda name: status.update(f"fitting {name}"))
    write_profile(profile, out)
    console.print(errors_table(profile))
    console.print(f"{len(profile.fits)} fits of {card.name} written to {out}", soft_wrap=True, highlight=False)


def errors_table(profile: FittedProfile) -> Table:
    """Return the errors of a profile's fits at points held out, the bar's misses marked."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("operator", "format"):
        table.add_column(name, no_wrap=True)
    for name in ("numbers", "points", "in cache", "held out", "median", "p90", "whole shapes"):
        table.add_column(name, justify="right")
    table.add_column("measured")
    for one in profile.fits:
        numbers = len(one.ratios.values) + (len(one.padding.values) if one.padding else 0)
        missed = one.median_error > _MEDIAN_BAR or one.p90_error > _P90_BAR
        whole = "-" if one.left_out is None else f"{one.left_out[0]:.1%} {one.left_out[1]:.1%}"
        variant = " ".join(f"window {value}" if key == "windowed" else value for key, value in one.variant.items())
        table.add_row(
            one.operator,
            variant or "-",
            f"{numbers:,}",
            f"{one.points:,}",
            f"{one.below_bound:,}",
            f"{one.held_out:,}",
            f"{one.median_error:.1%}",
            f"{one.p90_error:.1%}{' !' if missed else '  '}",
            whole,
            one.software,
        )
    table.caption = f"!: misses the bar of {_MEDIAN_BAR:.0%} median or {_P90_BAR:.0%} at the 90th percentile"
    return table

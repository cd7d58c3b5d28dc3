"""Fitted profiles as YAML, the numbers of a grid as a block of text, a row of its last axis a line.

A block, not lists: YAML's parser takes half a second for twenty thousand numbers, and every run reads a profile.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from hardware_profiles.fits import FittedProfile, Grid, OperatorFit
from simulator.errors import InputError


def write_profile(profile: FittedProfile, path: Path) -> None:
    """Write a profile to a file that `hardware_profiles.load_fits` reads.

    Raises
    ------
    InputError
        If the file can't be written.
    """
    try:
        path.write_text(profile_text(profile), encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None


def profile_text(profile: FittedProfile) -> str:
    """Return the text of a profile's file."""
    lines = [
        "# Made by `simulate calibrate fit`; docs/fits.md says what the numbers mean. Don't edit.",
        f"accelerator: {profile.accelerator}",
        f"date: {_quoted(profile.date)}",
        f"source: {_quoted(profile.source)}",
        f"software: [{', '.join(map(_quoted, profile.software))}]",
        f"command: {_quoted(profile.command)}",
        "fits:",
    ]
    for fit in profile.fits:
        lines += _fit(fit)
    return "\n".join(lines) + "\n"


def _fit(fit: OperatorFit) -> list[str]:
    lines = [f"- operator: {fit.operator}"]
    lines += [f"  {key}: {_quoted(value)}" for key, value in fit.variant.items()]
    lines += [
        f"  source: {_quoted(fit.source)}",
        f"  software: {_quoted(fit.software)}",
        f"  date: {_quoted(fit.date)}",
    ]
    if fit.kernel:
        lines.append(f"  kernel: {_quoted(fit.kernel)}")
    lines += [
        f"  points: {fit.points}",
        f"  held_out: {fit.held_out}",
        f"  below_bound: {fit.below_bound}",
        f"  median_error: {fit.median_error:.4f}",
        f"  p90_error: {fit.p90_error:.4f}",
    ]
    if fit.left_out is not None:
        lines.append(f"  left_out: [{fit.left_out[0]:.4f}, {fit.left_out[1]:.4f}]")
    lines.append(f"  latency_us: {fit.latency_s * 1e6:g}")
    lines += _grid(fit.ratios, "  ")
    if fit.padding is not None:
        lines += ["  padding:", *_grid(fit.padding, "    ")]
    return lines


def _grid(grid: Grid, indent: str) -> list[str]:
    lines = [f"{indent}axes:"]
    lines += [f"{indent}  {name}: [{_list(nodes)}]" for name, nodes in grid.axes.items()]
    lines.append(f"{indent}ratios: |")
    width = grid.shape[-1]
    for begin in range(0, len(grid.values), width):
        lines.append(indent + "  " + " ".join(map(_number, grid.values[begin : begin + width])))
    return lines


def _list(values: Iterable[float]) -> str:
    return ", ".join(_number(value) for value in values)


def _number(value: float) -> str:
    """Return a number as YAML reads it back: a float has a point, and its exponent a sign."""
    if value == int(value) and abs(value) < 1e15:
        return str(int(value))
    return repr(value)


def _quoted(text: str) -> str:
    escaped = text.replace("'", "''")
    return f"'{escaped}'"

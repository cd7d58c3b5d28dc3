"""``simulate calibrate run``: measure kernels on the GPU at hand."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from simulator.calibration.microbenchmarks.budget import Budget
    from simulator.calibration.microbenchmarks.case import Case
    from simulator.calibration.microbenchmarks.device import Machine
    from simulator.calibration.microbenchmarks.run import Outcome
    from simulator.calibration.microbenchmarks.sampling import Plan
    from simulator.calibration.microbenchmarks.store import Store

_MOST_LINES = 5
"""Failed and unsteady cases that are shown; the others are counted."""


def run(
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="Parquet file of measurements to write.", show_default=False)
    ],
    quick: Annotated[bool, typer.Option("--quick", help="A smaller grid, under 3 minutes, without power.")] = False,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="OPERATOR", help="Such as gemm; repeatable. All by default."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep what FILE holds, and measure what is missing.")
    ] = False,
) -> None:
    """Measure kernels on this machine's NVIDIA GPU (needs the extra 'calibrate': torch, triton, nvidia-ml-py)."""
    from simulator.calibration.microbenchmarks import device
    from simulator.calibration.microbenchmarks import run as runs
    from simulator.calibration.microbenchmarks.budget import QUICK_LIMIT_S, Budget, estimate_s
    from simulator.calibration.microbenchmarks.operators.base import Limits
    from simulator.calibration.microbenchmarks.sampling import FULL, QUICK
    from simulator.calibration.microbenchmarks.store import Provenance, Store

    operators = runs.check_operators(only or ())
    machine = device.find_machine()
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    store = Store(out, resume, Provenance(machine.hardware, machine.version, today))
    cases = runs.grid(Limits(quick, machine.fp8, machine.memory_bytes), machine.gpus, operators)
    plan = QUICK if quick else FULL
    have = store.times_s
    missing = [case for case in cases if case.key not in have]
    typer.echo(f"{machine.name} ({machine.hardware}); {machine.version}", err=True)
    for line in _left_out(machine, operators):
        typer.echo(line, err=True)
    roughly = f", roughly {estimate_s(missing, machine.profile, plan) / 60:.0f} min" if machine.profile else ""
    typer.echo(f"{len(missing):,} of {len(cases):,} cases to measure{roughly}", err=True)

    outcome = _with_progress(cases, machine, plan, store, Budget(QUICK_LIMIT_S if quick else None))
    _print_outcome(outcome, out)
    _print_fractions(cases, store, machine)
    if not len(store):
        raise typer.Exit(1)


def _left_out(machine: Machine, operators: Sequence[str]) -> list[str]:
    """Return a line for each thing that this machine can't measure."""
    from simulator.calibration.microbenchmarks.operators import collectives

    lines = []
    if machine.gpus < 2 and set(operators) & set(collectives.OPERATORS):
        lines.append("collectives skipped: they need at least 2 GPUs, this machine has 1")
    if not machine.fp8:
        lines.append("fp8 skipped: it needs compute capability 8.9 or later")
    if machine.profile is None:
        lines.append(f"{machine.name} is not in the catalogue: no share of peak shown, rows say {machine.hardware!r}")
    return lines


def _with_progress(cases: Sequence[Case], machine: Machine, plan: Plan, store: Store, budget: Budget) -> Outcome:
    """Run under a progress bar on stderr."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from simulator.calibration.microbenchmarks import run as runs
    from simulator.calibration.microbenchmarks.gpu_bench import GpuBench

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.description}", markup=False), console=Console(stderr=True)) as bar:
        have = store.times_s
        task = bar.add_task("", total=sum(case.key not in have for case in cases))

        def show(case: Case) -> None:
            bar.update(task, description=case.label, advance=1)

        return runs.run(cases, GpuBench(machine, plan), store, budget, show)


def _print_outcome(outcome: Outcome, out: Path) -> None:
    """Say what was measured and what wasn't."""
    typer.echo(f"{outcome.measured:,} measured, {outcome.kept:,} kept from before, in {out}")
    if outcome.left:
        typer.echo(f"{outcome.left:,} left over when time was up; --resume measures them")
    failed = [f"not measured: {case.label}: {why}" for case, why in outcome.failed]
    unsteady = [f"unsteady (its row says so): {case.label}" for case in outcome.unsteady]
    for lines in (failed, unsteady):
        for line in lines[:_MOST_LINES]:
            typer.echo(line)
        if len(lines) > _MOST_LINES:
            typer.echo(f"and {len(lines) - _MOST_LINES:,} more such")


def _print_fractions(cases: Sequence[Case], store: Store, machine: Machine) -> None:
    """Print which share of the data sheet's peak each kernel reached at its biggest shape."""
    from simulator.calibration.microbenchmarks import report

    if machine.profile is None:
        return
    lines = report.lines(report.fractions(cases, store.times_s, machine.profile))
    if lines:
        typer.echo(f"\nShare of the data sheet's rate of {machine.hardware} reached at the biggest shape:")
        typer.echo("\n".join(lines))

"""``simulate search --by load``: the highest load within the objectives, printed as a bracket with what was tried."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from simulator.cli.several import console_of_study, labelled, now_and_then, seeds_of, store_of

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from simulator.scenario import Scenario
    from simulator.studies.highest_load import HighestLoad


def search_load(scenario: Scenario, values: Mapping[str, Any]) -> None:
    """Search, print, and exit with 130 where it was interrupted."""
    from simulator.studies.highest_load import MOST_SEEDS, TOLERANCE, highest_load
    from simulator.studies.verdict import MIN_ATTAINMENT

    with _progress(not values["quiet"] and not values["no_progress"]) as progress:
        found = highest_load(
            scenario,
            attain=MIN_ATTAINMENT if values["attain"] is None else values["attain"],
            tolerance=TOLERANCE if values["tolerance"] is None else values["tolerance"],
            seeds=MOST_SEEDS if values["seeds"] is None else seeds_of(values["seeds"]),
            resample=values["resample"],
            workers=values["workers"],
            store=store_of(values),
            out=values["out"],
            overwrite=values["overwrite"],
            progress=progress,
        )
    if not values["quiet"]:
        _print(found, values["out"])
    if found.interrupted:
        raise typer.Exit(130)


@contextmanager
def _progress(wanted: bool) -> Iterator[Callable[[int, str], None]]:
    """Yield what shows progress on standard error: a line on a terminal, else a line every ten seconds."""
    if not wanted:
        yield lambda done, text: None
        return
    if sys.stderr.isatty():
        from simulator.cli.progress import status_line

        with status_line() as show:
            yield lambda done, text: show(f"{done:,} simulations; last: {text}")
        return
    say = now_and_then()
    yield lambda done, text: say(f"{done:,} simulations, the last at {text},")


def _print(found: HighestLoad, out: str | None) -> None:
    from rich.text import Text

    from simulator.studies.load_files import BEST
    from simulator.terminal import span

    console = console_of_study()
    if found.interrupted:
        console.print(Text("INTERRUPTED: of the loads that were tried until then.", style="bold yellow"))
    console.print(Text(found.answer, style="bold"))
    console.print()
    _print_probes(found, console)
    console.print()
    lines = [("Seeds", found.replicated), *(("Note", note) for note in found.notes), ("Took", span(found.took_s))]
    if out is not None:
        lines.append(("Results in", out))
        if found.best_scenario is not None:
            lines.append(("Again", f"simulate run --scenario {Path(out) / BEST}"))
    console.print(labelled(lines))


_COLUMNS: tuple[tuple[str, str, float], ...] = (
    ("goodput/s", "goodput_requests_per_s", 1.0),
    ("TTFT p99 (s)", "ttft_s_p99", 1.0),
    ("TPOT p99 (ms)", "tpot_s_p99", 1e3),
    ("E2E p99 (s)", "e2e_s_p99", 1.0),
)
"""Label, figure and scale, what people look at first in front; those that don't fit are left out from the end."""


def _print_probes(found: HighestLoad, console: Console) -> None:
    columns = list(_COLUMNS)
    while True:
        table = _table(found, columns)
        needed = console.measure(table, options=console.options.update(width=10_000)).maximum
        if needed <= console.width or not columns:
            break
        columns.pop()
    console.print(table)


def _table(found: HighestLoad, columns: Sequence[tuple[str, str, float]]) -> Table:
    from rich.table import Table

    from simulator.terminal import number, percent

    closed = found.key.endswith("clients")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("clients" if closed else "rate x", justify="right", no_wrap=True)
    if not closed:
        table.add_column("requests/s", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("within (95 % interval)", justify="right", no_wrap=True)
    table.add_column("runs", no_wrap=True)
    for label, _, _ in columns:
        table.add_column(label, justify="right", no_wrap=True)
    for probe in found.probes:
        rate = probe.offered_requests_per_s
        known = probe.estimate
        share = (
            f"at most {percent(known.high)}"
            if probe.given_up
            else f"{percent(known.mean)} ({100 * known.low:.1f} to {100 * known.high:.1f})"
        )
        table.add_row(
            f"{probe.load:.4g}",
            *([] if closed else ["-" if rate is None else number(rate)]),
            probe.answer,
            share,
            f"{probe.runs}, {probe.given_up} given up" if probe.given_up else str(probe.runs),
            *("-" if (value := probe.figures[name]) is None else number(value * by) for _, name, by in columns),
        )
    return table

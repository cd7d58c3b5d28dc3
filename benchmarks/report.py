"""What is said of the measurements: a table, JSON, and which targets were met."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.measuring import ROOT, Measurement

if TYPE_CHECKING:
    from rich.table import Table

MIB = 1 << 20


@dataclass(frozen=True)
class Comparison:
    """The same requests, fast-forwarded and step by step."""

    fast: Measurement
    stepwise: Measurement

    @property
    def times_less_time(self) -> float:
        """Loop time of the stepwise run over that of the other."""
        return self.stepwise.loop_s / self.fast.loop_s

    @property
    def times_fewer_events(self) -> float:
        """Events of the stepwise run over those of the other."""
        return self.stepwise.events / self.fast.events

    @property
    def same(self) -> bool:
        """Whether both recorded the same, to the last bit."""
        return self.stepwise.digest == self.fast.digest


@dataclass(frozen=True)
class Row:
    """What was measured of one `cases.Run`: the medians, of how many runs, and each run's loop time."""

    case: str
    name: str
    fast: Measurement
    loops_s: tuple[float, ...]
    comparison: Comparison | None = None


@dataclass(frozen=True)
class Processes:
    """Whole processes, wall time in seconds: help, the first 2,000 requests, and up to the first event."""

    help_s: float
    run_s: float
    first_event_s: float
    trace: str


@dataclass
class Report:
    """All that was measured, and what could not be."""

    quick: bool = False
    rows: list[Row] = field(default_factory=list)
    processes: Processes | None = None
    timeouts_per_s: float | None = None
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def of(self, case: str) -> list[Row]:
        """Return the rows of a case."""
        return [row for row in self.rows if row.case == case]

    def azure(self) -> Row | None:
        """Return the row that others are held against: the whole trace with Sarathi."""
        wanted = ("whole, sarathi", "stand-in, sarathi")
        return next((row for row in self.of("azure") if row.name in wanted), None)

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "environment": environment(),
            "quick": self.quick,
            "timeouts_per_s": self.timeouts_per_s,
            "runs": [_row_json(row) for row in self.rows],
            "processes": None if self.processes is None else asdict(self.processes),
            "skipped": self.skipped,
            "failed": self.failed,
            "verdicts": [asdict(verdict) for verdict in verdicts(self)],
        }


def _row_json(row: Row) -> dict[str, Any]:
    plain = {"case": row.case, "name": row.name, **_measurement_json(row.fast), "loops_s": list(row.loops_s)}
    comparison = row.comparison
    return plain | {
        "against_stepwise": None
        if comparison is None
        else {
            "requests": comparison.fast.requests,
            "times_less_time": comparison.times_less_time,
            "times_fewer_events": comparison.times_fewer_events,
            "same_results": comparison.same,
            "fast": _measurement_json(comparison.fast),
            "stepwise": _measurement_json(comparison.stepwise),
        }
    }


def _measurement_json(measured: Measurement) -> dict[str, Any]:
    rates = {"requests_per_s": measured.requests_per_s, "iterations_per_s": measured.iterations_per_s}
    return asdict(measured) | rates


def environment() -> dict[str, Any]:
    """Return what the figures depend on besides the code, and which code it was."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "simpy": version("simpy"),
        "numpy": version("numpy"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": platform.system(),
    }


def _commit() -> str | None:
    """Return the commit, with ``+`` where files that git tracks differ from it; None outside a clone."""
    command = ["git", "describe", "--always", "--exclude=*", "--dirty=+"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


# ------------------------------------------------------------------------------------------------------- targets


@dataclass(frozen=True)
class Verdict:
    """A target, what was measured, and whether that meets it; None where it wasn't measured."""

    asked: str
    measured: str = "not measured"
    met: bool | None = None


def verdicts(report: Report) -> list[Verdict]:
    """Hold what was measured against every target."""
    judges = (_azure, _processes, _loads, _burstgpt, _routers, _mooncake, _decodes, _same)
    return [verdict for judge in judges for verdict in judge(report)]


def _at_least(asked: str, value: float, bound: float, unit: str) -> Verdict:
    return Verdict(asked, f"{_figure(value)}{unit}", value >= bound)


def _at_most(asked: str, value: float, bound: float, unit: str) -> Verdict:
    return Verdict(asked, f"{_figure(value)}{unit}", value <= bound)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _azure(report: Report) -> Iterator[Verdict]:
    rate, share = "azure, whole, sarathi: at least 20,000 requests/s", "the same: at least 1/60 of bare SimPy timeouts"
    row = report.azure()
    if row is None or report.timeouts_per_s is None:
        yield from (Verdict(rate), Verdict(share))
        return
    where = " (stand-in: the trace is absent)" if row.name.startswith("stand-in") else ""
    yield _at_least(rate, row.fast.requests_per_s, 20_000, f" requests/s{where}")
    times = report.timeouts_per_s / row.fast.requests_per_s
    yield Verdict(share, f"1/{times:.1f} of {report.timeouts_per_s:,.0f} timeouts/s", times <= 60)


def _processes(report: Report) -> Iterator[Verdict]:
    run = "simulate run, first 2,000 requests: whole process under 1.5 s"
    told, first = "simulate --help: at most 0.3 s", "simulate run: first event after at most 1 s"
    took = report.processes
    if took is None:
        yield from map(Verdict, (run, told, first))
        return
    yield _at_most(run, took.run_s, 1.5, f" s ({took.trace})")
    yield _at_most(told, took.help_s, 0.3, " s")
    yield _at_most(first, took.first_event_s, 1.0, " s")


def _loads(report: Report) -> Iterator[Verdict]:
    by_policy: dict[str, list[float]] = {}
    for row in report.of("load"):
        if row.name.startswith("load"):  # "all at once" is beyond three times saturation
            by_policy.setdefault(row.name.split(", ")[1], []).append(row.fast.s_per_request)
    spread = {policy: max(costs) / min(costs) for policy, costs in by_policy.items()}
    yield _worst_at_most("load: cost per request within 3x from idle to 3x saturation", spread, 3)


def _burstgpt(report: Report) -> Iterator[Verdict]:
    time, memory = "burstgpt: loop in at most 75 s", "burstgpt: at most 2 GiB"
    row = next(iter(report.of("burstgpt")), None)
    if row is None:
        yield from (Verdict(time), Verdict(memory))
        return
    each = row.fast
    yield _at_most(
        time, each.loop_s, 75, f" s (with load and write {each.load_s + each.loop_s + each.written_s:.0f} s)"
    )
    peak = each.peak_memory_bytes
    yield Verdict(memory) if peak is None else _at_most(memory, peak / 2**30, 2, " GiB")


def _routers(report: Report) -> Iterator[Verdict]:
    # Rows with a comma in their name have requests with sessions or prefixes, which cost what those cost.
    base, rows = report.azure(), [row for row in report.of("replicas") if "," not in row.name]
    over = {} if base is None else {row.name: row.fast.s_per_request / base.fast.s_per_request for row in rows}
    yield _worst_at_most("replicas: every router at most 3x the cost per request of azure, whole, sarathi", over, 3)


def _mooncake(report: Report) -> Iterator[Verdict]:
    for count in (4, 64):
        row = next((row for row in report.of("mooncake") if row.name == f"{count} replicas"), None)
        asked = f"mooncake, {count} replicas: at least 5,000 requests/s"
        yield Verdict(asked) if row is None else _at_least(asked, row.fast.requests_per_s, 5000, " requests/s")


def _decodes(report: Report) -> Iterator[Verdict]:
    events, time = "decodes: at least 200x fewer events than stepwise", "decodes: at least 15x less time than stepwise"
    rate = "decodes: stepwise at least 30,000 iterations/s at a batch of 512"
    comparison = next((row.comparison for row in report.of("decodes")), None)
    if comparison is None:
        yield from map(Verdict, (events, time, rate))
        return
    yield _at_least(events, comparison.times_fewer_events, 200, "x")
    yield _at_least(time, comparison.times_less_time, 15, "x")
    yield _at_least(rate, comparison.stepwise.iterations_per_s, 30_000, " iterations/s")


def _same(report: Report) -> Iterator[Verdict]:
    asked = "fast and stepwise record the same, to the last bit"
    compared = [row for row in report.rows if row.comparison is not None]
    differing = [f"{row.case}: {row.name}" for row in compared if row.comparison and not row.comparison.same]
    told = f"differs in {'; '.join(differing)}" if differing else f"the same in all {len(compared)} pairs"
    yield Verdict(asked, told, not differing) if compared else Verdict(asked)


def _worst_at_most(asked: str, values: Mapping[str, float], bound: float) -> Verdict:
    """Judge the largest of named ratios, and tell them all, the largest first."""
    if not values:
        return Verdict(asked)
    ranked = sorted(values.items(), key=lambda item: -item[1])
    return Verdict(asked, ", ".join(f"{value:.2f}x {name}" for name, value in ranked), ranked[0][1] <= bound)


# -------------------------------------------------------------------------------------------------------- tables


def rates_table(rows: Sequence[Row]) -> Table:
    """Return the table of rates and costs."""
    head = (
        "requests",
        "requests/s",
        "iterations/s",
        "iterations",
        "events",
        "load s",
        "loop s",
        "write s",
        "MiB",
        "of",
    )
    table = _table("run", *head)
    for row in rows:
        each = row.fast
        memory = "" if each.peak_memory_bytes is None else f"{each.peak_memory_bytes / MIB:,.0f}"
        counts = (each.requests, each.requests_per_s, each.iterations_per_s, each.iterations, each.events)
        written = "" if each.write_s is None else f"{each.write_s:.2f}"
        times = (f"{each.load_s:.2f}", f"{each.loop_s:.3f}", f"{each.loop_cpu_s:.3f}", written)
        table.add_row(f"{row.case}: {row.name}", *(f"{n:,.0f}" for n in counts), *times, memory, str(len(row.loops_s)))
    return table


def stepwise_table(rows: Sequence[Row]) -> Table:
    """Return the table of comparisons with stepwise runs."""
    head = ("requests", "events", "stepwise", "fewer", "loop s", "stepwise s", "less time", "stepwise it./s", "results")
    table = _table("against stepwise", *head)
    for row in rows:
        if row.comparison is None:
            continue
        both, fast, slow = row.comparison, row.comparison.fast, row.comparison.stepwise
        table.add_row(
            f"{row.case}: {row.name}",
            *(f"{count:,}" for count in (fast.requests, fast.events, slow.events)),
            f"{both.times_fewer_events:,.1f}x",
            f"{fast.loop_s:.3f}",
            f"{slow.loop_s:.3f}",
            f"{both.times_less_time:.2f}x",
            f"{slow.iterations_per_s:,.0f}",
            "same" if both.same else "DIFFERENT",
        )
    return table


def verdicts_table(report: Report) -> Table:
    """Return the list of targets."""
    table = _table("asked", "measured", "", justify="left")
    for verdict in verdicts(report):
        judged = {True: "met", False: "MISSED", None: ""}[verdict.met]
        if report.quick and verdict.met is not None:
            judged = "not judged: --quick"
        table.add_row(verdict.asked, verdict.measured, judged)
    return table


def print_report(report: Report) -> None:
    """Print the tables, what was skipped, and the targets."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=150)
    about = environment()
    console.print(", ".join(f"{name} {value}" for name, value in about.items() if value is not None), markup=False)
    if report.timeouts_per_s is not None:
        console.print(f"bare SimPy timeouts: {report.timeouts_per_s:,.0f}/s")
    if report.rows:
        console.print()
        console.print(rates_table(report.rows))
        console.print("medians of as many runs as 'of' says; 'MiB': peak memory of the process")
    if any(row.comparison for row in report.rows):
        console.print()
        console.print(stepwise_table(report.rows))
    if report.processes is not None:
        took = report.processes
        console.print(
            f"\nwhole processes: --help {took.help_s:.2f} s; first 2,000 requests of {took.trace} {took.run_s:.2f} s; "
            f"first event after {took.first_event_s:.2f} s",
            markup=False,
        )
    for what, items in (("skipped", report.skipped), ("failed", report.failed)):
        for case, why in items.items():
            console.print(f"{what}: {case}: {why}", markup=False)
    console.print()
    console.print(verdicts_table(report))
    if busy := _busy(report.rows):
        console.print(
            f"\nThe machine was busy with something else: {busy}; judge times by a quieter one.", markup=False
        )


def _busy(rows: Sequence[Row]) -> str:
    """Return which loop took much more wall time than processor time; empty if none did."""
    worst = max(rows, key=lambda row: row.fast.loop_s / max(row.fast.loop_cpu_s, 1e-9), default=None)
    if worst is None or worst.fast.loop_s < 1.1 * worst.fast.loop_cpu_s:
        return ""
    return f"{worst.case}: {worst.name} took {worst.fast.loop_s:.2f} s, {worst.fast.loop_cpu_s:.2f} s of the processor"


def _table(first: str, *others: str, justify: Any = "right") -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, justify=justify)
    return table

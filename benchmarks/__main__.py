"""How fast the simulator is, held against its targets.

    python -m benchmarks                        # every case, about an hour
    python -m benchmarks azure decodes --json speed.json
    python -m benchmarks --quick                # small sizes, one run each: does it work?

Every run has a process of its own, one at a time. Traces are looked for in ../shared/data/traces.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.cases import AZURE, CASES, Run, Setting, Skipped
from benchmarks.measuring import (
    Measurement,
    MeasuringError,
    command_s,
    first_event_s,
    measure,
    median,
    repeated,
    timeouts_per_s,
)
from benchmarks.report import Comparison, Processes, Report, Row, print_report

STEPWISE_BUDGET_S = 30.0
"""No further stepwise run after so many seconds."""


def main(arguments: list[str] | None = None) -> int:
    """Measure what was asked for and print it; missed targets are no failure, a run that fails is one."""
    options = _parser().parse_args(arguments)
    runs = 1 if options.quick else options.runs
    setting = Setting(options.data, options.quick) if options.data else Setting(quick=options.quick)
    report = Report(quick=options.quick)
    _say("bare SimPy timeouts")
    count = setting.size(500_000, 50_000)
    report.timeouts_per_s = statistics.median(repeated(partial(timeouts_per_s, count), runs, options.budget))
    for case in options.cases or CASES:
        try:
            if case == "azure":
                report.processes = _processes(setting, runs)
            _measure_case(case, setting, report, runs, options.budget, stepwise=not options.no_stepwise)
        except Skipped as reason:
            report.skipped[case] = str(reason)
        except MeasuringError as error:
            report.failed[case] = str(error)
    print_report(report)
    if options.json is not None:
        options.json.write_text(json.dumps(report.to_json(), indent=1) + "\n", encoding="utf-8")
    return 1 if report.failed else 0


def _parser() -> argparse.ArgumentParser:
    description, _, epilog = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        "python -m benchmarks", description=description, epilog=epilog, formatter_class=argparse.RawTextHelpFormatter
    )
    # No `choices`: argparse of Python 3.11 refuses an empty list of them.
    parser.add_argument("cases", nargs="*", type=_case, metavar="CASE", help=", ".join(CASES) + " (default: all)")
    parser.add_argument("--runs", type=_count, default=5, help="runs of which medians are taken (default: 5)")
    parser.add_argument(
        "--budget", type=float, default=120.0, metavar="S", help="start no further run of one thing after S seconds"
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="folder of the traces (default: ../shared/data/traces)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured to FILE")
    parser.add_argument("--no-stepwise", action="store_true", help="leave the stepwise runs out")
    parser.add_argument("--quick", action="store_true", help="small sizes, one run each")
    return parser


def _case(name: str) -> str:
    if name not in CASES:
        raise argparse.ArgumentTypeError(f"unknown case {name!r}; known: {', '.join(CASES)}")
    return name


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def _measure_case(name: str, setting: Setting, report: Report, runs: int, budget_s: float, *, stepwise: bool) -> None:
    """Measure the runs of a case, telling it of each before it says the next."""
    case = CASES[name](setting)
    run = next(case, None)
    while run is not None:
        _say(f"{name}: {run.name}")
        measured = repeated(partial(measure, run.scenario), 1 if run.once else runs, budget_s)
        fast = median(measured)
        comparison = _compared(run, fast, runs) if stepwise else None
        report.rows.append(Row(name, run.name, fast, tuple(each.loop_s for each in measured), comparison))
        try:
            run = case.send(fast)
        except StopIteration:
            run = None


def _compared(run: Run, fast: Measurement, runs: int) -> Comparison:
    """Run it step by step, or as many of its first requests as it says; those then without, too."""
    requests = run.stepwise_requests
    scenario: dict[str, Any] = dict(run.scenario)
    if requests is not None and requests < fast.requests:
        scenario["workload"] = {**scenario["workload"], "limit": requests}
        fast = median(repeated(partial(measure, scenario, write=False), runs, STEPWISE_BUDGET_S))
    slow = median(repeated(partial(measure, scenario, stepwise=True, write=False), runs, STEPWISE_BUDGET_S))
    return Comparison(fast, slow)


def _processes(setting: Setting, runs: int) -> Processes:
    """Measure whole processes, on the bundled trace of 2,000 requests where the Azure trace is absent."""
    path = setting.trace(AZURE)
    trace = "bundled:burstgpt-style" if path is None else str(path)
    arguments = ("run", trace, "--limit", "2000", "--policy", "sarathi", "--max-num-batched-tokens", "512")
    _say("whole processes")
    return Processes(
        help_s=statistics.median(repeated(partial(command_s, "--help"), runs, STEPWISE_BUDGET_S)),
        run_s=statistics.median(repeated(partial(command_s, *arguments), runs, STEPWISE_BUDGET_S)),
        first_event_s=statistics.median(repeated(partial(first_event_s, *arguments), runs, STEPWISE_BUDGET_S)),
        trace="bundled:burstgpt-style" if path is None else path.name,
    )


def _say(what: str) -> None:
    print(f"... {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

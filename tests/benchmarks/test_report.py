from __future__ import annotations

import dataclasses
import io
import json

import pytest
from rich.console import Console

from benchmarks.measuring import Measurement
from benchmarks.report import Comparison, Processes, Report, Row, Verdict, stepwise_table, verdicts, verdicts_table
from tests.benchmarks.test_measuring import ONE

WHOLE = "azure, whole, sarathi: at least 20,000 requests/s"
SHARE = "the same: at least 1/60 of bare SimPy timeouts"
LOADS = "load: cost per request within 3x from idle to 3x saturation"
ROUTERS = "replicas: every router at most 3x the cost per request of azure, whole, sarathi"
SAME = "fast and stepwise record the same, to the last bit"


def taking(loop_s: float, **changes: object) -> Measurement:
    """Return a measurement of 100 requests whose loop took so long."""
    return dataclasses.replace(ONE, loop_s=loop_s, **changes)  # type: ignore[arg-type]


def row(case: str, name: str, loop_s: float, comparison: Comparison | None = None) -> Row:
    return Row(case, name, taking(loop_s), (loop_s,), comparison)


def found(report: Report) -> dict[str, Verdict]:
    return {verdict.asked: verdict for verdict in verdicts(report)}


def test_nothing_measured_meets_or_misses_nothing() -> None:
    assert {verdict.met for verdict in verdicts(Report())} == {None}


@pytest.mark.parametrize(("loop_s", "fast_enough"), [(0.005, True), (0.0051, False)])
def test_requests_per_second(loop_s: float, fast_enough: bool) -> None:
    report = Report(rows=[row("azure", "whole, sarathi", loop_s)], timeouts_per_s=1e6)
    assert found(report)[WHOLE].met is fast_enough


def test_the_whole_trace_is_judged_and_not_its_beginning() -> None:
    report = Report(rows=[row("azure", "first 2,000, sarathi", 0.001)], timeouts_per_s=1e6)
    assert found(report)[WHOLE].met is None


def test_a_stand_in_for_the_trace_is_called_one() -> None:
    report = Report(rows=[row("azure", "stand-in, sarathi", 0.001)], timeouts_per_s=1e6)
    assert "stand-in" in found(report)[WHOLE].measured


def test_share_of_bare_timeouts() -> None:
    report = Report(rows=[row("azure", "whole, sarathi", 0.01)], timeouts_per_s=590_000.0)  # 10,000 requests/s
    assert found(report)[SHARE] == Verdict(SHARE, "1/59.0 of 590,000 timeouts/s", True)
    report.timeouts_per_s = 610_000.0
    assert found(report)[SHARE].met is False


def test_cost_over_loads_is_judged_for_the_worst_policy_and_without_all_at_once() -> None:
    rows = [
        row("load", "all at once, sarathi", 99.0),
        row("load", "load 0.1, sarathi", 1.0),
        row("load", "load 3, sarathi", 2.0),
        row("load", "load 0.1, vllm-v1", 4.0),
        row("load", "load 3, vllm-v1", 1.0),
    ]
    verdict = found(Report(rows=rows))[LOADS]
    assert verdict == Verdict(LOADS, "4.00x vllm-v1, 2.00x sarathi", False)
    assert found(Report(rows=rows[:3]))[LOADS].met is True


def test_routers_are_held_against_the_whole_trace() -> None:
    routers = [row("replicas", "random", 2.5), row("replicas", "round-robin", 3.5)]
    assert found(Report(rows=routers))[ROUTERS].met is None
    verdict = found(Report(rows=[row("azure", "whole, sarathi", 1.0), *routers]))[ROUTERS]
    assert verdict == Verdict(ROUTERS, "3.50x round-robin, 2.50x random", False)


def test_memory_and_time_of_the_long_trace() -> None:
    large = dataclasses.replace(ONE, loop_s=80.0, load_s=3.0, write_s=2.0, peak_memory_bytes=3 << 29)
    report = found(Report(rows=[Row("burstgpt", "61 days, 4 replicas", large, (80.0,))]))
    assert (report["burstgpt: loop in at most 75 s"].met, report["burstgpt: at most 2 GiB"].met) == (False, True)
    assert report["burstgpt: at most 2 GiB"].measured == "1.5 GiB"
    assert "85 s" in report["burstgpt: loop in at most 75 s"].measured


def test_decodes_against_stepwise() -> None:
    comparison = Comparison(taking(0.1, events=10), taking(1.4, events=2500, iterations=42_000))
    report = found(Report(rows=[row("decodes", "512 in flight", 0.1, comparison)]))
    met = [verdict.met for asked, verdict in report.items() if asked.startswith("decodes")]
    assert met == [True, False, True]  # 250x fewer events, 14x less time, 30,000 iterations/s


def test_different_results_are_named() -> None:
    same = Comparison(taking(1.0), taking(2.0))
    other = Comparison(taking(1.0), taking(2.0, digest="b"))
    assert found(Report(rows=[row("azure", "x", 1.0, same)]))[SAME].met is True
    report = Report(rows=[row("azure", "x", 1.0, same), row("load", "y", 1.0, other)])
    assert found(report)[SAME] == Verdict(SAME, "differs in load: y", False)
    assert "DIFFERENT" in printed(stepwise_table(report.rows))


def test_whole_processes() -> None:
    report = found(Report(processes=Processes(help_s=0.2, run_s=1.6, first_event_s=1.0, trace="x.csv")))
    assert report["simulate --help: at most 0.3 s"].met is True
    assert report["simulate run, first 2,000 requests: whole process under 1.5 s"].met is False
    assert report["simulate run: first event after at most 1 s"].met is True


def test_small_sizes_are_not_judged() -> None:
    report = Report(quick=True, rows=[row("azure", "whole, sarathi", 9.0)], timeouts_per_s=1e6)
    text = printed(verdicts_table(report))
    assert "not judged" in text
    assert "MISSED" not in text
    assert "MISSED" in printed(verdicts_table(dataclasses.replace(report, quick=False)))


def test_json_has_figures_rates_and_verdicts() -> None:
    comparison = Comparison(taking(1.0, events=10), taking(3.0, events=50))
    plain = json.loads(json.dumps(Report(rows=[row("azure", "whole, sarathi", 0.5, comparison)]).to_json()))
    run = plain["runs"][0]
    assert (run["case"], run["requests_per_s"], run["loops_s"]) == ("azure", 200.0, [0.5])
    against = run["against_stepwise"]
    assert (against["times_less_time"], against["times_fewer_events"], against["same_results"]) == (3.0, 5.0, True)
    assert {"date", "python", "simpy", "numpy", "processor"} <= set(plain["environment"])
    assert {"asked", "measured", "met"} == set(plain["verdicts"][0])


def printed(table: object) -> str:
    console = Console(width=200, file=io.StringIO())
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()

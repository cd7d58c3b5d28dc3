"""One simulation of a study: what is sent to a process, what comes back, and the figures that studies compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from simulator.result import RunResult
    from workloads import Trace

Read = TypeVar("Read")

LATENCIES = ("ttft", "tpot", "itl", "e2e")
"""Latencies of a summary; a key there is the name with ``_s``."""
STATISTICS = ("mean", "p50", "p90", "p95", "p99", "max")
"""Statistics of each."""


@dataclass(frozen=True)
class Task:
    """One simulation, sent to a process: the scenario as plain data, and the requests where it names none.

    Attributes
    ----------
    digest, program
        For another machine: the digests of the task and of the program where it was sent from
        (`simulator.studies.identity`). It is refused where they are others.
    """

    scenario: Mapping[str, Any]
    trace: Trace | None = None
    digest: str = ""
    program: str = ""


@dataclass(frozen=True)
class Outcome:
    """What came of one simulation.

    Attributes
    ----------
    figures
        `figures_of` the summary; empty where it failed.
    summary
        The whole summary, without what the run itself took.
    failure
        Why there is none.
    is_defect
        Whether the simulator is to blame for that, and not the input.
    """

    figures: Mapping[str, Any] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)
    failure: str = ""
    is_defect: bool = False


def evaluate(task: Task) -> Outcome:
    """Simulate one task; never raises but for Ctrl-C."""
    return evaluate_and_read(task, lambda result: None)[0]


def evaluate_and_read(task: Task, read: Callable[[RunResult], Read]) -> tuple[Outcome, Read | None]:
    """Simulate one task, and read from its result what the summary hasn't; never raises but for Ctrl-C."""
    from simulator.runner import run
    from simulator.studies.identity import check_same

    try:
        check_same(task)
        result = run(task.scenario, trace=task.trace)
        return outcome_of(result.summary_without_timing), read(result)
    except ValueError as error:  # InputError, PolicyError, TraceError, ProfileError
        return Outcome(failure=" ".join(str(error).split())), None
    except Exception as error:  # one simulation must not take the others with it
        return Outcome(failure=f"a defect of the simulator: {type(error).__name__}: {error}", is_defect=True), None


def outcome_of(summary: Mapping[str, Any]) -> Outcome:
    """Return what a run with this summary came to."""
    return Outcome(figures_of(summary), summary)


def died(task: Task) -> Outcome:
    """Return the outcome of a task whose process ended without one."""
    return Outcome(failure="its process died, most often for want of memory; use fewer workers")


def figures_of(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures that studies compare runs by, flat; null where the run has none."""
    requests, load, given = summary["requests"], summary["load"], summary["objectives"]
    unserved = sum(requests[name] for name in ("rejected", "failed", "timed_out", "unfinished"))
    found: dict[str, Any] = {
        "goodput_requests_per_s": given["goodput_requests_per_s"],
        "attainment": given["attainment"],
        "offered_requests_per_s": load["offered_requests_per_s"],
        "requests_per_s": summary["throughput"]["requests_per_s"],
        "output_tokens_per_s": summary["throughput"]["output_tokens_per_s"],
        "cost_per_million_output_tokens": summary["cost"]["per_million_output_tokens"],
        "energy_j_per_output_token": summary["energy"].get("energy_j_per_output_token"),
        "gpu_hours": summary["cost"]["gpu_hours"],
        "simulated_s": summary["simulated_s"],
        "finished": requests["finished"],
        "unserved": unserved,
        "overloaded": load["overloaded"],
        "preemptions": summary["memory"]["preemptions"],
        "peak_kv_utilization": summary["memory"]["peak_kv_utilization"],
    }
    for metric in LATENCIES:
        for statistic in STATISTICS:
            found[f"{metric}_s_{statistic}"] = summary[f"{metric}_s"][statistic]
    return found

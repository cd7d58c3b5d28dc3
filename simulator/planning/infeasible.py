"""Why there is no plan, and the nearest that would do: a sentence each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from simulator.planning.capacity import FEWEST_OF_A_BURST, busiest, question
from simulator.planning.choices import Choice
from simulator.planning.configurations import Configuration
from simulator.planning.objectives import Objective, seconds
from simulator.scenario import Scenario
from simulator.studies.plan_space import POOL, Budget, Infeasible, enumerate_plans, prune
from simulator.studies.points import Task, died, evaluate
from simulator.studies.workers import run_tasks
from simulator.terminal import plural

if TYPE_CHECKING:
    from simulator.models import ModelSpec
    from simulator.planning.planner import Candidate
    from simulator.planning.proving import Prover
    from workloads import Trace


def nothing_fits(
    base: Scenario,
    model: ModelSpec,
    choices: Sequence[Choice],
    refused: Sequence[tuple[Choice, Infeasible]],
    most_gpus: int,
) -> str:
    """Say that no GPU can hold the model, the nearest layout and why it can't, and what would."""
    named = ", ".join(choice.gpu for choice in choices)
    said = f"no replica of {model.name} can run on {most_gpus} GPUs or fewer of {named}"
    limited = [(choice, each) for choice, each in refused if each.kind == "limit"]
    if limited:
        choice, smallest = min(limited, key=lambda pair: pair[1].plan.gpus_per_replica)
        return (
            f"no replica of {model.name} can run within the limits: the smallest that fits takes "
            f"{smallest.plan.gpus_per_replica} {choice.gpu}, and {smallest.reason}"
        )
    memory = [(choice, each) for choice, each in refused if each.kind == "memory"]
    if memory:
        choice, nearest = max(memory, key=lambda pair: pair[1].plan.gpus_per_replica)
        said += f": nearest, {choice.gpu} x{nearest.plan.gpus_per_replica}: {nearest.reason}"
    elif refused:
        said += f": {refused[0][1].reason}"
    remedy = _would_hold(base, model, choices, most_gpus)
    return f"{said}; {remedy}"


def _would_hold(base: Scenario, model: ModelSpec, choices: Sequence[Choice], most_gpus: int) -> str:
    for gpus in (2 * most_gpus, 4 * most_gpus, 8 * most_gpus):
        for choice in choices:
            if choice.at_most is not None and choice.at_most < gpus:
                continue
            on_gpu = base.updated({f"{POOL}.accelerator": choice.gpu, f"{POOL}.node": None})
            budget = Budget(1, gpus, f"{gpus} {choice.gpu}")
            able, _ = prune(on_gpu, model, budget, enumerate_plans(model, budget, only={"replicas": [1], "cp": [1]}))
            if able:
                best = min(able, key=lambda pair: pair[0].gpus_per_replica)[0]
                return f"{best.gpus_per_replica} x {choice.gpu} would hold it (--max-gpus {gpus})"
    return "use GPUs with more memory, more of them (--max-gpus, --at-most), or a model with narrower weights"


def nothing_meets(
    base: Scenario,
    objectives: Sequence[Objective],
    able: Sequence[Configuration],
    trace: Trace,
    workers: int | None,
) -> str:
    """Say that no configuration meets the objectives even with hardly a load, the best figures, and what would do."""
    stretch = busiest(trace)
    share = min(1.0, FEWEST_OF_A_BURST / max(1, len(stretch)))
    tasks = []
    for each in able:
        asked = question(base, each, objectives, stretch)
        data: dict[str, Any] = dict(asked.scenario)
        data["workload"] = {**data["workload"], "sample": share}
        tasks.append(Task(data, stretch))
    rows: list[tuple[Configuration, dict[str, Any]]] = []
    failure = ""
    for place, outcome in run_tasks(evaluate, tasks, died, workers=workers):
        if outcome.failure:
            failure = outcome.failure
        else:
            rows.append((able[place], dict(outcome.summary)))
    if not rows:
        return f"no configuration could be simulated: {failure}"
    rows.sort(key=lambda row: able.index(row[0]))
    parts = []
    for objective in objectives:
        having = [(each, figure) for each, summary in rows if (figure := _reached(objective, summary)) is not None]
        if not having:
            continue
        best, figure = min(having, key=lambda pair: pair[1])
        if figure > objective.limit_s:
            parts.append(
                f"{objective.text} is out of reach: the best that any does is {seconds(figure)} ({best.text}), so the "
                f"nearest objective is {seconds(_up(figure))}"
            )
    if not parts:
        best_row, misses = min(
            ((each, _missed(objectives, summary)) for each, summary in rows), key=lambda pair: len(pair[1])
        )
        parts.append(
            "each objective is met by some configuration, but none meets all; nearest: "
            f"{best_row.text} misses {', '.join(misses) or 'by the requests that it does not serve'}"
        )
    few = f"{share * len(stretch):.0f} of {len(stretch):,} requests" if share < 1 else plural(len(stretch), "request")
    return (
        f"no configuration meets the objectives even where a replica serves no more than {few}: "
        + "; ".join(parts)
        + " (fleets with prefill and decode apart are tried only below the price of a fleet without)"
    )


def _reached(objective: Objective, summary: dict[str, Any]) -> float | None:
    section = summary["classes"].get(objective.request_class) if objective.request_class else summary
    if section is None:
        return None
    figures = section[f"{objective.metric}_s"]
    value = figures.get(f"p{objective.percentile}", figures["max"])
    return None if value is None else float(value)


def _missed(objectives: Sequence[Objective], summary: dict[str, Any]) -> list[str]:
    found = []
    for objective in objectives:
        figure = _reached(objective, summary)
        if figure is not None and figure > objective.limit_s:
            found.append(f"{objective.text} ({seconds(figure)})")
    return found


def _up(value: float) -> float:
    """Round a latency up to two digits."""
    from math import ceil, floor, log10

    grain = 10.0 ** (floor(log10(value)) - 1)
    return ceil(value / grain) * grain


def too_few(
    kept: Sequence[Candidate],
    choices: Sequence[Choice],
    classes: Sequence[str],
    prover: Prover,
    rounds: Sequence[tuple[object, bool]],
) -> str:
    """Say that the limits on GPUs allow no fleet that does, and how many of which would do."""
    from simulator.planning.programme import cheapest

    limited = ", ".join(f"{each.at_most} {each.gpu}" for each in choices if each.at_most is not None)
    able = [each.configuration for each in kept]
    counts = cheapest([each.price for each in able], [each.shares for each in kept], dict.fromkeys(classes, 1.0))
    would = ""
    if counts is not None:
        parts = [f"{number * each.gpus} {each.choice.gpu}" for each, number in zip(able, counts, strict=True) if number]
        would = f"; by their capacities {' and '.join(parts)} would do (an estimate)"
    if limited:
        return f"no fleet within the limits (at most {limited}) serves the requests within the objectives{would}"
    tried = "; ".join(str(getattr(fleet, "text", fleet)) for fleet, _ in rounds[-2:])
    return (
        f"none of {len(rounds)} fleets with enough capacity met the objectives when simulated (the last: {tried}); "
        "relax an objective, or lower its percentile"
    )


__all__ = ["nothing_fits", "nothing_meets", "too_few"]

"""The report of a capacity plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulator.planning.files import PLAN, SCHEMA_VERSION
from simulator.reports import common, known
from simulator.reports.document import Block, Bullets, Cell, Document, Plot, Section, Table, Text
from simulator.terminal import number, percent, plural

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CONFIGURATIONS = 25
_FLEETS = 40
"""Rows shown of each; the CSV files have all."""


def document(directory: Path) -> Document:
    """Return the report of what ``simulate plan --out`` wrote.

    Raises
    ------
    InputError
        If this version doesn't read it.
    """
    found = common.read_study(directory / PLAN, "plan", SCHEMA_VERSION, "plan again")
    scenario = found["scenario"]
    summary = found["summary"]
    took = found["took_s"]
    return Document(
        title=f"Capacity plan for {found['model']}",
        answer=_answer(found),
        sections=[
            Section("The fleet", list(_fleet(found))),
            Section("Proof", list(_proof(found))),
            *([Section("What if", [_what_ifs(found)])] if found["what_ifs"] else []),
            *([Section("What is left to gain", list(_bound(found)))] if found["lower_bound"] else []),
            Section("What was weighed", list(_weighed(found))),
            Section("Prices", [_prices(found)]),
            common.assumptions([*_ASSUMED, *found["notes"], *summary.get("notes", [])]),
            common.cost_sources(summary["costs"]["sources"]),
            known.section(known.subjects_of(scenario)),
            common.again(
                "simulate run --scenario fleet.yaml",
                scenario,
                where="In the directory of the result, which holds fleet.yaml: the plan on the requests of the trace. "
                "With --out DIR --report it has a page of its own, with latencies and timeline.",
            ),
            common.made_by(
                took["all"],
                ("Of that", ", ".join(f"{name} {seconds:,.1f} s" for name, seconds in took.items() if name != "all")),
            ),
        ],
    )


_ASSUMED = (
    "Capacities of configurations only say where to look; what is claimed of a fleet was simulated on all requests.",
    "Cheaper fleets are those of the configurations that are not left out; a configuration is left out where replicas "
    "of another do as much for no more money, by measured capacity.",
    "Prices are for GPUs alone: no network traffic, storage or people, no discount, and no rounding to whole servers.",
    "Requests arrive when they did in the trace, however slow the answers are.",
)


def _answer(found: Mapping[str, Any]) -> str:
    cheaper = found["proof"]["cheaper_fleets"]
    on = [run for run in found["proof"]["meets_on"] if run["seed"] is not None]
    seeds = f" and on {plural(len(on), 'replication')} of them" if on else ""
    return (
        f"{found['answer']} Simulated on all requests{seeds}, it meets every objective; "
        f"{plural(cheaper['simulated'], 'cheaper fleet')} fail."
    )


def _fleet(found: Mapping[str, Any]) -> Iterator[Block]:
    plan, summary = found["plan"], found["summary"]
    rows: list[list[Cell]] = []
    for pool in plan["pools"]:
        replicas = [row for row in summary["replicas"] if row["pool"] == pool["pool"]]
        busy = [row["utilization"] for row in replicas if row["utilization"] is not None]
        peaks = [row["peak_kv_utilization"] for row in replicas if row.get("peak_kv_utilization") is not None]
        rows.append(
            [
                pool["configuration"],
                pool["replicas"],
                f"{pool['usd_per_hour']:,.2f}",
                percent(sum(busy) / len(busy)) if busy else None,
                percent(max(peaks)) if peaks else None,
            ]
        )
    yield Table(
        f"{plural(plan['gpus'], 'GPU')} for ${plan['usd_per_hour']:,.2f} an hour, behind the router {plan['router']}.",
        ("configuration", "replicas", "USD an hour", "busy", "KV used, at most"),
        rows,
    )
    yield Text(
        f"{found['requests']:,} requests, {number(found['requests_per_s'])} a second on average and "
        f"{number(found['busiest_requests_per_s'])} in the busiest stretch."
    )


def _proof(found: Mapping[str, Any]) -> Iterator[Block]:
    proof = found["proof"]
    rows: list[list[Cell]] = [
        ["the plan", run["on"], "meets" if run["meets"] else "fails", "; ".join(run["objectives"])]
        for run in proof["meets_on"]
    ]
    for fewer in proof["one_replica_fewer"]:
        rows += [
            [
                f"one replica fewer: {fewer['fleet']}",
                run["on"],
                "meets" if run["meets"] else "fails",
                "; ".join(run["objectives"]),
            ]
            for run in fewer["runs"]
        ]
    yield Table(
        "The plan, and the plan with one replica fewer, simulated.",
        ("fleet", "on", "objectives", "figures, or what is missed"),
        rows,
    )
    yield Text(f"Seeds: {proof['seeds']}.")
    yield Text(
        "A run that fails is ended when more requests have missed an objective than it allows of all: the counts above "
        "are of that moment."
    )
    cheaper = found["fleets"][1:]
    if cheaper:
        part = f" (the {_FLEETS} dearest of {len(cheaper)}; fleets.csv has all)" if len(cheaper) > _FLEETS else ""
        yield Table(
            f"Every cheaper fleet fails{part}.",
            ("fleet", "USD an hour", "capacity", "fails on", "what is missed"),
            [
                [
                    each["fleet"],
                    f"{each['usd_per_hour']:,.2f}",
                    percent(each["share_by_capacities"]),
                    each["on"],
                    each["misses"],
                ]
                for each in cheaper[:_FLEETS]
            ],
        )
    more = proof["cheaper_fleets"]["disaggregated_not_simulated"]
    if more:
        yield Text(f"{more:,} more fleets with prefill and decode apart, with less room, were not simulated.")
    untried = proof["cheaper_fleets"]["not_simulated"]
    if untried:
        most = proof["cheaper_fleets"]["not_simulated_have_at_most"]
        yield Text(
            f"{untried:,} cheaper fleets were not simulated: their capacities add up to {percent(most or 0.0)} of the "
            "requests at most."
        )


def _what_ifs(found: Mapping[str, Any]) -> Table:
    return Table(
        "Each answer says how it was found; those that were simulated were so on the trace alone.",
        ("what if", "the plan holds", "answer", "how", "what is changed"),
        [
            [
                each["name"],
                None if each["plan_holds"] is None else "yes" if each["plan_holds"] else "no",
                each["answer"],
                each["how"],
                each["change"],
            ]
            for each in found["what_ifs"]
        ],
    )


def _bound(found: Mapping[str, Any]) -> Iterator[Block]:
    bound, plan = found["lower_bound"], found["plan"]
    yield Text(
        f"A perfect autoscaler that starts and ends replicas in no time, with every step full, would use "
        f"{number(bound['mean_gpus'])} GPUs on average ({bound['fewest_with']}), or pay "
        f"${bound['mean_usd_per_hour']:,.2f} an hour ({bound['cheapest_with']}). The plan has "
        f"{plural(plan['gpus'], 'GPU')} for "
        f"${plan['usd_per_hour']:,.2f}. What lies between is for latency, whole replicas and the course of the load."
    )
    gpus = bound["gpus"]
    if len(gpus) > 1:
        minutes = [place * bound["window_s"] / 60 for place in range(len(gpus))]
        step = max(1, len(gpus) // 30)
        yield Plot(
            _over_time(minutes, gpus, plan["gpus"]),
            "GPUs that a perfect autoscaler could use at least, and those of the plan.",
            f"The bound lies between {number(min(gpus))} and {number(max(gpus))} GPUs, {number(bound['mean_gpus'])} on "
            f"average; the plan has {plan['gpus']} throughout.",
            Table(
                "GPUs at least, by the time that the window begins.",
                ("minute", "GPUs"),
                [[float(minutes[place]), float(gpus[place])] for place in range(0, len(gpus), step)],
            ),
        )


def _over_time(minutes: list[float], gpus: list[float], of_plan: int) -> Figure:
    from simulator.figures.style import axes_of, context, figure_of, legend_above, line_style

    with context():
        axes = axes_of(None)
        axes.step(minutes, gpus, where="post", label="lower bound", **line_style(0))
        axes.axhline(of_plan, label="plan", **line_style(1))
        axes.set_xlabel("time (min)")
        axes.set_ylabel("GPUs")
        axes.set_ylim(bottom=0)
        legend_above(axes, own=True, columns=2)
        return figure_of(axes)


def _weighed(found: Mapping[str, Any]) -> Iterator[Block]:
    rows = found["configurations"]
    part = (
        f" (the best {_CONFIGURATIONS} of {len(rows)}; configurations.csv has all)"
        if len(rows) > _CONFIGURATIONS
        else ""
    )
    yield Table(
        f"What one replica of each configuration serves within the objectives, the best for its price first{part}.",
        ("configuration", "USD an hour", "requests/s", "USD an hour for all", "left out, as"),
        [
            [
                each["configuration"],
                f"{each['usd_per_hour']:,.2f}",
                float(each["share_of_requests"] * found["requests_per_s"]),
                each["usd_per_hour_for_all"],
                each["left_out"],
            ]
            for each in rows[:_CONFIGURATIONS]
        ],
    )
    if found["refused"]:
        yield Text("Layouts that can't run:")
        yield Bullets(
            [f"{each['gpu']}, {each['layout']}: {each['reason']}" for each in found["refused"][:_CONFIGURATIONS]]
        )


def _prices(found: Mapping[str, Any]) -> Table:
    return Table(
        "US dollars for one GPU and hour.",
        ("GPU", "USD", "provider", "how", "seen", "source"),
        [
            [
                each["gpu"],
                float(each["usd_per_gpu_hour"]),
                each.get("provider", "given"),
                each.get("purchase"),
                each.get("seen"),
                each.get("source"),
            ]
            for each in found["prices"]
        ],
    )

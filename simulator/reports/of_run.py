"""The report of a run."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from simulator import figures
from simulator.errors import InputError
from simulator.figures.labels import latency
from simulator.figures.results import LATENCIES, Result
from simulator.reports import common, known
from simulator.reports.document import Block, Cell, Document, Facts, Plot, Section, Table, Text
from simulator.terminal import details, number, percent, plural, span
from simulator.write import load_result

_SHOWN = ("ttft_s", "tpot_s", "itl_s", "e2e_s", "queue_s")
_SHORT = {"ttft_s": "TTFT", "tpot_s": "TPOT", "itl_s": "ITL", "e2e_s": "E2E", "queue_s": "queue"}
_STATISTICS = ("mean", "p50", "p90", "p95", "p99", "max")
_ELSEWHERE = {"Step times", "Notes", "Took", "Objectives"}
"""Lines of the terminal's summary that have a section or a table of their own here."""
_MOST_CLASSES = 5
"""So many classes have lines of their own in the distributions."""
_MOST_ROWS = 40
"""Of the tables below figures."""


def document(directory: Path) -> Document:
    """Return the report of what ``simulate run --out`` wrote.

    Raises
    ------
    InputError
        If the directory holds no result that this version reads.
    """
    result = load_result(directory)
    return described(result, result.scenario)


def described(result: Result, scenario: Mapping[str, Any]) -> Document:
    """Return the report of a result.

    Parameters
    ----------
    scenario
        That made it, every default written out.
    """
    summary = result.summary
    return Document(
        title=f"Run of {_model(summary)} on {_gpus(summary)}",
        answer=" ".join(answer(summary)),
        sections=[
            Section("Figures", list(_tables(summary))),
            Section("Plots", list(_plots(result))),
            common.assumptions(summary["notes"]),
            common.cost_sources(summary["costs"]["sources"]),
            known.section(known.subjects_of(scenario)),
            common.again("simulate run --scenario scenario.yaml --out again", scenario, where=_where(scenario)),
            Section("What the figures mean", [Facts(_definitions(summary))]),
            common.made_by(
                sum(summary["simulator"][part] or 0.0 for part in ("load_s", "loop_s", "write_s")),
                ("Engine steps simulated", f"{summary['simulator']['iterations']:,}"),
                ("Seed", str(summary["simulator"]["seed"])),
                version=summary["simulator"]["version"],
            ),
        ],
    )


# ---------------------------------------------------------------------------------------------------------- answer


def answer(summary: Mapping[str, Any]) -> Iterator[str]:
    """Yield the sentences that say what came out: what was served, whether objectives were met, whether it kept up."""
    if summary["interrupted"]:
        yield "INTERRUPTED: figures are of what was done until then."
    served, offered = summary["throughput"]["requests_per_s"], summary["load"]["offered_requests_per_s"]
    rate = "no request" if not served else f"{number(served)} requests/s of {_model(summary)}"
    yield f"{_gpus(summary)} served {rate}" + (f" ({number(offered)} offered)." if offered else ".")
    given = summary["objectives"]["given"]
    if summary["objectives"]["attainment"] is not None:
        yield f"{'; '.join(_met(summary, name) for name in given)}."
        if len(given) > 1:
            yield _sentence(f"{_share(summary['objectives']['attainment'])} met every objective")
        yield f"Goodput: {number(summary['objectives']['goodput_requests_per_s'] or 0.0)} requests/s."
    else:
        shown = [f"{_SHORT[name]} {_time(summary[name]['p99'])}" for name in ("ttft_s", "tpot_s", "e2e_s")]
        yield f"At the 99th percentile: {_list(shown)}. No objectives were given."
    lost = [
        f"{summary['requests'][name]:,} {name.replace('_', ' ')}"
        for name in ("rejected", "failed", "timed_out", "unfinished")
        if summary["requests"][name]
    ]
    if lost:
        yield f"Of {summary['requests']['arrived']:,} requests {_list(lost)}."
    if summary["overloaded"]:
        yield f"{_sentence(summary['load']['overload'])} Latencies then depend on how long the run is."


def _met(summary: Mapping[str, Any], name: str) -> str:
    given = summary["objectives"]["given"][name]
    which = "p99 of all gaps" if name == "itl_s" else "p99"
    limit = given["limit"]
    against = "objectives by class" if isinstance(limit, list) else f"an objective of {latency(limit)}"
    return (
        f"{_SHORT[name]} {which} {_time(summary[name]['p99'])} against {against}, met by {_share(given['attainment'])}"
    )


def _share(share: float | None) -> str:
    if share is None or share == 0:
        return "no request"
    return "all requests" if share == 1 else f"{percent(share)} of requests"


def _time(seconds: float | None) -> str:
    """Return a latency in ms below one second, as the tables have it."""
    if seconds is None:
        return "unknown"
    return f"{number(seconds * 1e3)} ms" if seconds < 1 else f"{number(seconds)} s"


def _list(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def _model(summary: Mapping[str, Any]) -> str:
    return _list(list(dict.fromkeys(pool["model"] for pool in summary["pools"])) or ["a model"])


def _gpus(summary: Mapping[str, Any]) -> str:
    counts: dict[str, int] = {}
    swapped = list((summary["model_swap"] or {"pools": []})["pools"])[1:]  # on the first one's GPUs
    for pool in summary["pools"]:
        if pool["name"] not in swapped:
            counts[pool["accelerator"]] = counts.get(pool["accelerator"], 0) + pool["gpus"]
    return _list(
        [f"{count:,} x {name}" for name, count in counts.items()] or [plural(len(summary["replicas"]), "replica")]
    )


# ---------------------------------------------------------------------------------------------------------- tables


def _tables(summary: Mapping[str, Any]) -> Iterator[Block]:
    yield _latencies(summary)
    if len(summary["classes"]) > 1:
        yield _classes(summary)
    lines: dict[str, list[str]] = {}
    label = ""
    for term, said, _ in details(summary):
        label = term or label
        if not label.startswith(" "):  # classes have a table
            lines.setdefault(label, []).append(said)
    yield Facts([(term, "; ".join(said)) for term, said in lines.items() if term not in _ELSEWHERE])


def _latencies(summary: Mapping[str, Any]) -> Table:
    rows: list[list[Cell]] = []
    for name in _SHOWN:
        described, given = summary[name], summary["objectives"]["given"].get(name)
        unit, scale = ("s", 1.0) if (described["mean"] or 0.0) >= 1 else ("ms", 1e3)
        values = [None if described[each] is None else float(described[each] * scale) for each in _STATISTICS]
        limit = "" if given is None else "by class" if isinstance(given["limit"], list) else latency(given["limit"])
        met = "" if given is None or given["attainment"] is None else percent(given["attainment"])
        rows.append([f"{_SHORT[name]} ({unit})", *values, limit, met])
    arrived = summary["window"]["requests"]["arrived"]
    caption = f"Latencies of {arrived:,} requests in {span(summary['window']['duration_s'])} of simulated time"
    columns = ["latency", *_STATISTICS]
    if summary["objectives"]["given"]:
        return Table(
            f"{caption}, and the share of requests that met each objective.", [*columns, "objective", "met by"], rows
        )
    return Table(f"{caption}.", columns, [row[:-2] for row in rows])


def _classes(summary: Mapping[str, Any]) -> Table:
    rows: list[list[Cell]] = []
    for name, part in summary["classes"].items():
        share = part["objectives"]["attainment"]
        rows.append(
            [
                name,
                part["requests"]["arrived"],
                *(_time(part[each]["p99"]) if part[each]["p99"] is not None else None for each in _SHOWN[:4]),
                None if share is None else percent(share),
                part["objectives"]["goodput_requests_per_s"],
            ]
        )
    columns = (
        "class",
        "requests",
        "TTFT p99",
        "TPOT p99",
        "ITL p99",
        "E2E p99",
        "met all objectives",
        "goodput (requests/s)",
    )
    return Table("Classes of requests.", columns, rows)


# ----------------------------------------------------------------------------------------------------------- plots


def _plots(result: Result) -> Iterator[Block]:
    """Yield the figures that there is something to draw in."""
    makers: list[Callable[[Result], Plot]] = [
        *(partial(_distribution, name=name) for name in ("ttft_s", "tpot_s", "itl_s", "e2e_s")),
        _timeline,
        _gpu_plot,
        _links,
    ]
    missing = []
    for make in makers:
        try:
            yield make(result)
        except InputError as error:
            missing.append(str(error).removesuffix(": nothing to draw"))
    if missing:
        yield Text(f"Not drawn: {'; '.join(missing)}.")


def _distribution(result: Result, name: str) -> Plot:
    summary = result.summary
    by_class = 1 < len(summary["classes"]) <= _MOST_CLASSES
    figure = figures.latency_cdf(result, name, by_class=by_class)
    values = figures.latencies(result, name)
    shares = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)
    x, share = figures.cdf_points(values)
    at = [float(x[(share >= each).argmax()]) for each in shares]
    limits = summary["objectives"]["given"].get(name)
    what = LATENCIES[name]
    against = (
        ""
        if limits is None
        else f" The objective: {latency(limits['limit'])}."
        if not isinstance(limits["limit"], list)
        else ""
    )
    return Plot(
        figure,
        f"{what[:1].upper()}{what[1:]}: the share of requests that had at most so much.",
        f"Distribution of {what} over {len(values):,} requests: half have at most {_time(at[2])}, 90 % at most "
        f"{_time(at[4])}, 99 % at most {_time(at[6])}, all at most {_time(at[7])}.{against}",
        Table(
            f"{what} by share of requests.",
            ("share of requests", "at most"),
            [[percent(s), _time(v)] for s, v in zip(shares, at, strict=True)],
        ),
    )


def _timeline(result: Result) -> Plot:
    frame, summary = result.timeseries, result.summary
    figure = figures.timeline(result)
    total = frame.groupby("t_s")[["waiting", "running", "power_w"]].sum(min_count=1)
    every = max(1, -(-len(total) // 24))
    kv = frame.groupby("t_s")["kv_utilization"].max()
    rows: list[list[Cell]] = []
    for start in range(0, len(total), every):
        part = total.iloc[start : start + every]
        watts = part["power_w"].mean()
        rows.append(
            [
                span(float(part.index[0])) if part.index[0] else "0 s",
                float(part["waiting"].mean()),
                float(part["running"].mean()),
                percent(float(kv.loc[part.index].max())),
                float(watts) if watts == watts else None,
            ]
        )
    columns = ("from", "queue (requests)", "batch (requests)", "KV used, at most", "power (W)")
    return Plot(
        figure,
        "Queue, batch, KV memory and power over time"
        + (
            "."
            if len(summary["replicas"]) < 2
            else ", of each replica: a line each up to three, else the mean and the least and most."
        ),
        f"Over {span(summary['simulated_s'])}: at most {int(total['waiting'].max()):,} requests waited and "
        f"{int(total['running'].max()):,} ran at once in all; KV memory was at most {percent(float(kv.max()))} full.",
        Table("All replicas together, means over equal spans of time; KV of the fullest replica.", columns, rows),
    )


def _gpu_plot(result: Result) -> Plot:
    replicas = result.summary["replicas"]
    figure = figures.gpu_utilization(result)
    busy = [each["utilization"] for each in replicas if each["utilization"] is not None]
    rows: list[list[Cell]] = [
        [
            f"replica {each['replica']}",
            each["pool"],
            percent(each["utilization"]) if each["utilization"] is not None else None,
            each["requests"],
            each["steps"],
            percent(each["peak_kv_utilization"]) if each["peak_kv_utilization"] is not None else None,
            each["preemptions"],
        ]
        for each in replicas[:_MOST_ROWS]
    ]
    more = f" The first {_MOST_ROWS} of {len(replicas)}." if len(replicas) > _MOST_ROWS else ""
    columns = ("replica", "pool", "busy", "requests", "engine steps", "KV used, at most", "preemptions")
    return Plot(
        figure,
        "How much of the run each replica's GPUs had a batch in flight.",
        f"GPUs of {plural(len(busy), 'replica')} were busy {percent(min(busy))} to {percent(max(busy))} of the run.",
        Table(f"What each replica did.{more}", columns, rows),
    )


def _links(result: Result) -> Plot:
    links = result.summary["links"]["links"]
    figure = figures.link_utilization(result)
    rows: list[list[Cell]] = [
        [
            each["name"],
            percent(each["utilization"] or 0.0),
            percent(each["busy"] or 0.0),
            each["bytes"] / 1e9,
            each["bandwidth"] / 1e9,
            each["peak_flows"],
        ]
        for each in links[:_MOST_ROWS]
    ]
    columns = ("link", "of its bandwidth", "in use", "GB moved", "GB/s, one direction", "flows at once, at most")
    return Plot(
        figure,
        "Links, the busiest first: what was carried of what could have been (bars), and how much of the run anything "
        "was (squares).",
        f"The busiest link, {links[0]['name']}, carried {percent(links[0]['utilization'] or 0.0)} of what it could; "
        f"{plural(len(links), 'link')} carried anything.",
        Table("Links that carried anything, the busiest first.", columns, rows),
    )


# ----------------------------------------------------------------------------------------------------------- again


def _where(scenario: Mapping[str, Any]) -> str:
    workload = scenario.get("workload", {})
    trace = workload.get("trace")
    if trace is None:
        return (
            "In the directory of the result, which holds scenario.yaml; the requests are generated from the seed in it."
        )
    if str(trace).startswith("bundled:"):
        return "In the directory of the result, which holds scenario.yaml; the trace comes with the simulator."
    return f"In the directory of the result, which holds scenario.yaml; the trace must be at {shlex.quote(str(trace))}."


def _definitions(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (_SHORT.get(name, name.upper() if len(name) == 3 else name), _sentence(text))
        for name, text in summary["definitions"].items()
    ]

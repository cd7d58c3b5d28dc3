"""A run's summary for a terminal: the answer first, then what explains it. Plain text without colour."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulator.disaggregation.telling import disaggregation_line
from simulator.faults.telling import control_lines
from simulator.kv_tiers.telling import tiers_line
from simulator.lockstep_result import lockstep_line

if TYPE_CHECKING:
    from rich.console import Console

_LATENCIES = {"ttft_s": "TTFT", "tpot_s": "TPOT", "itl_s": "ITL", "e2e_s": "E2E", "queue_s": "queue"}
_SHOWN = ("mean", "p50", "p90", "p99")
_MOST_CLASSES = 8
_MOST_REASONS = 3

Line = tuple[str, str, str]
"""A label, what it says, and its style."""


def print_summary(summary: Mapping[str, Any], console: Console, *, out_dir: Path | None = None) -> None:
    """Print a summary at a glance.

    Parameters
    ----------
    summary
        `RunResult.summary`.
    out_dir
        Where the results were written, if they were.
    """
    from rich.table import Table
    from rich.text import Text

    for text, style in headline(summary):
        console.print(Text(text, style=style))
    console.print()
    console.print(_latency_table(summary))
    console.print()
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    lines = [*details(summary)]
    if out_dir is not None:
        lines.append(("Results in", str(out_dir), ""))
    for label, text, style in lines:
        grid.add_row(Text(label, style="bold"), Text(text, style=style))
    console.print(grid)


def headline(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the first lines, the answer, as (text, style)."""
    requests, load = summary["requests"], summary["load"]
    offered = load["offered_requests_per_s"]
    rate = f", offered {number(offered)} requests/s" if offered is not None else ""
    others = [
        f"{requests[name]:,} {name.replace('_', ' ')}"
        for name in ("rejected", "failed", "timed_out", "unfinished")
        if requests[name]
    ]
    first = (
        f"{requests['finished']:,} of {requests['arrived']:,} requests finished in {span(summary['simulated_s'])} of "
        f"simulated time{rate}" + (f" ({', '.join(others)})" if others else "") + "."
    )
    verdict = load["overload"]
    styles = {True: "bold red", False: "green", None: ""}
    said = (verdict[0].upper() + verdict[1:] + ".").replace("Overloaded", "OVERLOADED", 1)
    lines = [(first, "bold"), (said, styles[load["overloaded"]])]
    if summary["interrupted"]:
        lines.insert(0, ("INTERRUPTED: figures are of what was done until then.", "bold yellow"))
    return lines


def _moving_and_scaling(summary: Mapping[str, Any]) -> Iterator[Line]:
    """Yield what rescheduling and scaling did, where there is any."""
    if (moves := summary["rescheduling"]) is not None:
        down = moves["downtime_s"]
        text = f"{moves['moved']:,} requests moved, {sum(moves['failed'].values()):,} given up"
        if down["p50"] is not None:
            text += f"; downtime {number(1e3 * down['p50'])} ms (median), {number(1e3 * down['max'])} ms at most"
        yield "Migration", text, ""
    for name, pool in (summary["scaling"] or {"pools": {}})["pools"].items():
        cold = pool["cold_start_s"]["mean"]
        text = (
            f"{number(pool['mean_replicas'] or 0.0)} replicas on average, {pool['peak_serving']} at most; "
            f"{pool['started']} started{'' if cold is None else f' in {span(cold)} each'}, {pool['ended']} ended"
        )
        yield "Scaling" if len(summary["pools"]) == 1 else f"Scaling {name}", text, ""


def _models(summary: Mapping[str, Any]) -> Iterator[Line]:
    """Yield what became of requests for several models, where there are any."""
    if (models := summary["models"]) is None:
        return
    yield "Models", "; ".join(f"{name} {number:,} requests" for name, number in models["requests"].items()), ""
    if refused := models["not_served"]:
        shown = ", ".join(f"{name} ({number:,})" for name, number in refused.items())
        yield "Not served", f"{shown}: 'workload.models' says which model serves which name", "yellow"
    if (swap := summary["model_swap"]) is not None:
        text = f"{swap['swaps']:,} on {plural(swap['machines'], 'machine')}"
        if swap["swap_s"]["mean"] is not None:
            read = sum(swap["bytes"].values())
            text += f" in {span(swap['swap_s']['mean'])} each, {number(read / 1e9)} GB of weights read"
        yield "Model swaps", f"{text}; {swap['requests_that_waited']:,} requests waited for one", ""


def _latency_table(summary: Mapping[str, Any]) -> Any:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2), pad_edge=False, header_style="bold")
    table.add_column("latency", no_wrap=True)
    for name in _SHOWN:
        table.add_column(name, justify="right", no_wrap=True)
    for label, figures in latency_rows(summary):
        table.add_row(label, *figures)
    return table


def latency_rows(summary: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Return the rows of the latency table: label with unit, figures."""
    rows = []
    for key, label in _LATENCIES.items():
        described = summary[key]
        unit, scale = ("s", 1.0) if (described["mean"] or 0.0) >= 1 else ("ms", 1e3)
        values = [described[name] for name in _SHOWN]
        rows.append((f"{label} ({unit})", ["-" if v is None else number(v * scale) for v in values]))
    return rows


def details(summary: Mapping[str, Any]) -> Iterator[Line]:
    """Yield the lines below the latencies."""
    window, requests = summary["window"], summary["requests"]
    cut = [
        f"{count:,} requests {what}"
        for count, what in (
            (window["arrived_before"], "before it"),
            (window["arrived_after"], "after it"),
            (requests["not_sent"], "never sent"),
        )
        if count
    ]
    if cut:
        yield "Window", f"{span(window['start_s'])} to {span(window['end_s'])}; cut off: {', '.join(cut)}", ""
    yield "Throughput", _throughput(summary["throughput"]), ""
    yield "GPUs", _accelerators(summary), ""
    yield "KV memory", _memory(summary), ""
    if ranks := lockstep_line(summary["attention_data_parallel"]):
        yield "Ranks", ranks, ""
    if (shared := summary["shared_prefix_attention"]).get("read_share") is not None:
        yield "Shared KV", f"decodes read {percent(shared['read_share'])} of the KV that each alone would have read", ""
    if summary["disaggregation"]:
        yield "Handover", disaggregation_line(summary["disaggregation"]), ""
    for name, pool in (summary["kv_tiers"] or {"pools": {}})["pools"].items():
        yield "KV tiers" if len(summary["pools"]) == 1 else f"KV tiers {name}", tiers_line(pool), ""
    yield from control_lines(summary)
    yield from _models(summary)
    yield from _moving_and_scaling(summary)
    if summary["links"]["links"]:
        yield "Links", _links(summary["links"]["links"]), ""
    for name, place in (summary["offload"]["pools"] or {}).items():
        yield "Offload" if len(summary["pools"]) == 1 else f"Offload {name}", _offload(place), ""
    if summary["objectives"]["given"]:
        yield "Objectives", _objectives(summary["objectives"]), ""
        shown = list(summary["classes"].items())
        for name, figures in shown[:_MOST_CLASSES]:
            if figures["objectives"]["given"]:
                yield f"  {name}", _objectives(figures["objectives"]), ""
        if len(shown) > _MOST_CLASSES:
            yield "", f"and {len(shown) - _MOST_CLASSES} more classes in summary.json", ""
    yield from _tenants(summary["tenants"])
    if summary["cost"]["per_million_output_tokens"] is not None:
        cost = summary["cost"]
        yield (
            "Price",
            f"{number(cost['per_million_output_tokens'])} per million output tokens, "
            f"{number(cost['per_million_tokens'])} per million tokens in and out, {number(cost['total'])} in all",
            "",
        )
    if summary["energy"]["total_j"] is not None:
        yield "Energy", _energy(summary["energy"]), ""
    for i, group in enumerate(summary["reasons"][:_MOST_REASONS]):
        yield "" if i else "Not served", f"{group['requests']:,} {group['outcome']}: {group['reason']}", "yellow"
    if requests["truncated"]:
        yield "Truncated", f"{requests['truncated']:,} outputs at the engine's max_model_len", "yellow"
    yield from _sources(summary["costs"]["sources"])
    for i, note in enumerate(summary["notes"]):
        yield "" if i else "Notes", note, "dim"
    yield "Took", _took(summary), ""


def _tenants(figures: Mapping[str, Any]) -> Iterator[Line]:
    """Yield how evenly tenants were served, where there are several."""
    if not figures["by_tenant"] or len(figures["by_tenant"]) < 2:
        return
    jain, backlogged = figures["jain_index"], figures["backlogged"]
    parts = [plural(len(figures["by_tenant"]), "tenant")]
    if jain is not None:
        parts.append(f"Jain index of service {jain:.3f}")
    if backlogged["max_service_difference"] is not None:
        parts.append(f"at most {number(backlogged['max_service_difference'])} apart in service while two waited")
    yield "Tenants", ", ".join(parts), ""


def _offload(place: Mapping[str, Any]) -> str:
    names = {"gpu": "GPU", "cpu": "host", "disk": "disk"}
    parts = []
    for what in ("weights", "kv", "activations"):
        where = [f"{percent(place[what][tier])} {name}" for tier, name in names.items() if place[what][tier]]
        parts.append(f"{what} {', '.join(where)}")
    return "; ".join(parts)


def _throughput(figures: Mapping[str, Any]) -> str:
    if figures["requests_per_s"] is None:
        return "none: no time passed"
    return (
        f"{number(figures['requests_per_s'])} requests/s, {number(figures['prompt_tokens_per_s'])} prompt and "
        f"{number(figures['output_tokens_per_s'])} output tokens/s"
    )


def _accelerators(summary: Mapping[str, Any]) -> str:
    swap = summary["model_swap"]
    again = [] if swap is None else list(swap["pools"])[1:]  # on the first one's GPUs
    pools = [
        f"{pool['gpus']:,} x {pool['accelerator']} in {plural(pool['replicas'], 'replica')}"
        for pool in summary["pools"]
        if pool["name"] not in again
    ]
    busy = [r["utilization"] for r in summary["replicas"] if r["utilization"] is not None]
    parts = [" and ".join(pools)] if pools else [plural(len(summary["replicas"]), "replica")]
    if busy:
        mean = math.fsum(busy) / len(busy)
        parts.append(
            f"busy {percent(mean)}"
            + (f" ({percent(min(busy))} to {percent(max(busy))})" if max(busy) - min(busy) >= 0.01 else "")
        )
    for name in ("mfu", "mbu"):
        value = summary["efficiency"][name]
        if value is not None:
            parts.append(f"{name.upper()} {percent(value)}")
    return ", ".join(parts)


def _memory(summary: Mapping[str, Any]) -> str:
    memory, cache = summary["memory"], summary["prefix_cache"]
    parts = []
    if memory["peak_kv_utilization"] is not None:
        parts.append(f"peak {percent(memory['peak_kv_utilization'])}")
    parts.append(plural(memory["preemptions"], "preemption"))
    if memory["swaps_out"]:
        parts.append(f"{memory['swaps_out']:,} swaps out")
    if cache["hit_share"] is not None:
        parts.append(f"prefix cache held {percent(cache['hit_share'])} of prompt tokens")
    return ", ".join(parts)


def _links(links: Sequence[Mapping[str, Any]]) -> str:
    busiest = links[0]
    moved = f"{number(busiest['bytes'] / 1e9)} GB at up to {number(busiest['bandwidth'] / 1e9)} GB/s"
    return f"busiest {busiest['name']}: {percent(busiest['utilization'] or 0.0)} used ({moved}), {len(links):,} in use"


def _energy(figures: Mapping[str, Any]) -> str:
    parts = [f"{number(figures['total_j'] / 1e3)} kJ"]
    if figures["energy_j_per_output_token"] is not None:
        parts.append(f"{number(figures['energy_j_per_output_token'])} J per output token")
    parts.append(f"mean {number(figures['mean_power_w'])} W")
    if figures["peak_power_w"] is not None:
        parts.append(f"peak {number(figures['peak_power_w'])} W")
    if figures["carbon_g"] is not None:
        parts.append(f"{number(figures['carbon_g'])} g of CO2 equivalent")
    return ", ".join(parts) + " (an estimate, sources in summary.json)"


def _objectives(figures: Mapping[str, Any]) -> str:
    if figures["attainment"] is None:
        return str(figures["reason"])
    each = [
        f"{_limit(name, given['limit'])}: {percent(given['attainment'])}" for name, given in figures["given"].items()
    ]
    goodput = figures["goodput_requests_per_s"]
    rate = f", goodput {number(goodput)} requests/s" if goodput is not None else ""
    return f"{percent(figures['attainment'])} of requests met all{rate} ({'; '.join(each)})"


def _limit(name: str, limit: float | Sequence[float]) -> str:
    label = name.removesuffix("_s").upper()
    if isinstance(limit, (int, float)):
        return f"{label} <= {limit * 1e3:g} ms" if limit < 1 else f"{label} <= {limit:g} s"
    return f"{label} by class"


def _sources(sources: Sequence[str]) -> Iterator[Line]:
    for i, source in enumerate(sources):
        estimate = "roofline" in source.lower() or "estimate" in source.lower()
        said = re.sub(r"\bestimate\b", "ESTIMATE", source) if estimate else source
        if estimate and "ESTIMATE" not in said:
            said = f"ESTIMATE, not measured: {said}"
        yield "" if i else "Step times", said, "bold yellow" if estimate else ""


def _took(summary: Mapping[str, Any]) -> str:
    took = summary["simulator"]
    total = took["load_s"] + took["loop_s"] + (took["write_s"] or 0.0)
    rate = f", {number(summary['requests']['arrived'] / took['loop_s'])} simulated requests/s" if took["loop_s"] else ""
    steps = f", {took['iterations']:,} engine steps"
    memory = took["peak_memory_bytes"]
    held = f", {memory / 1e6:,.0f} MB" if memory else ""
    return f"{duration(total)} ({duration(took['loop_s'])} in the simulation{rate}{steps}{held})"


# -------------------------------------------------------------------------------------------------------- numbers


def number(value: float) -> str:
    """Return a number with three significant digits, or all digits before the point, and thousands separated."""
    if value == 0:
        return "0"
    decimals = 2 - math.floor(math.log10(abs(value)))
    rounded = round(value, decimals)  # 9.999 becomes 10.0
    decimals = min(max(0, 2 - math.floor(math.log10(abs(rounded)))), 9)
    return f"{value:,.{decimals}f}"


def percent(share: float) -> str:
    """Return a share in %: one decimal, and not 100 % or 0 % where it isn't."""
    if share < 1 and round(share * 100, 1) >= 100:
        return "99.9+ %"
    if share > 0 and round(share * 100, 1) <= 0:
        return "<0.1 %"
    return f"{share * 100:.1f} %"


def duration(seconds: float) -> str:
    """Return a short time in ms below one second, else as `span`."""
    return f"{number(seconds * 1e3)} ms" if 0 < seconds < 1 else span(seconds)


def span(seconds: float) -> str:
    """Return a time in the unit that a person would use: s, min, h or days."""
    for unit, length in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{number(seconds / length)} {unit}"
    return f"{number(seconds)} s"


def plural(count: int, noun: str) -> str:
    """Return a count with its noun."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")

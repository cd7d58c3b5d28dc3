"""A plan for a terminal: the answer, its proof, what else there was, what it took."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from simulator.planning.files import answer
from simulator.terminal import number, percent, plural

if TYPE_CHECKING:
    from simulator.planning.planner import PlanResult

_CONFIGURATIONS = 8
_CHEAPER = 6


def show(result: PlanResult, out: str | None) -> None:
    """Print a plan."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 130)
    console.print(Text(answer(result), style="bold"))
    console.print()
    console.print(_fleet(result))
    console.print()
    for style, line in proof(result):
        console.print(Text(line, style=style))
    console.print()
    if result.what_ifs:
        console.print(_what_ifs(result))
        console.print()
    if result.bound is not None:
        console.print(bound_line(result))
        console.print()
    console.print(_configurations(result))
    if len(result.candidates) > _CONFIGURATIONS:
        said = f"The best of {plural(len(result.candidates), 'configuration')}; configurations.csv has all (--out)"
        console.print(Text(said, style="dim"))
    console.print()
    for line in prices(result):
        console.print(Text(line, style="dim"))
    for note in result.notes:
        console.print(Text(f"Note: {note}", style="dim"))
    console.print(Text(took(result), style="dim"))
    if out is not None:
        console.print(
            f"Written to {out}: plan.json, configurations.csv, fleets.csv; simulate run --scenario "
            f"{out}/fleet.yaml runs the plan again"
        )


def _fleet(result: PlanResult) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("replicas", justify="right")
    table.add_column("of", no_wrap=True)
    table.add_column("GPUs", justify="right")
    table.add_column("$ an hour", justify="right")
    table.add_column("busy", justify="right")
    table.add_column("KV peak", justify="right")
    summary = result.runs[0].summary
    pools = summary["pools"]
    for (each, count), pool in zip(result.fleet.parts, pools, strict=True):
        replicas = [row for row in summary["replicas"] if row["pool"] == pool["name"]]
        busy = [row["utilization"] for row in replicas if row["utilization"] is not None]
        peaks = [row["peak_kv_utilization"] for row in replicas if row.get("peak_kv_utilization") is not None]
        table.add_row(
            str(count),
            each.text,
            str(count * each.gpus),
            f"{count * each.price:,.2f}",
            percent(sum(busy) / len(busy)) if busy else "-",
            percent(max(peaks)) if peaks else "-",
        )
    return table


def proof(result: PlanResult) -> Iterator[tuple[str, str]]:
    """Yield the lines of the proof, each with its style."""
    for run in result.runs:
        yield "green" if run.met else "red", f"On {run.where}: meets {'; '.join(run.misses)}"
    if len(result.runs) > 1:
        yield "dim", f"Seeds: {result.seeds_vary}"
    if result.fleet.replicas == 1:
        yield "", "One replica fewer: none would be left"
    elif len(result.removals) < len(result.fleet.parts):
        yield "", "One replica fewer, the only one of a role: no request could be served"
    for fleet, runs in result.removals:
        failed = [run for run in runs if not run.met]
        where = "everywhere" if len(failed) == len(runs) else "on " + " and ".join(run.where for run in failed)
        said = f"fails {where} ({'; '.join(failed[0].misses)})" if failed else "MEETS the objectives"
        yield "", f"One replica fewer, {fleet.text}: {said}"
    tried = result.enumeration.tried
    kind = "without roles" if result.fleet.is_disaggregated or result.enumeration.disaggregated else "in question"
    if tried:
        yield "", f"Cheaper fleets {kind}: {len(tried)}, all simulated, all fail; the dearest:"
    else:
        yield "", f"Cheaper fleets {kind}: there are none"
    for each in tried[:_CHEAPER]:
        failed_on = each.failed_on
        said = "" if failed_on is None else f"on {failed_on.where}: {'; '.join(failed_on.misses)}"
        yield "dim", f"  ${each.fleet.price:,.2f}  {each.fleet.text}: {said}"
    apart = result.enumeration.disaggregated
    if apart:
        yield "", f"Cheaper fleets with prefill and decode apart: {len(apart)}, all simulated, all fail; the dearest:"
    for each in apart[:_CHEAPER]:
        failed_on = each.failed_on
        said = "" if failed_on is None else f"on {failed_on.where}: {'; '.join(failed_on.misses)}"
        yield "dim", f"  ${each.fleet.price:,.2f}  {each.fleet.text}: {said}"
    if result.enumeration.disaggregated_untried:
        yield (
            "yellow",
            f"{result.enumeration.disaggregated_untried:,} more of those, with less room, were not simulated",
        )
    if result.enumeration.untried:
        yield (
            "yellow",
            (
                f"{result.enumeration.untried:,} cheaper fleets were not simulated: their capacities add up to "
                f"{percent(result.enumeration.untried_below)} of the requests at most"
            ),
        )


def _what_ifs(result: PlanResult) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("what if", no_wrap=True)
    table.add_column("plan holds")
    table.add_column("then", overflow="fold")
    table.add_column("how", overflow="fold", style="dim")
    for each in result.what_ifs:
        holds = "-" if each.plan_holds is None else "yes" if each.plan_holds else "no"
        table.add_row(each.name, holds, each.text, each.how)
    return table


def bound_line(result: PlanResult) -> str:
    """Return the lower bound in a sentence."""
    bound = result.bound
    assert bound is not None
    return (
        f"Lower bound over time: a perfect instant autoscaler would use {number(bound.mean_gpus)} GPUs on average "
        f"({bound.fewest.text}; {number(float(bound.gpus.max()))} in the busiest minute), or pay "
        f"${bound.mean_price:,.2f} an hour ({bound.cheapest.text}). The plan has "
        f"{plural(result.fleet.gpus, 'GPU')} for ${result.fleet.price:,.2f}: "
        f"{percent(bound.mean_price / result.fleet.price)} of its price is bound to the work; the rest is for latency, "
        "whole replicas and the course of the load."
    )


def _configurations(result: PlanResult) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("one replica of", no_wrap=True)
    table.add_column("$ an hour", justify="right")
    table.add_column("serves", justify="right")
    table.add_column("$ for all", justify="right")
    table.add_column("remark", overflow="fold")
    shown = list(result.candidates[:_CONFIGURATIONS])
    gpus = {each.configuration.choice.gpu for each in shown}
    for each in result.candidates[_CONFIGURATIONS:]:  # the best of each GPU is there
        if each.configuration.choice.gpu not in gpus:
            gpus.add(each.configuration.choice.gpu)
            shown.append(each)
    for each in shown:
        share = each.share
        table.add_row(
            each.configuration.text,
            f"{each.configuration.price:,.2f}",
            f"{'at least ' if each.is_open else ''}{number(share * result.rate)}/s" if share else "nothing",
            f"{each.configuration.price / share:,.2f}" if share else "-",
            each.dropped,
        )
    return table


def prices(result: PlanResult) -> Iterator[str]:
    """Yield the prices of GPUs, a line for each source."""
    by_source: dict[str, list[str]] = {}
    for each in result.choices:
        by_source.setdefault(each.source, []).append(f"{each.gpu} ${each.price:g}")
    for source, listed in by_source.items():
        yield f"Prices of a GPU and hour: {', '.join(listed)} ({source})"


def took(result: PlanResult) -> str:
    """Return what a plan took, by part."""
    parts = ", ".join(f"{name} {seconds:,.1f} s" for name, seconds in result.took_s.items() if name != "all")
    return f"Took {result.took_s['all']:,.1f} s ({parts})"


__all__ = ["bound_line", "prices", "proof", "show", "took"]

"""``simulate plan``: the cheapest fleet that serves requests within objectives, with its proof."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import typer

from simulator.cli.run_command import register_with, scenario_of
from simulator.cli.several import RUNNING, counting, store_of, writing
from simulator.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

HELP = """Find the cheapest fleet that serves a trace within latency objectives, and show by simulation that it does.

Which GPUs, how many, in which layout: objectives are latencies at percentiles (--ttft-p99 2 --tpot-p99 0.1), GPUs have
list prices or yours (--gpus h100-sxm,l40s --price l40s=1.2). Everything else is said as for 'simulate run'."""

_LEFT_OUT = frozenset(
    f"--{name}"
    for names in (
        ("gpu", "node", "tp", "pp", "replicas", "price", "num-kv-blocks"),  # what is planned
        ("ttft", "tpot", "itl", "e2e"),  # said with percentiles
        ("scaler", "min-replicas", "max-replicas", "rescheduler", "admission"),
        ("loop", "clients", "think-time", "warmup", "until", "no-drain"),
    )
    for name in names
)
_METRICS = {
    "ttft": "time to first token",
    "tpot": "mean time of an output token",
    "itl": "a request's largest gap between tokens",
    "e2e": "time to the last token",
}
_PERCENTILES = (90, 95, 99)


def _objective_options() -> Iterator[tuple[str, Any, Any, Any]]:
    for metric, text in _METRICS.items():
        for percentile in _PERCENTILES:
            option = typer.Option(
                f"--{metric}-p{percentile}",
                metavar="SECONDS",
                help=f"Objective: {text}, of {percentile} % of the requests.",
                show_default=False,
            )
            yield f"{metric}_p{percentile}", float | None, option, None


_OPTIONS: tuple[tuple[str, Any, Any, Any], ...] = (
    *_objective_options(),
    ("gpus", str | None, typer.Option("--gpus", metavar="GPU,GPU", help="GPUs to choose from."), None),
    (
        "price",
        list[str] | None,
        typer.Option("--price", metavar="GPU=USD", help="Price of one GPU for an hour (repeatable)."),
        None,
    ),
    (
        "at_most",
        list[str] | None,
        typer.Option("--at-most", metavar="GPU=N", help="So many GPUs of a type at most (repeatable)."),
        None,
    ),
    (
        "provider",
        str | None,
        typer.Option("--provider", help="Whose list prices; left out: the first offer of each GPU."),
        None,
    ),
    (
        "request",
        str | None,
        typer.Option(
            "--plan", metavar="FILE", help="YAML with objectives (also by class), gpus, provider, policies; see docs."
        ),
        None,
    ),
    (
        "try_policy",
        list[str] | None,
        typer.Option("--try-policy", metavar="NAME", help="Batching policy to try beside the own one (repeatable)."),
        None,
    ),
    ("max_gpus", int | None, typer.Option("--max-gpus", help="GPUs of a replica at most (default: 8)."), None),
    ("seeds", int | None, typer.Option("--seeds", help="Replications that the plan must do on (default: 3)."), None),
    ("no_what_ifs", bool, typer.Option("--no-what-ifs", help="The plan and its proof alone."), False),
    *RUNNING,
    *writing("plan", "plan.json, tables and fleet.yaml"),
)


def _plan(ctx: Any, trace: str | None, values: dict[str, Any]) -> None:
    scenario = scenario_of(ctx, trace, values)
    if scenario.workload.trace is None and scenario.workload.generator is None:
        raise InputError("which requests? name a trace, as in: simulate plan trace.csv (or bundled:NAME)")
    from simulator.planning.planner import plan
    from simulator.planning.request import arguments_of

    store = store_of(values)
    given = arguments_of(
        values["request"],
        objectives={
            f"{metric}_p{percentile}": values[f"{metric}_p{percentile}"]
            for metric in _METRICS
            for percentile in _PERCENTILES
            if values[f"{metric}_p{percentile}"] is not None
        },
        gpus=None if values["gpus"] is None else [name.strip() for name in values["gpus"].split(",") if name.strip()],
        prices=_numbers(values["price"] or [], "--price", float),
        at_most=_numbers(values["at_most"] or [], "--at-most", int),
        provider=values["provider"],
        policies=values["try_policy"],
        max_gpus=values["max_gpus"],
        seeds=values["seeds"],
    )
    try:
        with counting(not values["quiet"] and not values["no_progress"]) as progress:
            result = plan(
                scenario,
                **given,
                what_ifs=not values["no_what_ifs"],
                workers=values["workers"],
                store=store,
                out=values["out"],
                overwrite=values["overwrite"],
                progress=progress,
            )
    except KeyboardInterrupt:
        kept = "" if store is False else "; what was simulated is kept, and the same command goes on from there"
        typer.echo(f"interrupted: no plan yet{kept}", err=True)
        raise typer.Exit(130) from None
    if not values["quiet"]:
        from simulator.planning.telling import show

        show(result, values["out"])


def _numbers(texts: Sequence[str], option: str, kind: Callable[[str], Any]) -> dict[str, Any]:
    """Return the numbers of ``l40s=1.2`` by GPU."""
    found = {}
    for text in texts:
        name, equals, number = text.partition("=")
        try:
            if not equals or not name.strip():
                raise ValueError
            found[name.strip()] = kind(number)
        except ValueError:
            example = "l40s=1.2" if kind is float else "h200=8"
            raise InputError(f"{option} {text}: write a GPU and a number, as in {option} {example}") from None
    return found


app = typer.Typer(name="plan", add_completion=False, rich_markup_mode=None)
register_with(app, "plan", HELP, _OPTIONS, _plan, _LEFT_OUT)

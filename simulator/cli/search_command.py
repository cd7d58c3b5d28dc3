"""``simulate search``: the best parallel plan on given nodes, with the plan of the engines' guides beside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import typer

from simulator.cli.run_command import register_with, scenario_of
from simulator.cli.several import RESAMPLE, RUNNING, SEEDS, counting, store_of, writing
from simulator.errors import InputError

HELP = """Find the best parallel plan of a model on given nodes, by simulating every plan that fits.

Everything but the layout (--tp, --pp, --replicas) is said as for 'simulate run'. Beside the best stands the
heuristic plan of engines' guides: tensor parallelism over a node, stages over nodes only as far as needed, replicas
over the rest.

With --by load it finds the highest load that a scenario, its own layout included, carries within its objectives."""

_LAYOUT = ("tp", "pp", "replicas")
"""Flags of a layout: what a search finds, or what the highest load is of."""
_OF_PLANS: Mapping[str, Any] = {
    "nodes": None,
    "gpus": None,
    "only": None,
    "vary": None,
    "pareto": None,
    "fewer": None,
    "screen": None,
    "finalists": None,
    "show_all": False,
}
_OF_LOADS: Mapping[str, Any] = {"attain": None, "tolerance": None, "seeds": None, "resample": None}
"""Options that only the one or the other search takes, and their values where they were not given."""

_OPTIONS: tuple[tuple[str, Any, Any, Any], ...] = (
    ("nodes", int | None, typer.Option("--nodes", metavar="N", help="Nodes of the type --node (1)."), None),
    ("gpus", int | None, typer.Option("--gpus", metavar="N", help="GPUs, without --node; or of one node."), None),
    (
        "by",
        str,
        typer.Option(
            "--by",
            metavar="TARGET",
            help="goodput, goodput_per_gpu, goodput_per_price, throughput, cost, energy, or a latency: ttft_p99, "
            "tpot_mean, itl_p99, e2e_mean ...; "
            "load: the highest load of the scenario as it is.",
        ),
        "throughput",
    ),
    (
        "only",
        list[str] | None,
        typer.Option("--only", metavar="DIM=N[,N]", help="Sizes to try: tp=4,8 or replicas=2 (repeatable)."),
        None,
    ),
    (
        "vary",
        list[str] | None,
        typer.Option(
            "--vary",
            metavar="KEY=V[,V]",
            help="Engine limits to try with every plan: max_num_seqs=64,256 or a pool's key (repeatable).",
        ),
        None,
    ),
    (
        "pareto",
        str | None,
        typer.Option("--pareto", metavar="TARGETS", help="Mark the Pareto front: ttft_p99,throughput,cost,energy."),
        None,
    ),
    (
        "fewer",
        bool | None,
        typer.Option(
            "--fewer/--all-gpus",
            help="Try plans that leave GPUs idle, or not; left out: by cost, energy, goodput per GPU or price only.",
            show_default=False,
        ),
        None,
    ),
    (
        "screen",
        int | None,
        typer.Option(
            "--screen",
            metavar="N",
            help="Screen plans on the first N requests, then run the best on all; 0: run every plan on all. Left out: "
            "2,500 where there are more than 10,000.",
            show_default=False,
        ),
        None,
    ),
    (
        "finalists",
        int | None,
        typer.Option("--finalists", metavar="N", help="Plans of the screening that run on all (6)."),
        None,
    ),
    (
        "attain",
        float | None,
        typer.Option(
            "--attain", metavar="SHARE", help="By load: share of requests within the objectives (0.9); 0.99 is a p99."
        ),
        None,
    ),
    (
        "tolerance",
        float | None,
        typer.Option("--tolerance", metavar="SHARE", help="By load: width of the answer, as a share of it (0.05)."),
        None,
    ),
    ("seeds", str | None, typer.Option("--seeds", metavar="N", help=f"By load: {SEEDS}, at most (9)."), None),
    ("resample", bool | None, RESAMPLE, None),
    *RUNNING,
    ("show_all", bool, typer.Option("--all", help="List every plan, and every one that can't run with why."), False),
    *writing("search", "plans.csv (loads.csv), search.json (load.json) and best.yaml"),
)


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    register_with(app, "search", HELP, _OPTIONS, _search)


def _search(ctx: Any, trace: str | None, values: dict[str, Any]) -> None:
    from simulator.studies.search import FINALISTS, search

    scenario = scenario_of(ctx, trace, values)
    if scenario.workload.trace is None and scenario.workload.generator is None:
        raise InputError("which requests? name a trace, as in: simulate search trace.csv (or bundled:NAME)")
    by_load = values["by"] == "load"
    _check_options(values, by_load)
    if by_load:
        from simulator.cli.search_load import search_load

        search_load(scenario, values)
        return
    with counting(not values["quiet"] and not values["no_progress"]) as progress:
        result = search(
            scenario,
            nodes=1 if values["nodes"] is None else values["nodes"],
            gpus=values["gpus"],
            by=values["by"],
            only=_sizes(values["only"] or []),
            limits=_limits(values["vary"] or []),
            pareto=[name.strip() for name in (values["pareto"] or "").split(",") if name.strip()],
            fewer=values["fewer"],
            screen=values["screen"],
            finalists=FINALISTS if values["finalists"] is None else values["finalists"],
            workers=values["workers"],
            store=store_of(values),
            out=values["out"],
            overwrite=values["overwrite"],
            progress=progress,
        )
    if not values["quiet"]:
        from simulator.cli.search_printing import print_search

        print_search(result, values["show_all"], values["out"])
    if result.interrupted:
        raise typer.Exit(130)
    if any(row.failure for row in result.rows):
        raise typer.Exit(1)


def _check_options(values: Mapping[str, Any], by_load: bool) -> None:
    """Refuse what the search that was asked for doesn't take."""
    for name, absent in (_OF_PLANS if by_load else _OF_LOADS).items():
        if values[name] != absent:
            option = "--all" if name == "show_all" else f"--{name}"
            if by_load:
                raise InputError(
                    f"{option} is for a search of plans; --by load takes the layout as it is (--tp, --set)"
                )
            raise InputError(f"{option} is for --by load; leave it out, or ask for the highest load with --by load")
    for name in () if by_load else _LAYOUT:
        if (size := values[f"{name}_flag"]) is not None:
            sizes = f"--only {name}={size}"
            raise InputError(f"--{name} gives a layout, and the layout is searched; to keep that size: {sizes}")


def _sizes(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return the sizes of ``tp=4,8`` by dimension."""
    found: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, equals, listed = text.partition("=")
        pieces = listed.split(",")
        if not equals or not all(piece.strip().isdecimal() and int(piece) for piece in pieces):
            raise InputError(f"--only {text}: write a dimension and whole numbers, as in --only tp=4,8")
        found[name.strip()] = (*found.get(name.strip(), ()), *(int(piece) for piece in pieces))
    return found


def _limits(texts: Sequence[str]) -> dict[str, list[Any]]:
    """Return the values of ``max_num_seqs=64,256`` by key, each read as YAML."""
    from simulator.scenario_yaml import value

    found: dict[str, list[Any]] = {}
    for text in texts:
        name, equals, listed = text.partition("=")
        pieces = [piece.strip() for piece in listed.split(",")]
        if not equals or not name.strip() or not all(pieces):
            raise InputError(f"--vary {text}: write a key and values, as in --vary max_num_seqs=64,256")
        try:
            found.setdefault(name.strip(), []).extend(value(piece) for piece in pieces)
        except ValueError as error:
            raise InputError(f"--vary {name}: {error}") from None
    return found

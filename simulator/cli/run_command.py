"""``simulate run``: the command, its flags from the table, an engine's own flags from its preset."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from simulator.cli.several import VARIANT, gather_variants
from simulator.errors import InputError, did_you_mean
from simulator.flags import EVERY_POOL, FLAGS, Change, changes_of

if TYPE_CHECKING:
    from simulator.scenario import Scenario

HELP = """Simulate a trace, and print what came out.

Defaults go before the engine's own, those before the scenario file, and flags (and --set) before everything: each
flag is shorthand for the scenario key that its help names. With --engine, that engine's own flags are taken too, under
their own names."""

_ENGINE_ARGS = "simulator.engine_args"
"""Where the parser leaves an engine's own flags for the command."""

_OPTIONS: tuple[tuple[str, Any, Any, Any], ...] = (
    (
        "scenario",
        str | None,
        typer.Option("--scenario", metavar="FILE", help="Scenario file; flags go before its keys."),
        None,
    ),
    (
        "preset",
        str | None,
        typer.Option("--preset", metavar="NAME", help="Policies of a system as a whole; see simulate policies."),
        None,
    ),
    (
        "engine",
        str | None,
        typer.Option("--engine", metavar="NAME[@VERSION]", help="Engine whose defaults and flags apply: vllm@0.19 ..."),
        None,
    ),
    (
        "policy_param",
        list[str] | None,
        typer.Option("--policy-param", metavar="K=V", help="Parameter of the batching policy (repeatable)."),
        None,
    ),
    (
        "set_key",
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any scenario key, its value as YAML (repeatable)."),
        None,
    ),
    ("out", str | None, typer.Option("--out", metavar="DIR", help="Write the result there."), None),
    ("format", str, typer.Option("--format", help="Tables of the result: parquet or csv."), "parquet"),
    ("perfetto", bool, typer.Option("--perfetto", help="Write a Perfetto trace of every batch too."), False),
    ("report", bool, typer.Option("--report", help="Write report.html there too."), False),
    ("overwrite", bool, typer.Option("--overwrite", help="Replace an earlier result in DIR."), False),
    ("stepwise", bool, typer.Option("--stepwise", help="No fast-forward: the same result, more slowly."), False),
    ("strict", bool, typer.Option("--strict", help="A rejected request is an error."), False),
    ("quiet", bool, typer.Option("--quiet", "-q", help="Print nothing but errors."), False),
    (
        "no_progress",
        bool,
        typer.Option("--no-progress", help="No progress bar (none without a terminal)."),
        False,
    ),
    (
        "print_scenario",
        bool,
        typer.Option("--print-scenario", help="Print the scenario with every default, and stop."),
        False,
    ),
)

NUM_SCENARIO_OPTIONS = next(place for place, option in enumerate(_OPTIONS) if option[0] == "out")
"""The first options make the scenario, like the table of flags; the others are of the run."""


class RunCommand(TyperCommand):
    """Takes an engine's own flags out of the arguments before the rest is parsed."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse; see the class."""
        own = frozenset(name for param in self.params for name in (*param.opts, *param.secondary_opts))
        if VARIANT in own:
            args = gather_variants(args)
        name = _value_of("--engine", args) or _engine_of_file(_value_of("--scenario", args))
        if name is not None:
            from simulator.engines import load_engine

            taken, args = load_engine(name).take_args(args, own)
            ctx.meta[_ENGINE_ARGS] = (name, taken)
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            option = getattr(error, "option_name", None)
            if option is None or not hasattr(error, "possibilities") or not option.startswith("-"):
                raise
            raise _unknown(option, own, name) from None


def _value_of(option: str, args: Sequence[str]) -> str | None:
    for index, argument in enumerate(args):
        if argument == option and index + 1 < len(args):
            return args[index + 1]
        if argument.startswith(f"{option}="):
            return argument.split("=", 1)[1]
    return None


def _engine_of_file(path: str | None) -> str | None:
    """Return the engine that a scenario file names, if all of its pools name the same; what is wrong is said later."""
    if path is None:
        return None
    from simulator.scenario import Scenario, ScenarioError

    try:
        pools = Scenario.from_yaml(path).cluster.pools
    except ScenarioError:
        return None
    labels = {
        f"{pool.engine.name}@{pool.engine.version}" if pool.engine.version else pool.engine.name for pool in pools
    }
    return labels.pop() if len(labels) == 1 else None


def _unknown(option: str, own: frozenset[str], engine: str | None) -> InputError:
    from simulator.engines import engines_with_flag, load_engine

    known = set(own)
    if engine is not None:
        known |= set(load_engine(engine).flag_names())
    near = did_you_mean(option, known)
    hint = near if near.startswith("; did") else "; see --help"
    having = engines_with_flag(option)
    if having and engine is None:
        hint = f"; it is a flag of {', '.join(having)}: add --engine {having[-1]}"
    return InputError(f"unknown option {option}{hint}")


def register(app: typer.Typer) -> None:
    """Add the command to the application, its signature made from the table of flags."""
    register_with(app, "run", HELP, _OPTIONS[NUM_SCENARIO_OPTIONS:], _run)


def register_with(
    app: typer.Typer,
    name: str,
    text: str,
    options: Sequence[tuple[str, Any, Any, Any]],
    action: Callable[[Any, Any, dict[str, Any]], None],
    left_out: Container[str] = (),
    argument: tuple[Any, Any] = (str | None, typer.Argument(metavar="TRACE", help="Trace file, or bundled:NAME.")),
) -> None:
    """Add a command that takes a trace, everything that makes a scenario, and options of its own.

    Parameters
    ----------
    options
        Name, type, `typer.Option` and default of each.
    action
        Called with the context, the trace, and the values of all options; `scenario_of` takes the same.
    left_out
        Flags of the table that it doesn't take.
    argument
        Type and `typer.Argument` of what stands without an option.
    """

    def command(ctx: typer.Context, trace: Any, **values: Any) -> None:
        action(ctx, trace, values)

    parameters = [
        _parameter("ctx", typer.Context, inspect.Parameter.empty),
        _parameter("trace", Annotated[argument], None),
    ]
    for key, kind, option, default in _OPTIONS[:NUM_SCENARIO_OPTIONS]:
        parameters.append(_parameter(key, Annotated[kind, option], default))
    for flag in FLAGS:
        if flag.name in left_out:
            continue
        option = typer.Option(
            flag.declaration, help=f"{flag.help} [{flag.short_key}]", metavar=flag.metavar or None, show_default=False
        )
        parameters.append(_parameter(flag.parameter, Annotated[flag.type | None, option], None))
    for key, kind, option, default in options:
        parameters.append(_parameter(key, Annotated[kind, option], default))
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    app.command(name, cls=RunCommand, help=text)(command)


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def scenario_of(
    ctx: Any, trace: str | None, values: dict[str, Any], *, base: Mapping[str, Any] | None = None
) -> Scenario:
    """Return the scenario that a command's arguments make, over the keys of ``base`` where there is no file."""
    from simulator.scenario import assemble

    changes = [
        *_trace(trace),
        *_engine(values["engine"], ctx.meta.get(_ENGINE_ARGS)),
        *changes_of(values),
        *_policy_params(values),
        *_sets(values["set_key"] or []),
    ]
    return assemble(values["scenario"] or base, changes, preset=values["preset"])


def _run(ctx: Any, trace: str | None, values: dict[str, Any]) -> None:
    scenario = scenario_of(ctx, trace, values)
    if values["print_scenario"]:
        from simulator.resolve import resolve

        typer.echo(resolve(scenario).scenario.to_yaml(), nl=False)
        return
    if scenario.workload.trace is None and scenario.workload.generator is None:
        raise InputError("which requests? name a trace, as in: simulate run trace.csv (or bundled:NAME)")
    if values["report"] and values["out"] is None:
        raise InputError("where to? --report writes report.html to the directory of --out; add --out DIR")
    from simulator.cli.watch import TerminalWatch
    from simulator.runner import run

    watch = TerminalWatch(quiet=values["quiet"], bar=not values["quiet"] and not values["no_progress"])
    result = run(
        scenario,
        out=values["out"],
        format=values["format"],
        perfetto=values["perfetto"],
        stepwise=values["stepwise"],
        strict=values["strict"],
        progress=watch,
        overwrite=values["overwrite"],
    )
    if values["report"]:
        from simulator.reports import report

        report(values["out"])
    if not values["quiet"]:
        watch.print_result(result, values["out"])
    if watch.interrupted:
        raise typer.Exit(130)


# ------------------------------------------------------------------------------------------ flags that need care


def _trace(trace: str | None) -> Iterator[Change]:
    if trace is not None:
        yield "workload.generator", None, "TRACE"
        yield "workload.trace", trace, "TRACE"


def _engine(engine: str | None, own: tuple[str, dict[str, Any]] | None) -> Iterator[Change]:
    """Yield the engine, and its own flags as the keys that they are names of."""
    if own is None:
        return
    from simulator.engines import load_engine

    name, args = own
    preset = load_engine(name)
    if engine is not None:
        yield f"{EVERY_POOL}engine.name", preset.name, "--engine"
        yield f"{EVERY_POOL}engine.version", preset.version, "--engine"
    for flag, text in args.items():
        for key, value in preset.translate_args({flag: text}).items():
            if key.startswith("batching.params."):
                yield f"{EVERY_POOL}batching.name", preset.policy, flag
            yield f"{EVERY_POOL}{key}", value, flag


def _policy_params(values: dict[str, Any]) -> Iterator[Change]:
    given = values["policy_param"] or []
    if given and values["policy_flag"] is None and values["scenario"] is None and values["preset"] is None:
        yield f"{EVERY_POOL}batching.name", _default_policy(values["engine"]), "--policy-param"
    for text in given:
        name, value = _pair(text, "--policy-param")
        yield f"{EVERY_POOL}batching.params.{name}", value, f"--policy-param {name}"


def _default_policy(engine: str | None) -> str:
    if engine is not None:
        from simulator.engines import load_engine

        return load_engine(engine).policy
    from simulator.resolve import DEFAULT_POLICY

    return DEFAULT_POLICY


def _sets(texts: Sequence[str]) -> Iterator[Change]:
    for text in texts:
        key, value = _pair(text, "--set")
        yield key, value, f"--set {key}"


def _pair(text: str, option: str) -> tuple[str, Any]:
    """Split ``key=value``, the value being YAML."""
    from simulator.scenario_yaml import value

    key, equals, given = text.partition("=")
    if not equals or not key.strip():
        raise InputError(f"{option} takes key=value, got {text!r}")
    try:
        return key.strip(), value(given)
    except ValueError as error:
        raise InputError(f"{option} {key}: {error}") from None

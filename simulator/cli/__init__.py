"""The command line: ``simulate run | search | compare | policies | models | profiles | keys | calibrate | trace ...``.

Everything that a command does is a public call of the package. This module imports nothing heavy, so that help and a
mistyped option answer at once; commands import what they need.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from simulator.cli import lists, run_command, search_command

_LAZY = {
    "sweep": ("simulator.cli.sweep_command", "Run a scenario many times over, with other keys."),
    "compare": ("simulator.cli.compare_command", "Compare scenarios on the same requests and seeds."),
    "plan": ("simulator.cli.plan_command", "Find the cheapest fleet for a trace, with its proof."),
    "report": ("simulator.cli.report_command", "Write any result as one HTML page."),
    "reproduce": ("simulator.cli.reproduce_command", "Repeat published results: the papers' figures beside ours."),
    "validate": ("simulator.cli.validate", "Compare measured servers and kernels with what the simulator says."),
    "calibrate": ("simulator.cli.calibrate", "Measure the kernels of a GPU, import measurements, fit them."),
    "trace": ("simulator.cli.trace", "Inspect, generate, convert and fit request traces."),
}
"""Commands that are whole applications in a module of their own, imported when they are called."""

_ORDER = ("run", "sweep", "compare", "search", "plan", "report", "reproduce", "validate", "calibrate", "trace")
"""Commands as help lists them, in the order of a user's questions; the lists of what there is follow."""


class LazyGroup(TyperGroup):
    """Loads an application of `_LAZY` when its command is called, not when it is listed."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the commands in the order of `_ORDER`."""
        names = super().list_commands(ctx)
        return [*(name for name in _ORDER if name in names), *(name for name in names if name not in _ORDER)]

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that the arguments name."""
        if args and args[0] in _LAZY:
            import importlib

            module, _ = _LAZY[args[0]]
            command = typer.main.get_command(importlib.import_module(module).app)
            command.name = args[0]
            self.commands = {**self.commands, args[0]: command}
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="simulate",
    cls=LazyGroup,
    help="Simulate clusters of GPUs that serve large language models.",
    epilog="Exit codes: 0 done, 2 bad input or no feasible answer, 1 a defect of the simulator, 130 interrupted "
    "(finished rows are kept).",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        import simulator

        typer.echo(f"simulate {simulator.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    pass


run_command.register(app)
search_command.register(app)
app.command("policies")(lists.policies)
app.command("models")(lists.models)
app.command("profiles")(lists.profiles)
app.command("engines")(lists.engines)
app.command("keys")(lists.keys)
for _name, (_module, _help) in _LAZY.items():
    app.command(_name, help=_help)(lambda: None)


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit.

    Parameters
    ----------
    args
        Arguments; None: those of the process.
    """
    given = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    sys.exit(_run(given, debug))


def _run(args: list[str], debug: bool) -> int:
    """Run the command line; return its exit code, having printed what went wrong."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            code = typer.main.get_command(app).main(args, prog_name="simulate", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except Exception as error:
        if debug and not _is_usage(error):
            import traceback

            traceback.print_exc()
        return _report(error)


def _show_warning(message: Warning | str, *_args: object, **_kwargs: object) -> None:
    typer.echo(f"warning: {' '.join(str(message).split())}", err=True)


def _report(error: Exception) -> int:
    """Print an error as a person wants it; return the exit code."""
    if isinstance(error, typer.Abort):
        typer.echo("interrupted", err=True)
        return 130
    if _is_usage(error):
        said = error.format_message()  # type: ignore[attr-defined]
        if said:
            typer.echo(f"error: {said}", err=True)
        return 2
    if isinstance(error, _user_errors()):
        typer.echo(f"error: {error}", err=True)
        return 2
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    said = " ".join(str(error).split())
    typer.echo(f"error: {type(error).__name__}: {said}{where}", err=True)
    typer.echo(
        "This is a defect of the simulator, not of your input. Please report it with this command, the version "
        "('simulate --version') and what it prints with --debug.",
        err=True,
    )
    return 1


def _is_usage(error: Exception) -> bool:
    """Tell whether the parser of the command line raised it."""
    return hasattr(error, "format_message") and hasattr(error, "exit_code")


def _user_errors() -> tuple[type[Exception], ...]:
    from hardware_profiles import ProfileError
    from policies.protocols import PolicyError
    from simulator.errors import InputError
    from workloads import TraceError

    return InputError, PolicyError, TraceError, ProfileError

"""The commands of the command line with their arguments and options, as its parser has them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_KEY = re.compile(r"\s*\[(?P<pool>pool: )?(?P<key>(?!required\])[a-z_.]+)\]$")


@dataclass(frozen=True)
class Parameter:
    """One argument or option of a command.

    Attributes
    ----------
    names
        As help writes it: ``--tp <int>``.
    doc
        What it means, without the scenario key.
    key
        The scenario key that it is shorthand for; empty for none.
    """

    names: str
    doc: str
    key: str = ""


@dataclass(frozen=True)
class Command:
    """One command, or a group of commands.

    Attributes
    ----------
    words
        What is written to call it: ``simulate trace inspect``.
    usage
        The arguments, as help writes them.
    commands
        Words of the commands of a group.
    """

    words: str
    usage: str
    doc: str
    arguments: tuple[Parameter, ...]
    options: tuple[Parameter, ...]
    commands: tuple[str, ...] = ()


def all_commands() -> list[Command]:
    """Return every command, each group before its commands, all but ``--help`` of each."""
    import typer

    from simulator.cli import app

    return list(_walk(typer.main.get_command(app), "simulate", None))


def _walk(command: Any, name: str, parent: Any) -> Iterator[Command]:
    context = command.context_class(command, info_name=name, parent=parent)
    names = command.list_commands(context) if hasattr(command, "list_commands") else []
    below = [(each, command.resolve_command(context, [each])[1]) for each in names]
    below = [(each, inner) for each, inner in below if not inner.hidden]
    yield Command(
        words=context.command_path,
        usage=" ".join(command.collect_usage_pieces(context)),
        doc=inspect.cleandoc("\n\n".join(filter(None, (command.help, command.epilog)))),
        arguments=tuple(_parameters(command, context, "argument")),
        options=tuple(_parameters(command, context, "option")),
        commands=tuple(f"{context.command_path} {each}" for each, _ in below),
    )
    for each, inner in below:
        yield from _walk(inner, each, context)


def _parameters(command: Any, context: Any, kind: str) -> Iterator[Parameter]:
    for parameter in command.params:
        record = parameter.get_help_record(context) if parameter.param_type_name == kind else None
        if record is None:
            continue
        names, doc = record
        found = _KEY.search(doc)
        key = ("cluster.pools[]." if found["pool"] else "") + found["key"] if found else ""
        yield Parameter(names, _KEY.sub("", doc) if found else doc, key)

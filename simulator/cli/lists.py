"""``simulate policies | models | profiles | engines | keys``: what there is, and all about one of it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from hardware_profiles import Accelerator, NodeType
    from policies.registry import PolicyInfo

_WIDTH = 118
_PRESETS = ("preset", "presets")


def policies(
    kind: Annotated[str | None, typer.Argument(metavar="KIND", help="Such as batching or routing.")] = None,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="A policy, or file.py:Class.")] = None,
) -> None:
    """List policies by kind, and presets, or say everything about one: rule, source, parameters."""
    from policies import registry

    if kind is not None and name is not None:
        if kind in _PRESETS:
            _print_preset(name)
        else:
            _print_policy(registry.info(kind, name))
        return
    for each in () if kind in _PRESETS else registry.KINDS if kind is None else (kind,):
        infos = registry.describe(each)
        if not infos:
            continue
        typer.echo(f"{each}:")
        _print_table([(f"  {info.name}", info.summary) for info in infos])
        typer.echo("")
    if kind is None or kind in _PRESETS:
        from simulator.presets import list_presets, load_preset

        presets = [load_preset(each) for each in list_presets()]
        typer.echo("presets (policies of several kinds together, --preset NAME):")
        if presets:
            _print_table([(f"  {each.name}", each.summary) for each in presets])
        typer.echo("")
    typer.echo("simulate policies KIND NAME says more about one.")


def _print_preset(name: str) -> None:
    from simulator.presets import load_preset
    from simulator.scenario_yaml import dump

    preset = load_preset(name)
    typer.echo(textwrap.fill(f"preset {preset.name}: {preset.summary}", _WIDTH))
    typer.echo("")
    typer.echo(textwrap.fill(f"Source: {preset.source}", _WIDTH, subsequent_indent="  "))
    typer.echo("\nScenario keys, which lie under those given:\n" + textwrap.indent(dump(dict(preset.scenario)), "  "))


def _print_policy(info: PolicyInfo) -> None:
    typer.echo(f"{info.kind} policy {info.name} ({info.origin})\n\n{info.doc}\n")
    typer.echo(textwrap.fill(f"Source: {info.source}", _WIDTH, subsequent_indent="  "))
    if not info.parameters:
        typer.echo("\nNo parameters.")
        return
    typer.echo("\nParameters:")
    rows = []
    for parameter in info.parameters:
        unit = f" {parameter.unit}" if parameter.unit else ""
        bounds = f"; {parameter.bounds}" if parameter.bounds else ""
        default = f"objectives.{parameter.objective}" if parameter.objective else f"{parameter.default}{unit}"
        rows.append((f"  {parameter.name}", default, f"{parameter.doc} ({parameter.type}{bounds})"))
    _print_table([("  name", "default", "meaning"), *rows])


def models(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="A model, or a config.json.")] = None,
) -> None:
    """List the models of the catalogue, or the figures of one."""
    from simulator.reference import catalogues

    _print_table(catalogues.model_rows() if name is None else catalogues.model_figures(name))


def profiles(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="A GPU or a node, or a YAML file.")] = None,
) -> None:
    """List GPUs and nodes, or the figures of one with their sources."""
    from simulator.reference import catalogues

    if name is not None:
        _print_table(catalogues.profile_figures(_profile(name)))
        return
    _print_table(catalogues.accelerator_rows())
    typer.echo("")
    _print_table(catalogues.node_rows())


def _profile(name: str) -> Accelerator | NodeType:
    from hardware_profiles import ProfileError, list_accelerators, list_nodes, load_accelerator, load_node
    from simulator.errors import did_you_mean

    try:
        return load_accelerator(name)
    except ProfileError as first:
        try:
            return load_node(name)
        except ProfileError:
            if name.lower().endswith((".yaml", ".yml")):
                raise first from None
            known = [*list_accelerators(), *list_nodes()]
            raise ProfileError(f"unknown profile {name!r}{did_you_mean(name.lower(), known)}") from None


def engines(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Such as vllm or vllm@0.19.")] = None,
) -> None:
    """List engines whose defaults and flags are known, or the flags of one."""
    from simulator.reference import catalogues

    if name is None:
        _print_table(catalogues.engine_rows())
        return
    from simulator.engines import load_engine

    engine = load_engine(name)
    typer.echo(textwrap.fill(f"{engine.label}: policy {engine.policy}. Source: {engine.source}\n", _WIDTH))
    typer.echo("")
    _print_table(catalogues.engine_flag_rows(engine))
    typer.echo("")
    typer.echo(textwrap.fill(f"Not modelled, and refused: {', '.join(sorted(engine.not_modelled))}", _WIDTH))


def keys(
    under: Annotated[str, typer.Argument(metavar="KEY", help="Only this key and those within it.")] = "",
) -> None:
    """List the keys of a scenario with their defaults, bounds and meaning, or those within one."""
    from simulator.reference.keys import scenario_keys

    rows: list[tuple[str, ...]] = [("key", "default", "meaning")]
    for key in scenario_keys(under):
        meaning = " ".join(f"{key.doc} ({key.takes})".replace("`", "").split())
        rows.append((key.path, key.default or "required", meaning))
    _print_table(rows)


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows in columns, the last one wrapped."""
    typer.echo("\n".join(_table(rows)))


def _table(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    indent = sum(width + 2 for width in widths)
    for row in rows:
        head = "".join(f"{cell:<{width}}  " for cell, width in zip(row, widths, strict=False))
        wrapped = textwrap.wrap(row[-1], max(_WIDTH - indent, 40)) or [""]
        yield (head + wrapped[0]).rstrip()
        yield from (" " * indent + line for line in wrapped[1:])

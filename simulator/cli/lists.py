"""``simulate policies | models | profiles | engines``: what there is, and all about one of it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

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
    from simulator.models import kv_bytes_per_token, list_models, load_model, weight_bytes

    if name is None:
        rows: list[tuple[str, ...]] = [("model", "parameters", "weights", "KV a token", "context")]
        for each in list_models():
            spec = load_model(each)
            rows.append(
                (
                    each,
                    f"{spec.parameter_count() / 1e9:.2f} B",
                    f"{weight_bytes(spec) / 1e9:.1f} GB {spec.default_dtype}",
                    f"{kv_bytes_per_token(spec, spec.base_dtype) / 1024:.1f} KiB",
                    f"{spec.max_context_tokens:,}",
                )
            )
        _print_table(rows)
        return
    spec = load_model(name)
    figures: list[tuple[str, Any]] = [
        ("model", spec.name),
        ("Hugging Face", spec.hf_id),
        ("parameters", f"{spec.parameter_count():,}"),
        ("active a token", f"{spec.active_parameter_count():,}"),
        ("weights", f"{weight_bytes(spec) / 1e9:.2f} GB as published ({spec.default_dtype})"),
        ("KV a token", f"{kv_bytes_per_token(spec, spec.base_dtype):,} bytes in {spec.base_dtype}"),
        ("longest context", f"{spec.max_context_tokens:,} tokens"),
        ("layers", spec.num_layers),
        ("hidden size", spec.hidden_size),
        ("heads", f"{spec.num_heads} of {spec.head_dim}, {spec.num_kv_heads} for keys and values"),
        ("feed-forward", f"{spec.intermediate_size}{', gated' if spec.gated_mlp else ''}"),
        ("vocabulary", f"{spec.vocab_size:,}{', tied' if spec.tied_embeddings else ''}"),
    ]
    if spec.moe is not None:
        moe = spec.moe
        figures.append(
            (
                "experts",
                f"{moe.experts_per_token} of {moe.num_experts} a token, each {moe.expert_intermediate_size} wide, in "
                f"{moe.num_layers} layers",
            )
        )
    if spec.mla is not None:
        figures.append(("latent attention", f"{spec.mla.kv_lora_rank} + {spec.mla.qk_rope_head_dim} a layer"))
    if spec.sliding_window:
        figures.append(("sliding window", f"{spec.sliding_window:,} tokens in {spec.num_sliding_layers} layers"))
    figures.append(("source", spec.source))
    _print_table([(label, str(value)) for label, value in figures])


def profiles(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="A GPU or a node, or a YAML file.")] = None,
) -> None:
    """List GPUs and nodes, or the figures of one with their sources."""
    from hardware_profiles import list_accelerators, list_fits, list_nodes, load_accelerator, load_node

    if name is not None:
        _print_profile(name)
        return
    rows: list[tuple[str, ...]] = [("GPU", "memory", "bandwidth", "peak bf16/fp16", "GPU to GPU", "power", "costs")]
    fitted = list_fits()
    for each in list_accelerators():
        gpu = load_accelerator(each)
        peak = gpu.peak_flops.get("bf16") or gpu.peak_flops.get("fp16", 0.0)
        rows.append(
            (
                each,
                f"{gpu.memory_bytes / 2**30:.0f} GiB",
                f"{gpu.memory_bandwidth / 1e9:,.0f} GB/s",
                f"{peak / 1e12:,.0f} TFLOP/s",
                f"{gpu.scale_up} {gpu.scale_up_bandwidth / 1e9:,.0f} GB/s",
                f"{gpu.tdp_w:.0f} W",
                "fitted" if each in fitted else "data sheet",
            )
        )
    _print_table(rows)
    typer.echo("")
    rows = [("node", "GPUs", "joined by", "network")]
    for each in list_nodes():
        node = load_node(each)
        network = ", ".join(f"{nic.count} x {nic.bandwidth * 8 / 1e9:.0f} Gbit/s" for nic in node.nics)
        rows.append((each, f"{node.gpus} x {node.accelerator}", node.fabric, network or "-"))
    _print_table(rows)


def _print_profile(name: str) -> None:
    from hardware_profiles import ProfileError, list_accelerators, list_nodes, load_accelerator, load_node
    from simulator.errors import did_you_mean

    profile: Accelerator | NodeType
    try:
        profile = load_accelerator(name)
    except ProfileError as first:
        try:
            profile = load_node(name)
        except ProfileError:
            if name.lower().endswith((".yaml", ".yml")):
                raise first from None
            known = [*list_accelerators(), *list_nodes()]
            raise ProfileError(f"unknown profile {name!r}{did_you_mean(name.lower(), known)}") from None
    rows = []
    for field in profile.__dataclass_fields__:
        value = getattr(profile, field)
        if field == "sources" or value is None or value == ():
            continue
        rows.append((field, _shown(field, value), profile.sources.get(field, "")))
    _print_table([("figure", "value", "source"), *rows])


def _shown(field: str, value: Any) -> str:
    if field == "peak_flops":
        return ", ".join(f"{dtype} {rate / 1e12:g}" for dtype, rate in value.items()) + " TFLOP/s"
    if field.endswith("_bytes"):
        return f"{value / 2**30:.2f} GiB"
    if field.endswith("bandwidth"):
        return f"{value / 1e9:g} GB/s"
    if field.endswith("_w"):
        return f"{value:g} W"
    if field == "nics":
        return ", ".join(f"{nic.count} x {nic.name} {nic.bandwidth * 8 / 1e9:g} Gbit/s" for nic in value)
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def engines(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Such as vllm or vllm@0.19.")] = None,
) -> None:
    """List engines whose defaults and flags are known, or the flags of one."""
    from simulator.engines import list_engines, load_engine

    if name is None:
        rows = [(label, f"policy {load_engine(label).policy}", load_engine(label).source) for label in list_engines()]
        _print_table([("engine", "scheduler", "source"), *rows])
        return
    engine = load_engine(name)
    typer.echo(textwrap.fill(f"{engine.label}: policy {engine.policy}. Source: {engine.source}\n", _WIDTH))
    typer.echo("")
    rows = [(", ".join(flag.names), flag.key or "accepted, changes nothing here", "") for flag in engine.flags]
    _print_table([("flag", "scenario key within a pool", ""), *rows])
    typer.echo("")
    typer.echo(textwrap.fill(f"Not modelled, and refused: {', '.join(sorted(engine.not_modelled))}", _WIDTH))


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

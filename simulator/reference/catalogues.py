"""Tables of models, GPUs, nodes and engines, and the figures of one of them: rows of text, the first one the header."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hardware_profiles import Accelerator, NodeType
    from simulator.engines.base import Engine

Rows = list[tuple[str, ...]]


def model_rows() -> Rows:
    """Return the models of the catalogue with their sizes."""
    from simulator.models import kv_bytes_per_token, list_models, load_model, weight_bytes

    rows: Rows = [("model", "parameters", "weights", "KV a token", "context")]
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
    return rows


def model_figures(name: str) -> Rows:
    """Return the figures of one model: (figure, value), without a header."""
    from simulator.models import kv_bytes_per_token, load_model, weight_bytes

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
    return [(label, str(value)) for label, value in figures]


def accelerator_rows() -> Rows:
    """Return the GPUs, with what a scenario takes of each and where its costs come from."""
    from hardware_profiles import list_accelerators, list_fits, load_accelerator

    rows: Rows = [("GPU", "memory", "bandwidth", "peak bf16/fp16", "GPU to GPU", "power", "costs")]
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
    return rows


def node_rows() -> Rows:
    """Return the node types: GPUs, what joins them, network."""
    from hardware_profiles import list_nodes, load_node

    rows: Rows = [("node", "GPUs", "joined by", "network")]
    for each in list_nodes():
        node = load_node(each)
        network = ", ".join(f"{nic.count} x {nic.bandwidth * 8 / 1e9:.0f} Gbit/s" for nic in node.nics)
        rows.append((each, f"{node.gpus} x {node.accelerator}", node.fabric, network or "-"))
    return rows


def price_rows() -> Rows:
    """Return the published prices of GPUs, the one that a plan takes first."""
    from hardware_profiles.prices import load_offers

    rows: Rows = [("GPU", "USD a GPU and hour", "provider", "region", "purchase", "seen", "source")]
    for each in load_offers():
        cost = f"{each.usd_per_gpu_hour:.2f}"
        rows.append((each.gpu, cost, each.provider, each.region, each.purchase, each.seen, each.source))
    return rows


def profile_figures(profile: Accelerator | NodeType) -> Rows:
    """Return the figures of a GPU or a node with their sources."""
    rows: Rows = [("figure", "value", "source")]
    for field in profile.__dataclass_fields__:
        value = getattr(profile, field)
        if field == "sources" or value is None or value == ():
            continue
        rows.append((field, _shown(field, value), profile.sources.get(field, "")))
    return rows


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


def engine_rows() -> Rows:
    """Return the engines whose defaults and flags are known."""
    from simulator.engines import list_engines, load_engine

    found = [load_engine(label) for label in list_engines()]
    return [("engine", "scheduler", "source"), *((each.label, f"policy {each.policy}", each.source) for each in found)]


def engine_flag_rows(engine: Engine) -> Rows:
    """Return the flags of an engine and the scenario keys that they stand for."""
    rows: Rows = [("flag", "scenario key within a pool")]
    rows += [(", ".join(flag.names), flag.key or "accepted, changes nothing here") for flag in engine.flags]
    return rows

"""Measurements sorted into what is fitted together: one operator in one format, from one engine.

Rows of the first measurements given that have an operator and a format count; those of others fill gaps. Left out:
vLLM's products in ``fp8_block``, which were measured without a CUDA graph (``docs/measurements.md``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hardware_profiles import Accelerator
from simulator.calibration.fitting.forms import FORMS, UNLIMITED, Axes, Columns, windowed_axes
from simulator.calibration.fitting.lattice import Floats
from simulator.cost.collectives import preferred_kernel
from simulator.cost.table_kernels import LEAST_UNQUANTISED
from simulator.models.spec import ModelSpec
from simulator.sharding import Matrix, attention_matrices, mlp_matrices, rank_heads, rank_kv_heads, rank_vocab, share

ROUTINGS = ("power_law_1.2", "balanced")
"""Measured distributions of tokens over experts that are fitted, the one that stands for traffic first."""


@dataclass(frozen=True)
class Family:
    """Measurements that one fit is made of.

    Attributes
    ----------
    operator, variant
        What they measure.
    columns
        Shapes, as the operator's form reads them.
    time_s
        Measured seconds.
    axes
        Nodes of the lattice.
    source, software, date, kernel
        Where they come from.
    """

    operator: str
    variant: Mapping[str, str]
    columns: Columns
    time_s: Floats
    axes: Axes
    source: str
    software: str
    date: str
    kernel: str = ""


def families(tables: Sequence[pd.DataFrame], accelerator: Accelerator) -> Iterator[Family]:
    """Yield the families of measurements of one accelerator, the first table's before the others'."""
    done: set[tuple[str, ...]] = set()
    for table in tables:
        fresh: list[Family] = []
        for family in _of_table(_without_layers(table)):
            key = (family.operator, *sorted(family.variant.values()))
            if key not in done:
                fresh.append(family)
        for family in fresh:
            done.add((family.operator, *sorted(family.variant.values())))
        yield from fresh


def _of_table(table: pd.DataFrame) -> Iterator[Family]:
    of = dict(tuple(table.groupby("operator", sort=True)))
    for name, rows in of.items():
        operator = str(name)
        if operator == "gemm":
            for form, part in rows.groupby("weight_dtype", sort=True):
                if form == "fp8_block" and part["software"].iloc[0] == "vllm":
                    continue
                if form == "int8" and (part["dtype"] == "int8").any():
                    part = part[part["dtype"] == "int8"]  # weights and activations, not weights alone
                times = _unquantised(part, of.get("quantize"))
                yield _family(operator, {"weight_dtype": str(form)}, part, times)
        elif operator in ("decode_attention", "prefill_attention"):
            inside = rows["window"].notna()
            for windowed, here in (("no", rows[~inside]), ("yes", rows[inside])):
                for kv_dtype, part in here.groupby("kv_dtype", sort=True):
                    part = _fresh(part[part["dtype"] != "fp8"] if (part["dtype"] != "fp8").any() else part)
                    yield _family(operator, {"kv_dtype": str(kv_dtype), "windowed": windowed}, part)
        elif operator in ("mla_decode", "mla_prefill"):
            if operator == "mla_prefill" and rows["software"].iloc[0] == "sglang":
                continue  # its absorbed form, see docs/measurements.md
            for kv_dtype, part in rows.groupby("kv_dtype", sort=True):
                yield _family(operator, {"kv_dtype": str(kv_dtype)}, _fresh(part))
        elif operator == "experts":
            part = rows[~rows["kernel"].fillna("").str.contains("wideep|nongated")]
            for form, formed in part.groupby("weight_dtype", sort=True):
                for routing in ROUTINGS:
                    routed = formed[formed["routing"] == routing]
                    if len(routed):
                        yield _family(operator, {"weight_dtype": str(form), "routing": routing}, routed)
        elif operator in ("all_reduce", "all_gather", "reduce_scatter", "all_to_all"):
            part = preferred_kernel(rows)
            if len(part):
                yield _family(operator, {}, part)
        elif operator == "elementwise":
            yield _family(operator, {}, rows)


def _fresh(rows: pd.DataFrame) -> pd.DataFrame:
    """Return prompts without cached tokens, and all decodes: chunks are known by their pairs at run time."""
    return rows[rows["cached_tokens"].isna() | (rows["cached_tokens"] == 0)]


def _family(operator: str, variant: Mapping[str, str], rows: pd.DataFrame, times: Floats | None = None) -> Family:
    columns: dict[str, Floats] = {}
    for name in FORMS[operator].columns:
        missing = UNLIMITED if name == "window" else np.nan
        columns[name] = np.asarray(rows[name].astype("Float64").fillna(missing), dtype=np.float64)
    windowed = variant.get("windowed") == "yes"
    axes = windowed_axes(operator) if windowed else FORMS[operator].axes
    first = rows.iloc[0]
    kernels = sorted({str(kernel) for kernel in rows["kernel"].dropna()})
    return Family(
        operator=operator,
        variant=variant,
        columns=columns,
        time_s=rows["time_s"].to_numpy(dtype=np.float64) if times is None else times,
        axes=axes,
        source=str(first["source"]),
        software=f"{first['software']} {first['software_version']}",
        date=str(first["date"]),
        kernel=kernels[0] if len(kernels) == 1 else "",
    )


def _unquantised(rows: pd.DataFrame, quantize: pd.DataFrame | None) -> Floats:
    """Return the times of products; of those in fp8 per tensor, without the quantisation of their input.

    Engines fuse it into the norm or activation before; at least half of the time is left, as in
    `simulator.cost.table_kernels`.
    """
    times = rows["time_s"].to_numpy(dtype=np.float64)
    if quantize is None or rows["weight_dtype"].iloc[0] != "fp8":
        return times
    dynamic = quantize[quantize["kernel"].fillna("").str.startswith("dynamic")]
    alone = dynamic.groupby(["tokens", "k"])["time_s"].median().rename("alone").reset_index()
    taken = rows[["tokens", "k"]].merge(alone, how="left", on=["tokens", "k"])["alone"].fillna(0.0)
    return np.asarray(np.maximum(times - taken.to_numpy(dtype=np.float64), LEAST_UNQUANTISED * times))


# ---------------------------------------------------------------------------------------------------- layer profiles


def _without_layers(table: pd.DataFrame) -> pd.DataFrame:
    """Return measurements with the operators of a model's layers turned into kernels of their own shape."""
    of_layers = table["model"].notna() & ~table["operator"].str.startswith("mla_")
    if not of_layers.any():
        return table
    parts = [table[~of_layers]]
    for (name, tp), rows in table[of_layers].groupby(["model", "tp"], sort=True):
        parts.append(_kernels_of(rows, _model(str(name)), int(str(tp))))
    return pd.concat(parts, ignore_index=True)


def _model(name: str) -> ModelSpec:
    from simulator.models import load_model

    return load_model(name)


def _kernels_of(rows: pd.DataFrame, model: ModelSpec, tp: int) -> pd.DataFrame:
    """Return the kernels that a layer profile holds of one model on one rank."""
    qkv, out = attention_matrices(model, tp)[:2]
    gate_up, down = mlp_matrices(model, tp, False)
    head = Matrix("lm_head", model.hidden_size, rank_vocab(model, tp))
    matrices = {"qkv": qkv, "o_proj": out, "gate_up": gate_up, "down": down, "lm_head": head}
    dense = model.moe is None
    parts = []
    for operator, matrix in matrices.items():
        if operator in ("gate_up", "down") and not dense:
            continue
        part = rows[rows["operator"] == operator]
        tokens = part["sequences"] if operator == "lm_head" else part["tokens"]
        parts.append(
            part.assign(operator="gemm", tokens=tokens, n=matrix.outputs, k=matrix.inputs, weight_dtype="bf16")
        )
    heads, kv_heads = rank_heads(model, tp), rank_kv_heads(model, tp)
    moved = {"norm": 4 * model.hidden_size, "rotary": 2 * (heads + kv_heads) * model.head_dim}
    if dense:
        moved["activation"] = model.mlp_matrices * share(model.intermediate_size, tp)
    for operator, elements in moved.items():
        part = rows[rows["operator"] == operator]
        parts.append(part.assign(operator="elementwise", message_bytes=part["tokens"] * elements * 2))
    attention = rows[rows["operator"] == "attention"]
    attention = attention.assign(
        heads=heads, kv_heads=kv_heads, head_dim=model.head_dim, sequences=1, kv_dtype="bf16", dtype="bf16"
    )
    decodes = attention[(attention["new_tokens"] == 0) & (attention["decodes"] > 0)]
    parts.append(decodes.assign(operator="decode_attention", cached_tokens=0))
    chunks = attention[(attention["new_tokens"] > 0) & (attention["decodes"] == 0)]
    parts.append(chunks.assign(operator="prefill_attention"))
    kernels = pd.concat(parts, ignore_index=True).assign(model=None)
    return kernels.astype({"message_bytes": "Int64", "tokens": "Int64"})

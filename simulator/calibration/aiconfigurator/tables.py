"""What each table of the package measured, and its rows in our columns.

What a column means was read from the package (``sdk/common.py``, ``sdk/operations``, ``sdk/models``) and from the
collectors and loaders that made the tables (github.com/ai-dynamo/aiconfigurator: ``collector/``,
``aic-core/rust/.../perf_database``), and checked against the values. Times are milliseconds unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from simulator.calibration.aiconfigurator.spellings import DTYPE, ELEMENT_BYTES, QUANTIZATION

MS = 1e-3
US = 1e-6

DEEPEP_RANKS_PER_NODE = 8
"""GPUs of a node in the tables ``wideep_deepep_*``, which say nodes only (moe_a2a.rs: ``ep_size = node_num * 8``)."""

Convert = Callable[[pd.DataFrame], pd.DataFrame]


@dataclass(frozen=True, slots=True)
class Table:
    """One table of the package.

    Attributes
    ----------
    family
        Folder that it lies in.
    name
        Of its file, without ``_perf.parquet``.
    columns
        Those that it must have.
    convert
        Its rows in our columns; a time that isn't above 0 marks a row that can't be.
    accepted
        Values that a column may have; rows with others are left out and counted.
    library
        Folder in place of the engine's, of a table that isn't an engine's.
    engines
        Engines that have it where measured; None: all.
    joined, on
        Another table of the same folder whose ``latency`` is put beside each row as ``latency_<joined>``, by these
        columns.
    gpus_per_node
        The table holds only on nodes with so many GPUs.
    """

    family: str
    name: str
    columns: tuple[str, ...]
    convert: Convert
    accepted: Mapping[str, Collection[Any]] = field(default_factory=dict)
    library: str | None = None
    engines: tuple[str, ...] | None = None
    joined: str | None = None
    on: tuple[str, ...] = ()
    gpus_per_node: int | None = None

    @property
    def file(self) -> str:
        """Name of its file."""
        return f"{self.name}_perf.parquet"


def _rows(raw: pd.DataFrame, operator: str, **columns: Any) -> pd.DataFrame:
    """Return rows in our columns, with kernel and power (watts) where the table has them."""
    rows = pd.DataFrame({"operator": operator, **columns}, index=raw.index)
    if "kernel" not in rows and "kernel_source" in raw:
        rows["kernel"] = raw["kernel_source"].astype(object)
    if "power" in raw:
        rows["power_w"] = raw["power"].where(raw["power"] > 0)
    return rows


def _quantization(names: pd.Series[Any]) -> dict[str, pd.Series[Any]]:
    activations = {name: pair[0] for name, pair in QUANTIZATION.items()}
    weights = {name: pair[1] for name, pair in QUANTIZATION.items()}
    return {"dtype": _spelled(names, activations), "weight_dtype": _spelled(names, weights)}


def _spelled(names: pd.Series[Any], spellings: Mapping[str, Any]) -> pd.Series[Any]:
    return names.astype(object).map(dict(spellings))


def gemm(raw: pd.DataFrame) -> pd.DataFrame:
    """Map dense matrix products: ``m`` rows, ``k`` inputs, ``n`` outputs, on one rank.

    With 8-bit and 4-bit activations a row is the whole linear layer, from 16-bit inputs: quantising them is included,
    with dynamic scales (operators/gemm.rs takes ``compute_scale`` off for static ones). vLLM's ``fp8_block`` rows were
    measured without a CUDA graph (collector/vllm/collect_gemm.py) and are launches rather than kernels where small:
    at one token on H200 no shape takes less than 56 us, where SGLang's take from 3.
    """
    return _rows(
        raw,
        "gemm",
        time_s=raw["latency"] * MS,
        tokens=raw["m"],
        n=raw["n"],
        k=raw["k"],
        **_quantization(raw["gemm_dtype"]),
    )


def scale_matrix(raw: pd.DataFrame) -> pd.DataFrame:
    """Map the quantisation of ``m`` x ``k`` activations with a scale that is known.

    SGLang's rows are four elementwise operations of PyTorch, not a kernel that it runs.
    """
    return _quantize(raw, raw["latency"] * MS, "static")


def compute_scale(raw: pd.DataFrame) -> pd.DataFrame:
    """Map the quantisation of activations whose scale is computed first.

    The table holds its time *less* that of ``scale_matrix`` at the same shape, and 0 where that was negative; such
    rows say nothing. Both together are one call.
    """
    extra = raw["latency"].where(raw["latency"] > 0)
    return _quantize(raw, (extra + raw["latency_scale_matrix"]) * MS, "dynamic")


def _quantize(raw: pd.DataFrame, time_s: pd.Series[Any], scale: str) -> pd.DataFrame:
    kernel = f"{scale}: " + raw["kernel_source"].astype(object)
    dtype = _spelled(raw["quant_dtype"], DTYPE)
    return _rows(raw, "quantize", time_s=time_s, tokens=raw["m"], k=raw["k"], dtype=dtype, kernel=kernel)


def _attention(raw: pd.DataFrame) -> dict[str, Any]:
    window = raw["window_size"] if "window_size" in raw else pd.Series(0, index=raw.index)
    return {
        "heads": raw["num_heads"],
        "kv_heads": raw["num_key_value_heads"],
        "head_dim": raw["head_dim"],
        "window": window.where(window > 0),
        "dtype": _spelled(raw["attn_dtype"], DTYPE),
        "kv_dtype": _spelled(raw["kv_cache_dtype"], DTYPE),
    }


def _prefill(raw: pd.DataFrame) -> dict[str, Any]:
    """Map ``batch_size`` chunks of ``isl`` tokens each, after ``step`` cached ones."""
    return {"sequences": raw["batch_size"], "new_tokens": raw["isl"], "cached_tokens": raw["step"]}


def context_attention(raw: pd.DataFrame) -> pd.DataFrame:
    """Map causal attention of prompts; heads are those of one rank.

    ``window_size`` is the number of tokens attended to, 0 or absent for all. With an 8-bit cache vLLM computes in 8
    bits too, although ``attn_dtype`` stays ``bfloat16``.
    """
    return _rows(raw, "prefill_attention", time_s=raw["latency"] * MS, **_prefill(raw), **_attention(raw))


def generation_attention(raw: pd.DataFrame) -> pd.DataFrame:
    """Map attention of one new token a sequence; it attends to ``isl + step`` tokens, itself included.

    ``isl`` is always 1 there (perf_database/attention.rs adds the two). With a window, ``decode_kv`` is still the
    length of the sequence.
    """
    return _rows(
        raw,
        "decode_attention",
        time_s=raw["latency"] * MS,
        decodes=raw["batch_size"],
        decode_kv=raw["isl"] + raw["step"],
        **_attention(raw),
    )


def _mla(raw: pd.DataFrame) -> dict[str, Any]:
    """Map heads of one rank: ``num_heads`` is already divided, ``tp_size`` only tells how it came about."""
    return {
        "heads": raw["num_heads"],
        "dtype": _spelled(raw["mla_dtype"], DTYPE),
        "kv_dtype": _spelled(raw["kv_cache_dtype"], DTYPE),
    }


def context_mla(raw: pd.DataFrame) -> pd.DataFrame:
    """Map the attention kernel of latent attention over prompts.

    SGLang's rows on Hopper are of the absorbed form (all heads on one latent of 512 + 64 elements), the others of the
    expanded one (192 and 128 elements a head).
    """
    return _rows(raw, "mla_prefill", time_s=raw["latency"] * MS, **_prefill(raw), **_mla(raw))


def generation_mla(raw: pd.DataFrame) -> pd.DataFrame:
    """Map the same with one new token a sequence, which attends to ``isl + step`` tokens."""
    return _rows(
        raw,
        "mla_decode",
        time_s=raw["latency"] * MS,
        decodes=raw["batch_size"],
        decode_kv=raw["isl"] + raw["step"],
        **_mla(raw),
    )


def _module(raw: pd.DataFrame) -> dict[str, Any]:
    weights = _spelled(raw["gemm_type"], {name: pair[1] for name, pair in QUANTIZATION.items()})
    return {**_mla(raw), "weight_dtype": weights, "model": raw["model"].astype(object)}


def mla_context_module(raw: pd.DataFrame) -> pd.DataFrame:
    """Map a layer's whole latent attention over prompts: projections, rotation, cache write, attention, output.

    Chunks of one token are run by vLLM's decode kernel, as the kernel's name says.
    """
    return _rows(raw, "mla_prefill_module", time_s=raw["latency"] * MS, **_prefill(raw), **_module(raw))


def mla_generation_module(raw: pd.DataFrame) -> pd.DataFrame:
    """Map the same with one new token a sequence.

    Here ``step`` is the length *with* the new token (collectors: positions are ``step - 1``), unlike in the tables of
    kernels, so ``isl`` is not added.
    """
    return _rows(
        raw,
        "mla_decode_module",
        time_s=raw["latency"] * MS,
        decodes=raw["batch_size"],
        decode_kv=raw["step"],
        **_module(raw),
    )


MLA_BMM = {"mla_gen_pre": "mla_absorb", "mla_gen_post": "mla_expand"}
"""``pre``: queries of 128 elements into the latent's 512; ``post``: 512 back into 128; a product for each head."""


def mla_bmm(raw: pd.DataFrame) -> pd.DataFrame:
    """Map the batched products before and after the absorbed kernel; heads of one rank."""
    rows = _rows(
        raw,
        "mla_absorb",
        time_s=raw["latency"] * MS,
        tokens=raw["num_tokens"],
        heads=raw["num_heads"],
        **_quantization(raw["bmm_dtype"]),
    )
    rows["operator"] = _spelled(raw["op_name"], MLA_BMM)
    return rows


def _experts(raw: pd.DataFrame, kernel: pd.Series[Any]) -> pd.DataFrame:
    """Map all kernels of a layer's routed experts on one rank.

    ``num_tokens`` are those of the whole group, each visiting ``topk`` experts somewhere in it; ``inter_size`` and
    ``num_experts`` are undivided (collectors divide them by ``moe_tp_size`` and ``moe_ep_size``). Router, dispatch and
    combine are not included. ``power_law_1.2``: the exponent of the experts' popularity; the rank measured is then
    the busiest one.
    """
    return _rows(
        raw,
        "experts",
        time_s=raw["latency"] * MS,
        tokens=raw["num_tokens"],
        hidden_size=raw["hidden_size"],
        intermediate_size=raw["inter_size"],
        num_experts=raw["num_experts"],
        top_k=raw["topk"],
        moe_tp=raw["moe_tp_size"],
        moe_ep=raw["moe_ep_size"],
        routing=raw["distribution"].astype(object),
        kernel=kernel,
        **_quantization(raw["moe_dtype"]),
    )


def moe(raw: pd.DataFrame) -> pd.DataFrame:
    """Map routed experts. Only TensorRT-LLM's kernel names tell experts without a gate (``nongated``)."""
    return _experts(raw, raw["kernel_source"].astype(object))


def wideep_context_moe(raw: pd.DataFrame) -> pd.DataFrame:
    """Map SGLang's experts after DeepEP's normal dispatch, tokens of the whole group; no CUDA graph."""
    return _experts(raw, raw["kernel_source"].astype(object) + " context")


def wideep_generation_moe(raw: pd.DataFrame) -> pd.DataFrame:
    """Map SGLang's experts after DeepEP's low-latency dispatch, tokens of the whole group; CUDA graph."""
    return _experts(raw, raw["kernel_source"].astype(object) + " generation")


def wideep_moe(raw: pd.DataFrame) -> pd.DataFrame:
    """Map TensorRT-LLM's experts of wide expert parallelism, tokens of the whole group.

    ``_eplb`` in the distribution: experts were placed by load, and copied into ``num_slots`` places, which the kernel's
    name has where they are more than the experts.
    """
    kernel = raw["kernel_source"].astype(object)
    copies = raw["num_slots"] != raw["num_experts"]
    return _experts(raw, kernel.where(~copies, kernel + " " + raw["num_slots"].astype(str).astype(object) + " slots"))


COLLECTIVES = {
    "all_reduce": "all_reduce",
    "all_gather": "all_gather",
    "reduce_scatter": "reduce_scatter",
    "alltoall": "all_to_all",
}


def _collective(raw: pd.DataFrame, dtype: str) -> pd.DataFrame:
    size = _spelled(raw[dtype], ELEMENT_BYTES).astype("int64")
    rows = _rows(
        raw,
        "all_reduce",
        time_s=raw["latency"] * MS,
        message_bytes=raw["message_size"] * size,
        ranks=raw["num_gpus"],
        dtype=_spelled(raw[dtype], DTYPE),
    )
    rows["operator"] = _spelled(raw["op_name"], COLLECTIVES)
    return rows


def nccl(raw: pd.DataFrame) -> pd.DataFrame:
    """Map collectives as nccl-tests measures them, launches included.

    ``message_size`` is in elements of the larger buffer of a rank: what an all-reduce or all-to-all has, an all-gather
    leaves, a reduce-scatter takes. Nodes are not recorded.
    """
    return _collective(raw, "nccl_dtype")


def custom_allreduce(raw: pd.DataFrame) -> pd.DataFrame:
    """Map the all-reduce that an engine calls; ``message_size`` in elements that each rank holds.

    The kernel's name says whether in a CUDA graph or eager (whose rows include launch and a copy of the input). The
    engine chooses what runs: its own kernel for small messages, NCCL or others for large ones.
    """
    return _collective(raw, "allreduce_dtype")


def _exchange(raw: pd.DataFrame, phase: str, **columns: Any) -> pd.DataFrame:
    return _rows(
        raw, f"moe_{phase}", hidden_size=raw["hidden_size"], num_experts=raw["num_experts"], power_w=np.nan, **columns
    )


def moe_a2a(raw: pd.DataFrame) -> pd.DataFrame:
    """Map dispatch and combine of expert parallelism; **microseconds**, tokens of one rank.

    ``sms``: processors that the kernel was given (0: not chosen), in the kernel's name. The datatype ``default`` is
    DeepEP's own: 8 bits dispatched, 16 combined.
    """
    sms = raw["sms"].fillna(0).astype("int64")
    backend = raw["comm_backend"].astype(object)
    rows = _exchange(
        raw,
        "dispatch",
        time_s=raw["latency"] * US,
        tokens=raw["num_tokens"],
        top_k=raw["topk"],
        ranks=raw["ep_size"],
        nodes=raw["node_num"],
        kernel=backend.where(sms == 0, backend + " " + sms.astype(str).astype(object) + " SMs"),
        dtype=_spelled(raw["comm_dtype"], DTYPE),
    )
    rows["operator"] = "moe_" + raw["phase"].astype(object)
    return rows


def _deepep(raw: pd.DataFrame, phase: str, time_us: pd.Series[Any], kernel: Any) -> pd.DataFrame:
    return _exchange(
        raw,
        phase,
        time_s=time_us * US,
        tokens=raw["num_token"],
        top_k=raw["num_topk"],
        ranks=raw["node_num"] * DEEPEP_RANKS_PER_NODE,
        nodes=raw["node_num"],
        kernel=kernel,
    )


def deepep_normal(raw: pd.DataFrame) -> pd.DataFrame:
    """Map DeepEP's high-throughput kernels; **microseconds**, tokens of one rank, two measurements a row."""
    parts = []
    for phase in ("dispatch", "combine"):
        kernel = "deepep_ht " + raw[f"{phase}_sms"].astype(str).astype(object) + " SMs"
        parts.append(_deepep(raw, phase, raw[f"{phase}_transmit_us"] + raw[f"{phase}_notify_us"], kernel))
    return pd.concat(parts, ignore_index=True)


def deepep_ll(raw: pd.DataFrame) -> pd.DataFrame:
    """Map DeepEP's low-latency kernels; **microseconds**, tokens of one rank, two measurements a row."""
    parts = [_deepep(raw, phase, raw[f"{phase}_avg_t_us"], "deepep_ll") for phase in ("dispatch", "combine")]
    return pd.concat(parts, ignore_index=True)


ALLTOALL = {
    "alltoall_dispatch": "moe_dispatch",
    "alltoall_combine": "moe_combine",
    "alltoall_combine_low_precision": "moe_combine",
}


def trtllm_alltoall(raw: pd.DataFrame) -> pd.DataFrame:
    """Map TensorRT-LLM's exchange over NVLink; milliseconds here, tokens of one rank, ``moe_dtype`` the model's.

    ``low_precision``: combined in 4 bits. The two-sided kernel also prepares (``alltoall_prepare``): not an operator of
    ours.
    """
    kernel = raw["kernel_source"].astype(object)
    low = raw["op_name"] == "alltoall_combine_low_precision"
    rows = _exchange(
        raw,
        "dispatch",
        time_s=raw["latency"] * MS,
        tokens=raw["num_tokens"],
        top_k=raw["topk"],
        ranks=raw["moe_ep_size"],
        routing=raw["distribution"].astype(object),
        kernel=kernel.where(~low, kernel + " low_precision"),
        dtype=_spelled(raw["moe_dtype"], DTYPE),
    )
    rows["operator"] = _spelled(raw["op_name"], ALLTOALL)
    return rows


_ATTENTION = (
    "kernel_source",
    "batch_size",
    "isl",
    "step",
    "num_heads",
    "num_key_value_heads",
    "head_dim",
    "beam_width",
    "attn_dtype",
    "kv_cache_dtype",
    "latency",
)
_ATTENTION_VALUES: Mapping[str, Collection[Any]] = {"beam_width": (1,), "attn_dtype": DTYPE, "kv_cache_dtype": DTYPE}
_MLA = ("kernel_source", "batch_size", "isl", "step", "num_heads", "mla_dtype", "kv_cache_dtype", "latency")
_MLA_VALUES: Mapping[str, Collection[Any]] = {"mla_dtype": DTYPE, "kv_cache_dtype": DTYPE}
_MODULE = (*_MLA, "gemm_type", "model")
_MODULE_VALUES: Mapping[str, Collection[Any]] = {**_MLA_VALUES, "gemm_type": QUANTIZATION}
_EXPERTS = (
    "kernel_source",
    "moe_dtype",
    "num_tokens",
    "hidden_size",
    "inter_size",
    "topk",
    "num_experts",
    "moe_tp_size",
    "moe_ep_size",
    "distribution",
    "latency",
)
_EXPERTS_VALUES: Mapping[str, Collection[Any]] = {"moe_dtype": QUANTIZATION}
_QUANTIZE = ("kernel_source", "m", "k", "quant_dtype", "latency")
_NCCL = ("kernel_source", "op_name", "nccl_dtype", "num_gpus", "message_size", "latency")
_NCCL_VALUES: Mapping[str, Collection[Any]] = {"op_name": COLLECTIVES, "nccl_dtype": ELEMENT_BYTES}
_DEEPEP = ("node_num", "hidden_size", "num_token", "num_topk", "num_experts")

TABLES = (
    Table(
        "gemm",
        "gemm",
        ("kernel_source", "gemm_dtype", "m", "n", "k", "latency"),
        gemm,
        {"gemm_dtype": QUANTIZATION},
    ),
    Table("quantize", "scale_matrix", _QUANTIZE, scale_matrix, {"quant_dtype": DTYPE}),
    Table(
        "quantize",
        "computescale",
        _QUANTIZE,
        compute_scale,
        {"quant_dtype": DTYPE},
        joined="scale_matrix",
        on=("m", "k", "quant_dtype"),
    ),
    Table("attention", "context_attention", _ATTENTION, context_attention, _ATTENTION_VALUES),
    Table("attention", "generation_attention", _ATTENTION, generation_attention, _ATTENTION_VALUES),
    Table("mla", "context_mla", _MLA, context_mla, _MLA_VALUES),
    Table("mla", "generation_mla", _MLA, generation_mla, _MLA_VALUES),
    Table("mla", "mla_context_module", _MODULE, mla_context_module, _MODULE_VALUES),
    Table("mla", "mla_generation_module", _MODULE, mla_generation_module, _MODULE_VALUES),
    Table(
        "mla_bmm",
        "mla_bmm",
        ("kernel_source", "op_name", "bmm_dtype", "num_tokens", "num_heads", "latency"),
        mla_bmm,
        {"op_name": MLA_BMM, "bmm_dtype": QUANTIZATION},
    ),
    Table("moe", "moe", _EXPERTS, moe, _EXPERTS_VALUES),
    Table("moe", "wideep_context_moe", _EXPERTS, wideep_context_moe, _EXPERTS_VALUES, engines=("sglang",)),
    Table("moe", "wideep_generation_moe", _EXPERTS, wideep_generation_moe, _EXPERTS_VALUES, engines=("sglang",)),
    Table("moe", "wideep_moe", (*_EXPERTS, "num_slots"), wideep_moe, _EXPERTS_VALUES, engines=("trtllm",)),
    Table(
        "comm",
        "custom_allreduce",
        ("kernel_source", "op_name", "allreduce_dtype", "num_gpus", "message_size", "latency"),
        custom_allreduce,
        {"op_name": COLLECTIVES, "allreduce_dtype": ELEMENT_BYTES},
    ),
    Table("comm", "nccl", _NCCL, nccl, _NCCL_VALUES, library="nccl"),
    Table("comm", "oneccl", _NCCL, nccl, _NCCL_VALUES, library="oneccl"),
    Table(
        "comm",
        "moe_a2a",
        (
            "comm_backend",
            "phase",
            "comm_dtype",
            "ep_size",
            "node_num",
            "hidden_size",
            "topk",
            "num_experts",
            "num_tokens",
            "sms",
            "latency",
        ),
        moe_a2a,
        {"phase": ("dispatch", "combine"), "comm_dtype": (*DTYPE, "default")},
        engines=("vllm", "trtllm"),
    ),
    Table(
        "comm",
        "wideep_deepep_normal",
        (
            *_DEEPEP,
            "dispatch_sms",
            "dispatch_transmit_us",
            "dispatch_notify_us",
            "combine_sms",
            "combine_transmit_us",
            "combine_notify_us",
        ),
        deepep_normal,
        engines=("sglang",),
        gpus_per_node=DEEPEP_RANKS_PER_NODE,
    ),
    Table(
        "comm",
        "wideep_deepep_ll",
        (*_DEEPEP, "dispatch_avg_t_us", "combine_avg_t_us"),
        deepep_ll,
        engines=("sglang",),
        gpus_per_node=DEEPEP_RANKS_PER_NODE,
    ),
    Table(
        "comm",
        "trtllm_alltoall",
        (
            "kernel_source",
            "op_name",
            "moe_dtype",
            "num_tokens",
            "hidden_size",
            "topk",
            "num_experts",
            "moe_ep_size",
            "distribution",
            "latency",
        ),
        trtllm_alltoall,
        {"op_name": ALLTOALL, "moe_dtype": DTYPE},
        engines=("trtllm",),
    ),
)
"""Tables that have a place in our schema."""

FAMILIES = tuple(dict.fromkeys(table.family for table in TABLES))
"""Families that can be imported."""

_PART = "SGLang's attention between the down-projection and the output: no operator of ours"
NO_PLACE: Mapping[str, str] = {
    "encoder_attention": "attention of encoders is not modelled",
    "linear_attention": "linear attention and state-space layers are not modelled",
    "kda": "linear attention (Kimi Delta Attention) is not modelled",
    "mhc": "hyper-connections are not modelled",
    "msa": "sparse attention is not modelled",
    "sparse_attention": "sparse attention (DSA, DeepSeek-V4) is not modelled",
    "wideep_context_mla": _PART,
    "wideep_generation_mla": _PART,
    "wideep_context_mlp": "a whole dense MLP of one size: no operator of ours",
    "wideep_generation_mlp": "a whole dense MLP of one size: no operator of ours",
    "dsv4_megamoe_module": "dispatch, experts and combine fused in one kernel: not modelled",
}
"""Families and tables that have none, and why."""

"""What a kernel of a shape takes at least, and the base that its fitted ratio multiplies.

A form turns the columns of a shape (those of the measurement schema, for one rank) into a bound, which no kernel
beats that reads its operands from memory, a base, ``latency + arithmetic + memory`` at data-sheet rates, and the axes
of the ratio's lattice. Arithmetic and memory are added, not maximised: that bends as smoothly as kernels do.
Nothing but products, quotients, sums, minima and rounding is used, see `simulator.cost.kernels`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from hardware_profiles import Accelerator
from hardware_profiles.fits import Grid
from simulator.calibration.fitting.lattice import Floats, evaluate

Columns = Mapping[str, Floats]
Axes = Mapping[str, tuple[float, ...]]

UNLIMITED = 2.0**40
"""Tokens of a window that is none."""

PADDED_ROWS = 256
"""Rows that a large product is padded to for its padding term: 8-bit products of odd token counts on H200 take up to
twice as long as those of the next multiple of it (aiconfigurator-core 0.12.0, vLLM 0.24.0)."""

_FORMAT_BYTES = {
    "bf16": 2.0,
    "fp16": 2.0,
    "fp32": 4.0,
    "fp8": 1.0,
    "fp8_block": 1.0,
    "int8": 1.0,
    "int4": 0.5 + 20 / 8 / 128,
    "fp4": 0.5 + 1 / 16,
    "mxfp4": 0.5 + 1 / 32,
}
"""Bytes of a weight with its scales, as `simulator.models.dtypes` has them."""

_LATENCY_S = MappingProxyType(
    {
        "gemm": 3e-6,
        "decode_attention": 8e-6,
        "prefill_attention": 8e-6,
        "mla_decode": 8e-6,
        "mla_prefill": 8e-6,
        "experts": 20e-6,
        "elementwise": 2.5e-6,
        "all_reduce": 5e-6,
        "all_gather": 10e-6,
        "reduce_scatter": 10e-6,
        "all_to_all": 10e-6,
    }
)
"""Constant of each base, seconds: of the size of the shortest times measured (`simulator.cost.efficiency`). It is no
parameter of a time, as the ratio makes up for it; it only keeps the ratio of small shapes near 1."""


@dataclass(frozen=True)
class Work:
    """A family of shapes.

    Attributes
    ----------
    bound_s
        What the data sheet allows at best, seconds.
    base_s
        What the ratio multiplies, seconds.
    axes
        Where each shape lies, by the axis of the lattice.
    padding
        Rows of padding for each row; None where the form has no such term.
    """

    bound_s: Floats
    base_s: Floats
    axes: Columns
    padding: Floats | None = None


@dataclass(frozen=True)
class Form:
    """How one operator's time depends on its shape.

    Attributes
    ----------
    work
        Work of shapes in a variant (``weight_dtype``, ``kv_dtype`` ...) on an accelerator; the last is the base's
        latency, seconds.
    columns
        Shape columns that it reads.
    axes
        Nodes of the lattice.
    padding_axes
        Nodes of the padding term; empty where there is none.
    bend
        Penalty of `simulator.calibration.fitting.solving.solve`.
    """

    work: Callable[[Columns, Mapping[str, str], Accelerator, float], Work]
    columns: tuple[str, ...]
    axes: Axes
    padding_axes: Axes = field(default_factory=dict)
    bend: float = 1.0


def seconds(work: Work, ratios: Grid, padding: Grid | None) -> Floats:
    """Return the fitted times of shapes: never below the bound."""
    ratio = evaluate(ratios, work.axes)
    if padding is not None and work.padding is not None:
        ratio = ratio + work.padding * evaluate(padding, work.axes)
    return np.maximum(work.bound_s, work.base_s * ratio)


def latency_s(operator: str) -> float:
    """Return the constant of an operator's base, seconds."""
    return _LATENCY_S[operator]


def format_rates(accelerator: Accelerator, form: str) -> tuple[float, float, float]:
    """Return peak FLOP/s of products with weights of a format, bytes of a weight and of an input.

    Weights that the accelerator can't multiply in are widened to 16 bits, and 4-bit integers always are; MXFP4 is
    multiplied in 8 bits where there is a 4-bit datatype.
    """
    peaks = accelerator.peak_flops
    name = {"fp8_block": "fp8", "fp16": "bf16", "int4": "bf16"}.get(form, form)
    if form == "mxfp4":
        name = "fp8" if "fp4" in peaks else "bf16"
    if name not in peaks:
        name = "bf16" if "bf16" in peaks else "fp16"
    return peaks[name], _FORMAT_BYTES[form], _FORMAT_BYTES[name]


def _gemm(columns: Columns, variant: Mapping[str, str], accelerator: Accelerator, latency: float) -> Work:
    peak, weight_bytes, input_bytes = format_rates(accelerator, variant["weight_dtype"])
    tokens, n, k = columns["tokens"], columns["n"], columns["k"]
    arithmetic = tokens * n * k * (2.0 / peak)
    moved = n * k * weight_bytes + tokens * (k * input_bytes + n * 2.0)
    memory = moved / accelerator.memory_bandwidth
    excess = np.ceil(tokens / PADDED_ROWS) * PADDED_ROWS - tokens
    padding = np.where(tokens > PADDED_ROWS, excess / np.maximum(tokens, 1.0), 0.0)
    return Work(
        np.maximum(arithmetic, memory),
        latency + (arithmetic + memory),
        {"tokens": np.maximum(tokens, 1.0), "n": n, "k": k},
        padding,
    )


def _attention_rates(accelerator: Accelerator, kv_dtype: str) -> tuple[float, float]:
    """Return peak FLOP/s and bytes of an element of the cache; kernels compute in 8 bits with an 8-bit cache."""
    peak, kv_bytes, _ = format_rates(accelerator, kv_dtype)
    return peak, kv_bytes


def _decode(columns: Columns, variant: Mapping[str, str], accelerator: Accelerator, latency: float) -> Work:
    peak, kv_bytes = _attention_rates(accelerator, variant["kv_dtype"])
    decodes, heads, kv_heads, size = (columns[name] for name in ("decodes", "heads", "kv_heads", "head_dim"))
    kv = np.minimum(columns["decode_kv"], columns["window"])
    arithmetic = decodes * kv * (heads * size) * (4.0 / peak)
    moved = decodes * (kv * (kv_heads * size) * (2.0 * kv_bytes) + heads * size * 4.0)
    memory = moved / accelerator.memory_bandwidth
    return Work(
        np.maximum(arithmetic, memory),
        latency + (arithmetic + memory),
        {"streams": decodes * kv_heads, "kv": kv, "group": heads / kv_heads, "head_dim": size},
    )


def _prefill(columns: Columns, variant: Mapping[str, str], accelerator: Accelerator, latency: float) -> Work:
    peak, kv_bytes = _attention_rates(accelerator, variant["kv_dtype"])
    chunks, new, heads, kv_heads, size = (
        columns[name] for name in ("sequences", "new_tokens", "heads", "kv_heads", "head_dim")
    )
    window = columns["window"]
    inside = np.minimum(new, window)
    pairs = inside * (inside + 1.0) / 2.0 + (new - inside) * inside
    arithmetic = chunks * pairs * (heads * size) * (4.0 / peak)
    moved = chunks * new * (kv_heads * size * (2.0 * kv_bytes) + heads * size * 4.0)
    memory = moved / accelerator.memory_bandwidth
    return Work(
        np.maximum(arithmetic, memory),
        latency + (arithmetic + memory),
        {"streams": chunks * heads, "tokens": new, "group": heads / kv_heads, "head_dim": size, "window": window},
    )


# Latent attention as DeepSeek-V2 and V3 have it, the one that was measured: a latent of 512 and 64 rotary elements,
# query and key of 128 + 64, values of 128 (config.json of deepseek-ai/DeepSeek-V3).
_LATENT, _ROTARY, _NOPE, _VALUE = 512.0, 64.0, 128.0, 128.0


def _mla_decode(columns: Columns, variant: Mapping[str, str], accelerator: Accelerator, latency: float) -> Work:
    peak, kv_bytes = _attention_rates(accelerator, variant["kv_dtype"])
    decodes, kv, heads = columns["decodes"], columns["decode_kv"], columns["heads"]
    arithmetic = decodes * kv * heads * ((2.0 * (2.0 * _LATENT + _ROTARY)) / peak)
    moved = decodes * (kv * ((_LATENT + _ROTARY) * kv_bytes) + heads * ((2.0 * _LATENT + _ROTARY) * 2.0))
    memory = moved / accelerator.memory_bandwidth
    axes = {"decodes": decodes, "kv": kv, "heads": heads}
    return Work(np.maximum(arithmetic, memory), latency + (arithmetic + memory), axes)


def _mla_prefill(columns: Columns, variant: Mapping[str, str], accelerator: Accelerator, latency: float) -> Work:
    peak, _ = _attention_rates(accelerator, variant["kv_dtype"])
    chunks, new, heads = columns["sequences"], columns["new_tokens"], columns["heads"]
    arithmetic = chunks * (new * (new + 1.0)) * heads * ((_NOPE + _ROTARY + _VALUE) / peak)
    # Queries and keys in, values in and outputs out; the narrowest of the datatypes that kernels keep them in.
    moved = chunks * new * heads * (2.0 * (_NOPE + _ROTARY + _VALUE))
    memory = moved / accelerator.memory_bandwidth
    axes = {"streams": chunks * heads, "tokens": new}
    return Work(np.maximum(arithmetic, memory), latency + (arithmetic + memory), axes)


def _experts(columns: Columns, variant: Mapping[str, str], accelerator: Accelerator, latency: float) -> Work:
    peak, weight_bytes, _ = format_rates(accelerator, variant["weight_dtype"])
    tokens, top_k, experts = (columns[name] for name in ("tokens", "top_k", "num_experts"))
    inner = columns["intermediate_size"] / columns["moe_tp"]
    ranks = columns["moe_ep"]
    rows = tokens * top_k / ranks
    one = columns["hidden_size"] * inner
    # What uniform routing visits, by the exponential's first terms: T k / E tokens an expert leave E e^-(Tk/E) idle.
    each = tokens * top_k / experts
    visited = (experts / ranks) * (each / (1.0 + each))
    arithmetic = rows * one * (6.0 / peak)
    moved = visited * one * (3.0 * weight_bytes) + rows * (columns["hidden_size"] * 4.0 + inner * 6.0)
    memory = moved / accelerator.memory_bandwidth
    # Experts without a gate have two matrices, and tables don't tell which they are; a skewed routing visits fewer
    # experts than a uniform one, but the busiest rank has its share of one token's experts at least.
    least = np.maximum(top_k / ranks, 1.0) * one * (2.0 * weight_bytes) / accelerator.memory_bandwidth
    return Work(
        np.maximum(arithmetic * (2.0 / 3.0), least),
        latency + (arithmetic + memory),
        {
            "tokens_per_expert": each,
            "tokens": tokens,
            "experts": experts / ranks,
            "inner": inner,
            "hidden": columns["hidden_size"],
        },
    )


def _elementwise(columns: Columns, variant: Mapping[str, str], accelerator: Accelerator, latency: float) -> Work:
    moved = columns["message_bytes"]
    # No bound: what one kernel writes, the next one often finds in the cache.
    return Work(np.zeros_like(moved), latency + moved / accelerator.memory_bandwidth, {"bytes": np.maximum(moved, 1.0)})


def _collective(columns: Columns, variant: Mapping[str, str], accelerator: Accelerator, latency: float) -> Work:
    size, ranks = columns["message_bytes"], columns["ranks"]
    pcie = accelerator.scale_up.startswith("pcie")
    bandwidth = accelerator.pcie_bandwidth if pcie else accelerator.scale_up_bandwidth
    moved = size * ((ranks - 1.0) / ranks) / bandwidth
    # No bound: a switch that reduces on its way sends less than the ranks hold.
    return Work(np.zeros_like(size), latency + moved, {"bytes": np.maximum(size, 1.0), "ranks": ranks})


def _powers(*exponents: float) -> tuple[float, ...]:
    return tuple(2.0**exponent for exponent in exponents)


_COLLECTIVE_FORM = Form(
    _collective,
    ("message_bytes", "ranks"),
    {"bytes": _powers(8, 10, 12, 14, 16, 17, 18, 19, 20, 21, 22, 24, 26, 28, 30), "ranks": (2.0, 4.0, 8.0)},
    bend=0.03,
)

FORMS: Mapping[str, Form] = MappingProxyType(
    {
        "gemm": Form(
            _gemm,
            ("tokens", "n", "k"),
            {
                # Kernels are chosen by rows: the step behind 16, 64, 128 and 256 is one in the times.
                "tokens": (
                    1.0,
                    4.0,
                    16.0,
                    17.0,
                    32.0,
                    64.0,
                    65.0,
                    128.0,
                    129.0,
                    256.0,
                    257.0,
                    *_powers(9, 10, 11, 13, 15),
                ),
                "n": _powers(5, 8, 10, 11, 12, 13, 14, 16),
                "k": _powers(5, 8, 10, 12, 14, 16),
            },
            {"tokens": _powers(8, 9, 10, 11, 12), "n": _powers(8, 10, 12, 14)},
            bend=0.2,
        ),
        "decode_attention": Form(
            _decode,
            ("decodes", "decode_kv", "heads", "kv_heads", "head_dim", "window"),
            {
                "streams": _powers(0, 2, 4, 5, 6, 7, 8, 10, 12, 14),
                "kv": _powers(1, 5, 7, 8, 9, 10, 11, 12, 13, 15, 17),
                "group": _powers(0, 2, 4, 6),
                "head_dim": _powers(6, 7, 8),
            },
            bend=0.1,
        ),
        "prefill_attention": Form(
            _prefill,
            ("sequences", "new_tokens", "heads", "kv_heads", "head_dim", "window"),
            {
                "streams": _powers(0, 2, 4, 5, 6, 7, 8, 9, 10, 12, 14),
                "tokens": _powers(0, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14),
                "group": _powers(0, 1, 3, 6),
                "head_dim": _powers(6, 7, 8),
            },
            bend=0.1,
        ),
        "mla_decode": Form(
            _mla_decode,
            ("decodes", "decode_kv", "heads"),
            {
                "decodes": _powers(0, 2, 4, 5, 6, 7, 8, 10),
                "kv": _powers(1, 6, 8, 9, 10, 11, 12, 13, 14, 15, 17),
                "heads": _powers(0, 3, 4, 5, 6, 7),
            },
            bend=0.1,
        ),
        "mla_prefill": Form(
            _mla_prefill,
            ("sequences", "new_tokens", "heads"),
            {"streams": _powers(0, 2, 4, 6, 7, 8, 10, 12, 15), "tokens": _powers(0, 4, 6, 8, 9, 10, 11, 12, 13, 15)},
            bend=0.1,
        ),
        "experts": Form(
            _experts,
            ("tokens", "hidden_size", "intermediate_size", "num_experts", "top_k", "moe_tp", "moe_ep"),
            {
                "tokens_per_expert": _powers(-8, -4, -2, 0, 2, 3, 4, 5, 6, 8, 10, 13),
                "tokens": _powers(0, 4, 9, 14),
                "experts": _powers(0, 3, 6, 9),
                "inner": _powers(6, 9, 11, 14),
                "hidden": _powers(10, 13),
            },
            bend=0.03,
        ),
        "elementwise": Form(
            _elementwise, ("message_bytes",), {"bytes": _powers(12, 16, 18, 20, 22, 23, 24, 25, 26, 28, 30)}, bend=0.03
        ),
        "all_reduce": _COLLECTIVE_FORM,
        "all_gather": _COLLECTIVE_FORM,
        "reduce_scatter": _COLLECTIVE_FORM,
        "all_to_all": _COLLECTIVE_FORM,
    }
)
"""Form of each operator that is fitted."""


def windowed_axes(operator: str) -> Axes:
    """Return the nodes of an attention kernel's lattice within a window; of chunks, with the window's own axis."""
    axes = dict(FORMS[operator].axes)
    if operator == "prefill_attention":
        axes["streams"] = _powers(0, 2, 4, 6, 7, 8, 9, 10, 12, 14)
        axes["group"] = _powers(0, 2, 6)
        axes["head_dim"] = _powers(6, 7)
        axes["window"] = _powers(7, 10, 13)
    return axes

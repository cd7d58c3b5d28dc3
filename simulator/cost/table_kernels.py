"""Kernel times from tables of measured kernels of any shape, such as `simulator.calibration.aiconfigurator` imports.

Each operator of the model is looked up by its own shape on one rank:

- **Products** by (tokens, n, k): a curve over tokens for each measured (n, k). A matrix whose (n, k) was not measured
  takes the other source's time for it times what the four measured ones around it take over theirs, linear in n and k.
  Measured products in fp8 with one scale a tensor include the quantisation of their input, which engines fuse into the
  norm or activation before: it is taken off where it was measured alone. That of formats with blocks stays in.
- **Attention** by heads, `simulator.cost.table_attention`.
- **MLA's products of decodes**, queries and outputs with the halves of the expansion, by the heads of a rank; in 8 bits
  where the weights are and such products were measured.
- **Routed experts** by their sizes, layout and the distribution of routing. Where an engine has several kernels for a
  shape (or several datatypes of activations for weights of four bits), the fastest counts, as engines choose it.
- **Collectives** by bytes, `simulator.cost.collectives`.

What was not measured is the other source's (fits, else the roofline), and ``sources`` lists it: elementwise kernels
always are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd

from simulator.cost.attention import Attention
from simulator.cost.collectives import Collectives
from simulator.cost.kernels import Floats, Kernels, KernelShapes
from simulator.cost.table_attention import (
    ChunkAttention,
    TableAttention,
    decode_surface,
    longest_row_surface,
    prefill_surface,
)
from simulator.cost.tables import curve
from simulator.models.dtypes import canonical_dtype
from simulator.sharding import Matrix, rank_heads, rank_kv_heads

LEAST_UNQUANTISED = 0.5
"""Share of a product's time that is left at least when the quantisation of its input is taken off, which was measured
apart from it and may have come out longer: a choice."""

LATENT_PRODUCTS = ("mla_absorb", "mla_expand")
"""Operators of the products that decodes compute in place of MLA's expansion."""

ABSORBED_PROMPTS = ("sglang",)
"""Engines whose ``mla_prefill`` was measured in the absorbed form (docs/measurements.md), with 3.4 times the
multiplications of the expanded one. SGLang expands prompts unless a short cached prefix comes before them
(``AttnForwardMethod.MHA_ONE_SHOT``, ``MHA_CHUNKED_KV`` in models/deepseek_common/attention_backend_handler.py)."""

ROUTED_WITHIN = ("sglang", "trtllm")
"""Engines whose measured experts begin with the router's logits, so that the choice and the sorting are within:
``collect_moe.py`` of AIConfigurator's collectors times ``select_experts`` and ``fused_moe`` (sglang), and the forward
of a layer's ``create_moe`` with its routing method (trtllm); vLLM's times ``fused_experts`` with experts chosen."""


class TableKernels:
    """Kernel times of one model on one rank, measured where they were.

    Parameters
    ----------
    rows
        Measurements of one accelerator (`simulator.calibration.schema`).
    shapes
        What is computed.
    estimate
        Source of what was not measured.

    Attributes
    ----------
    substitutions
        Steps that lay beyond what was measured, by what.
    """

    attention: Attention
    window_attention: Attention

    def __init__(self, rows: pd.DataFrame, shapes: KernelShapes, estimate: Kernels) -> None:
        self._shapes, self._estimate = shapes, estimate
        self.substitutions: Counter[str] = Counter()
        self._of = by_operator(rows)
        self._formats: dict[str, pd.DataFrame] = {}
        self._empty = rows[:0]
        self._missing: list[str] = []
        self._made: dict[str, str] = {}
        self._collectives = Collectives(rows, shapes.plan.tp, estimate)
        self._curves: dict[tuple[str, int, int], tuple[Floats, Floats] | None] = {}
        self._absorbed = self._latent_products() if shapes.model.mla is not None else None
        self.choice_kernels = estimate.choice_kernels
        self._experts = self._expert_curve(shapes.load.distribution) if shapes.model.moe is not None else None
        if shapes.model.mla is None:
            self.attention = self._attention(None)
            window = shapes.model.sliding_window if shapes.model.num_sliding_layers else None
            self.window_attention = self.attention if window is None else self._attention(window)
        else:
            self.attention = self.window_attention = self._latent_attention()

    @property
    def sources(self) -> tuple[str, ...]:
        """What was measured, by operator, and what was not."""
        lines = [f"measured {name}: {made}" for name, made in self._made.items()]
        lines += self._collectives.sources
        lines += [f"not measured, a fit or an estimate in its place: {what}" for what in self._missing]
        lines.append("norms, rotary embedding, activation, cache write, embedding and sampler: estimate by bytes moved")
        if self._missing:
            lines += [line for line in self._estimate.sources if line.startswith(("estimate", "fitted"))]
        return tuple(lines)

    # ------------------------------------------------------------------------------------------------ products

    def gemm(self, matrix: Matrix, rows: Floats) -> Floats:
        """Return the seconds of one product."""
        form = self._shapes.formats[matrix.family]
        key = (form, matrix.outputs, matrix.inputs)
        if key not in self._curves:
            self._curves[key] = self._product(matrix, form)
        found = self._curves[key]
        if found is None:
            return self._estimate.gemm(matrix, rows)
        return curve(*found, rows, hold=False)

    def _product(self, matrix: Matrix, form: str) -> tuple[Floats, Floats] | None:
        """Return tokens and seconds of a matrix; None where its format was not measured."""
        if form not in self._formats:
            self._formats[form] = self._stored_as(self._rows("gemm"), form)
        part = self._formats[form]
        if part.empty:
            self._lacks(f"products with {form} weights")
            return None
        self._note("gemm", part)
        n, k = matrix.outputs, matrix.inputs
        exact = part[(part["n"] == n) & (part["k"] == k)]
        if not exact.empty:
            return self._unquantised(form, exact, *_by_tokens(exact))
        known = part.groupby(["n", "k"], sort=True).size().index.to_frame().to_numpy(dtype=np.int64)
        corners = [(a, b, w * v) for a, w in _between(known[:, 0], n) for b, v in _between(known[:, 1], k) if w * v > 0]
        total, weights = None, 0.0
        tokens = np.array([], dtype=np.float64)
        for a, b, weight in corners:
            rows = part[(part["n"] == a) & (part["k"] == b)]
            if rows.empty:
                continue
            points, times = _by_tokens(rows)
            points, times = self._unquantised(form, rows, points, times)
            over = times / self._estimate.gemm(Matrix(matrix.family, int(b), int(a)), points)
            if total is None:
                tokens, total = points, np.zeros_like(points)
            ratio = np.interp(tokens, points, over)
            total = total + weight * ratio
            weights += weight
        if total is None:
            self._lacks(f"products of {n} x {k}")
            return None
        return tokens, np.asarray(self._estimate.gemm(matrix, tokens) * (total / weights))

    def _unquantised(self, form: str, rows: pd.DataFrame, points: Floats, times: Floats) -> tuple[Floats, Floats]:
        """Take the quantisation of the input off products of one (n, k) in fp8 per tensor."""
        quantize = self._rows("quantize")
        if form != "fp8" or rows["weight_dtype"].iloc[0] != "fp8" or quantize.empty:
            return points, times
        part = quantize[(quantize["k"] == rows["k"].iloc[0]) & quantize["kernel"].str.startswith("dynamic")]
        if part.empty:
            return points, times
        self._note("quantize", part, ", taken off products in fp8 per tensor: engines fuse it")
        return points, np.maximum(times - curve(*_by_tokens(part), points, hold=False), LEAST_UNQUANTISED * times)

    def absorbed(self, expansion: Matrix, rows: Floats) -> Floats:
        """Return the seconds of MLA's two products a head of decodes; not measured: those of the expansion."""
        if self._absorbed is None:
            return self.gemm(expansion, rows)
        total = np.zeros_like(rows)
        for points, times in self._absorbed:
            total = total + curve(points, times, rows, hold=False)
        return total

    def _latent_products(self) -> tuple[tuple[Floats, Floats], ...] | None:
        """Return tokens and seconds of both; None unless both were measured."""
        heads = rank_heads(self._shapes.model, self._shapes.plan.tp)
        found = []
        for name in LATENT_PRODUCTS:
            part = self._rows(name)
            part = part[part["heads"] == heads]
            narrow = self._stored_as(part, self._shapes.formats["qkv"])
            part = part[part["weight_dtype"].isin(_spelled(self._shapes.activation_dtype))] if narrow.empty else narrow
            if part.empty:
                return None
            self._note(name, part)
            found.append(_by_tokens(part))
        return tuple(found)

    # ----------------------------------------------------------------------------------------------- attention

    def _attention(self, window: int | None) -> Attention:
        shapes = self._shapes
        model, tp = shapes.model, shapes.plan.tp
        heads, kv_heads = rank_heads(model, tp), rank_kv_heads(model, tp)
        found = {}
        any_heads = self._empty
        for name in ("decode_attention", "prefill_attention"):
            part = self._rows(name)
            part = part[part["head_dim"] == model.head_dim]
            part = part[part["window"].isna() if window is None else part["window"] == window]
            any_heads = part[part["kv_dtype"].isin(_spelled(shapes.kv_dtype))]
            part = any_heads[(any_heads["heads"] == heads) & (any_heads["kv_heads"] == kv_heads)]
            if part.empty:
                within = "" if window is None else f" within {window} tokens"
                self._lacks(
                    f"{name} with {heads} heads, {kv_heads} key-value heads of {model.head_dim}, KV in "
                    f"{shapes.kv_dtype}{within}"
                )
            else:
                self._note(name, part)
            found[name] = part
        decode = decode_surface(found["decode_attention"])
        prefill = prefill_surface(found["prefill_attention"], window)
        fewest = any_heads[any_heads["heads"] == any_heads["heads"].min()]
        alone = fewest[(fewest["kv_heads"] == fewest["kv_heads"].min()) & (fewest["sequences"] == 1)]
        if prefill is None or alone.empty:
            return TableAttention(decode, prefill, self._estimate.attention, self.substitutions)
        token_s = 2 * kv_heads * model.head_dim * shapes.kv_bytes / shapes.accelerator.memory_bandwidth
        return ChunkAttention(
            decode, prefill, self._estimate.attention, self.substitutions, longest_row_surface(alone), token_s
        )

    def _latent_attention(self) -> Attention:
        shapes = self._shapes
        heads = rank_heads(shapes.model, shapes.plan.tp)
        found = {}
        for name in ("mla_prefill", "mla_decode"):
            part = self._rows(name)
            part = part[(part["heads"] == heads) & part["kv_dtype"].isin(_spelled(shapes.kv_dtype))]
            absorbed = name == "mla_prefill" and not part.empty and part["software"].iloc[0] in ABSORBED_PROMPTS
            if absorbed:
                part = part[:0]
                self._lacks("mla_prefill in its expanded form (measured: the absorbed one, which engines don't take)")
            elif part.empty:
                self._lacks(f"{name} with {heads} heads, KV in {shapes.kv_dtype}")
            else:
                self._note(name, part)
            found[name] = part
        return TableAttention(
            decode_surface(found["mla_decode"]),
            prefill_surface(found["mla_prefill"], None),
            self._estimate.attention,
            self.substitutions,
        )

    # ------------------------------------------------------------------------------------------------- experts

    def experts(self, tokens: Floats, idle: Floats) -> Floats:
        """Return the seconds of a layer's routed experts on the rank that has the most to do."""
        if self._experts is None:
            return self._estimate.experts(tokens, idle)
        return curve(*self._experts, tokens, hold=False)

    def _expert_curve(self, routing: str) -> tuple[Floats, Floats] | None:
        shapes = self._shapes
        model, plan, moe = shapes.model, shapes.plan, shapes.model.moe
        assert moe is not None
        part = self._rows("experts")
        sizes = {
            "hidden_size": model.hidden_size,
            "intermediate_size": moe.expert_intermediate_size,
            "num_experts": moe.num_experts,
            "top_k": moe.experts_per_token,
            "moe_tp": plan.moe_tp,
            "moe_ep": plan.ep,
        }
        for name, value in sizes.items():
            part = part[part[name] == value]
        part = self._stored_as(part, shapes.formats["experts"])
        if part.empty:
            self._lacks(
                f"experts of {moe.num_experts} x {moe.expert_intermediate_size} in {shapes.formats['experts']}, "
                f"tp={plan.moe_tp} ep={plan.ep}"
            )
            return None
        known = sorted(set(part["routing"].dropna()))
        chosen = routing if routing in known else (known[0] if known else None)
        if chosen is not None:
            part = part[part["routing"] == chosen]
        self._note("experts", part, "" if chosen is None else f", routing {chosen}")
        if part["software"].iloc[0] in ROUTED_WITHIN:
            self.choice_kernels = 0
        return _by_tokens(part)

    # --------------------------------------------------------------------------------------------- the estimate's

    def elementwise(self, elements_per_row: float, rows: Floats, kernels: int) -> Floats:
        """Return the seconds of kernels that only move memory: the estimate's."""
        return self._estimate.elementwise(elements_per_row, rows, kernels)

    def all_reduce(self, size: Floats) -> Floats:
        """Return the seconds of an all-reduce."""
        return self._collectives.all_reduce(size)

    def all_gather(self, size: Floats) -> Floats:
        """Return the seconds of an all-gather."""
        return self._collectives.all_gather(size)

    # -------------------------------------------------------------------------------------------------- lookups

    def _rows(self, operator: str) -> pd.DataFrame:
        return self._of.get(operator, self._empty)

    def _stored_as(self, part: pd.DataFrame, form: str) -> pd.DataFrame:
        """Return the rows of the measured weight format that stands for one of ours."""
        names: Sequence[str] = _spelled(form)
        if form in ("fp8", "fp8_block"):
            # What is published in fp8 is in blocks of 128 x 128, as DeepSeek-V3.
            blocks = form == "fp8_block" or self._shapes.model.default_dtype == "fp8"
            names = ("fp8_block", "fp8") if blocks else ("fp8", "fp8_block")
        for name in names:
            found = part[part["weight_dtype"] == name]
            if not found.empty:
                return found
        return part[:0]

    def _lacks(self, what: str) -> None:
        if what not in self._missing:
            self._missing.append(what)

    def _note(self, name: str, part: pd.DataFrame, more: str = "") -> None:
        if name not in self._made:
            first = part.iloc[0]
            self._made[name] = f"{first['software']} {first['software_version']}, {first['source']}{more}"


def by_operator(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the rows of each operator: parts of the same memory, as far as rows come ordered by operator."""
    rows = rows if rows["operator"].is_monotonic_increasing else rows.sort_values("operator", kind="stable")
    codes, operators = pd.factorize(rows["operator"])
    starts = np.flatnonzero(np.diff(codes, prepend=-1)).tolist()
    ends = [*starts[1:], len(rows)]
    return {str(name): rows[a:b] for name, a, b in zip(operators, starts, ends, strict=True)}


def _spelled(dtype: str) -> tuple[str, ...]:
    """Return a datatype and the other 16-bit one, whose kernels take as long."""
    dtype = canonical_dtype(dtype, "datatype")
    return {"bf16": ("bf16", "fp16"), "fp16": ("fp16", "bf16")}.get(dtype, (dtype,))


def _by_tokens(rows: pd.DataFrame) -> tuple[Floats, Floats]:
    """Return tokens and seconds; of shapes measured twice the median, of several kernels the fastest."""
    median = rows.groupby(["tokens", "kernel", "dtype"], sort=True, dropna=False)["time_s"].median()
    fastest = median.groupby(level="tokens", sort=True).min()
    return fastest.index.to_numpy(dtype=np.float64), fastest.to_numpy(dtype=np.float64)


def _between(known: np.ndarray[tuple[int], np.dtype[np.int64]], value: int) -> list[tuple[int, float]]:
    """Return the measured values around one with their weights; the nearest alone beyond the ends."""
    values = np.unique(known)
    if value <= values[0]:
        return [(int(values[0]), 1.0)]
    if value >= values[-1]:
        return [(int(values[-1]), 1.0)]
    at = int(np.searchsorted(values, value, side="right")) - 1
    low, high = int(values[at]), int(values[at + 1])
    if low == value:
        return [(low, 1.0)]
    weight = (value - low) / (high - low)
    return [(low, 1.0 - weight), (high, weight)]

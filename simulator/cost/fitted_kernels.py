"""Kernel times from compact fits (`simulator.calibration.fitting`), which answer for every shape of every model.

Products, routed experts and collectives are tables over tokens, made from the fits once; attention is evaluated on a
grid once and looked up by `simulator.cost.table_attention`, so that a step costs O(1) and a run equals its steps to the
last bit. A format that was not measured takes the ratio of 16 bits over its own base; a family that was not, the
estimate's. ``sources`` says which.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from hardware_profiles.fits import FittedProfile, OperatorFit, list_fits, load_fits
from simulator.calibration.fitting.forms import FORMS, UNLIMITED, Columns, seconds
from simulator.cost.attention import Attention
from simulator.cost.efficiency import DEFAULT_EFFICIENCY, DEFAULT_HOST_OVERHEAD_S
from simulator.cost.expert_load import DEFAULT_LOAD, ExpertLoad
from simulator.cost.graphs import NO_GRAPHS, CudaGraphs
from simulator.cost.kernels import CHOICE_KERNELS, Floats, Kernels, KernelShapes, RooflineKernels
from simulator.cost.operator_cost import OperatorCost
from simulator.cost.roofline import kernel_shapes, rank_kernels
from simulator.cost.table_attention import ChunkAttention, Surface, TableAttention
from simulator.models.spec import MLASpec, ModelSpec
from simulator.parallel import ParallelPlan
from simulator.sharding import Matrix, kv_elements_per_token_layer, rank_heads, rank_kv_heads

if TYPE_CHECKING:
    from hardware_profiles import Accelerator, NodeType

_STEPS = (1.0, 1.25, 1.5, 1.75)
"""Points of the attention grids in each octave: a straight line between them is off by 0.6 % at most of a square."""

_COUNT_OCTAVES, _KV_OCTAVES, _NEW_OCTAVES = 13, 21, 18
"""How far the grids reach: 8,192 sequences, 2 million tokens of context, chunks of 262,144 tokens; straight beyond."""

_LATENT = (512, 64, 128, 128)
"""Sizes of the latent attention that was measured: rank of the latent, rotary, other and value elements of a head."""


_ONE_WAVE = 8192.0
"""Longest prompt of one head that fits every accelerator at once, tokens: 64 blocks of 128 queries, fewer than the
multiprocessors of the smallest one that has fits."""


def fitted_cost(
    model: ModelSpec,
    accelerator: Accelerator,
    plan: ParallelPlan | None = None,
    *,
    weights_dtype: str | None = None,
    kv_dtype: str | None = None,
    activation_dtype: str | None = None,
    host_overhead_s: float | None = None,
    graphs: CudaGraphs = NO_GRAPHS,
    node: NodeType | None = None,
    load: ExpertLoad = DEFAULT_LOAD,
    shared_beside: int = 0,
    profile: FittedProfile | None = None,
) -> OperatorCost:
    """Return the cost model from the fits of an accelerator.

    Parameters are those of `simulator.cost.roofline.roofline_cost`, and:

    Parameters
    ----------
    profile
        Fits; None: those embedded for the accelerator.

    Raises
    ------
    InputError
        If the layout or a datatype is impossible.
    hardware_profiles.ProfileError
        If the accelerator has no fits; `has_fits` tells.
    """
    shapes = kernel_shapes(
        model,
        accelerator,
        plan,
        weights_dtype=weights_dtype,
        kv_dtype=kv_dtype,
        activation_dtype=activation_dtype,
        node=node,
        load=load,
        shared_beside=shared_beside,
    )
    fits = load_fits(accelerator.name) if profile is None else profile
    return OperatorCost(
        shapes,
        rank_kernels(shapes, lambda each: FittedKernels(fits, each, RooflineKernels(each, DEFAULT_EFFICIENCY))),
        host_overhead_s=DEFAULT_HOST_OVERHEAD_S if host_overhead_s is None else host_overhead_s,
        graphs=graphs,
    )


def has_fits(accelerator: Accelerator) -> bool:
    """Tell whether fits of an accelerator are embedded."""
    return accelerator.name in list_fits()


def unmeasured(shapes: KernelShapes) -> Kernels:
    """Return the source of what measurements lack: the accelerator's fits, else its data sheet."""
    estimate = RooflineKernels(shapes, DEFAULT_EFFICIENCY)
    if not has_fits(shapes.accelerator):
        return estimate
    return FittedKernels(load_fits(shapes.accelerator.name), shapes, estimate)


class FittedKernels:
    """Kernel times of one model on one rank from fits.

    Parameters
    ----------
    profile
        Fits of the accelerator.
    shapes
        What is computed.
    estimate
        Source of what was not fitted.

    Attributes
    ----------
    substitutions
        Steps that lay beyond what was measured, by what.
    """

    attention: Attention
    window_attention: Attention
    choice_kernels: int = CHOICE_KERNELS

    def __init__(self, profile: FittedProfile, shapes: KernelShapes, estimate: Kernels) -> None:
        self._profile, self._shapes, self._estimate = profile, shapes, estimate
        self.substitutions: Counter[str] = Counter()
        self._lines: dict[str, str] = {}
        if shapes.model.mla is None:
            self.attention = self._attention(None)
            window = shapes.model.sliding_window if shapes.model.num_sliding_layers else None
            self.window_attention = self.attention if window is None else self._attention(window)
        else:
            self.attention = self.window_attention = self._latent_attention(shapes.model.mla)

    @property
    def sources(self) -> tuple[str, ...]:
        """What was fitted to what, how well, and what was not."""
        shapes = self._shapes
        lines = [f"fitted to kernel measurements on {shapes.accelerator.name} ({self._profile.date})"]
        lines += self._lines.values()
        if self._find("elementwise", {}) is None:
            lines.append(
                "norms, rotary embedding, activation, cache write, embedding, sampler: estimate by bytes moved"
            )
        if any("estimate" in line for line in self._lines.values()):
            lines += [line for line in self._estimate.sources if line.startswith("estimate")]
        return tuple(lines)

    # ------------------------------------------------------------------------------------------------------- tables

    def gemm(self, matrix: Matrix, rows: Floats) -> Floats:
        """Return the seconds of one product."""
        form = self._measured_format("gemm", matrix.family)
        fit = self._find("gemm", {"weight_dtype": form})
        if fit is None:
            return self._estimate.gemm(matrix, rows)
        columns = {"tokens": rows, "n": np.full_like(rows, matrix.outputs), "k": np.full_like(rows, matrix.inputs)}
        return self._times(fit, {"weight_dtype": form}, columns)

    def absorbed(self, expansion: Matrix, rows: Floats) -> Floats:
        """Return the seconds of MLA's products of decodes: those of the expansion."""
        return self.gemm(expansion, rows)

    def elementwise(self, elements_per_row: float, rows: Floats, kernels: int) -> Floats:
        """Return the seconds of kernels that only move memory, each an equal part."""
        fit = self._find("elementwise", {})
        if fit is None:
            return self._estimate.elementwise(elements_per_row, rows, kernels)
        each = rows * (elements_per_row * self._shapes.activation_bytes / kernels)
        return np.asarray(kernels * self._times(fit, {}, {"message_bytes": each}))

    def experts(self, tokens: Floats, idle: Floats) -> Floats:
        """Return the seconds of a layer's routed experts on the rank that has the most to do."""
        form = self._measured_format("experts", "experts")
        variant = {"weight_dtype": form, "routing": self._shapes.load.distribution}
        fit = self._find("experts", variant)
        if fit is None:
            return self._estimate.experts(tokens, idle)
        model, plan, moe = self._shapes.model, self._shapes.plan, self._shapes.model.moe
        assert moe is not None
        sizes = {
            "hidden_size": model.hidden_size,
            # The measured experts have three matrices; those without a gate count as narrower ones.
            "intermediate_size": moe.expert_intermediate_size * model.mlp_matrices / 3.0,
            "num_experts": moe.num_experts,
            "top_k": moe.experts_per_token,
            "moe_tp": plan.moe_tp,
            "moe_ep": plan.ep,
        }
        columns = {name: np.full_like(tokens, size) for name, size in sizes.items()}
        return self._times(fit, variant, {**columns, "tokens": np.maximum(tokens, 1.0)})

    def all_reduce(self, size: Floats) -> Floats:
        """Return the seconds of an all-reduce."""
        return self._collective("all_reduce", size)

    def all_gather(self, size: Floats) -> Floats:
        """Return the seconds of an all-gather."""
        return self._collective("all_gather", size)

    def _collective(self, operator: str, size: Floats) -> Floats:
        shapes = self._shapes
        if shapes.link is None:
            return np.zeros_like(size)
        accelerator = shapes.accelerator
        measured = accelerator.pcie if accelerator.scale_up.startswith("pcie") else accelerator.scale_up
        fit = self._find(operator, {}) if shapes.link.name == measured else None
        if fit is None:
            self._lines.setdefault(operator, f"tensor parallel {operator}: estimate for {shapes.link.name}")
            return self._estimate.all_reduce(size) if operator == "all_reduce" else self._estimate.all_gather(size)
        columns = {"message_bytes": size, "ranks": np.full_like(size, shapes.plan.tp)}
        return np.where(size > 0, self._times(fit, {}, columns), 0.0)

    # ---------------------------------------------------------------------------------------------------- attention

    def _attention(self, window: int | None) -> Attention:
        shapes = self._shapes
        model, tp = shapes.model, shapes.plan.tp
        sizes = {
            "heads": float(rank_heads(model, tp)),
            "kv_heads": float(rank_kv_heads(model, tp)),
            "head_dim": float(model.head_dim),
            "window": UNLIMITED if window is None else float(window),
        }
        variant = {"kv_dtype": _wide(shapes.kv_dtype)}
        windowed = "no" if window is None else "yes"
        return self._two_surfaces("decode_attention", "prefill_attention", variant, sizes, window, windowed)

    def _latent_attention(self, mla: MLASpec) -> Attention:
        found = (mla.kv_lora_rank, mla.qk_rope_head_dim, mla.qk_nope_head_dim, mla.v_head_dim)
        if found != _LATENT:
            self._lines["mla"] = "latent attention of other sizes than measured: estimate"
            return self._estimate.attention
        sizes = {"heads": float(rank_heads(self._shapes.model, self._shapes.plan.tp))}
        variant = {"kv_dtype": _wide(self._shapes.kv_dtype)}
        return self._two_surfaces("mla_decode", "mla_prefill", variant, sizes, None, None)

    def _two_surfaces(
        self,
        decode: str,
        prefill: str,
        variant: Mapping[str, str],
        sizes: Mapping[str, float],
        window: int | None,
        windowed: str | None,
    ) -> Attention:
        fits = []
        for operator in (decode, prefill):
            fit = None
            if windowed is not None:
                fit = self._find(operator, {**variant, "windowed": windowed})
            fit = fit or self._find(operator, variant)
            if fit is None:
                self._lines[operator] = f"{operator}: estimate, not fitted"
            fits.append(fit)
        estimate, shapes = self._estimate.attention, self._shapes
        decodes = None if fits[0] is None else self._decode_surface(fits[0], variant, sizes, window)
        if fits[1] is None:
            return TableAttention(decodes, None, estimate, self.substitutions)
        cached = kv_elements_per_token_layer(shapes.model, shapes.plan.tp) * shapes.kv_bytes
        return ChunkAttention(
            decodes,
            self._prefill_surface(fits[1], variant, sizes, window),
            estimate,
            self.substitutions,
            self._longest_row(fits[1], variant, sizes),
            cached / shapes.accelerator.memory_bandwidth,
        )

    def _longest_row(self, fit: OperatorFit, variant: Mapping[str, str], sizes: Mapping[str, float]) -> Surface:
        """Return the seconds of a fresh prompt of one head by its tokens: those of its last block of queries."""
        tokens = _points(_NEW_OCTAVES)
        tokens = tokens[tokens <= _ONE_WAVE]
        one = np.ones_like(tokens)
        columns = {name: np.full_like(tokens, size) for name, size in sizes.items()}
        columns.update(heads=one, kv_heads=one, window=np.full_like(tokens, UNLIMITED))
        return Surface(one, tokens, self._times(fit, variant, {**columns, "sequences": one, "new_tokens": tokens}))

    def _decode_surface(
        self, fit: OperatorFit, variant: Mapping[str, str], sizes: Mapping[str, float], window: int | None
    ) -> Surface:
        counts, kv = _mesh(_COUNT_OCTAVES, _KV_OCTAVES if window is None else _octaves_to(window))
        columns = {name: np.full_like(counts, size) for name, size in sizes.items()}
        times = self._times(fit, variant, {**columns, "decodes": counts, "decode_kv": kv})
        surface = Surface(counts, kv, times)
        axes = fit.ratios.axes
        surface.max_count = axes["decodes"][-1] if "decodes" in axes else axes["streams"][-1] / sizes["kv_heads"]
        surface.max_size = axes["kv"][-1]
        return surface

    def _prefill_surface(
        self, fit: OperatorFit, variant: Mapping[str, str], sizes: Mapping[str, float], window: int | None
    ) -> Surface:
        counts, new = _mesh(_COUNT_OCTAVES, _NEW_OCTAVES)
        columns = {name: np.full_like(counts, size) for name, size in sizes.items()}
        times = self._times(fit, variant, {**columns, "sequences": counts, "new_tokens": new})
        inside = new if window is None else np.minimum(new, window)
        surface = Surface(counts, inside * (inside + 1.0) / 2.0 + (new - inside) * inside, times)
        longest = fit.ratios.axes["tokens"][-1]
        within = longest if window is None else min(longest, float(window))
        surface.max_count = fit.ratios.axes["streams"][-1] / sizes["heads"]
        surface.max_size = within * (within + 1.0) / 2.0 + (longest - within) * within
        return surface

    # ------------------------------------------------------------------------------------------------------ lookups

    def _measured_format(self, operator: str, family: str) -> str:
        """Return the measured weight format that stands for a family's: blocks for models published in 8 bits."""
        form = _wide(self._shapes.formats[family])
        if form != "fp8":
            return form
        blocks = self._shapes.model.default_dtype == "fp8"
        names = ("fp8_block", "fp8") if blocks else ("fp8", "fp8_block")
        return next((name for name in names if self._profile.find(operator, weight_dtype=name)), "fp8")

    def _find(self, operator: str, variant: Mapping[str, str]) -> OperatorFit | None:
        """Return the fit of a variant, else of 16 bits; note which it was."""
        fit = self._profile.find(operator, **variant)
        note = ""
        if fit is None:
            wide = {key: "bf16" if key.endswith("dtype") else value for key, value in variant.items()}
            fit = self._profile.find(operator, **wide)
            note = f", the ratio of 16 bits for {next(iter(variant.values()), operator)}, which was not measured"
        if fit is None:
            return None
        words = [value for key, value in variant.items() if key != "windowed"]
        name = " ".join((operator, *words, *(["within a window"] if variant.get("windowed") == "yes" else [])))
        self._lines.setdefault(
            name,
            f"fitted {name}: {fit.software}; off by {fit.median_error:.1%} (median), {fit.p90_error:.1%} (90th "
            f"percentile) at points held out{note}",
        )
        return fit

    def _times(self, fit: OperatorFit, variant: Mapping[str, str], columns: Columns) -> Floats:
        work = FORMS[fit.operator].work(columns, variant, self._shapes.accelerator, fit.latency_s)
        return seconds(work, fit.ratios, fit.padding)


def _wide(dtype: str) -> str:
    """Return a datatype's name in the measurements: one of 16 bits stands for both."""
    return "bf16" if dtype in ("fp16", "fp32") else dtype


def _octaves_to(tokens: int) -> int:
    """Return how many octaves reach a number of tokens."""
    return max(1, (tokens - 1).bit_length())


def _mesh(count_octaves: int, size_octaves: int) -> tuple[Floats, Floats]:
    """Return all pairs of a count and a size, each whole and a few to the octave."""
    counts, sizes = _points(count_octaves), _points(size_octaves)
    return np.repeat(counts, len(sizes)), np.tile(sizes, len(counts))


def _points(octaves: int) -> Floats:
    found = {float(int(step * 2**octave)) for octave in range(octaves) for step in _STEPS}
    return np.array(sorted({*found, 2.0**octaves}))

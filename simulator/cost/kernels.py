"""What a source of kernel times has to say, and the roofline, which says something about everything.

A source is bound to one model on one rank of a parallel layout. It gives seconds of kernels by shape, for many token
counts at once; `simulator.cost.operators` composes the layers of a model of them, `simulator.cost.operator_cost` the
steps. Only elementwise additions, products, quotients and comparisons are used, each of which every processor rounds
alike, so that the tables made of them are the same everywhere; no power, no sum whose order NumPy chooses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from hardware_profiles import Accelerator
from simulator.cost.attention import Attention, roofline_attention
from simulator.cost.efficiency import Efficiency
from simulator.cost.expert_load import DEFAULT_LOAD, ExpertLoad
from simulator.cost.links import CollectiveLink
from simulator.errors import InputError
from simulator.models.dtypes import DTYPE_BYTES, WEIGHT_FORMATS
from simulator.models.spec import ModelSpec
from simulator.parallel import ParallelPlan
from simulator.sharding import Matrix, expert_elements, share

Floats = npt.NDArray[np.float64]

_WEIGHT_ONLY = ("int4", "mxfp4")
"""Formats that kernels widen to the activations' datatype before they multiply (AWQ, GPTQ, gpt-oss)."""


CHOICE_KERNELS = 2
"""Kernels of the choice of experts, and of sorting tokens by expert, where a source has neither: an assumption."""


class Kernels(Protocol):
    """Seconds of the kernels of one model on one rank.

    Attributes
    ----------
    attention, window_attention
        Of one layer: attending to everything, and to the model's sliding window.
    substitutions
        Steps that lay beyond what the source knows, by what; counted as they are computed.
    """

    attention: Attention
    window_attention: Attention
    substitutions: Counter[str]

    @property
    def sources(self) -> Sequence[str]:
        """Where the times come from, a line each."""
        ...

    @property
    def choice_kernels(self) -> int:
        """Kernels that choose a token's experts and sort the tokens by expert, beyond those that `experts` holds."""
        ...

    def gemm(self, matrix: Matrix, rows: Floats) -> Floats:
        """Return the seconds of one matrix product, by rows."""
        ...

    def absorbed(self, expansion: Matrix, rows: Floats) -> Floats:
        """Return the seconds of what decodes compute in place of MLA's expansion of the latent, one matrix.

        Two products a head, of queries with its half for keys, and of outputs with its half for values.
        """
        ...

    def elementwise(self, elements_per_row: float, rows: Floats, kernels: int) -> Floats:
        """Return the seconds of kernels that only move memory; elements read and written for each row, together."""
        ...

    def experts(self, tokens: Floats, idle: Floats) -> Floats:
        """Return the seconds of a layer's routed experts, by tokens of the step.

        ``idle`` is the share of the experts that none of the tokens visits under uniform routing, see
        `simulator.cost.operators.idle_experts`.
        """
        ...

    def all_reduce(self, size: Floats) -> Floats:
        """Return the seconds of an all-reduce of ``size`` bytes over the tensor parallel ranks; 0 for one rank."""
        ...

    def all_gather(self, size: Floats) -> Floats:
        """Return the seconds of an all-gather over them that leaves ``size`` bytes on each; 0 for one rank."""
        ...


def math_dtype(accelerator: Accelerator, weight_format: str, activation_dtype: str) -> str:
    """Return the datatype in which products with weights of a format are computed.

    8-bit weights and NVFP4 are multiplied in their own datatype where the accelerator has it, else widened, as Marlin
    kernels do; weights in 16 bits or more, in that of the activations.
    """
    bits = WEIGHT_FORMATS[weight_format].element_bits
    name = weight_format.removesuffix("_block")
    if bits >= 16 or weight_format in _WEIGHT_ONLY or name not in accelerator.peak_flops:
        return activation_dtype
    return name


def check_activation_dtype(accelerator: Accelerator, dtype: str) -> None:
    """Raise unless the accelerator computes in a datatype."""
    if dtype in accelerator.peak_flops:
        return
    wide = [name for name in ("bf16", "fp16", "fp32") if name in accelerator.peak_flops]
    raise InputError(
        f"{accelerator.name} does not compute in {dtype}; set activation_dtype to one of: {', '.join(wide)}"
    )


@dataclass(frozen=True)
class KernelShapes:
    """What the kernels of one model on one rank compute with: its shapes, datatypes and links.

    Attributes
    ----------
    formats
        Weight format by operator family.
    activation_dtype
        Datatype of activations, 16 bits or more.
    kv_dtype
        Datatype of the cache.
    link
        Of the tensor parallel group; None for one rank.
    stage_link
        Between pipeline stages; None for one stage.
    context_link
        Between context parallel ranks; None for one.
    load
        How tokens spread over routed experts.
    shared_beside
        Tokens of a step of decodes alone up to which shared experts are computed beside the routed ones; 0: never.
    """

    model: ModelSpec
    accelerator: Accelerator
    plan: ParallelPlan
    formats: Mapping[str, str]
    activation_dtype: str
    kv_dtype: str
    link: CollectiveLink | None
    stage_link: CollectiveLink | None
    context_link: CollectiveLink | None = None
    load: ExpertLoad = DEFAULT_LOAD
    shared_beside: int = 0

    @property
    def activation_bytes(self) -> float:
        """Bytes of an element of activations."""
        return DTYPE_BYTES[self.activation_dtype]

    @property
    def kv_bytes(self) -> float:
        """Bytes of an element of the cache."""
        return DTYPE_BYTES[self.kv_dtype]

    def peak_flops(self, family: str) -> tuple[float, bool]:
        """Return the peak of a family's products, FLOP/s, and whether they are in fewer than 16 bits."""
        dtype = math_dtype(self.accelerator, self.formats[family], self.activation_dtype)
        return self.accelerator.peak_flops[dtype], WEIGHT_FORMATS[dtype].element_bits < 16


def widened(shapes: KernelShapes) -> tuple[str, ...]:
    """Return lines on formats that the accelerator cannot multiply in."""
    narrow = {name for name in shapes.formats.values() if WEIGHT_FORMATS[name].element_bits < 16}
    return tuple(
        f"{name} weights: products computed in {shapes.activation_dtype}"
        for name in sorted(narrow)
        if math_dtype(shapes.accelerator, name, shapes.activation_dtype) == shapes.activation_dtype
    )


class RooflineKernels:
    """Kernel times from the data sheet: ``latency + max(FLOPs / rate, bytes / bandwidth)`` each.

    Rates and bandwidths are the data sheet's times the factors in `simulator.cost.efficiency`.
    """

    choice_kernels: int = CHOICE_KERNELS

    def __init__(self, shapes: KernelShapes, efficiency: Efficiency) -> None:
        self.shapes = shapes
        self.efficiency = efficiency
        self.attention: Attention = roofline_attention(
            shapes.model,
            shapes.plan.tp,
            peak_flops=shapes.accelerator.peak_flops[shapes.activation_dtype],
            memory_bandwidth=shapes.accelerator.memory_bandwidth,
            activation_bytes=shapes.activation_bytes,
            kv_bytes=shapes.kv_bytes,
            efficiency=efficiency,
        )
        self.window_attention: Attention = self.attention
        self.substitutions: Counter[str] = Counter()

    @property
    def sources(self) -> tuple[str, ...]:
        """What the estimates are."""
        shapes = self.shapes
        lines = [
            f"estimate, not measured: roofline from the data sheet of {shapes.accelerator.name}, with the same "
            "fractions of it for every accelerator (fitted to vLLM kernels on A100, H100 and RTX PRO 6000)"
        ]
        if shapes.link is not None:
            lines.append(f"tensor parallel all_reduce and all_gather: estimate for {shapes.link.name}")
        if shapes.model.moe is not None and not shapes.load.source:
            lines.append("experts: uniform, independent routing (an assumption)")
        return tuple(lines)

    def gemm(self, matrix: Matrix, rows: Floats) -> Floats:
        """Return the seconds of one product: weights, input and output cross the memory once."""
        shapes, efficiency = self.shapes, self.efficiency
        peak, narrow = shapes.peak_flops(matrix.family)
        rate = peak * (efficiency.gemm_flops_narrow if narrow else efficiency.gemm_flops)
        bandwidth = shapes.accelerator.memory_bandwidth * efficiency.gemm_bytes
        weights = WEIGHT_FORMATS[shapes.formats[matrix.family]].bytes_of(matrix.elements)
        per_row = (matrix.inputs + matrix.outputs) * shapes.activation_bytes
        arithmetic = rows * (2 * matrix.elements / rate)
        memory = (weights + rows * per_row) / bandwidth
        return np.asarray(efficiency.gemm_latency_s + np.maximum(arithmetic, memory))

    def absorbed(self, expansion: Matrix, rows: Floats) -> Floats:
        """Return the seconds of MLA's products of decodes: as many weights and multiplications as the expansion."""
        return self.gemm(expansion, rows)

    def elementwise(self, elements_per_row: float, rows: Floats, kernels: int) -> Floats:
        """Return the seconds of kernels that only move memory."""
        efficiency = self.efficiency
        bandwidth = self.shapes.accelerator.memory_bandwidth * efficiency.elementwise_bytes
        moved = rows * (elements_per_row * self.shapes.activation_bytes)
        return np.asarray(kernels * efficiency.elementwise_latency_s + moved / bandwidth)

    def experts(self, tokens: Floats, idle: Floats) -> Floats:
        """Return the seconds of a layer's routed experts; over expert parallel ranks, balanced."""
        shapes, efficiency = self.shapes, self.efficiency
        model, moe = shapes.model, shapes.model.moe
        assert moe is not None
        held = expert_elements(model, shapes.plan)
        peak, narrow = shapes.peak_flops("experts")
        # A narrow product loses by as much here as it does in a plain one.
        scale = efficiency.gemm_flops_narrow / efficiency.gemm_flops if narrow else 1.0
        rate = peak * efficiency.experts_flops * scale
        bandwidth = shapes.accelerator.memory_bandwidth * efficiency.experts_bytes
        weights = WEIGHT_FORMATS[shapes.formats["experts"]].bytes_of(held * share(moe.num_experts, shapes.plan.ep))
        inner = model.mlp_matrices * share(moe.expert_intermediate_size, shapes.plan.moe_tp)
        per_row = (2 * model.hidden_size + inner) * shapes.activation_bytes
        rows = tokens * (moe.experts_per_token / shapes.plan.ep)
        arithmetic = rows * (2 * held / rate)
        memory = ((1.0 - idle) * weights + rows * per_row) / bandwidth
        return np.asarray(efficiency.experts_latency_s + np.maximum(arithmetic, memory))

    def all_reduce(self, size: Floats) -> Floats:
        """Return the seconds of an all-reduce."""
        link = self.shapes.link
        return np.zeros_like(size) if link is None else link.all_reduce_s(size, self.shapes.plan.tp)

    def all_gather(self, size: Floats) -> Floats:
        """Return the seconds of an all-gather."""
        link = self.shapes.link
        return np.zeros_like(size) if link is None else link.all_gather_s(size, self.shapes.plan.tp)

"""Step times from the data sheet: a roofline for every operator, for hardware and models that nobody measured.

``step = host overhead + sum over operators of (latency + max(FLOPs / rate, bytes / bandwidth)) + collectives``, one
operator after the other, none overlapping another. Rates and bandwidths are the data sheet's times the factors in
`simulator.cost.efficiency`, fitted to measured kernels; the whole is an estimate and says so in ``sources``.

Not modelled: what attention in a mixed batch costs beyond its prefill part plus its decode part (kernels measured on
RTX PRO 6000 take 1.2 to 3 times the sum at 64 to 128 decodes), decodes of unequal length, experts visited unequally,
the conversion of activations to narrow datatypes, the arithmetic of widening 4-bit weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from simulator.cost.attention import attention_cost, window_pairs, window_pairs_run
from simulator.cost.efficiency import (
    DEFAULT_EFFICIENCY,
    DEFAULT_HOST_OVERHEAD_S,
    SAMPLER_BYTES_PER_LOGIT,
    Efficiency,
)
from simulator.cost.links import P2P_LATENCY_S, stage_link, tensor_link
from simulator.cost.operators import Floats, OperatorTimes, check_activation_dtype, idle_experts, math_dtype
from simulator.cost.shape import BatchShape
from simulator.errors import InputError
from simulator.models.dtypes import DTYPE_BYTES, WEIGHT_FORMATS, canonical_dtype
from simulator.models.spec import ModelSpec
from simulator.models.weights import weight_formats
from simulator.parallel import ParallelPlan

if TYPE_CHECKING:
    from hardware_profiles import Accelerator, NodeType

_NS_PER_S = 1e9
_FIRST_TABLE = 4096  # entries of a table when it is made
_LARGEST_TABLE = 1 << 18  # counts beyond are computed one by one, with all experts visited


class RooflineCost:
    """Cost model from the data sheet of an accelerator.

    Parameters
    ----------
    model, accelerator
        What runs where.
    plan
        Parallel layout; None: one GPU.
    weights_dtype
        As in `simulator.models.weights.weight_formats`; None: as published.
    kv_dtype
        Datatype of the cache; None: that of the activations.
    activation_dtype
        Datatype of activations and of attention, 16 bits or more; None: the model's 16-bit datatype.
    host_overhead_s
        Seconds a step that the accelerators wait for the host; None: `DEFAULT_HOST_OVERHEAD_S`.
    node
        Node type, for the links between GPUs; None: one node that is large enough, at the accelerator's own rates.
    efficiency
        Fractions of the data sheet that kernels reach.

    Raises
    ------
    InputError
        If the layout or a datatype is impossible.
    """

    def __init__(
        self,
        model: ModelSpec,
        accelerator: Accelerator,
        plan: ParallelPlan | None = None,
        *,
        weights_dtype: str | None = None,
        kv_dtype: str | None = None,
        activation_dtype: str | None = None,
        host_overhead_s: float | None = None,
        node: NodeType | None = None,
        efficiency: Efficiency = DEFAULT_EFFICIENCY,
    ) -> None:
        plan = plan or ParallelPlan()
        plan.check(model)
        if host_overhead_s is None:
            host_overhead_s = DEFAULT_HOST_OVERHEAD_S
        if not host_overhead_s >= 0:
            raise InputError(f"roofline: host_overhead_s must be at least 0, got {host_overhead_s}")
        activation = canonical_dtype(activation_dtype or model.base_dtype, f"activations of {model.name}")
        if WEIGHT_FORMATS[activation].element_bits < 16:
            raise InputError(f"roofline: activation_dtype must have 16 bits or more, got {activation!r}")
        check_activation_dtype(accelerator, activation)
        kv_bytes = DTYPE_BYTES[canonical_dtype(kv_dtype or activation, f"KV cache of {model.name}")]
        link = tensor_link(accelerator, node, plan.tp) if plan.tp > 1 else None
        self._operators = OperatorTimes(
            model=model,
            accelerator=accelerator,
            tp=plan.tp,
            formats=weight_formats(model, weights_dtype),
            activation_dtype=activation,
            kv_bytes=kv_bytes,
            link=link,
            efficiency=efficiency,
        )
        self._attention = attention_cost(
            model,
            plan.tp,
            peak_flops=accelerator.peak_flops[activation],
            memory_bandwidth=accelerator.memory_bandwidth,
            activation_bytes=self._operators.activation_bytes,
            kv_bytes=kv_bytes,
            efficiency=efficiency,
        )
        self._model = model
        self._host_overhead_s = host_overhead_s
        self._stage_link = stage_link(accelerator, node, plan.gpus) if plan.pp > 1 else None
        self._layers = plan.stage_layers(model.num_layers)
        self._window = model.sliding_window if model.num_sliding_layers else None
        sliding = [sum(map(model.is_sliding_layer, layers)) if self._window else 0 for layers in self._layers]
        self._last = len(self._layers) - 1
        self._attention_layers = [
            (stage, float(len(layers) - sliding[stage]), float(sliding[stage]))
            for stage, layers in enumerate(self._layers)
        ]
        self._sources = self._describe()
        self._stage_s: list[tuple[float, ...]] = []  # by tokens: seconds of each stage
        self._head_s: list[float] = []  # by rows of logits
        self._rare_tokens: dict[int, tuple[float, ...]] = {}
        self._rare_rows: dict[int, float] = {}
        self._stage_s = self._token_rows(_FIRST_TABLE)
        self._head_s = self._head_row_s(np.arange(_FIRST_TABLE, dtype=np.float64)).tolist()

    @property
    def sources(self) -> tuple[str, ...]:
        """Where the costs come from; an estimate, and what it assumes."""
        return self._sources

    def step_ns(self, shape: BatchShape) -> int:
        """Duration of one step: the sum of its stages."""
        if self._last:
            return sum(self.stage_ns(shape))
        tokens = shape.decodes + shape.prefill_tokens + shape.padding_tokens
        fixed = self._stage_s[tokens] if tokens < len(self._stage_s) else self._more_tokens(tokens)
        rows = shape.logit_rows
        head = self._head_s[rows] if rows < len(self._head_s) else self._more_rows(rows)
        full, window = self._context_s(shape)
        _, full_layers, window_layers = self._attention_layers[0]
        seconds = fixed[0] + (full_layers * full + window_layers * window) + head
        duration = round(seconds * _NS_PER_S)
        return duration if duration > 1 else 1

    def stage_ns(self, shape: BatchShape) -> list[int]:
        """Time that the batch holds each stage: host overhead on the first, LM head on the last, sends included."""
        tokens = shape.decodes + shape.prefill_tokens + shape.padding_tokens
        fixed = self._stage_s[tokens] if tokens < len(self._stage_s) else self._more_tokens(tokens)
        rows = shape.logit_rows
        head = self._head_s[rows] if rows < len(self._head_s) else self._more_rows(rows)
        full, window = self._context_s(shape)
        durations = []
        for stage, full_layers, window_layers in self._attention_layers:
            seconds = fixed[stage] + (full_layers * full + window_layers * window)
            if stage == self._last:
                seconds = seconds + head
            durations.append(max(1, round(seconds * _NS_PER_S)))
        return durations

    def run_ns(self, shape: BatchShape, k: int) -> npt.NDArray[np.int64]:
        """Durations of ``k`` steps, equal to those of `step_ns` to the last bit."""
        tokens = shape.decodes + shape.prefill_tokens + shape.padding_tokens
        fixed = self._stage_s[tokens] if tokens < len(self._stage_s) else self._more_tokens(tokens)
        rows = shape.logit_rows
        head = self._head_s[rows] if rows < len(self._head_s) else self._more_rows(rows)
        full, window = self._context_run_s(shape, np.arange(k, dtype=np.int64))
        total = np.zeros(k, dtype=np.int64)
        for stage, full_layers, window_layers in self._attention_layers:
            seconds = fixed[stage] + (full_layers * full + window_layers * window)
            if stage == self._last:
                seconds = seconds + head
            total += np.maximum(np.rint(seconds * _NS_PER_S).astype(np.int64), 1)
        return total

    def breakdown(self, shape: BatchShape) -> dict[str, float]:
        """Return the seconds of one step by operator family, summed over layers and stages.

        Families: those of `simulator.models.spec.FAMILIES` that the model has, ``attention`` (latency of its kernels),
        ``attention_prefill``, ``attention_decode``, ``norms_rotary_cache``, ``activation``, ``embedding``,
        ``lm_head``, ``sampler``, ``collectives``, ``send``, ``host``. They add up to the step but for rounding.
        """
        tokens = np.array([shape.tokens], dtype=np.float64)
        idle = self._idle(shape.tokens)[shape.tokens :]
        parts: list[dict[str, Floats]] = []
        for stage in range(len(self._layers)):
            parts.extend(self._stage_families(stage, tokens, idle))
        if shape.logit_rows:
            parts.append(self._operators.head(np.array([float(shape.logit_rows)]), SAMPLER_BYTES_PER_LOGIT))
        seconds: dict[str, float] = {}
        if shape.tokens or shape.logit_rows:
            for part in parts:
                for family, value in part.items():
                    seconds[family] = seconds.get(family, 0.0) + float(value[0])
        layers = [sum(count) for count in list(zip(*self._attention_layers, strict=True))[1:]]
        for family, (full, window) in (
            ("attention_prefill", self._prefill_s(shape)),
            ("attention_decode", self._decode_s(shape)),
        ):
            seconds[family] = layers[0] * full + layers[1] * window
        seconds["host"] = self._host_overhead_s
        return seconds

    def _decode_s(self, shape: BatchShape) -> tuple[float, float]:
        """Attention of the decodes in a full layer and in a sliding one, seconds."""
        decodes = shape.decodes
        if not decodes:
            return 0.0, 0.0
        full = self._attention.decode_s(shape.decode_kv, decodes)
        if self._window is None:
            return full, 0.0
        return full, self._attention.decode_s(shape.decode_window_kv, decodes)

    def _prefill_s(self, shape: BatchShape) -> tuple[float, float]:
        """Attention of the chunks in a full layer and in a sliding one, seconds."""
        full = window = 0.0
        for new, cached in shape.chunks:
            pairs = new * cached + new * (new + 1) // 2
            full = full + self._attention.chunk_s(new, cached, pairs, cached + new)
            if self._window is not None:
                pairs, context = window_pairs(new, cached, self._window)
                window = window + self._attention.chunk_s(new, cached, pairs, context)
        return full, window

    def _context_s(self, shape: BatchShape) -> tuple[float, float]:
        """Attention in a full layer and in a sliding one: seconds that depend on contexts."""
        full, window = self._decode_s(shape)
        if shape.chunks:
            prefill = self._prefill_s(shape)
            return full + prefill[0], window + prefill[1]
        return full, window

    def _context_run_s(self, shape: BatchShape, step: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Return the same for each step of a run."""
        attention, decodes = self._attention, shape.decodes
        full = window = np.zeros(len(step))
        if decodes:
            full = attention.decode_run_s(shape.decode_kv + step * decodes, decodes)
            if self._window is not None:
                attended = shape.decode_window_kv + step * shape.decode_window_growth
                window = attention.decode_run_s(attended, decodes)
        if not shape.chunks:
            return full, window
        full_prefill = window_prefill = np.zeros(len(step))
        for new, cached_now in shape.chunks:
            cached = cached_now + step * new
            pairs = new * cached + new * (new + 1) // 2
            full_prefill = full_prefill + attention.chunk_run_s(new, cached, pairs, cached + new)
            if self._window is not None:
                pairs, context = window_pairs_run(new, cached, self._window)
                window_prefill = window_prefill + attention.chunk_run_s(new, cached, pairs, context)
        return full + full_prefill, window + window_prefill

    def _stage_families(self, stage: int, tokens: Floats, idle: Floats) -> list[dict[str, Floats]]:
        """Seconds of a stage by family, without host and LM head: layers, then what stands before and after them."""
        operators, layers = self._operators, self._layers[stage]
        moe_layers = sum(map(self._model.is_moe_layer, layers))
        parts = []
        for moe, count in ((False, len(layers) - moe_layers), (True, moe_layers)):
            if count:
                families = operators.layer(tokens, idle, moe)
                parts.append({family: value * count for family, value in families.items()})
        if stage == 0:
            parts.append(operators.first_stage(tokens))
        if stage == self._last:
            parts.append(operators.last_stage(tokens))
        elif self._stage_link is not None:
            parts.append({"send": operators.send(tokens, self._stage_link, P2P_LATENCY_S)})
        return parts

    def _stages_s(self, counts: Floats, idle: Floats) -> list[Floats]:
        """Seconds of each stage by tokens, host overhead on the first; nothing else without tokens."""
        stages = []
        for stage in range(len(self._layers)):
            total = np.zeros_like(counts)
            for part in self._stage_families(stage, counts, idle):
                for value in part.values():
                    total = total + value
            total = np.where(counts > 0, total, 0.0)
            stages.append(total + self._host_overhead_s if stage == 0 else total)
        return stages

    def _idle(self, max_tokens: int) -> Floats:
        """Share of idle experts by tokens."""
        if max_tokens < _LARGEST_TABLE:
            return idle_experts(self._model, max_tokens)
        return np.zeros(max_tokens + 1)

    def _token_rows(self, size: int) -> list[tuple[float, ...]]:
        """Make the table of stages for 0 ... ``size`` - 1 tokens."""
        stages = self._stages_s(np.arange(size, dtype=np.float64), self._idle(size - 1))
        return list(zip(*(stage.tolist() for stage in stages), strict=True))

    def _head_row_s(self, rows: Floats) -> Floats:
        """Seconds of LM head and sampler by rows; nothing without rows."""
        total = np.zeros_like(rows)
        for value in self._operators.head(rows, SAMPLER_BYTES_PER_LOGIT).values():
            total = total + value
        return np.where(rows > 0, total, 0.0)

    def _more_tokens(self, tokens: int) -> tuple[float, ...]:
        """Return the seconds of each stage for more tokens than the table has, which grows."""
        if tokens < _LARGEST_TABLE:
            self._stage_s = self._token_rows(_table_size(tokens))
            return self._stage_s[tokens]
        if tokens not in self._rare_tokens:
            stages = self._stages_s(np.array([float(tokens)]), np.zeros(1))
            self._rare_tokens[tokens] = tuple(float(stage[0]) for stage in stages)
        return self._rare_tokens[tokens]

    def _more_rows(self, rows: int) -> float:
        """Return the seconds of more rows of logits than the table has, which grows."""
        if rows < _LARGEST_TABLE:
            self._head_s = self._head_row_s(np.arange(_table_size(rows), dtype=np.float64)).tolist()
            return self._head_s[rows]
        if rows not in self._rare_rows:
            self._rare_rows[rows] = float(self._head_row_s(np.array([float(rows)]))[0])
        return self._rare_rows[rows]

    def _describe(self) -> tuple[str, ...]:
        """Lines of ``sources``."""
        operators = self._operators
        accelerator = operators.accelerator
        lines = [
            f"estimate, not measured: roofline from the data sheet of {accelerator.name}, with the same fractions of "
            "it for every accelerator (fitted to vLLM kernels on A100, H100 and RTX PRO 6000)",
            f"host overhead: {self._host_overhead_s * 1e3:g} ms a step (an assumption)",
        ]
        if operators.link is not None:
            lines.append(f"tensor parallel all-reduce: estimate for {operators.link.name}")
        if self._stage_link is not None:
            lines.append(f"pipeline stages: estimate for {self._stage_link.name}")
        if self._model.moe is not None:
            lines.append("experts: uniform, independent routing (an assumption)")
        lines.extend(_widened(operators))
        return tuple(lines)


def _widened(operators: OperatorTimes) -> Sequence[str]:
    """Lines on formats that the accelerator cannot multiply in."""
    accelerator, activation = operators.accelerator, operators.activation_dtype
    narrow = {name for name in operators.formats.values() if WEIGHT_FORMATS[name].element_bits < 16}
    return [
        f"{name} weights: products computed in {activation}"
        for name in sorted(narrow)
        if math_dtype(accelerator, name, activation) == activation
    ]


def _table_size(count: int) -> int:
    """Entries of a table that is to hold ``count``: the next power of two above it."""
    return 1 << count.bit_length()

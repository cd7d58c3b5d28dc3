"""Step times from measured kernels: tables of one model on one accelerator, interpolated.

``step = host overhead + layers x (dense operators by tokens + attention by its joint table + collectives) + embedding
and final norm by tokens + LM head and sampler by rows``, one after the other. What each operator's table is and how it
is interpolated: `simulator.cost.tables` and `simulator.cost.measured_attention`. Collectives are measured apart from a
model: where the measurements hold none over as many ranks, they are estimates, and ``sources`` says so.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from simulator.calibration.schema import one_value, tp_degrees
from simulator.cost.collectives import MESSAGE_OPERATORS, Collectives
from simulator.cost.efficiency import DEFAULT_EFFICIENCY, DEFAULT_HOST_OVERHEAD_S
from simulator.cost.expert_load import DEFAULT_LOAD, ExpertLoad
from simulator.cost.fitted_kernels import unmeasured
from simulator.cost.graphs import NO_GRAPHS, CudaGraphs
from simulator.cost.kernels import Floats, KernelShapes, RooflineKernels
from simulator.cost.links import P2P_LATENCY_S
from simulator.cost.measured_attention import OUTSIDE, MeasuredAttention
from simulator.cost.operators import idle_experts
from simulator.cost.roofline import kernel_shapes
from simulator.cost.shape import BatchShape
from simulator.cost.tables import curve, experts_curve
from simulator.errors import InputError, did_you_mean
from simulator.models.dtypes import canonical_dtype
from simulator.models.loading import load_model
from simulator.models.spec import ModelSpec
from simulator.parallel import ParallelPlan

if TYPE_CHECKING:
    from hardware_profiles import Accelerator, NodeType

_NS_PER_S = 1e9
_FIRST_TABLE = 4096

CALLS_PER_LAYER = {
    "norm": 2,
    "qkv": 1,
    "qk_norm": 2,
    "rotary": 1,
    "o_proj": 1,
    "gate_up": 1,
    "activation": 1,
    "down": 1,
    "router": 1,
    "shared_expert": 1,
}
"""How often a layer calls a dense operator. ``qk_norm`` is the mean of the query's and the key's."""

_FEED_FORWARD = ("gate_up", "activation", "down")
_MOE_ONLY = ("router", "shared_expert")
_NEEDED = ("qkv", "o_proj", "attention", "lm_head")


class MeasuredCost:
    """Cost model from measurements of the kernels of one model on one accelerator.

    Parameters
    ----------
    model, accelerator
        What runs where.
    measurements
        A table of `simulator.calibration.schema` of this model and accelerator.
    plan
        Parallel layout; None: one GPU. Its tensor parallel size must have been measured.
    weights_dtype, kv_dtype, activation_dtype
        As in `simulator.cost.roofline.kernel_shapes`; they must be those measured.
    host_overhead_s
        Seconds a step that the accelerator waits for the host; None: `DEFAULT_HOST_OVERHEAD_S`.
    node
        Node type, for the links between GPUs.
    graphs
        How steps are padded.
    outside
        Shapes outside the measured range: ``"raise"``, ``"clip"`` (the nearest measured value holds) or
        ``"extrapolate"`` (the last rate goes on; below the least, the least holds). The latter two are
        counted in ``substitutions``.
    where
        What the measurements were read from, for messages and ``sources``.
    load
        How tokens spread over routed experts; as it is by default, uniformly.

    Raises
    ------
    InputError
        If the measurements are of something else, or lack an operator of the model.
    """

    def __init__(
        self,
        model: ModelSpec,
        accelerator: Accelerator,
        measurements: pd.DataFrame,
        plan: ParallelPlan | None = None,
        *,
        weights_dtype: str | None = None,
        kv_dtype: str | None = None,
        activation_dtype: str | None = None,
        host_overhead_s: float | None = None,
        node: NodeType | None = None,
        graphs: CudaGraphs = NO_GRAPHS,
        outside: str = "extrapolate",
        where: str = "measurements",
        load: ExpertLoad = DEFAULT_LOAD,
    ) -> None:
        if outside not in OUTSIDE:
            raise InputError(f"measured cost: unknown choice outside={outside!r}{did_you_mean(outside, OUTSIDE)}")
        if host_overhead_s is None:
            host_overhead_s = DEFAULT_HOST_OVERHEAD_S
        if not host_overhead_s >= 0:
            raise InputError(f"measured cost: host_overhead_s must be at least 0, got {host_overhead_s}")
        if model.num_sliding_layers:
            raise InputError(
                f"{where}: attention within a sliding window, as {model.name} has, is not modelled from layer "
                "profiles; use kernel tables, or the cost 'auto'"
            )
        shapes = kernel_shapes(
            model,
            accelerator,
            plan,
            weights_dtype=weights_dtype,
            kv_dtype=kv_dtype,
            activation_dtype=activation_dtype,
            node=node,
            load=load,
        )
        plan = shapes.plan
        check_hardware(measurements, accelerator, where)
        message = measurements["operator"].isin(MESSAGE_OPERATORS)
        collectives, measurements = measurements[message], measurements[~message]
        _check_subject(measurements, model, where)
        wanted = {"dtype": shapes.activation_dtype, "weight_dtype": shapes.formats["qkv"], "kv_dtype": shapes.kv_dtype}
        _check_dtypes(measurements, wanted, where)
        rows = _of_tp(measurements, plan.tp, where)
        whole = measurements[(measurements["operator"] == "moe") & (measurements["tp"] == 1)]
        # Experts over several ranks are measured as such where they are divided like everything else, or made of
        # those measured on one rank, see _moe.
        as_they_are = plan.ep == 1 and plan.dp == 1 and (rows["operator"] == "moe").any()
        shared = plan.tp * plan.dp > 1
        self._divided = bool(shared and model.moe_layers and not whole.empty and not as_they_are)
        if plan.dp > 1 and not self._divided:
            raise InputError(f"{where}: experts shared by {plan.dp} ranks need those measured on one (tp=1)")
        if self._divided:
            rows = pd.concat([rows[rows["operator"] != "moe"], whole], ignore_index=True)
        self._host_overhead_s, self._outside, self._where = host_overhead_s, outside, where
        self._model, self._plan, self._graphs = model, plan, graphs
        self._hidden_bytes = model.hidden_size * shapes.activation_bytes
        self._shapes = shapes
        self._collectives = Collectives(collectives, plan.tp, unmeasured(shapes))
        self._stage_link = shapes.stage_link
        self._tables = operator_tables(rows)
        self._check_operators()
        self._layers = plan.stage_layers(model.num_layers)
        self._last = len(self._layers) - 1
        self._counts = [float(len(layers)) for layers in self._layers]
        self._attention = MeasuredAttention(
            rows[rows["operator"] == "attention"], rows[rows["operator"] == "attention_skew"], outside
        )
        dense = [table for name, table in self._tables.items() if name not in ("lm_head", "sampler", "moe")]
        self._max_tokens = int(min(points.max() for points, _ in dense))
        if model.moe_layers:
            self._max_tokens = min(self._max_tokens, int(self._tables["moe"][0][:, 0].max()))
        self._max_rows = int(
            min(self._tables[name][0].max() for name in ("lm_head", "sampler") if name in self._tables)
        )
        self._substitutions: Counter[str] = Counter()
        self._sources = self._describe(rows)
        self._chunk_steps, self._decode_steps = self._token_tables(_FIRST_TABLE)
        self._head_s = self._head_row_s(_FIRST_TABLE)

    @property
    def sources(self) -> tuple[str, ...]:
        """Where the costs come from, and what is assumed."""
        return self._sources

    @property
    def substitutions(self) -> dict[str, int]:
        """Steps that lay outside what was measured, by what was substituted; those of a run cut short included."""
        return dict(sorted((self._substitutions + self._attention.substitutions).items()))

    def step_ns(self, shape: BatchShape) -> int:
        """Duration of one step: the sum of its stages."""
        if self._last:
            return sum(self.stage_ns(shape))
        tokens = shape.decodes + shape.prefill_tokens + shape.padding_tokens
        rows = shape.logit_rows
        if tokens > self._max_tokens or rows > self._max_rows:
            self._note(tokens, rows, 1)
        fixed = (self._chunk_steps if shape.chunks else self._decode_steps)[tokens][0]
        seconds = fixed + self._counts[0] * self._attention.one(shape) + self._head_s[rows]
        duration = round(seconds * _NS_PER_S)
        return duration if duration > 1 else 1

    def stage_ns(self, shape: BatchShape) -> list[int]:
        """Time that the batch holds each stage: host overhead on the first, LM head on the last, sends included."""
        tokens = shape.decodes + shape.prefill_tokens + shape.padding_tokens
        rows = shape.logit_rows
        if tokens > self._max_tokens or rows > self._max_rows:
            self._note(tokens, rows, 1)
        attention = self._attention.one(shape)
        durations = []
        for stage, fixed in enumerate((self._chunk_steps if shape.chunks else self._decode_steps)[tokens]):
            seconds = fixed + self._counts[stage] * attention
            if stage == self._last:
                seconds = seconds + self._head_s[rows]
            durations.append(max(1, round(seconds * _NS_PER_S)))
        return durations

    def run_ns(self, shape: BatchShape, k: int) -> npt.NDArray[np.int64]:
        """Durations of ``k`` steps, equal to those of `step_ns` to the last bit."""
        tokens = shape.decodes + shape.prefill_tokens + shape.padding_tokens
        rows = shape.logit_rows
        if tokens > self._max_tokens or rows > self._max_rows:
            self._note(tokens, rows, k)
        attention = self._attention.run(shape, np.arange(k, dtype=np.int64))
        total = np.zeros(k, dtype=np.int64)
        for stage, fixed in enumerate((self._chunk_steps if shape.chunks else self._decode_steps)[tokens]):
            seconds = fixed + self._counts[stage] * attention
            if stage == self._last:
                seconds = seconds + self._head_s[rows]
            total += np.maximum(np.rint(seconds * _NS_PER_S).astype(np.int64), 1)
        return total

    def few_ns(self, shape: BatchShape, k: int) -> list[int]:
        """Return what `run_ns` does, as a list."""
        durations: list[int] = self.run_ns(shape, k).tolist()
        return durations

    # ------------------------------------------------------------------------------- a rank among others

    @property
    def shapes(self) -> KernelShapes:
        """What is computed."""
        return self._shapes

    def seconds(self, shape: BatchShape, computed: int) -> float:
        """Return the seconds of one step that computes so many tokens in dense operators; one stage, no padding."""
        rows = shape.logit_rows
        if computed > self._max_tokens or rows > self._max_rows:
            self._note(computed, rows, 1)
        fixed = self._decode_steps[computed][0]
        attention = self._attention.one(shape) if shape.decodes or shape.chunks else 0.0
        return fixed + self._counts[0] * attention + self._head_s[rows]

    def run_seconds(self, shape: BatchShape, computed: int, k: int) -> Floats:
        """Return the same of the next ``k`` steps."""
        rows = shape.logit_rows
        if computed > self._max_tokens or rows > self._max_rows:
            self._note(computed, rows, k)
        fixed = self._decode_steps[computed][0]
        attention: Floats | float = 0.0
        if shape.decodes or shape.chunks:
            attention = self._attention.run(shape, np.arange(k, dtype=np.int64))
        return np.asarray(np.zeros(k) + (fixed + self._counts[0] * attention + self._head_s[rows]))

    def experts(self, tokens: Floats, idle: Floats) -> Floats:
        """Return the seconds of one layer's routed experts on the busiest rank, by the tokens of all ranks."""
        return self._moe(tokens, idle)

    def breakdown(self, shape: BatchShape) -> dict[str, float]:
        """Return the seconds of one step by operator, summed over layers and stages; they add up to the step."""
        seconds: dict[str, float] = {}
        if shape.tokens:
            computed = int(self._graphs.padded(np.array([float(shape.tokens)]), bool(shape.chunks))[0])
            for stage in range(len(self._layers)):
                for name, value in self._stage_parts(stage, computed + 1).items():
                    seconds[name] = seconds.get(name, 0.0) + float(value[-1])
        if shape.logit_rows:
            for name, value in self._head_parts(np.array([float(shape.logit_rows)])).items():
                seconds[name] = seconds.get(name, 0.0) + float(value[0])
        seconds["attention"] = sum(self._counts) * self._attention.one(shape)
        seconds["host"] = self._host_overhead_s
        return seconds

    # ------------------------------------------------------------------------------------------------------ tables

    def _check_operators(self) -> None:
        """Raise unless every operator that the model can't do without was measured."""
        needed = [name for name in _NEEDED if name != "attention"]
        if self._model.dense_layers:
            needed += ["gate_up", "down"]
        if self._model.moe_layers:
            needed.append("moe")
        for name in needed:
            if name not in self._tables:
                raise InputError(
                    f"{self._where}: operator {name!r} of {self._model.name} was not measured for tp={self._plan.tp}; "
                    f"measured: {', '.join(sorted(self._tables))}"
                )

    def _curve(self, name: str, at: Floats) -> Floats:
        """Return the seconds of one call by rows; zero where it was not measured."""
        if name not in self._tables:
            return np.zeros_like(at)
        return curve(*self._tables[name], at, hold=self._outside != "extrapolate")

    def _moe(self, counts: Floats, idle: Floats) -> Floats:
        """Return the seconds of a layer's routed experts by tokens, with the expected number of them visited.

        Of experts measured on one rank only, each of ``ep`` groups of ranks has its share of the visited ones and of
        the tokens' visits; where ranks divide each expert, the roofline's ratio of a part to the whole is taken.
        """
        moe, plan = self._model.moe, self._plan
        assert moe is not None
        hold = self._outside != "extrapolate"
        if self._shapes.load.hottest != 1.0:
            counts = counts * self._shapes.load.hottest
        visited = np.maximum((1.0 - idle) * moe.num_experts, moe.experts_per_token)
        if not self._divided:
            return experts_curve(*self._tables["moe"], counts, visited, hold=hold)
        # A table begins at one token, which visits top_k experts: fewer take as much less, their weights being read.
        fewer = np.minimum(visited / plan.ep / moe.experts_per_token, 1.0)
        times = fewer * experts_curve(*self._tables["moe"], counts / plan.ep, visited / plan.ep, hold=hold)
        if plan.moe_tp == 1:
            return times
        part, all_of_it = (
            RooflineKernels(replace(self._shapes, plan=split), DEFAULT_EFFICIENCY).experts(counts, idle)
            for split in (replace(plan, redundant_experts=0), ParallelPlan(plan.ep, 1, plan.ep))
        )
        return np.asarray(times * (part / all_of_it))

    def _stage_parts(self, stage: int, size: int) -> dict[str, Floats]:
        """Return the seconds of a stage by operator, for 0 ... ``size`` - 1 tokens, attention and LM head left out."""
        counts = np.arange(size, dtype=np.float64)
        layers = self._layers[stage]
        moe_layers = sum(map(self._model.is_moe_layer, layers))
        parts: dict[str, Floats] = {}
        for name, calls in CALLS_PER_LAYER.items():
            if name in self._tables:
                times = len(layers)
                if name in _FEED_FORWARD:
                    times -= moe_layers
                elif name in _MOE_ONLY:
                    times = moe_layers
                parts[name] = (times * calls) * self._curve(name, counts)
        if moe_layers and self._plan.dp == 1:
            parts["moe"] = moe_layers * self._moe(counts, idle_experts(self._model, len(counts) - 1))
        all_reduce = self._collectives.all_reduce(counts * self._hidden_bytes)
        parts["collectives"] = 2 * len(layers) * all_reduce
        if stage == 0:
            parts["embedding"] = self._curve("embedding", counts)
            parts["collectives"] = parts["collectives"] + all_reduce
        if stage == self._last:
            parts["final_norm"] = self._curve("final_norm", counts)
        elif self._stage_link is not None:
            sent = counts * (2 * self._hidden_bytes)
            transfer = P2P_LATENCY_S + sent / (self._plan.tp * self._stage_link.bandwidth)
            parts["send"] = transfer + self._collectives.all_gather(sent)
        return parts

    def _head_parts(self, rows: Floats) -> dict[str, Floats]:
        parts = {name: self._curve(name, rows) for name in ("lm_head", "sampler")}
        if self._plan.tp > 1:
            shapes = self._shapes
            parts["collectives"] = self._collectives.all_gather(
                rows * (shapes.model.vocab_size * shapes.activation_bytes)
            )
        return parts

    def _token_tables(self, size: int) -> tuple[list[tuple[float, ...]], list[tuple[float, ...]]]:
        """Make the tables of stages for 0 ... ``size`` - 1 tokens, host overhead on the first: with chunks, without."""
        stages = []
        for stage in range(len(self._layers)):
            total = np.zeros(size)
            for value in self._stage_parts(stage, size).values():
                total = total + value
            total[0] = 0.0
            stages.append(total + self._host_overhead_s if stage == 0 else total)
        counts = np.arange(size, dtype=np.float64)
        with_chunks, without = (
            list(zip(*(stage[computed].tolist() for stage in stages), strict=True))
            for computed in (self._graphs.padded(counts, chunks).astype(np.int64) for chunks in (True, False))
        )
        return with_chunks, without

    def _head_row_s(self, size: int) -> list[float]:
        total = np.zeros(size)
        for value in self._head_parts(np.arange(size, dtype=np.float64)).values():
            total = total + value
        total[0] = 0.0
        found: list[float] = total.tolist()
        return found

    def _note(self, tokens: int, rows: int, steps: int) -> None:
        """Count steps with more tokens or rows than measured, and make the tables long enough."""
        for name, value, limit in (("tokens of a step", tokens, self._max_tokens), ("rows", rows, self._max_rows)):
            if value <= limit:
                continue
            if self._outside == "raise":
                raise InputError(
                    f"measured cost: {value} {name}, measured to {limit}; set cost.outside to clip or extrapolate"
                )
            kind = "dense operators" if value is tokens else "LM head and sampler"
            self._substitutions[f"{kind}: {name} above what was measured ({limit})"] += steps
        if tokens >= len(self._decode_steps):
            self._chunk_steps, self._decode_steps = self._token_tables(1 << tokens.bit_length())
        if rows >= len(self._head_s):
            self._head_s = self._head_row_s(1 << rows.bit_length())

    def _describe(self, rows: pd.DataFrame) -> tuple[str, ...]:
        """Lines of ``sources``."""
        told = rows[["software", "software_version", "date", "source"]].drop_duplicates()
        made = sorted(
            f"{software} {version}, {date}, {source}"
            for software, version, date, source in told.itertuples(index=False)
        )
        hardware = one_value(rows, "hardware", self._where)
        lines = [f"measured: {len(rows)} kernel times on {hardware}, {line} ({self._where})" for line in made[:1]]
        lines += [f"measured: {line}" for line in made[1:]]
        lines.append(f"host overhead: {self._host_overhead_s * 1e3:g} ms a step")
        lines.append(self._graphs.source)
        lines.append(
            "attention: joint table, linear in each axis; several chunks of a step as one with as many tokens and "
            "attended pairs"
        )
        lines += self._collectives.sources
        if self._stage_link is not None:
            lines.append(f"pipeline stages: not measured, estimate for {self._stage_link.name}")
        if self._model.moe is not None:
            lines.append("experts: as many visited as uniform, independent routing visits on average (an assumption)")
            if self._shapes.load.source:
                lines.append(self._shapes.load.source)
        if self._divided:
            how = f"spread over {self._plan.ep} groups of ranks, balanced" if self._plan.ep > 1 else "divided"
            lines.append(f"experts: measured on one rank, {how} (an assumption)")
        left_out = [
            name
            for name in ("norm", "rotary", "activation", "embedding", "final_norm", "sampler")
            if name not in self._tables and not (name == "activation" and not self._model.dense_layers)
        ]
        if left_out:
            lines.append(f"not measured, so taken as 0: {', '.join(left_out)}")
        outside = {
            "raise": "is an error",
            "clip": "takes the nearest measured value, and is counted",
            "extrapolate": (
                "goes on at the last rate (attention: in a straight line, long chunks in pieces), and is counted"
            ),
        }
        lines.append(f"a shape outside what was measured {outside[self._outside]}")
        return tuple(lines)


def operator_tables(rows: pd.DataFrame) -> dict[str, tuple[Floats, Floats]]:
    """Return points and times by operator, but for attention; of points measured twice, the median."""
    tables = {}
    for name, part in rows.groupby("operator", sort=True):
        if str(name) in CALLS_PER_LAYER or name in ("embedding", "final_norm"):
            columns = ["tokens"]
        elif name in ("lm_head", "sampler"):
            columns = ["sequences"]
        elif name == "moe":
            columns = ["tokens", "activated_experts"]
        else:
            continue
        median = part.groupby(columns, sort=True)["time_s"].median()
        points = median.index.to_frame().to_numpy(dtype=np.float64)
        tables[str(name)] = (points if name == "moe" else points[:, 0], median.to_numpy(dtype=np.float64))
    return tables


def _of_tp(table: pd.DataFrame, tp: int, where: str) -> pd.DataFrame:
    sizes = tp_degrees(table)
    if tp not in sizes:
        raise InputError(
            f"{where}: was not measured for tp={tp}; measured: {', '.join(f'tp={size}' for size in sizes) or 'none'}"
        )
    return table[table["tp"] == tp]


def _check_subject(table: pd.DataFrame, model: ModelSpec, where: str) -> None:
    """Raise if the measurements are of another model's shapes, or of several machines."""
    measured = one_value(table, "model", where)
    if measured is None:
        raise InputError(f"{where}: names no model; a measured cost needs the layers of one")
    if not _same_shapes(measured, model):
        raise InputError(f"{where}: was measured for {measured}, whose shapes are not those of {model.name}")
    one_value(table, "hardware", where)


def check_hardware(rows: pd.DataFrame, accelerator: Accelerator, where: str) -> None:
    """Raise if some of the measurements are of another accelerator; machines without a profile of ours pass.

    Raises
    ------
    InputError
        Naming both.
    """
    from hardware_profiles import load_accelerator

    for name in sorted(rows["hardware"].unique()):
        try:
            known = load_accelerator(name).name
        except ValueError:
            continue
        if known != accelerator.name:
            raise InputError(f"{where}: was measured on {known}, and the pool has {accelerator.name}; choose that one")


def _same_shapes(measured: str, model: ModelSpec) -> bool:
    if measured.lower() in (model.hf_id.lower(), model.name.lower()):
        return True
    try:
        other = load_model(measured)
    except InputError:
        return False
    names = ["hidden_size", "num_layers", "vocab_size", "num_heads", "num_kv_heads", "head_dim", "intermediate_size"]
    names += ["gated_mlp", "moe", "mla"]
    return all(getattr(other, name) == getattr(model, name) for name in names)


def _check_dtypes(table: pd.DataFrame, wanted: dict[str, str], where: str) -> None:
    meaning = {"dtype": "activations", "weight_dtype": "weights", "kv_dtype": "the KV cache"}
    for column, dtype in wanted.items():
        measured = one_value(table, column, where)
        if measured is not None and canonical_dtype(measured, f"{where}: {column}") != dtype:
            raise InputError(f"{where}: was measured with {meaning[column]} in {measured}, and the run has {dtype}")

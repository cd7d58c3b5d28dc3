"""Step times from the times of kernels: operators one after the other, none overlapping another.

``step = host overhead + layers x (operators by tokens + attention) + LM head and sampler by rows``. Where the kernel
times come from is the source's business (`simulator.cost.kernels`): measured tables, fits, or the data sheet.

Not modelled: what attention in a mixed batch costs beyond its prefill part plus its decode part (kernels measured on
RTX PRO 6000 take 1.2 to 3 times the sum at 64 to 128 decodes; a layer profile knows, `simulator.cost.measured`),
decodes of unequal length.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from simulator.cost.attention import window_pairs, window_pairs_run
from simulator.cost.efficiency import SAMPLER_BYTES_PER_LOGIT
from simulator.cost.graphs import NO_GRAPHS, CudaGraphs
from simulator.cost.kernels import Floats, Kernels, KernelShapes, widened
from simulator.cost.links import P2P_LATENCY_S
from simulator.cost.operators import OperatorTimes, idle_experts
from simulator.cost.piecewise import Curves, Piecewise
from simulator.cost.shape import BatchShape
from simulator.errors import InputError

BEYOND_DECODES = "decode attention: more or longer decodes than measured"
"""What is counted in ``substitutions``."""
_NS_PER_S = 1e9
_FIRST_TABLE = 4096  # entries of a table when it is made
_FEW_DECODES, _LONGEST_RUN_TABLE = 16, 1 << 15  # tables of runs: 16 of 256 KB at most, made in 2 ms
_LARGEST_TABLE = 1 << 15  # counts beyond are computed one by one, with all experts visited


class OperatorCost:
    """Cost model of one model on a parallel layout.

    Parameters
    ----------
    shapes
        What is computed.
    kernels
        How long kernels take.
    host_overhead_s
        Seconds a step that the accelerators wait for the host.
    graphs
        How steps are padded.

    Raises
    ------
    InputError
        If the overhead is negative.
    """

    def __init__(
        self,
        shapes: KernelShapes,
        kernels: Kernels,
        *,
        host_overhead_s: float,
        graphs: CudaGraphs = NO_GRAPHS,
    ) -> None:
        if not host_overhead_s >= 0:
            raise InputError(f"host_overhead_s must be at least 0, got {host_overhead_s}")
        model, plan = shapes.model, shapes.plan
        self._cp = plan.cp
        self._shapes = shapes
        self._operators = OperatorTimes(shapes, kernels)
        self._attention = kernels.attention
        self._substitutions = kernels.substitutions
        self._window_attention = kernels.window_attention
        self._model = model
        self._host_overhead_s = host_overhead_s
        self._graphs = graphs
        self._stage_link = shapes.stage_link
        self._layers = plan.stage_layers(model.num_layers)
        self._window = model.sliding_window if model.num_sliding_layers else None
        sliding = [sum(map(model.is_sliding_layer, layers)) if self._window else 0 for layers in self._layers]
        self._last = len(self._layers) - 1
        self._plain = not self._last and self._window is None
        self._decode, self._window_decode = Curves(kernels.attention.decode), Curves(kernels.window_attention.decode)
        self._decode_steps_ns = Curves(self._decode_step_ns)
        self._run_tables_ns: dict[int, npt.NDArray[np.int64]] = {}
        self._attention_layers = [
            (stage, float(len(layers) - sliding[stage]), float(sliding[stage]))
            for stage, layers in enumerate(self._layers)
        ]
        self._full_layers = self._attention_layers[0][1]
        # By tokens: seconds of each stage, in steps with chunks and in steps of decodes alone.
        self._chunk_steps: list[tuple[float, ...]] = []
        self._decode_steps: list[tuple[float, ...]] = []
        self._head_s: list[float] = []  # by rows of logits
        self._rare_tokens: dict[tuple[int, bool], tuple[float, ...]] = {}
        self._rare_rows: dict[int, float] = {}
        self._make_tables(_FIRST_TABLE)
        self._head_s = self._head_table(_FIRST_TABLE)
        if plan.dp > 1:  # a source names what it was asked for
            self._operators.experts(np.ones(1), np.ones(1))
        self._sources = (*kernels.sources, *self._describe(), *widened(shapes))

    @property
    def operators(self) -> OperatorTimes:
        """Times of the operators, with the shapes and the kernels that they are made of."""
        return self._operators

    @property
    def substitutions(self) -> dict[str, int]:
        """Steps that lay outside what was measured, by what was substituted; those of a run cut short included."""
        return dict(sorted(self._substitutions.items()))

    @property
    def sources(self) -> tuple[str, ...]:
        """Where the costs come from, and what they assume."""
        return self._sources

    def step_ns(self, shape: BatchShape) -> int:
        """Duration of one step: the sum of its stages."""
        if not self._plain:
            return sum(self.stage_ns(shape))
        if shape.chunks:
            return self._chunk_step_ns(shape)
        decodes, attended = shape.decodes, shape.decode_kv
        if shape.padding_tokens or not decodes:
            return self.stage_ns(shape)[0]
        duration = round(self._decodes_alone_ns(decodes, attended, 1).at(attended))
        return duration if duration > 1 else 1

    def few_ns(self, shape: BatchShape, k: int) -> list[int]:
        """Return what `run_ns` does, one number after the other."""
        decodes, attended = shape.decodes, shape.decode_kv
        if not self._plain or (not shape.chunks and (shape.padding_tokens or decodes <= _FEW_DECODES)):
            found: list[int] = self.run_ns(shape, k).tolist()
            return found
        if shape.chunks:
            return [self._chunk_step_ns(shape, step) for step in range(k)]
        curve = self._decodes_alone_ns(decodes, attended, k)
        durations = curve.rounded(range(attended, attended + k * decodes, decodes))
        return durations if curve.lowest >= 1.0 else [max(1, duration) for duration in durations]

    def stage_ns(self, shape: BatchShape) -> list[int]:
        """Time that the batch holds each stage: host overhead on the first, LM head on the last, sends included."""
        tokens = shape.decodes + shape.prefill_tokens + shape.padding_tokens
        table = self._chunk_steps if shape.chunks else self._decode_steps
        fixed = table[tokens] if tokens < len(table) else self._more_tokens(tokens, bool(shape.chunks))
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
        if self._plain and shape.decodes and not shape.chunks and not shape.padding_tokens:
            return self._decode_run_ns(shape.decodes, shape.decode_kv, k)
        tokens = shape.decodes + shape.prefill_tokens + shape.padding_tokens
        table = self._chunk_steps if shape.chunks else self._decode_steps
        fixed = table[tokens] if tokens < len(table) else self._more_tokens(tokens, bool(shape.chunks))
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

    # ------------------------------------------------------------------------------- a rank among others

    @property
    def shapes(self) -> KernelShapes:
        """What is computed."""
        return self._shapes

    def seconds(self, shape: BatchShape, computed: int) -> float:
        """Return the seconds of one step that computes so many tokens in dense operators; one stage, no padding."""
        table, rows = self._chunk_steps if shape.chunks else self._decode_steps, shape.logit_rows
        fixed = table[computed] if computed < len(table) else self._more_tokens(computed, bool(shape.chunks))
        head = self._head_s[rows] if rows < len(self._head_s) else self._more_rows(rows)
        full, window = self._context_s(shape)
        _, full_layers, window_layers = self._attention_layers[0]
        return fixed[0] + (full_layers * full + window_layers * window) + head

    def run_seconds(self, shape: BatchShape, computed: int, k: int) -> Floats:
        """Return the same of the next ``k`` steps."""
        table, rows = self._chunk_steps if shape.chunks else self._decode_steps, shape.logit_rows
        fixed = table[computed] if computed < len(table) else self._more_tokens(computed, bool(shape.chunks))
        head = self._head_s[rows] if rows < len(self._head_s) else self._more_rows(rows)
        full, window = self._context_run_s(shape, np.arange(k, dtype=np.int64))
        _, full_layers, window_layers = self._attention_layers[0]
        return np.asarray(fixed[0] + (full_layers * full + window_layers * window) + head)

    def experts(self, tokens: Floats, idle: Floats) -> Floats:
        """Return the seconds of one layer's routed experts on the busiest rank, by the tokens of all ranks."""
        return self._operators.experts(tokens, idle)

    # ------------------------------------------------------------------------------------------- tables and curves

    def _decode_step_ns(self, decodes: int) -> Piecewise:
        """Return the ns of a step of so many decodes alone, one stage and no window, over the tokens attended to.

        Between two measured points such a step is linear in that sum alone, so its other terms are added but once.
        """
        table, heads = self._decode_steps, self._head_s
        fixed = table[decodes] if decodes < len(table) else self._more_tokens(decodes, False)
        head = heads[decodes] if decodes < len(heads) else self._more_rows(decodes)
        layers = self._full_layers
        return self._decode[decodes].scaled(layers * _NS_PER_S, (fixed[0] + head) * _NS_PER_S)

    def _decodes_alone_ns(self, decodes: int, attended: int, k: int) -> Piecewise:
        """Return the curve of `_decode_step_ns`, for ``k`` steps: counted if they go beyond what was measured."""
        curve = self._decode_steps_ns[decodes]
        if attended + (k - 1) * decodes > curve.measured_to:
            self._substitutions[BEYOND_DECODES] += k
        return curve

    def _decode_run_ns(self, decodes: int, attended: int, k: int) -> npt.NDArray[np.int64]:
        """Return the ns of ``k`` steps of decodes alone, one stage and no window.

        A replica that is nearly idle computes the same steps for one request after the other: for a few decodes they
        are computed once, for all numbers of tokens attended to, and a run is a part of that table.
        """
        curve, end = self._decodes_alone_ns(decodes, attended, k), attended + k * decodes
        if decodes > _FEW_DECODES or end > _LONGEST_RUN_TABLE:
            return _durations_ns(curve, np.arange(attended, end, decodes))
        table = self._run_tables_ns.get(decodes)
        if table is None or end > len(table):
            table = self._run_tables_ns[decodes] = _durations_ns(curve, np.arange(_table_size(end)))
        return table[attended:end:decodes]

    def _chunk_step_ns(self, shape: BatchShape, steps_before: int = 0) -> int:
        """Return the ns of a step with chunks, one stage and no window, after as many steps of the same run."""
        decodes, new = shape.decodes, shape.prefill_tokens
        cached = pairs = 0
        for size, before in shape.chunks:
            if steps_before:
                before += steps_before * size
            cached += before
            pairs += size * before + size * (size + 1) // 2
        tokens, rows = decodes + new + shape.padding_tokens, shape.logit_rows
        table, heads = self._chunk_steps, self._head_s
        fixed = (table[tokens] if tokens < len(table) else self._more_tokens(tokens, True))[0]
        head = heads[rows] if rows < len(heads) else self._more_rows(rows)
        full = self._attention.prefill_s(len(shape.chunks), new, cached, pairs, cached + new)
        if decodes:
            curve, attended = self._decode[decodes], shape.decode_kv + steps_before * decodes
            full = curve.at(attended) + full
            if attended > curve.measured_to:
                self._substitutions[BEYOND_DECODES] += 1
        duration = round((fixed + self._full_layers * full + head) * _NS_PER_S)
        return duration if duration > 1 else 1

    def breakdown(self, shape: BatchShape) -> dict[str, float]:
        """Return the seconds of one step by operator family, summed over layers and stages.

        Families: those of `simulator.models.spec.FAMILIES` that the model has, ``attention_prefill``,
        ``attention_decode``, ``norms_rotary_cache``, ``activation``, ``embedding``,
        ``lm_head``, ``sampler``, ``collectives``, ``send``, ``host``. They add up to the step but for rounding.
        """
        tokens = self._rank_tokens(np.array([shape.tokens], dtype=np.float64), bool(shape.chunks))
        idle = self._idle(int(tokens[0]))[-1:]
        parts: list[dict[str, Floats]] = []
        for stage in range(len(self._layers)):
            parts.extend(self._stage_families(stage, tokens, idle, not shape.chunks))
        if shape.logit_rows:
            rows = np.ceil(np.array([shape.logit_rows / self._cp]))
            parts.append(self._operators.head(rows, SAMPLER_BYTES_PER_LOGIT))
        seconds: dict[str, float] = {}
        if shape.tokens or shape.logit_rows:
            for part in parts:
                for family, value in part.items():
                    seconds[family] = seconds.get(family, 0.0) + float(value[0])
        layers = [sum(count) for count in list(zip(*self._attention_layers, strict=True))[1:]]
        for family, (full, window) in (
            ("attention_prefill", self._prefill_s(shape) if shape.chunks else (0.0, 0.0)),
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
        curve = self._decode[decodes]
        if shape.decode_kv > curve.measured_to:
            self._substitutions[BEYOND_DECODES] += 1
        full = curve.at(shape.decode_kv)
        if self._window is None:
            return full, 0.0
        return full, self._window_decode[decodes].at(shape.decode_window_kv)

    def _prefill_s(self, shape: BatchShape) -> tuple[float, float]:
        """Attention of the chunks in a full layer and in a sliding one, seconds."""
        window = self._window
        total_new = total_cached = all_pairs = near_pairs = near_context = 0
        for new, cached in shape.chunks:
            total_new += new
            total_cached += cached
            all_pairs += new * cached + new * (new + 1) // 2
            if window is not None:
                pairs, context = window_pairs(new, cached, window)
                near_pairs += pairs
                near_context += context
        chunks, context = len(shape.chunks), total_cached + total_new
        full = self._attention.prefill_s(chunks, total_new, total_cached, all_pairs, context)
        if window is None:
            return full, 0.0
        return full, self._window_attention.prefill_s(chunks, total_new, total_cached, near_pairs, near_context)

    def _context_s(self, shape: BatchShape) -> tuple[float, float]:
        """Attention in a full layer and in a sliding one: seconds that depend on contexts."""
        full, window = self._decode_s(shape)
        if shape.chunks:
            prefill = self._prefill_s(shape)
            return full + prefill[0], window + prefill[1]
        return full, window

    def _context_run_s(self, shape: BatchShape, step: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Return the same for each step of a run."""
        decodes = shape.decodes
        full = near = np.zeros(len(step))
        if decodes:
            curve = self._decode[decodes]
            attended = shape.decode_kv + step * decodes
            if attended[-1] > curve.measured_to:
                self._substitutions[BEYOND_DECODES] += len(step)
            full = curve.many(attended)
            if self._window is not None:
                attended = shape.decode_window_kv + step * shape.decode_window_growth
                near = self._window_decode[decodes].many(attended)
        if not shape.chunks:
            return full, near
        zero = np.zeros(len(step), dtype=np.int64)
        total_new, total_cached, all_pairs, near_pairs, near_context = 0, zero, zero, zero, zero
        for new, cached_now in shape.chunks:
            cached = cached_now + step * new
            total_new += new
            total_cached = total_cached + cached
            all_pairs = all_pairs + (new * cached + new * (new + 1) // 2)
            if self._window is not None:
                pairs, context = window_pairs_run(new, cached, self._window)
                near_pairs = near_pairs + pairs
                near_context = near_context + context
        chunks, context = len(shape.chunks), total_cached + total_new
        full = full + self._attention.prefill_run_s(chunks, total_new, total_cached, all_pairs, context)
        if self._window is not None:
            attention = self._window_attention
            near = near + attention.prefill_run_s(chunks, total_new, total_cached, near_pairs, near_context)
        return full, near

    def _stage_families(self, stage: int, tokens: Floats, idle: Floats, decodes: bool) -> list[dict[str, Floats]]:
        """Seconds of a stage by family, without host and LM head: layers, then what stands before and after them."""
        operators, layers = self._operators, self._layers[stage]
        moe_layers = sum(map(self._model.is_moe_layer, layers))
        parts = []
        for moe, count in ((False, len(layers) - moe_layers), (True, moe_layers)):
            if count:
                families = operators.layer(tokens, idle, moe, decodes)
                parts.append({family: value * count for family, value in families.items()})
        if stage == 0:
            parts.append(operators.first_stage(tokens))
        if stage == self._last:
            parts.append(operators.last_stage(tokens))
        elif self._stage_link is not None:
            parts.append({"send": operators.send(tokens, self._stage_link, P2P_LATENCY_S)})
        return parts

    def _stages_s(self, counts: Floats, idle: Floats, decodes: bool) -> list[Floats]:
        """Seconds of each stage by tokens, host overhead on the first; nothing else without tokens."""
        stages = []
        for stage in range(len(self._layers)):
            total = np.zeros_like(counts)
            for part in self._stage_families(stage, counts, idle, decodes):
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

    def _make_tables(self, size: int) -> None:
        """Make the tables of stages for 0 ... ``size`` - 1 tokens."""
        counts = np.arange(size, dtype=np.float64)
        idle = self._idle(size - 1)
        stages = self._stages_s(counts, idle, False)
        for chunks in (True, False):
            if not chunks and self._operators.decodes_differ:
                stages = self._stages_s(counts, idle, True)
            computed = self._rank_tokens(counts, chunks).astype(np.int64)
            rows = list(zip(*(stage[computed].tolist() for stage in stages), strict=True))
            if chunks:
                self._chunk_steps = rows
            else:
                self._decode_steps = rows

    def _rank_tokens(self, counts: Floats, chunks: bool) -> Floats:
        """Return the tokens that the dense layers of one rank compute, by tokens of the step."""
        if self._cp > 1:
            counts = np.ceil(counts / self._cp)
        return self._graphs.padded(counts, chunks)

    def _head_table(self, size: int) -> list[float]:
        """Return the seconds of LM head and sampler for 0 ... ``size`` - 1 rows, which context parallel ranks share."""
        table: list[float] = self._head_row_s(np.ceil(np.arange(size, dtype=np.float64) / self._cp)).tolist()
        return table

    def _head_row_s(self, rows: Floats) -> Floats:
        """Seconds of LM head and sampler by rows; nothing without rows."""
        total = np.zeros_like(rows)
        for value in self._operators.head(rows, SAMPLER_BYTES_PER_LOGIT).values():
            total = total + value
        return np.where(rows > 0, total, 0.0)

    def _more_tokens(self, tokens: int, chunks: bool) -> tuple[float, ...]:
        """Return the seconds of each stage for more tokens than the tables have, which grow."""
        if tokens < _LARGEST_TABLE:
            self._make_tables(_table_size(tokens))
            return (self._chunk_steps if chunks else self._decode_steps)[tokens]
        key = tokens, chunks
        if key not in self._rare_tokens:
            stages = self._stages_s(np.ceil(np.array([tokens / self._cp])), np.zeros(1), not chunks)
            self._rare_tokens[key] = tuple(float(stage[0]) for stage in stages)
        return self._rare_tokens[key]

    def _more_rows(self, rows: int) -> float:
        """Return the seconds of more rows of logits than the table has, which grows."""
        if rows < _LARGEST_TABLE:
            self._head_s = self._head_table(_table_size(rows))
            return self._head_s[rows]
        if rows not in self._rare_rows:
            self._rare_rows[rows] = float(self._head_row_s(np.ceil(np.array([rows / self._cp])))[0])
        return self._rare_rows[rows]

    def _describe(self) -> tuple[str, ...]:
        """Lines of ``sources``."""
        lines = [f"host overhead: {self._host_overhead_s * 1e3:g} ms a step", self._graphs.source]
        if self._stage_link is not None:
            lines.append(f"pipeline stages: estimate for {self._stage_link.name}")
        if self._shapes.load.source:
            lines.append(self._shapes.load.source)
        return tuple(lines)


def _durations_ns(curve: Piecewise, attended: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return steps of decodes in whole ns, at least 1, by ascending numbers of tokens attended to."""
    values = curve.many(attended)
    durations = np.rint(values, out=values).astype(np.int64)
    return durations if curve.lowest >= 1.0 else np.maximum(durations, 1)


def _table_size(count: int) -> int:
    """Entries of a table that is to hold ``count``: the next power of two above it."""
    return 1 << count.bit_length()

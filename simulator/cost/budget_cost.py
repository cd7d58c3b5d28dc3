"""Step times under a KV budget, over any cost model: fewer tokens read, fewer bytes a token, extra work.

Layers of one group attend to other numbers of tokens than those of another, or compute a part of the prompt only. A
step in which ``n`` of ``L`` layers see batch A and the others batch B takes ``n/L`` of a step in which all see A plus
the rest of one in which all see B: what is not in the layers (host, embedding, LM head, sampler) is in both, and the
layers of a model are alike. That holds for every cost model that adds up layers, so each group asks the inner one for a
whole step. What a decode attends to is given to it as tokens: those read, times the bits read of each over those of the
cache's datatype, as decode attention is bound by the traffic to the cache.

Extra work is added after the step, none of it overlapped: ``max(FLOPs / rate, bytes / bandwidth)`` of each kind of
work, at the data sheet's figures times the fractions in `simulator.cost.efficiency`; transfers to and from host memory
at the bandwidth of PCIe; each extra kernel one latency. This part is an estimate wherever the inner costs come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from policies.budget import Cap, KVBudget, Work
from simulator.cost.efficiency import DEFAULT_EFFICIENCY, Efficiency
from simulator.cost.shape import BatchShape, CostModel

_NS_PER_S = 1e9
_BITS = 8.0
_WHOLE = 1_000_000
_ALL = -1  # number of the cap of layers that read everything


@dataclass(frozen=True, slots=True)
class Rates:
    """What one rank does in a second, and by how many ranks the work is divided.

    Attributes
    ----------
    flops, memory_bytes, host_bytes
        Arithmetic in FLOP/s; traffic to GPU memory and to host memory in bytes/s, one direction.
    kernel_s
        Latency of a small kernel, seconds.
    ranks
        Tensor parallel ranks.
    """

    flops: float
    memory_bytes: float
    host_bytes: float
    kernel_s: float
    ranks: int = 1

    @classmethod
    def of(
        cls,
        *,
        peak_flops: float,
        memory_bandwidth: float,
        host_bandwidth: float,
        ranks: int,
        efficiency: Efficiency = DEFAULT_EFFICIENCY,
    ) -> Rates:
        """Return the rates of an accelerator from its data sheet: FLOP/s and bytes/s."""
        return cls(
            flops=peak_flops * efficiency.gemm_flops,
            memory_bytes=memory_bandwidth * efficiency.elementwise_bytes,
            host_bytes=host_bandwidth,
            kernel_s=efficiency.elementwise_latency_s,
            ranks=ranks,
        )

    def seconds(self, work: Work) -> float:
        """Return the seconds of work divided over the ranks."""
        return max(work.flops / self.flops, work.memory_bytes / self.memory_bytes) / self.ranks


@dataclass(frozen=True, slots=True)
class _Part:
    """Layers that see the same batch: their share of all, the cap that they read up to, their share of the prompt."""

    weight: float
    cap: int
    prefill_share: float


class BudgetCost:
    """Cost model of an engine with a KV budget.

    Parameters
    ----------
    inner
        The costs without it.
    budget
        What is read, and the extra work.
    full_bits
        Bits of a token in one layer in the datatype of the cache that ``inner`` reads.
    rates
        For the extra work.
    """

    def __init__(self, inner: CostModel, budget: KVBudget, full_bits: float, rates: Rates) -> None:
        self._inner = inner
        self._budget = budget
        # Tokens are whole numbers, and so is the ratio, in millionths.
        self._ratio = max(1, round(_WHOLE * budget.read_share * budget.read_bits / full_bits))
        self._share = budget.read_share
        caps = {cap: number for number, cap in enumerate(budget.tracked)}
        self._chunk_parts = _parts(budget, caps, chunks=True)
        self._decode_parts = _parts(budget, caps, chunks=False)
        layers = budget.num_layers
        self._step_s = layers * budget.step_kernels * rates.kernel_s
        self._decode_s = rates.seconds(budget.per_decode)
        self._read_s = rates.seconds(budget.per_read)
        self._prefill_s = rates.seconds(budget.per_prefill)
        self._cached_s = rates.seconds(budget.per_cached)
        self._pair_s = rates.seconds(budget.per_pair)
        self._offload = budget.offload
        if budget.offload is not None:
            offload = budget.offload
            self._host_token_s = layers * budget.token_bits / _BITS / rates.ranks / rates.host_bytes
            self._recompute_s = rates.seconds(offload.recompute)
            self._gpu_cap = caps[Cap(offload.gpu_tokens)]
            self._host_cap = caps[Cap(offload.gpu_tokens + (offload.host_tokens or 0))]
        self._shape = BatchShape()
        self._sources = (
            *inner.sources,
            "KV budget: extra work is an estimate from the data sheet, after the step, nothing overlapped",
        )

    @property
    def sources(self) -> tuple[str, ...]:
        """Where the costs come from: the inner model's lines, and what is added."""
        return self._sources

    @property
    def substitutions(self) -> dict[str, int]:
        """Those of the inner model; a run of equal steps counts as one."""
        found: dict[str, int] = getattr(self._inner, "substitutions", {})
        return found

    def step_ns(self, shape: BatchShape) -> int:
        """Duration of one step."""
        return self._at(shape, 0)

    def few_ns(self, shape: BatchShape, k: int) -> list[int]:
        """Return the durations of ``k`` steps; those in which nothing grows are computed once."""
        if not shape.chunks and not self._grows(shape):
            return [self._at(shape, 0)] * k
        return [self._at(shape, step) for step in range(k)]

    def run_ns(self, shape: BatchShape, k: int) -> npt.NDArray[np.int64]:
        """Return the same as an array, shape (k,)."""
        return np.array(self.few_ns(shape, k), dtype=np.int64)

    def stage_ns(self, shape: BatchShape) -> list[int]:
        """Time in each stage: the extra work is divided evenly over them."""
        (part,) = self._parts_of(shape)  # several groups of layers and several stages are refused together
        stages = self._inner.stage_ns(self._seen(part, shape, 0))
        extra = self._extra_s(shape, 0) * _NS_PER_S / len(stages)
        return [max(1, round(stage + extra)) for stage in stages]

    def _parts_of(self, shape: BatchShape) -> Sequence[_Part]:
        return self._chunk_parts if shape.chunks else self._decode_parts

    def _grows(self, shape: BatchShape) -> bool:
        """Tell whether a later step of the run attends to more than the first."""
        if not shape.decodes:
            return False
        if self._offload is not None:
            return True
        return any(part.cap == _ALL or shape.decode_reads[part.cap][2] for part in self._decode_parts)

    def _at(self, shape: BatchShape, step: int) -> int:
        parts, inner = self._parts_of(shape), self._inner
        total = self._extra_s(shape, step) * _NS_PER_S
        for part in parts:
            total = total + part.weight * inner.step_ns(self._seen(part, shape, step))
        duration = round(total)
        return duration if duration > 1 else 1

    def _reads(self, cap: int, shape: BatchShape, step: int) -> tuple[int, int]:
        """Return the tokens within a cap that the decodes of a step attend to, and the sum of squares of the same."""
        if cap == _ALL:
            total, squares, growth, growing = shape.decode_kv, shape.decode_kv_sq, shape.decodes, shape.decode_kv
        else:
            total, squares, growth, growing = shape.decode_reads[cap]
        if step:
            squares += 2 * step * growing + growth * step * step
            total += step * growth
        return total, squares

    def _seen(self, part: _Part, shape: BatchShape, step: int) -> BatchShape:
        """Return the batch as the layers of a part see it, for the inner model."""
        seen = self._shape
        seen.decodes, seen.padding_tokens, seen.logit_rows = shape.decodes, shape.padding_tokens, shape.logit_rows
        if shape.decodes:
            total, squares = self._reads(part.cap, shape, step)
            ratio = self._ratio
            if ratio != _WHOLE:
                total = max(shape.decodes, -(-total * ratio // _WHOLE))
                squares = -(-squares * ratio * ratio // (_WHOLE * _WHOLE))
            seen.decode_kv = seen.decode_window_kv = total
            seen.decode_kv_sq = squares
            seen.decode_window_growth = shape.decodes
        else:
            seen.clear_decodes()
        seen.chunks.clear()
        seen.prefill_tokens = 0
        for new, cached in shape.chunks:
            cached += step * new
            if self._budget.drop == "prefill" and part.cap != _ALL:
                cached = min(cached, self._budget.tracked[part.cap].tokens)
            if part.prefill_share != 1.0:
                new, cached = max(1, round(new * part.prefill_share)), round(cached * part.prefill_share)
            seen.chunks.append((new, cached))
            seen.prefill_tokens += new
        return seen

    def _extra_s(self, shape: BatchShape, step: int) -> float:
        """Seconds of the extra work of a step."""
        extra = self._step_s
        if shape.decodes:
            extra += shape.decodes * self._decode_s
            for part in self._decode_parts:
                extra += part.weight * self._share * self._reads(part.cap, shape, step)[0] * self._read_s
            if self._offload is not None:
                extra += self._outside_s(shape, step)
        for new, cached in shape.chunks:
            cached += step * new
            extra += new * self._prefill_s + (new * cached + new * (new + 1) // 2) * self._pair_s
            extra += cached * self._cached_s
            if self._offload is not None:
                limit = self._offload.gpu_tokens
                written = max(0, cached + new - limit) - max(0, cached - limit)
                extra += written * self._host_token_s
        return extra

    def _outside_s(self, shape: BatchShape, step: int) -> float:
        """Seconds for the decodes' tokens outside GPU memory: loads, writes of those that leave it, recomputation."""
        offload = self._offload
        assert offload is not None
        on_gpu, _ = self._reads(self._gpu_cap, shape, step)
        everywhere, _ = self._reads(_ALL, shape, step)
        kept = everywhere if offload.host_tokens is None else self._reads(self._host_cap, shape, step)[0]
        leaving = shape.decodes - shape.decode_reads[self._gpu_cap][2]
        loaded = offload.load_share * (kept - on_gpu) + leaving
        return loaded * self._host_token_s + offload.recompute_share * (everywhere - kept) * self._recompute_s


def _parts(budget: KVBudget, caps: dict[Cap, int], *, chunks: bool) -> tuple[_Part, ...]:
    """Return the groups of layers, those that see the same batch put together."""
    layers: dict[tuple[int, float], int] = {}
    for group in budget.groups:
        seen = (_ALL if group.read is None else caps[group.read], group.prefill_share if chunks else 1.0)
        layers[seen] = layers.get(seen, 0) + group.layers
    return tuple(_Part(count / budget.num_layers, cap, share) for (cap, share), count in layers.items())

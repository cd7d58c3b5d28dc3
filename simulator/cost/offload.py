"""Steps of a model that is partly off the GPU: what moves, and what a step takes then.

FlexGen's cost model (Sheng et al., arXiv:2303.06865, section 4.3): while a layer is computed for all GPU batches of a
block, the next layer's weights come in, keys, values and hidden states of the batches come and go. With everything
overlapped a layer takes the longest of computing, loading, storing, reading from disk and writing there. Layers are
alike, so here the longest of the sums over layers; filling the pipeline at a step's begin isn't modelled, as the first
layers of the next step come in during the last of this one.

Weights cross the host link once a step, whatever the block: that is what large blocks are for. The GPU reads them once
for each GPU batch.

Not modelled: GPUs that share a PCIe switch, pinning and copies in host memory, transfers of other replicas on the node,
compressed weights and KV (use ``dtypes``), FlexGen's own attention kernels, which hold scores in memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simulator.cost.efficiency import DEFAULT_EFFICIENCY
from simulator.cost.shape import BatchShape, CostModel

HOST_LINK_EFFICIENCY = 0.86
"""Fraction of PCIe's data-sheet rate that copies from and to host memory reach. FlexGen's cost model
(``experimental/cost_model.py``) has 12.89 GiB/s to a T4, whose PCIe 3.0 x16 has 16 GB/s. For the way back it has 0.97
and 4.82 GiB/s, its own runtime's rates for KV and hidden states; here both ways are alike, an assumption."""

HOST_ATTENTION_BYTES_PER_S = 12.3e9
"""KV that the host's processors attend to in a second, bytes of a 16-bit cache: FlexGen's cost model has 12.3 GFLOP/s,
fitted to runs on an Intel Xeon of 2 GHz (``cpu_flops``), and attention of one query does one FLOP for each byte."""

_NS_PER_S = 1e9


@dataclass(frozen=True)
class Shares:
    """Shares on the GPU, in host memory and on disk."""

    gpu: float
    cpu: float
    disk: float

    @property
    def away(self) -> float:
        """Share off the GPU."""
        return self.cpu + self.disk


@dataclass(frozen=True)
class Placement:
    """Where weights, KV and hidden states live."""

    weights: Shares
    kv: Shares
    activations: Shares


@dataclass(frozen=True)
class Sizes:
    """Bytes of a model on one rank.

    Attributes
    ----------
    ranks
        Of the replica, which share host and disk.
    weights, layer
        Of all layers, and of the largest.
    kv, kv_layer
        Of a token in the cache, in all layers and in one.
    hidden
        Hidden state of a token.
    queries
        Queries of a token in one layer; its attention output is as large.
    layers
        Number of them.
    """

    ranks: int
    weights: int
    layer: int
    kv: int
    kv_layer: int
    hidden: int
    queries: int
    layers: int


@dataclass(frozen=True)
class Rates:
    """Bytes/s of one rank's host link (each way), of the disk, and of attention on the host."""

    host_link: float
    disk_read: float | None
    disk_write: float | None
    host_attention: float | None


@dataclass(frozen=True)
class Work:
    """What a step does, in tokens: new ones, decodes among them, attended to by decodes, cached before chunks."""

    new: int
    decodes: int
    attended: int
    cached: int


def busy_s(sizes: Sizes, rates: Rates, place: Placement, work: Work) -> dict[str, float]:
    """Return the seconds for which a step holds the host link, the disk and the host's processors.

    Linear in the shares. Lanes: ``load`` and ``store`` over the host link, ``read`` and
    ``write`` of the disk, ``host`` for attention there (0 where decodes attend on the GPU).
    """
    kv_away, hidden_away = sizes.kv * place.kv.away, sizes.hidden * sizes.layers * place.activations.away
    moved = hidden_away * work.new
    loaded = work.cached if rates.host_attention else work.cached + work.attended
    aside = sizes.queries * sizes.layers * place.kv.away * work.decodes if rates.host_attention else 0.0
    lanes = {
        "load": (sizes.weights * place.weights.away + kv_away * loaded + moved + aside) / rates.host_link,
        "store": (kv_away * work.new + moved + aside) / rates.host_link,
        "host": 0.0,
    }
    if rates.host_attention:
        lanes["host"] = sizes.ranks * kv_away * work.attended / rates.host_attention
    if rates.disk_read and rates.disk_write:
        kv, hidden = sizes.kv * place.kv.disk, sizes.hidden * sizes.layers * place.activations.disk * work.new
        read = sizes.weights * place.weights.disk + kv * (work.attended + work.cached) + hidden
        lanes["read"] = sizes.ranks * read / rates.disk_read
        lanes["write"] = sizes.ranks * (kv * work.new + hidden) / rates.disk_write
    return lanes


class OffloadCost:
    """Cost model of steps whose weights, KV or hidden states are partly off the GPU.

    Parameters
    ----------
    base
        Cost of the step with everything on the GPU, one pipeline stage.
    overlap
        Whether transfers go on while layers are computed.
    gpu_batches
        Parts that a block is computed in.
    memory_bandwidth
        Of the GPU, data sheet, bytes/s.
    """

    def __init__(
        self,
        base: CostModel,
        sizes: Sizes,
        rates: Rates,
        place: Placement,
        *,
        overlap: bool,
        gpu_batches: int,
        memory_bandwidth: float,
    ) -> None:
        self._base = base
        self._sizes, self._rates, self._place = sizes, rates, place
        self._overlap, self._gpu_batches = overlap, gpu_batches
        self._weights_s = sizes.weights / (memory_bandwidth * DEFAULT_EFFICIENCY.gemm_bytes)
        self._on_gpu = BatchShape()

    @property
    def sources(self) -> tuple[str, ...]:
        """Where the costs come from."""
        rates = self._rates
        lines = [f"offloading: host link {rates.host_link / 1e9:.3g} GB/s each way, estimate from the data sheet"]
        if rates.host_attention:
            lines.append(f"attention on the host: {rates.host_attention / 1e9:.3g} GB/s of KV")
        if rates.disk_read and rates.disk_write:
            read, write = rates.disk_read / 1e9, rates.disk_write / 1e9
            lines.append(f"disk: {read:.3g} GB/s read, {write:.3g} GB/s written, as given")
        return (*self._base.sources, *lines)

    @property
    def substitutions(self) -> dict[str, int]:
        """Steps that lay outside what was measured, by what was substituted."""
        return dict(getattr(self._base, "substitutions", {}))

    def lanes_s(self, shape: BatchShape, steps_before: int = 0) -> dict[str, float]:
        """Return the seconds of each lane of a step, ``compute`` and those of `busy_s`, after some of the same run."""
        decodes, attended = shape.decodes, shape.decode_kv + steps_before * shape.decodes
        chunks = [(new, cached + steps_before * new) for new, cached in shape.chunks]
        work = Work(decodes + shape.prefill_tokens, decodes, attended, sum(cached for _, cached in chunks))
        lanes = busy_s(self._sizes, self._rates, self._place, work)
        on_gpu = self._on_gpu
        on_gpu.decodes, on_gpu.chunks, on_gpu.prefill_tokens = decodes, chunks, shape.prefill_tokens
        on_gpu.padding_tokens, on_gpu.logit_rows = shape.padding_tokens, shape.logit_rows
        squares = shape.decode_kv_sq + 2 * steps_before * shape.decode_kv + steps_before * steps_before * decodes
        window = shape.decode_window_kv + steps_before * shape.decode_window_growth
        share = self._place.kv.gpu if self._rates.host_attention else 1.0
        on_gpu.decode_kv = max(decodes, int(attended * share))
        on_gpu.decode_kv_sq = int(squares * share * share)
        on_gpu.decode_window_kv = max(decodes, int(window * share))
        on_gpu.decode_window_growth = shape.decode_window_growth
        parts = min(self._gpu_batches, decodes + len(chunks))
        lanes["compute"] = self._base.step_ns(on_gpu) / _NS_PER_S + max(0, parts - 1) * self._weights_s
        return lanes

    def _duration_ns(self, shape: BatchShape, steps_before: int) -> int:
        lanes = self.lanes_s(shape, steps_before)
        seconds = lanes.pop("compute") + lanes.pop("host")  # a layer attends before it goes on
        others = [lanes[name] for name in sorted(lanes)]
        if self._overlap:
            seconds = max(seconds, *others)
        else:
            for other in others:
                seconds += other
        return max(1, round(seconds * _NS_PER_S))

    def step_ns(self, shape: BatchShape) -> int:
        """Duration of one step."""
        return self._duration_ns(shape, 0)

    def few_ns(self, shape: BatchShape, k: int) -> list[int]:
        """Return the durations of the next ``k`` steps, one by one: these are seconds long, and few."""
        return [self._duration_ns(shape, step) for step in range(k)]

    def run_ns(self, shape: BatchShape, k: int) -> npt.NDArray[np.int64]:
        """Durations of the next ``k`` steps."""
        return np.array(self.few_ns(shape, k), dtype=np.int64)

    def stage_ns(self, shape: BatchShape) -> list[int]:
        """Time that the batch holds the one stage."""
        return [self.step_ns(shape)]

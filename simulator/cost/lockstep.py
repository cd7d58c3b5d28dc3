"""Step times of attention data parallel ranks that share routed experts and so step together.

``step = slowest rank's own part + layers with experts x (dispatch + experts of all tokens + combine)``. A rank's own
part is everything but the routed experts, on its own tokens: attention, projections, norms, router, shared experts,
dense layers, LM head, host. Every rank waits at the first exchange for the slowest and is paced by it from there on, so
taking the slowest rank's whole part in one is the same as layer by layer, as long as one rank is the slowest in every
layer.

In a CUDA graph all ranks pad to the captured size of the one with the most tokens, and a rank without work computes a
dummy of that size (vLLM ``coordinate_batch_across_dp``, SGLang ``prepare_mlp_sync_batch``); without one each computes
its own tokens, and a rank without work `DUMMY_TOKENS`. A graph is used only where all ranks can. Not modelled: the
exchange of token counts between schedulers before a step (part of the host overhead, whatever that is); dense layers
divided over all ranks, as SGLang has them unless told otherwise; overlap of exchange and computation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from simulator.cost.exchange import Exchange
from simulator.cost.graphs import CudaGraphs
from simulator.cost.kernels import Floats, KernelShapes
from simulator.cost.operators import idle_experts
from simulator.cost.shape import BatchShape
from simulator.cost.together import Ints, LockstepTimes

DUMMY_TOKENS = 1
"""Tokens that a rank without work computes outside CUDA graphs: ``execute_dummy_batch`` in vLLM's
``v1/worker/gpu_worker.py``."""

_NS_PER_S = 1e9
_IDLE_TABLE = 1 << 14  # tokens beyond visit every expert


class RankCost(Protocol):
    """Cost of one rank's own part: `OperatorCost` or `MeasuredCost` made without CUDA graphs, of a plan with dp > 1."""

    @property
    def sources(self) -> tuple[str, ...]:
        """Where its times come from."""
        ...

    @property
    def substitutions(self) -> dict[str, int]:
        """Steps beyond what was measured."""
        ...

    @property
    def shapes(self) -> KernelShapes:
        """What is computed."""
        ...

    def seconds(self, shape: BatchShape, computed: int) -> float:
        """Return the seconds of a step that computes so many tokens in dense operators."""
        ...

    def run_seconds(self, shape: BatchShape, computed: int, k: int) -> Floats:
        """Return the same of the next ``k`` steps."""
        ...

    def experts(self, tokens: Floats, idle: Floats) -> Floats:
        """Return the seconds of one layer's routed experts by the tokens of all ranks."""
        ...


class LockstepCost:
    """See the module. As the cost model of a rank alone (`step_ns` ...) it is a step in which no other rank has work.

    Parameters
    ----------
    rank
        One rank's own part.
    exchange
        Dispatch and combine.
    graphs
        How steps are padded.
    """

    def __init__(self, rank: RankCost, exchange: Exchange, graphs: CudaGraphs) -> None:
        self._rank, self._exchange, self._graphs = rank, exchange, graphs
        model = rank.shapes.model
        self.num_ranks = rank.shapes.plan.dp
        self._layers = sum(map(model.is_moe_layer, range(model.num_layers)))
        self._idle_experts = idle_experts(model, _IDLE_TABLE)
        self._shared_ns: dict[tuple[int, int, bool], tuple[int, int]] = {}

    @property
    def sources(self) -> tuple[str, ...]:
        """Where the costs come from, and what they assume."""
        own = [line for line in self._rank.sources if not line.startswith("CUDA graphs")]
        ranks = (
            f"{self.num_ranks} attention data parallel ranks step together: a step lasts as long as the slowest rank's "
            "own part, then dispatch, experts of all tokens, combine"
        )
        return (*own, self._graphs.source, ranks, *self._exchange.sources)

    @property
    def substitutions(self) -> dict[str, int]:
        """Steps that lay outside what was measured, by what was substituted."""
        return self._rank.substitutions

    def computed_tokens(self, shapes: Sequence[BatchShape]) -> tuple[list[int], int]:
        """Return the tokens that each of the ranks with work computes in dense operators, and those of all ranks.

        Parameters
        ----------
        shapes
            Batches of the ranks that have work; the others compute a dummy.
        """
        tokens = [shape.tokens for shape in shapes]
        most = max(tokens, default=0)
        chunks = any(shape.chunks for shape in shapes)
        graphs = self._graphs
        if graphs.sizes and most <= graphs.sizes[-1] and not (chunks and graphs.decode_only):
            padded = int(graphs.padded(np.array([float(max(most, DUMMY_TOKENS))]), chunks)[0])
            return [padded] * len(tokens), padded * self.num_ranks
        computed = [max(count, DUMMY_TOKENS) for count in tokens]
        return computed, sum(computed) + DUMMY_TOKENS * (self.num_ranks - len(tokens))

    def together(self, shapes: Sequence[BatchShape], k: int) -> LockstepTimes:
        """Return the times of the next ``k`` steps of the ranks that have work, ``shapes``, beside idle ones."""
        computed, total = self.computed_tokens(shapes)
        rank = self._rank
        if k == 1:
            seconds = [[rank.seconds(shape, count)] for shape, count in zip(shapes, computed, strict=True)]
            own = np.array([[max(1, round(value[0] * _NS_PER_S))] for value in seconds], dtype=np.int64)
        else:
            own = np.empty((len(shapes), k), dtype=np.int64)
            for place, (shape, count) in enumerate(zip(shapes, computed, strict=True)):
                found = np.rint(rank.run_seconds(shape, count, k) * _NS_PER_S).astype(np.int64)
                own[place] = np.maximum(found, 1)
        chunks = any(shape.chunks for shape in shapes)
        return LockstepTimes(own, *self._shared(max(computed), total, chunks))

    def _shared(self, most: int, total: int, chunks: bool) -> tuple[int, int]:
        """Return the ns of dispatch and combine, and of the experts, of all layers."""
        key = most, total, chunks
        found = self._shared_ns.get(key)
        if found is None:
            tokens, largest = np.array([float(total)]), np.array([float(most)])
            idle = self._idle_experts[total : total + 1] if total <= _IDLE_TABLE else np.zeros(1)
            exchange = self._layers * self._exchange.seconds(largest, tokens, chunks)
            experts = self._layers * self._rank.experts(tokens, idle)
            found = self._shared_ns[key] = round(float(exchange[0]) * _NS_PER_S), round(float(experts[0]) * _NS_PER_S)
        return found

    # --------------------------------------------------------------------------------- as the cost of one rank alone

    def step_ns(self, shape: BatchShape) -> int:
        """Duration of one step in which no other rank has work."""
        return int(self.together([shape], 1).steps[0])

    def run_ns(self, shape: BatchShape, k: int) -> Ints:
        """Durations of ``k`` steps likewise."""
        return self.together([shape], k).steps

    def few_ns(self, shape: BatchShape, k: int) -> list[int]:
        """Return what `run_ns` does, as a list."""
        durations: list[int] = self.run_ns(shape, k).tolist()
        return durations

    def stage_ns(self, shape: BatchShape) -> list[int]:
        """Time of the only stage."""
        return [self.step_ns(shape)]

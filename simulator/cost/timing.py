"""Times of single steps for policies that profile their engine before it serves anybody."""

from __future__ import annotations

from collections.abc import Sequence

from policies.protocols import StepTimer
from simulator.cost.shape import BatchShape, CostModel
from simulator.errors import InputError

_NS_PER_S = 1e9


def step_timer(cost: CostModel) -> StepTimer:
    """Return a function that times a step by a cost model; see `policies.protocols.StepTimer`.

    Decodes all have the same context; of a model with a sliding window they attend to all of it, so that the time is
    then above the engine's. None where the cost model refuses a batch.
    """

    def step_s(chunks: Sequence[tuple[int, int]], decodes: int, context_tokens: int) -> float | None:
        shape = BatchShape()
        shape.chunks = list(chunks)
        shape.prefill_tokens = sum(new for new, _ in chunks)
        shape.decodes = decodes
        shape.decode_kv = shape.decode_window_kv = decodes * (context_tokens + 1)
        shape.decode_kv_sq = decodes * (context_tokens + 1) ** 2
        shape.logit_rows = decodes + len(chunks)
        try:
            return cost.step_ns(shape) / _NS_PER_S
        except InputError:
            return None

    return step_s

"""Shared-prefix attention (Hydragen) on top of any cost model of a batch.

Juravsky et al., arXiv:2402.05099: decodes that share a prefix attend to it together, as one product of matrices instead
of many of a matrix and a vector, and each to its own suffix as before; the two parts are put together by their
log-sum-exps. So a step costs what the model says of the suffixes alone, and for each layer that attends to everything

- one more attention kernel, as of a prefill chunk: as many new tokens as there are sharers, all of the prefix before
  them and no causal mask. Its arithmetic grows with tokens x sharers, its memory traffic with the tokens read once.
  Few queries over a long prefix would keep few of the GPU's processors busy, so the kernel divides the prefix as
  FlashAttention does, which Hydragen calls, and combines the parts in one kernel more;
- one kernel that combines the partial results of each sharer's prefix and suffix.

Several prefixes, and the levels of a tree of them, share the one launch, as the paper's variable-length kernel does for
the prefixes of one level; its own implementation launches one kernel a level, which is not modelled. Prefixes of
several lengths are taken as so many of their mean length. Layers with a sliding window attend as before.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from simulator.cost.kernels import Kernels, KernelShapes
from simulator.cost.piecewise import Piecewise
from simulator.cost.shape import BatchShape, CostModel
from simulator.sharding import rank_heads

QUERIES_PER_BLOCK = 64
"""Rows of queries that a thread block of FlashAttention's split kernels takes (``set_params_splitkv`` in its
``csrc/flash_attn/flash_api.cpp``)."""
MAX_SPLITS = 64
"""Most parts there, of a plain forward pass in versions 2.2 and 2.3."""

_NS_PER_S = 1e9


@cache
def key_splits(blocks: int, processors: int, key_blocks: int) -> int:
    """Return into how many parts the keys are divided: the fewest with 85 % of the best occupancy.

    FlashAttention's ``num_splits_heuristic`` (``csrc/flash_attn/flash_api.cpp``), in whole numbers.

    Parameters
    ----------
    blocks
        Thread blocks of queries, over prefixes and heads.
    processors
        Streaming multiprocessors of the GPU.
    key_blocks
        Blocks of keys that a prefix has.

    Examples
    --------
    >>> key_splits(48, 108, 64), key_splits(320, 108, 64)
    (2, 1)
    """
    if 10 * blocks >= 8 * processors:
        return 1
    found: dict[int, float] = {}
    before = 0
    for splits in range(1, min(MAX_SPLITS, processors, key_blocks) + 1):
        each = -(-key_blocks // splits)
        if each != before:  # as many blocks of keys a part as with one part fewer would be the same division
            waves = -(-blocks * splits // processors)
            found[splits] = blocks * splits / (waves * processors)
        before = each
    best = max(found.values(), default=1.0)
    return next((splits for splits, busy in found.items() if busy >= 0.85 * best), 1)


@dataclass(frozen=True)
class SharedAttention:
    """Seconds that a layer takes for the shared part of its decodes' attention.

    Attributes
    ----------
    kernels
        Whose prefill attention counts for the shared part.
    combine_s
        Seconds of combining two partial results, by sharers.
    heads, processors
        Query heads of a rank, and streaming multiprocessors of its GPU.
    keys_per_block
        Tokens of the prefix that a thread block takes at a time.
    """

    kernels: Kernels
    combine_s: Piecewise
    heads: int
    processors: int
    keys_per_block: int

    @classmethod
    def of(cls, shapes: KernelShapes, kernels: Kernels) -> SharedAttention:
        """Return that of a model on one rank.

        Combining reads two partial outputs of a row and writes one; their log-sum-exps, a number a head, are left out.
        """
        heads, head_dim = rank_heads(shapes.model, shapes.plan.tp), shapes.model.head_dim
        row = 3 * heads * head_dim
        few, many = kernels.elementwise(row, np.array([1.0, 65_536.0]), 1).tolist()
        slope = (many - few) / 65_535
        keys = 256 if head_dim <= 64 else 128 if head_dim <= 128 else 64  # `set_params_splitkv`
        return cls(kernels, Piecewise([], [few - slope], [slope]), heads, shapes.accelerator.sm_count, keys)

    def layer_s(self, attended: int, read: int, sharers: int) -> float:
        """Return the seconds of one layer.

        Parameters
        ----------
        attended, read, sharers
            `BatchShape.shared_kv`, ``shared_read`` and ``sharers``, all above 0.
        """
        # So many prefixes of equal length would have the same sums: at least one, at most all that there are.
        prefixes = max(1, (2 * read * sharers + attended) // (2 * attended))
        blocks = self.heads * prefixes * -(-sharers // (prefixes * QUERIES_PER_BLOCK))
        splits = key_splits(blocks, self.processors, -(-read // (prefixes * self.keys_per_block)))
        # Each part of a prefix is a chunk of its own to the kernel.
        seconds = self.kernels.attention.prefill_s(prefixes * splits, sharers, read, attended, read)
        if splits > 1:
            # Partial results in 32 bits, written and read once, and the sum: of the 3 rows that combining two moves.
            seconds += self.combine_s.at(sharers * (4 * splits + 1) / 3)
        return seconds + self.combine_s.at(sharers)


class SharedPrefixCost:
    """Cost model of steps whose decodes attend to shared prefixes together.

    Parameters
    ----------
    base
        Cost of a step without shared prefixes.
    attention
        Of the shared part.
    stage_layers
        Layers of each pipeline stage that attend to everything.
    windowed
        Whether the other layers have a sliding window.
    """

    def __init__(
        self, base: CostModel, attention: SharedAttention, stage_layers: tuple[int, ...], windowed: bool
    ) -> None:
        self._base = base
        self._attention = attention
        self._stage_layers = stage_layers
        self._windowed = windowed
        self._suffixes = BatchShape()

    @property
    def sources(self) -> tuple[str, ...]:
        """Where the costs come from."""
        own = "shared prefixes of decodes: one attention as of a prefill chunk, and one kernel to combine (Hydragen)"
        return (*self._base.sources, own)

    @property
    def substitutions(self) -> dict[str, int]:
        """Steps that lay outside what was measured, by what was substituted."""
        kinds = dict(getattr(self._base, "substitutions", {}))
        kinds.update(self._attention.kernels.substitutions)
        return dict(sorted(kinds.items()))

    def step_ns(self, shape: BatchShape) -> int:
        """Duration of one step."""
        if not shape.shared_kv:
            return self._base.step_ns(shape)
        return self._base.step_ns(self._of_suffixes(shape)) + sum(self._shared_ns(shape))

    def run_ns(self, shape: BatchShape, k: int) -> npt.NDArray[np.int64]:
        """Durations of ``k`` steps: what is shared stays the same while nobody comes or goes."""
        if not shape.shared_kv:
            return self._base.run_ns(shape, k)
        return self._base.run_ns(self._of_suffixes(shape), k) + sum(self._shared_ns(shape))

    def few_ns(self, shape: BatchShape, k: int) -> list[int]:
        """Return the same as a list."""
        if not shape.shared_kv:
            return self._base.few_ns(shape, k)
        shared = sum(self._shared_ns(shape))
        return [duration + shared for duration in self._base.few_ns(self._of_suffixes(shape), k)]

    def stage_ns(self, shape: BatchShape) -> list[int]:
        """Time that the batch holds each stage."""
        if not shape.shared_kv:
            return self._base.stage_ns(shape)
        stages = self._base.stage_ns(self._of_suffixes(shape))
        return [stage + shared for stage, shared in zip(stages, self._shared_ns(shape), strict=True)]

    def _shared_ns(self, shape: BatchShape) -> list[int]:
        """Return the time of the shared part in each stage."""
        layer = self._attention.layer_s(shape.shared_kv, shape.shared_read, shape.sharers)
        return [round(layers * layer * _NS_PER_S) for layers in self._stage_layers]

    def _of_suffixes(self, shape: BatchShape) -> BatchShape:
        """Return the batch without what its decodes share."""
        suffixes, shared = self._suffixes, shape.shared_kv
        suffixes.decodes = shape.decodes
        suffixes.decode_kv = shape.decode_kv - shared
        # As if all shared as much: right for one prefix of all, and advances as the sum of squares does.
        suffixes.decode_kv_sq = shape.decode_kv_sq - shared * (2 * shape.decode_kv - shared) // shape.decodes
        suffixes.decode_window_kv = shape.decode_window_kv if self._windowed else suffixes.decode_kv
        suffixes.decode_window_growth = shape.decode_window_growth
        suffixes.chunks = shape.chunks
        suffixes.prefill_tokens = shape.prefill_tokens
        suffixes.padding_tokens = shape.padding_tokens
        suffixes.logit_rows = shape.logit_rows
        return suffixes


def shared_prefix_cost(base: CostModel, shapes: KernelShapes, kernels: Kernels) -> SharedPrefixCost:
    """Return a cost model with shared-prefix attention.

    Parameters
    ----------
    base
        The cost model of the same model and layout.
    kernels
        Source of the shared part's times.
    """
    model = shapes.model
    windowed = bool(model.sliding_window and model.num_sliding_layers)
    layers = tuple(
        sum(not (windowed and model.is_sliding_layer(layer)) for layer in stage)
        for stage in shapes.plan.stage_layers(model.num_layers)
    )
    return SharedPrefixCost(base, SharedAttention.of(shapes, kernels), layers, windowed)

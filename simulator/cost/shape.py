"""The batch as the cost model sees it, and the interface that every cost model has."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt


class BatchShape:
    """What one engine step computes: numbers only, kept in O(1) a step by the engine.

    The cost model sees a batch, never a policy's or an engine's name. All fields are exact integers.

    Attributes
    ----------
    decodes
        Sequences that decode one token each.
    decode_kv
        Sum over them of the tokens attended to, their own new token included.
    decode_kv_sq
        Sum of the squares of the same (skew between sequences).
    decode_window_kv
        Sum of min(attended, window) for the model's sliding window; equals ``decode_kv`` where it has none.
    decode_window_growth
        By how much ``decode_window_kv`` grows a step: the number of decodes that have not filled the window.
    decode_reads
        For each cap that a KV budget names: sum of min(attended, cap) over the decodes, sum of the squares of the same,
        the number of decodes below the cap (by which the first grows a step), and the first sum over those alone. Empty
        without such a budget; means nothing without decodes.
    chunks
        Prefill chunks as (new tokens, tokens in the cache before them), in the order of scheduling.
    prefill_tokens
        Sum of the new tokens over the chunks.
    padding_tokens
        Tokens that the dense layers compute for nobody.
    logit_rows
        Rows of the LM head: decodes plus one for each chunk, as engines compute them.
    shared_kv
        Of ``decode_kv``, the tokens in cached prefixes that two decodes or more of this step hold; they and the next
        two are 0 unless the engine's attention treats shared prefixes apart (`simulator.engine.shared_prefix`).
    shared_read
        The same tokens, each counted once however many decodes attend to it.
    sharers
        Decodes that hold such a prefix.
    """

    __slots__ = (
        "chunks",
        "decode_kv",
        "decode_kv_sq",
        "decode_reads",
        "decode_window_growth",
        "decode_window_kv",
        "decodes",
        "logit_rows",
        "padding_tokens",
        "prefill_tokens",
        "shared_kv",
        "shared_read",
        "sharers",
    )

    def __init__(self) -> None:
        self.decodes = 0
        self.decode_kv = 0
        self.decode_kv_sq = 0
        self.decode_window_kv = 0
        self.decode_window_growth = 0
        self.decode_reads: list[tuple[int, int, int, int]] = []
        self.chunks: list[tuple[int, int]] = []
        self.prefill_tokens = 0
        self.padding_tokens = 0
        self.logit_rows = 0
        self.shared_kv = self.shared_read = self.sharers = 0

    def clear_decodes(self) -> None:
        """Take the decodes out, their sums with them."""
        self.decodes = self.decode_kv = self.decode_kv_sq = self.decode_window_kv = self.decode_window_growth = 0
        self.shared_kv = self.shared_read = self.sharers = 0

    @property
    def tokens(self) -> int:
        """Tokens that the dense layers compute."""
        return self.decodes + self.prefill_tokens + self.padding_tokens


class CostModel(Protocol):
    """Durations of engine steps: a pure function of the batch.

    Durations are whole nanoseconds, at least 1, rounded half to even from seconds. A run of k steps is a batch whose
    composition stays: in its step i (from 0) every decode attends to i tokens more and every chunk has i times its own
    new tokens more in the cache. ``run_ns(shape, k)[i]`` equals ``step_ns`` of the shape advanced i times, to the last
    bit; both paths must therefore use the same floating-point operations in the same order. ``few_ns`` is ``run_ns``
    for a few steps: below some 40 a list of numbers is made and read more quickly than an array.
    """

    @property
    def sources(self) -> tuple[str, ...]:
        """Where the costs come from, for the result: one line each."""
        ...

    def step_ns(self, shape: BatchShape) -> int:
        """Duration of one step, first stage to last, host overhead included. O(number of chunks)."""
        ...

    def run_ns(self, shape: BatchShape, k: int) -> npt.NDArray[np.int64]:
        """Durations of the next ``k`` steps of a stable composition, shape ``(k,)``."""
        ...

    def few_ns(self, shape: BatchShape, k: int) -> list[int]:
        """Return the durations of the next ``k`` steps likewise, as a list."""
        ...

    def stage_ns(self, shape: BatchShape) -> list[int]:
        """Time that the batch holds each pipeline stage, the send to the next stage included; one per stage."""
        ...

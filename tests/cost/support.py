"""Batch shapes for the tests of cost models."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from simulator.cost.shape import BatchShape


def batch(
    decodes: int = 0,
    kv: int = 0,
    chunks: Sequence[tuple[int, int]] = (),
    *,
    window: int | None = None,
    padding: int = 0,
) -> BatchShape:
    """Return the shape of decodes that all attend to ``kv`` tokens, and of prefill chunks."""
    shape = BatchShape()
    shape.decodes = decodes
    shape.decode_kv = decodes * kv
    shape.decode_kv_sq = decodes * kv * kv
    shape.decode_window_kv = decodes * (kv if window is None else min(kv, window))
    shape.decode_window_growth = decodes if window is None or kv < window else 0
    shape.chunks = list(chunks)
    shape.prefill_tokens = sum(new for new, _ in chunks)
    shape.padding_tokens = padding
    shape.logit_rows = decodes + len(chunks)
    return shape


def advanced(shape: BatchShape, i: int) -> BatchShape:
    """Return the shape after ``i`` steps of the same composition, as `CostModel` defines it."""
    later = BatchShape()
    later.decodes = shape.decodes
    later.decode_kv = shape.decode_kv + i * shape.decodes
    later.decode_kv_sq = shape.decode_kv_sq + 2 * i * shape.decode_kv + i * i * shape.decodes
    later.decode_window_kv = shape.decode_window_kv + i * shape.decode_window_growth
    later.decode_window_growth = shape.decode_window_growth
    later.chunks = [(new, cached + i * new) for new, cached in shape.chunks]
    later.prefill_tokens = shape.prefill_tokens
    later.padding_tokens = shape.padding_tokens
    later.logit_rows = shape.logit_rows
    return later


@st.composite
def shapes(draw: st.DrawFn) -> BatchShape:
    """Any batch that an engine may compose, and some that none does."""
    shape = BatchShape()
    shape.decodes = draw(st.integers(0, 2000))
    if shape.decodes:
        shape.decode_kv = draw(st.integers(shape.decodes, shape.decodes * 1_000_000))
        shape.decode_kv_sq = draw(st.integers(0, 10**15))
        shape.decode_window_kv = draw(st.integers(shape.decodes, shape.decode_kv))
        shape.decode_window_growth = draw(st.integers(0, shape.decodes))
    shape.chunks = draw(st.lists(st.tuples(st.integers(1, 9000), st.integers(0, 200_000)), max_size=5))
    shape.prefill_tokens = sum(new for new, _ in shape.chunks)
    shape.padding_tokens = draw(st.one_of(st.just(0), st.integers(0, 300)))
    shape.logit_rows = shape.decodes + len(shape.chunks)
    return shape

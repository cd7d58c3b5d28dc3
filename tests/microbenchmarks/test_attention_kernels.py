"""Attention over a paged cache against PyTorch: chunks with cached context, decodes, groups of heads, windows."""

from __future__ import annotations

from typing import Any

import pytest

from tests.microbenchmarks.kernels import DEVICE, HALVES, assert_near, poisoned, random, torch

prefill = pytest.importorskip("simulator.calibration.microbenchmarks.kernels.prefill_attention")
decode = pytest.importorskip("simulator.calibration.microbenchmarks.kernels.decode_attention")
paged = pytest.importorskip("simulator.calibration.microbenchmarks.kernels.paged")


def caches(lengths: list[int], kv_heads: int, head_dim: int, page: int, dtype: Any) -> tuple[Any, Any, Any]:
    """Return caches of keys and values and the sequences' tables, pages in no order; the spare page holds NaN."""
    pages = [-(-length // page) for length in lengths]
    order = torch.randperm(sum(pages), generator=torch.Generator().manual_seed(5)).int() + 1
    table = torch.zeros(len(lengths), max(pages), dtype=torch.int32)  # page 0, the spare one, fills it up
    for row, mine in zip(table, order.split(pages), strict=True):
        row[: len(mine)] = mine
    shape = (sum(pages) + 1, page, kv_heads, head_dim)
    k, v = (random(*shape, dtype=torch.float32, seed=seed) for seed in (11, 12))
    k[0] = v[0] = float("nan")
    return k.to(dtype), v.to(dtype), table.to(DEVICE)


PREFILLS = [
    pytest.param([(1, 0)], 1, 1, 16, 16, None, id="one token"),
    pytest.param([(16, 0)], 2, 2, 16, 16, None, id="a whole block"),
    pytest.param([(37, 0)], 4, 2, 16, 16, None, id="edges, groups"),
    pytest.param([(5, 50)], 6, 2, 16, 16, None, id="cached, groups of three"),
    pytest.param([(33, 31)], 2, 1, 24, 8, None, id="cached to the edge, head of 24"),
    pytest.param([(20, 0), (1, 40), (33, 7)], 4, 1, 16, 16, None, id="sequences of different lengths"),
    pytest.param([(40, 0)], 2, 2, 16, 16, 5, id="window"),
    pytest.param([(40, 37)], 2, 1, 16, 4, 20, id="window over cached tokens"),
    pytest.param([(18, 5)], 2, 1, 16, 16, 1, id="window of one token"),
    pytest.param([(18, 5)], 2, 1, 16, 16, 1000, id="window beyond the start"),
]


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(("chunks", "heads", "kv_heads", "head_dim", "page", "window"), PREFILLS)
def test_prefill_attention(
    chunks: list[tuple[int, int]], heads: int, kv_heads: int, head_dim: int, page: int, window: int | None, dtype: Any
) -> None:
    new = [n for n, _ in chunks]
    lengths = [n + c for n, c in chunks]
    k, v, table = caches(lengths, kv_heads, head_dim, page, dtype)
    q = random(sum(new), heads, head_dim, dtype=dtype)
    out = poisoned(*q.shape, dtype=dtype)
    starts = torch.tensor([0, *new]).cumsum(0).int().to(DEVICE)
    cached = torch.tensor([c for _, c in chunks], dtype=torch.int32, device=DEVICE)
    prefill.prefill_attention(q, k, v, out, table, starts, cached, max(new), scale=0.3, window=window)
    for i, (part, made) in enumerate(zip(q.split(new), out.split(new), strict=True)):
        keys, values = (paged.gathered(x, table[i], lengths[i]) for x in (k, v))
        assert_near(made, paged.attention_reference(part, keys, values, 0.3, window))


DECODES = [
    pytest.param([1], 1, 1, 16, 16, None, 1, id="first token"),
    pytest.param([16, 16], 2, 2, 16, 16, None, 1, id="a whole block"),
    pytest.param([37], 4, 1, 16, 16, None, 3, id="three splits"),
    pytest.param([5, 90, 33], 6, 2, 24, 8, None, 4, id="splits without keys, groups of three"),
    pytest.param([70], 32, 1, 16, 16, None, 2, id="more heads of a group than 16"),
    pytest.param([90, 3], 4, 2, 16, 4, 20, 2, id="window"),
    pytest.param([90], 2, 2, 16, 16, 1, 4, id="window of one token"),
    pytest.param([40], 2, 2, 16, 16, 1000, 2, id="window beyond the start"),
]


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(("lengths", "heads", "kv_heads", "head_dim", "page", "window", "splits"), DECODES)
def test_decode_attention(
    lengths: list[int],
    heads: int,
    kv_heads: int,
    head_dim: int,
    page: int,
    window: int | None,
    splits: int,
    dtype: Any,
) -> None:
    k, v, table = caches(lengths, kv_heads, head_dim, page, dtype)
    q = random(len(lengths), heads, head_dim, dtype=dtype)
    out = poisoned(*q.shape, dtype=dtype)
    scratch = decode.Scratch.make(len(lengths), heads, splits, head_dim, DEVICE)
    scratch.sums.fill_(float("nan"))
    scratch.lse.fill_(float("nan"))
    lengths_ = torch.tensor(lengths, dtype=torch.int32, device=DEVICE)
    decode.decode_attention(q, k, v, out, table, lengths_, scratch, scale=0.3, window=window)
    for i, length in enumerate(lengths):
        keys, values = (paged.gathered(x, table[i], length) for x in (k, v))
        assert_near(out[i], paged.attention_reference(q[i][None], keys, values, 0.3, window)[0])


def test_attention_over_an_fp8_cache_with_scales() -> None:
    dtype = torch.bfloat16
    k, v, table = caches([45], 1, 16, 16, torch.float8_e4m3fn)
    keys, values = (paged.gathered(x, table[0], 45) * s for x, s in ((k, 0.5), (v, 2.0)))
    q = random(5, 2, 16, dtype=dtype)
    wanted = paged.attention_reference(q, keys, values, 0.3)
    out = poisoned(5, 2, 16, dtype=dtype)
    starts = torch.tensor([0, 5], dtype=torch.int32, device=DEVICE)
    cached = torch.tensor([40], dtype=torch.int32, device=DEVICE)
    scales = {"scale": 0.3, "k_scale": 0.5, "v_scale": 2.0}
    prefill.prefill_attention(q, k, v, out, table, starts, cached, 5, **scales)
    assert_near(out, wanted)
    last = poisoned(1, 2, 16, dtype=dtype)
    scratch = decode.Scratch.make(1, 2, 2, 16, DEVICE)
    decode.decode_attention(
        q[-1:].contiguous(), k, v, last, table, torch.tensor([45], dtype=torch.int32, device=DEVICE), scratch, **scales
    )
    assert_near(last, wanted[-1:])


@pytest.mark.parametrize(
    ("sequences", "kv_heads", "longest", "splits"),
    [
        (1, 1, 100000, 128),  # bounded
        (1, 8, 100000, 66),  # 4 x 132 programs over 8
        (256, 8, 4096, 1),  # enough without
        (1, 8, 65, 2),  # no more than there are steps of 64 keys
    ],
)
def test_splits_fill_the_gpu_and_no_more(sequences: int, kv_heads: int, longest: int, splits: int) -> None:
    assert decode.decode_splits(sequences, kv_heads, longest, processors=132, block=64) == splits

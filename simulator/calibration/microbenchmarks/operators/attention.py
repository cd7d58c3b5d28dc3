"""Attention over a paged cache: prompt chunks with cached context, and decodes."""
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

from typing import Any

from simulator.calibration.microbenchmarks.case import (
    ELEMENT_BYTES,
    Case,
    Work,
    sets_beyond_cache,
    shape,
    variants,
)
from simulator.calibration.microbenchmarks.operators.base import Gpu, Limits, filled, vacant

HEADS = ((8, 1, 128), (32, 4, 128), (32, 8, 128), (64, 8, 128), (32, 32, 128), (64, 8, 64))
"""(heads, key-value heads, elements of a head) on one rank: Llama-3.1-70B on 8, Qwen3-30B-A3B, Llama-3.1-8B and 70B,
Llama-2-7B (no groups), gpt-oss."""

QUICK_HEADS = ((32, 8, 128),)

NEW = (128, 512, 2048, 8192)
CACHED = (0, 4096, 32768)
CHUNKS = ((4, 512), (4, 2048), (16, 128), (16, 512))
"""(sequences, new tokens of each) of several chunks side by side, without cached tokens."""

QUICK_PREFILLS = ((1, 128, 0), (1, 1024, 0), (1, 1024, 8192), (1, 8192, 0))
"""(sequences, new, cached)."""

DECODES = (1, 4, 16, 64, 128, 256, 512)
DECODE_KV = (128, 1024, 4096, 16384, 65536)
QUICK_DECODES = (1, 16, 128)
QUICK_DECODE_KV = (1024, 8192)

WINDOWS = (((64, 8, 64), 128), ((32, 8, 128), 4096))
"""(heads, window): gpt-oss's, and Mistral-7B-v0.1's."""

PAGE = 16
"""Tokens of a page: vLLM's default on NVIDIA GPUs."""

_DTYPE = "bf16"
_SIZE = ELEMENT_BYTES[_DTYPE]


def cases(limits: Limits) -> list[Case]:
    """Return the grids of both."""
    return [*_prefill_cases(limits), *_decode_cases(limits)]


def _prefill_cases(limits: Limits) -> list[Case]:
    if limits.quick:
        return [_prefill(heads, *one) for heads in QUICK_HEADS for one in QUICK_PREFILLS]
    shapes = [(1, new, cached) for new in NEW for cached in CACHED] + [(s, new, 0) for s, new in CHUNKS]
    found = [_prefill(heads, *one) for heads in HEADS for one in shapes]
    windowed = [(new, cached) for new in NEW for cached in (0, 4096)]
    found += [_prefill(heads, 1, *one, window) for heads, window in WINDOWS for one in windowed]
    if limits.fp8:
        found += [_prefill((32, 8, 128), *one, kv_dtype="fp8") for one in shapes]
    return [case for case in found if limits.fits(case.bytes)]


def _decode_cases(limits: Limits) -> list[Case]:
    if limits.quick:
        return [_decode(heads, n, kv) for heads in QUICK_HEADS for n in QUICK_DECODES for kv in QUICK_DECODE_KV]
    shapes = [(n, kv) for n in DECODES for kv in DECODE_KV]
    found = [_decode(heads, *one) for heads in HEADS for one in shapes]
    found += [_decode(heads, n, kv, window) for heads, window in WINDOWS for n, kv in shapes if kv >= window]
    if limits.fp8:
        found += [_decode((32, 8, 128), *one, kv_dtype="fp8") for one in shapes]
    return [case for case in found if limits.fits(_cache_bytes(case))]


def attended_pairs(new: int, cached: int, window: int | None) -> int:
    """Return pairs of query and key of one head: each new token sees itself and what is before it, in its window."""
    if window is None or cached + new <= window:
        return new * cached + new * (new + 1) // 2
    growing = max(0, min(new, window - cached))  # queries whose window still reaches the first token
    return growing * cached + growing * (growing + 1) // 2 + (new - growing) * window


def _prefill(
    heads: tuple[int, int, int],
    sequences: int,
    new: int,
    cached: int,
    window: int | None = None,
    kv_dtype: str = _DTYPE,
) -> Case:
    count, kv_heads, head_dim = heads
    seen = new + cached if window is None else min(new + cached, new + window - 1)
    keys = 2.0 * seen * kv_heads * head_dim * ELEMENT_BYTES[kv_dtype]
    queries = 2.0 * new * count * head_dim * _SIZE
    return Case(
        "prefill_attention",
        "triton",
        shape(
            sequences=sequences,
            new_tokens=new,
            cached_tokens=cached,
            heads=count,
            kv_heads=kv_heads,
            head_dim=head_dim,
            window=window,
        ),
        _DTYPE,
        kv_dtype=kv_dtype,
        flops=4.0 * sequences * count * head_dim * attended_pairs(new, cached, window),
        bytes=sequences * (keys + queries),
    )


def _decode(
    heads: tuple[int, int, int], decodes: int, kv: int, window: int | None = None, kv_dtype: str = _DTYPE
) -> Case:
    count, kv_heads, head_dim = heads
    seen = kv if window is None else min(kv, window)
    keys = 2.0 * seen * kv_heads * head_dim * ELEMENT_BYTES[kv_dtype]
    return Case(
        "decode_attention",
        "triton",
        shape(decodes=decodes, decode_kv=kv, heads=count, kv_heads=kv_heads, head_dim=head_dim, window=window),
        _DTYPE,
        kv_dtype=kv_dtype,
        flops=4.0 * decodes * count * head_dim * seen,
        bytes=decodes * (keys + 2.0 * count * head_dim * _SIZE),
    )


def _cache_bytes(case: Case) -> float:
    """Return the bytes of the whole cache of a decode case, whatever its window reads of it."""
    size = ELEMENT_BYTES[case.kv_dtype or _DTYPE]
    return 2.0 * case["decodes"] * case["decode_kv"] * case["kv_heads"] * case["head_dim"] * size


def prepare(case: Case, gpu: Gpu) -> Work:
    """Make a case of either ready; pages of a sequence lie anywhere in the cache."""
    return {"prefill_attention": _prepare_prefill, "decode_attention": _prepare_decode}[case.operator](case, gpu)


def _caches(case: Case, gpu: Gpu, sequences: int, length: int) -> tuple[Any, Any, Any]:
    """Return a cache of keys, one of values, and the table of their pages."""
    import torch

    pages = -(-length // PAGE)
    total = sequences * pages
    kv_dtype = case.kv_dtype or _DTYPE
    k, v = (vacant(gpu, kv_dtype, total, PAGE, case["kv_heads"], case["head_dim"]) for _ in range(2))
    part = max(1, 2**28 // (PAGE * case["kv_heads"] * case["head_dim"]))  # fp8 is made of bf16: not all at once
    for cache in (k, v):
        for start in range(0, total, part):
            cache[start : start + part] = filled(gpu, kv_dtype, *cache[start : start + part].shape)
    table = torch.randperm(total, device=gpu.device).to(torch.int32).reshape(sequences, pages)
    return k, v, table


def _prepare_prefill(case: Case, gpu: Gpu) -> Work:
    import torch

    from simulator.calibration.microbenchmarks.kernels.prefill_attention import TILES, prefill_attention

    sequences, new, cached = case["sequences"], case["new_tokens"], case["cached_tokens"]
    heads, head_dim = case["heads"], case["head_dim"]
    sets = sets_beyond_cache(case.bytes, gpu.cache_bytes)
    q = [filled(gpu, _DTYPE, sequences * new, heads, head_dim) for _ in range(sets)]
    out = [vacant(gpu, _DTYPE, sequences * new, heads, head_dim) for _ in range(sets)]
    caches = [_caches(case, gpu, sequences, new + cached) for _ in range(sets)]
    starts = torch.arange(0, sequences * new + 1, new, dtype=torch.int32, device=gpu.device)
    before = torch.full((sequences,), cached, dtype=torch.int32, device=gpu.device)
    scale, window = head_dim**-0.5, case.get("window")

    def launch(i: int, tile: Any) -> None:
        k, v, table = caches[i]
        prefill_attention(q[i], k, v, out[i], table, starts, before, new, scale=scale, window=window, tile=tile)

    return Work(variants(((tile.label, tile) for tile in TILES), launch), sets)


def _prepare_decode(case: Case, gpu: Gpu) -> Work:
    import torch

    from simulator.calibration.microbenchmarks.kernels.decode_attention import (
        TILES,
        Scratch,
        decode_attention,
        decode_splits,
    )

    decodes, length = case["decodes"], case["decode_kv"]
    heads, kv_heads, head_dim = case["heads"], case["kv_heads"], case["head_dim"]
    window = case.get("window")
    seen = length if window is None else min(length, window)
    sets = sets_beyond_cache(case.bytes, gpu.cache_bytes)
    q = [filled(gpu, _DTYPE, decodes, heads, head_dim) for _ in range(sets)]
    out = [vacant(gpu, _DTYPE, decodes, heads, head_dim) for _ in range(sets)]
    caches = [_caches(case, gpu, decodes, length) for _ in range(sets)]
    lengths = torch.full((decodes,), length, dtype=torch.int32, device=gpu.device)
    scale = head_dim**-0.5

    def launch(i: int, choice: tuple[Any, Any]) -> None:
        (k, v, table), (tile, scratch) = caches[i], choice
        decode_attention(q[i], k, v, out[i], table, lengths, scratch, scale=scale, window=window, tile=tile)

    choices = []
    for tile in TILES:
        splits = decode_splits(decodes, kv_heads, seen, gpu.processors, tile.columns)
        scratch = Scratch.make(decodes, heads, splits, head_dim, gpu.device)
        choices.append((f"{tile.label} {splits} splits", (tile, scratch)))
    return Work(variants(choices, launch), sets)

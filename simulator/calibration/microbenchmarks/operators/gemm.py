"""GEMM of linear layers: our Triton kernel, and beside it cuBLAS through PyTorch, which is what engines run."""
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

from simulator.calibration.microbenchmarks.case import (
    ELEMENT_BYTES,
    Case,
    Variant,
    Work,
    sets_beyond_cache,
    shape,
    variants,
)
from simulator.calibration.microbenchmarks.operators.base import QUICK_TOKENS, TOKENS, Gpu, Limits, filled, vacant

OUTPUTS = (1024, 2048, 4096, 8192, 16384, 65536)
INPUTS = (1024, 2048, 4096, 8192, 16384)
"""Outputs and inputs of layers, powers of two around those of models of 1 to 100 billion parameters on 1 to 8 ranks:
the grid of cuBLAS, which is what engines run."""

LAYERS = ((6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336), (128256, 4096))
"""(outputs, inputs) of Llama-3.1-8B: QKV, O, gate and up, down, LM head; here our kernel is measured beside cuBLAS."""

QUICK_LAYERS = (LAYERS[0], LAYERS[2], LAYERS[3])

_OUT = "bf16"


def cases(limits: Limits) -> list[Case]:
    """Return the grid."""
    tokens = QUICK_TOKENS if limits.quick else TOKENS
    ours = QUICK_LAYERS if limits.quick else LAYERS
    grid = () if limits.quick else tuple((n, k) for n in OUTPUTS for k in INPUTS)
    layers = {"triton": ours, "cublas": dict.fromkeys((*ours, *grid))}
    found = [
        _case(kernel, t, n, k, dtype)
        for dtype in ("bf16", "fp8")
        if dtype == "bf16" or limits.fp8
        for kernel in ("triton", "cublas")
        for n, k in layers[kernel]
        for t in tokens
    ]
    return [case for case in found if limits.fits(case.bytes)]


def _case(kernel: str, tokens: int, n: int, k: int, dtype: str) -> Case:
    moved = (tokens * k + n * k) * ELEMENT_BYTES[dtype] + tokens * n * ELEMENT_BYTES[_OUT]
    flops = 2.0 * tokens * n * k
    columns = shape(tokens=tokens, n=n, k=k)
    return Case("gemm", kernel, columns, dtype, weight_dtype=dtype, flops=flops, bytes=float(moved))


def prepare(case: Case, gpu: Gpu) -> Work:
    """Make matrices; all of a set are its own, since a layer's weights are never in the cache when their turn comes."""
    import torch

    from simulator.calibration.microbenchmarks.kernels.gemm import TILES, gemm

    dtype = case.dtype or _OUT
    tokens, n, k = case["tokens"], case["n"], case["k"]
    sets = sets_beyond_cache(case.bytes, gpu.cache_bytes)
    a = [filled(gpu, dtype, tokens, k) for _ in range(sets)]
    b = [filled(gpu, dtype, n, k) for _ in range(sets)]
    out = [vacant(gpu, _OUT, tokens, n) for _ in range(sets)]
    scale = torch.ones(1, dtype=torch.float32, device=gpu.device)
    scales = (scale, scale) if dtype == "fp8" else (None, None)
    if case.kernel == "triton":
        tiles = [(tile.label, tile) for tile in TILES if tile.rows <= max(16, 2 * tokens)]
        return Work(variants(tiles, lambda i, tile: gemm(a[i], b[i], out[i], *scales, tile=tile)), sets)
    if dtype == "bf16":
        return Work((Variant("", lambda i: torch.matmul(a[i], b[i].t(), out=out[i])),), sets)

    def scaled(i: int) -> None:
        """Call what engines call where they leave fp8 to PyTorch; the second operand is wanted column by column."""
        torch._scaled_mm(a[i], b[i].t(), scale_a=scale, scale_b=scale, out_dtype=torch.bfloat16, use_fast_accum=True)

    return Work((Variant("", scaled),), sets)

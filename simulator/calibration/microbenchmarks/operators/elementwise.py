"""RMSNorm, SwiGLU and rotary embedding: bound by memory, or by a launch where tokens are few."""
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

from simulator.calibration.microbenchmarks.case import (
    ELEMENT_BYTES,
    Case,
    Work,
    sets_beyond_cache,
    shape,
    variants,
)
from simulator.calibration.microbenchmarks.operators.base import QUICK_TOKENS, TOKENS, Gpu, Limits, filled, vacant

HIDDEN = (1024, 4096, 8192, 16384)
"""Widths of hidden states."""

INNER = (1024, 3584, 14336, 28672)
"""Widths of SwiGLU's result on one rank."""

HEADS = ((8, 1, 128), (32, 8, 128), (32, 32, 128), (64, 8, 64))
"""(heads, key-value heads, elements of a head) of rotary embedding on one rank."""

_POSITIONS = 131072
"""Rows of the table of cosines and sines."""

_DTYPE = "bf16"
_SIZE = ELEMENT_BYTES[_DTYPE]


def cases(limits: Limits) -> list[Case]:
    """Return the grids of all three."""
    tokens = QUICK_TOKENS if limits.quick else TOKENS
    found = [_norm(t, n) for n in ((4096,) if limits.quick else HIDDEN) for t in tokens]
    found += [_activation(t, n) for n in ((14336,) if limits.quick else INNER) for t in tokens]
    found += [_rotary(t, *heads) for heads in (((32, 8, 128),) if limits.quick else HEADS) for t in tokens]
    return [case for case in found if limits.fits(case.bytes)]


def _norm(tokens: int, width: int) -> Case:
    # Input and residual read, residual and result written; weights read.
    moved = 4.0 * tokens * width * _SIZE + width * _SIZE
    return Case("norm", "triton add_rms_norm", shape(tokens=tokens, n=width), _DTYPE, bytes=moved)


def _activation(tokens: int, width: int) -> Case:
    return Case(
        "activation", "triton swiglu", shape(tokens=tokens, n=width), _DTYPE, bytes=3.0 * tokens * width * _SIZE
    )


def _rotary(tokens: int, heads: int, kv_heads: int, head_dim: int) -> Case:
    width = (heads + kv_heads) * head_dim
    # Read and written in place; a row of the fp32 table a token.
    moved = tokens * (2.0 * width * _SIZE + head_dim * 4)
    columns = shape(tokens=tokens, n=width, heads=heads, kv_heads=kv_heads, head_dim=head_dim)
    return Case("rotary", "triton rotary", columns, _DTYPE, bytes=moved)


def prepare(case: Case, gpu: Gpu) -> Work:
    """Make a case of any of the three ready."""
    return {"norm": _prepare_norm, "activation": _prepare_activation, "rotary": _prepare_rotary}[case.operator](
        case, gpu
    )


def _prepare_norm(case: Case, gpu: Gpu) -> Work:
    from simulator.calibration.microbenchmarks.kernels.norm import WARPS, add_rms_norm

    tokens, width = case["tokens"], case["n"]
    sets = sets_beyond_cache(case.bytes, gpu.cache_bytes)
    x = [filled(gpu, _DTYPE, tokens, width) for _ in range(sets)]
    # It is added to the same residual thousands of times: small, so that the sum stays finite (bf16 stops counting).
    for each in x:
        each.mul_(2.0**-10)
    residual = [filled(gpu, _DTYPE, tokens, width) for _ in range(sets)]
    weight = [filled(gpu, _DTYPE, width) for _ in range(sets)]
    out = [vacant(gpu, _DTYPE, tokens, width) for _ in range(sets)]
    return Work(
        variants(
            ((f"w{warps}", warps) for warps in WARPS),
            lambda i, warps: add_rms_norm(x[i], residual[i], weight[i], out[i], warps=warps),
        ),
        sets,
    )


def _prepare_activation(case: Case, gpu: Gpu) -> Work:
    from simulator.calibration.microbenchmarks.kernels.activation import BLOCKS, swiglu

    tokens, width = case["tokens"], case["n"]
    sets = sets_beyond_cache(case.bytes, gpu.cache_bytes)
    x = [filled(gpu, _DTYPE, tokens, 2 * width) for _ in range(sets)]
    out = [vacant(gpu, _DTYPE, tokens, width) for _ in range(sets)]
    return Work(
        variants(((str(block), block) for block in BLOCKS), lambda i, block: swiglu(x[i], out[i], block=block)), sets
    )


def _prepare_rotary(case: Case, gpu: Gpu) -> Work:
    import torch

    from simulator.calibration.microbenchmarks.kernels.rotary import HEADS as TRIED
    from simulator.calibration.microbenchmarks.kernels.rotary import rotary, rotary_table

    tokens, head_dim = case["tokens"], case["head_dim"]
    sets = sets_beyond_cache(case.bytes, gpu.cache_bytes)
    q = [filled(gpu, _DTYPE, tokens, case["heads"], head_dim) for _ in range(sets)]
    k = [filled(gpu, _DTYPE, tokens, case["kv_heads"], head_dim) for _ in range(sets)]
    table = rotary_table(_POSITIONS, head_dim).to(gpu.device)
    positions = torch.randint(_POSITIONS, (tokens,), dtype=torch.int32, device=gpu.device)
    return Work(
        variants(
            ((f"{heads} heads", heads) for heads in TRIED),
            lambda i, heads: rotary(q[i], k[i], table, positions, heads_block=heads),
        ),
        sets,
    )

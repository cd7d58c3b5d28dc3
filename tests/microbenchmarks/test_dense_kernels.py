"""GEMM, norm, activation, rotary and copies of KV blocks against PyTorch."""

from __future__ import annotations

from typing import Any

import pytest

from tests.microbenchmarks.kernels import DEVICE, HALVES, assert_near, poisoned, random, torch

tiles = pytest.importorskip("simulator.calibration.microbenchmarks.kernels.tiles")
gemm = pytest.importorskip("simulator.calibration.microbenchmarks.kernels.gemm")
norm = pytest.importorskip("simulator.calibration.microbenchmarks.kernels.norm")
activation = pytest.importorskip("simulator.calibration.microbenchmarks.kernels.activation")
rotary = pytest.importorskip("simulator.calibration.microbenchmarks.kernels.rotary")
kv_blocks = pytest.importorskip("simulator.calibration.microbenchmarks.kernels.kv_blocks")


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(
    ("tokens", "n", "k"),
    [(1, 32, 16), (16, 32, 16), (1, 1, 1), (17, 33, 19), (150, 40, 50), (33, 70, 64)],
)
def test_gemm(tokens: int, n: int, k: int, dtype: Any) -> None:
    a, b = random(tokens, k, dtype=dtype), random(n, k, dtype=dtype, seed=1)
    out = poisoned(tokens, n, dtype=dtype)
    gemm.gemm(a, b, out)
    assert_near(out, gemm.gemm_reference(a, b), units=3 * k**0.5)


def test_gemm_walks_more_rows_of_tiles_than_a_group() -> None:
    # 10 rows of tiles in groups of 8: the last group is of 2, which the tile's place has to reckon with.
    a, b = random(160, 16, dtype=torch.float16), random(96, 16, dtype=torch.float16, seed=1)
    out = poisoned(160, 96, dtype=torch.float16)
    assert_near(gemm.gemm(a, b, out), gemm.gemm_reference(a, b), units=12)


@pytest.mark.parametrize(("tokens", "n", "k"), [(1, 32, 16), (17, 33, 40)])
def test_gemm_of_fp8_with_scales(tokens: int, n: int, k: int) -> None:
    a, b = (random(*s, seed=i).to(torch.float8_e4m3fn) for i, s in enumerate([(tokens, k), (n, k)]))
    a_scale, b_scale = torch.tensor([0.5], device=DEVICE), torch.tensor([3.0], device=DEVICE)
    out = poisoned(tokens, n, dtype=torch.bfloat16)
    gemm.gemm(a, b, out, a_scale, b_scale, tile=tiles.Tile(16, 32, 32))  # tensor cores take fp8 by 32
    assert_near(out, gemm.gemm_reference(a, b, a_scale, b_scale), units=3 * k**0.5)


def test_gemm_leaves_what_lies_beside_its_result() -> None:
    a, b = random(5, 7, dtype=torch.float16), random(9, 7, dtype=torch.float16, seed=1)
    around = torch.zeros(7, 20, dtype=torch.float16, device=DEVICE)
    gemm.gemm(a, b, around[:5, :9])
    assert_near(around[:5, :9], gemm.gemm_reference(a, b), units=12)
    assert not around[5:].any()
    assert not around[:, 9:].any()


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(("tokens", "width"), [(1, 1), (1, 64), (7, 100), (3, 256)])
def test_add_rms_norm(tokens: int, width: int, dtype: Any) -> None:
    x, residual = random(tokens, width, dtype=dtype), random(tokens, width, dtype=dtype, seed=1)
    weight, out = random(width, dtype=dtype, seed=2), poisoned(tokens, width, dtype=dtype)
    wanted, summed = norm.add_rms_norm_reference(x, residual, weight, eps=1e-3)
    norm.add_rms_norm(x, residual, weight, out, eps=1e-3)
    assert_near(out, wanted)
    assert_near(residual, summed)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(("tokens", "width"), [(1, 1), (1, 64), (5, 100), (2, 65)])
def test_swiglu(tokens: int, width: int, dtype: Any) -> None:
    x, out = random(tokens, 2 * width, dtype=dtype), poisoned(tokens, width, dtype=dtype)
    activation.swiglu(x, out, block=32)
    assert_near(out, activation.swiglu_reference(x))


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(
    ("tokens", "heads", "kv_heads", "head_dim"), [(1, 1, 1, 2), (3, 4, 2, 16), (5, 7, 1, 24), (2, 8, 8, 32)]
)
def test_rotary(tokens: int, heads: int, kv_heads: int, head_dim: int, dtype: Any) -> None:
    q = random(tokens, heads, head_dim, dtype=dtype)
    k = random(tokens, kv_heads, head_dim, dtype=dtype, seed=1)
    table = rotary.rotary_table(100, head_dim).to(DEVICE)
    positions = torch.tensor([99, 0, 17, 3, 50][:tokens], dtype=torch.int32, device=DEVICE)
    wanted_q, wanted_k = (rotary.rotary_reference(x, table, positions) for x in (q, k))
    rotary.rotary(q, k, table, positions)
    assert_near(q, wanted_q)
    assert_near(k, wanted_k)


def test_rotary_of_position_0_changes_nothing_and_of_a_quarter_turn_swaps_the_halves() -> None:
    table = torch.tensor([[1.0, 0.0], [0.0, 1.0]], device=DEVICE)  # cos and sin of 0 and of a quarter turn
    q = torch.tensor([[[2.0, 3.0]], [[2.0, 3.0]]], device=DEVICE)
    k = torch.zeros(2, 1, 2, device=DEVICE)
    rotary.rotary(q, k, table, torch.tensor([0, 1], dtype=torch.int32, device=DEVICE))
    assert q.tolist() == [[[2.0, 3.0]], [[-3.0, 2.0]]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.uint8])
@pytest.mark.parametrize("elements", [1, 32, 50])
def test_kv_blocks_gathered_and_scattered(elements: int, dtype: Any) -> None:
    cache = torch.arange(7 * elements, device=DEVICE).reshape(7, elements).to(dtype)
    indices = torch.tensor([6, 0, 3], dtype=torch.int32, device=DEVICE)
    piece = torch.zeros(3, elements, dtype=dtype, device=DEVICE)
    kv_blocks.kv_gather(cache, indices, piece, block=16)
    assert torch.equal(piece, cache[indices.long()])
    other = torch.zeros_like(cache)
    kv_blocks.kv_scatter(other, indices, piece, block=16)
    assert torch.equal(other[indices.long()], piece)
    assert not other[[1, 2, 4, 5]].any()

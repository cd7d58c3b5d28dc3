"""Routed experts: sorting by expert, grouped products, their sum, against PyTorch."""

from __future__ import annotations

from typing import Any

import pytest

from tests.microbenchmarks.kernels import DEVICE, HALVES, assert_near, poisoned, random, torch

kernels = pytest.importorskip("simulator.calibration.microbenchmarks.kernels.experts")


def routed(tokens: int, experts: int, top_k: int, seed: int = 3) -> Any:
    """Return different experts for each token, (tokens, top_k)."""
    scores = torch.rand(tokens, experts, generator=torch.Generator().manual_seed(seed))
    return scores.topk(top_k).indices.int().contiguous().to(DEVICE)


def test_pairs_are_sorted_by_expert_and_padded_to_blocks() -> None:
    ids = torch.tensor([[2, 0], [2, 3], [0, 2]], dtype=torch.int32, device=DEVICE)  # expert 1 has none
    sorting = kernels.Sorting.make(6, 4, 2, DEVICE)
    kernels.sort_pairs(ids, sorting, experts=4, first_expert=0, rows=2)
    assert sorting.counts.tolist() == [2, 0, 3, 1]
    assert sorting.blocks.tolist() == [4]
    assert sorting.block_experts[:4].tolist() == [0, 2, 2, 3]
    assert sorting.pairs[:8].tolist() == [1, 4, 0, 2, 5, 6, 3, 6]  # 6: padding


def test_pairs_of_other_ranks_are_left_out() -> None:
    ids = torch.tensor([[2, 0], [2, 3], [0, 2]], dtype=torch.int32, device=DEVICE)
    sorting = kernels.Sorting.make(6, 2, 2, DEVICE)
    kernels.sort_pairs(ids, sorting, experts=2, first_expert=2, rows=2)
    assert sorting.counts.tolist() == [3, 1]
    assert sorting.block_experts[: int(sorting.blocks)].tolist() == [0, 0, 1]
    assert sorting.pairs[:6].tolist() == [0, 2, 5, 6, 3, 6]


def test_more_pairs_than_a_program_looks_at_together() -> None:
    ids = routed(700, 5, 2)
    sorting = kernels.Sorting.make(1400, 5, 16, DEVICE)
    kernels.sort_pairs(ids, sorting, experts=5, first_expert=0, rows=16)
    wanted = []
    for expert in range(5):
        mine = torch.nonzero(ids.flatten() == expert).flatten().tolist()
        wanted += mine + [1400] * (-len(mine) % 16)
    assert sorting.pairs[: len(wanted)].tolist() == wanted


@pytest.mark.parametrize(
    ("pairs", "experts", "rows", "blocks"),
    [(1, 8, 16, 1), (8, 8, 16, 8), (9, 8, 16, 8), (24, 8, 16, 9), (7, 2, 2, 4)],
)
def test_room_for_the_worst_routing(pairs: int, experts: int, rows: int, blocks: int) -> None:
    # Worst: all experts but one have a pair in a block of their own.
    assert kernels.most_blocks(pairs, experts, rows) == blocks


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(
    ("tokens", "hidden", "inner", "experts", "top_k"),
    [
        pytest.param(1, 16, 16, 4, 1, id="one token"),
        pytest.param(9, 40, 24, 8, 3, id="edges"),
        pytest.param(2, 33, 17, 16, 2, id="most experts empty"),
        pytest.param(40, 32, 32, 2, 2, id="all tokens to all"),
    ],
)
def test_fused_experts(tokens: int, hidden: int, inner: int, experts: int, top_k: int, dtype: Any) -> None:
    x, ids = random(tokens, hidden, dtype=dtype), routed(tokens, experts, top_k)
    gate_up = (random(experts, 2 * inner, hidden, seed=1) / hidden**0.5).to(dtype)
    down = (random(experts, hidden, inner, seed=2) / inner**0.5).to(dtype)
    weights = random(tokens, top_k, seed=4).softmax(-1).contiguous()
    room = kernels.Room.make(tokens * top_k, experts, hidden, inner, dtype, DEVICE)
    out = poisoned(tokens, hidden, dtype=dtype)
    kernels.fused_experts(x, gate_up, down, ids, weights, out, room)
    assert_near(out, kernels.experts_reference(x, gate_up, down, ids, weights), units=6)


def test_ranks_of_expert_parallelism_add_up_to_the_layer() -> None:
    dtype = torch.float16
    x, ids = random(10, 20, dtype=dtype), routed(10, 4, 2)
    gate_up, down = (random(4, 24, 20, seed=1) / 4).to(dtype), (random(4, 20, 12, seed=2) / 4).to(dtype)
    weights = random(10, 2, seed=4).softmax(-1).contiguous()
    total = torch.zeros(10, 20, device=DEVICE)
    for first in (0, 2):
        mine = slice(first, first + 2)
        room = kernels.Room.make(20, 2, 20, 12, dtype, DEVICE)
        room.down.fill_(float("nan"))  # what other ranks make is never read
        out = poisoned(10, 20, dtype=dtype)
        kernels.fused_experts(x, gate_up[mine], down[mine], ids, weights, out, room, first_expert=first)
        total += out
    assert_near(total.to(dtype), kernels.experts_reference(x, gate_up, down, ids, weights), units=12)

"""Routed experts of a layer on one rank, all kernels together: sorting, two grouped GEMMs, SwiGLU, the sum."""
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
from simulator.calibration.microbenchmarks.operators.base import QUICK_TOKENS, TOKENS, Gpu, Limits, filled, vacant

LAYERS = ((4096, 14336, 8, 2), (2048, 768, 128, 8), (7168, 2048, 256, 8))
"""(hidden, inner of an expert, experts, experts a token): Mixtral-8x7B, Qwen3-30B-A3B, DeepSeek-V3."""

QUICK_LAYERS = ((2048, 768, 128, 8),)

SPREADS = ((1, 1), (4, 1), (1, 8))
"""(ranks that divide each expert, ranks that the experts are spread over)."""

ROUTINGS = ("balanced", "uniform")
"""``balanced``: experts in turn, all equally busy; ``uniform``: drawn independently and alike."""

_DTYPE = "bf16"
_SIZE = ELEMENT_BYTES[_DTYPE]


def cases(limits: Limits) -> list[Case]:
    """Return the grid."""
    if limits.quick:
        return [_case(layer, (1, 1), "uniform", t) for layer in QUICK_LAYERS for t in QUICK_TOKENS]
    found = [
        _case(layer, spread, routing, t)
        for layer in LAYERS
        for spread in SPREADS
        for routing in ROUTINGS
        for t in TOKENS
    ]
    return [case for case in found if limits.fits(_held_bytes(case))]


def visited_experts(tokens: int, experts: int, top_k: int, routing: str) -> float:
    """Return how many experts at least one token visits, on average."""
    if routing == "balanced":
        return float(min(experts, tokens * top_k))
    return experts * (1.0 - (1.0 - top_k / experts) ** tokens)


def _case(layer: tuple[int, int, int, int], spread: tuple[int, int], routing: str, tokens: int) -> Case:
    hidden, inner, experts, top_k = layer
    moe_tp, moe_ep = spread
    own_inner, pairs = inner // moe_tp, tokens * top_k / moe_ep
    weights = visited_experts(tokens, experts, top_k, routing) / moe_ep * 3.0 * hidden * own_inner * _SIZE
    return Case(
        "experts",
        "triton fused_experts",
        shape(
            tokens=tokens,
            hidden_size=hidden,
            intermediate_size=inner,
            num_experts=experts,
            top_k=top_k,
            moe_tp=moe_tp,
            moe_ep=moe_ep,
        ),
        _DTYPE,
        weight_dtype=_DTYPE,
        routing=routing,
        flops=6.0 * pairs * hidden * own_inner,
        bytes=weights + 2.0 * tokens * hidden * _SIZE,
    )


def _held_bytes(case: Case) -> float:
    """Return the bytes of all the rank's weights, and of what the pairs leave between kernels."""
    inner = case["intermediate_size"] / case["moe_tp"]
    weights = case["num_experts"] / case["moe_ep"] * 3 * case["hidden_size"] * inner * _SIZE
    return weights + case["tokens"] * case["top_k"] * (3 * inner + case["hidden_size"]) * _SIZE


def _routed(case: Case, gpu: Gpu) -> Any:
    """Return the experts of each token, (tokens, top_k)."""
    import torch

    tokens, experts, top_k = case["tokens"], case["num_experts"], case["top_k"]
    if case.routing == "balanced":
        return (torch.arange(tokens * top_k, device=gpu.device) % experts).to(torch.int32).reshape(tokens, top_k)
    drawn = torch.rand((tokens, experts), device=gpu.device).topk(top_k).indices
    return drawn.to(torch.int32).contiguous()


def prepare(case: Case, gpu: Gpu) -> Work:
    """Make weights and routings; each set has a routing of its own, and weights of its own where they are small."""
    import torch

    from simulator.calibration.microbenchmarks.kernels.experts import TILES, Room, fused_experts

    tokens, hidden, top_k = case["tokens"], case["hidden_size"], case["top_k"]
    inner, experts = case["intermediate_size"] // case["moe_tp"], case["num_experts"] // case["moe_ep"]
    # Experts that one routing doesn't visit push the others out of the cache as well when the next one does.
    sets = sets_beyond_cache(3.0 * experts * hidden * inner * _SIZE, gpu.cache_bytes)
    gate_up = [filled(gpu, _DTYPE, experts, 2 * inner, hidden) for _ in range(sets)]
    down = [filled(gpu, _DTYPE, experts, hidden, inner) for _ in range(sets)]
    routings = max(sets, 1 if case.routing == "balanced" else 8)
    x = [filled(gpu, _DTYPE, tokens, hidden) for _ in range(routings)]
    ids = [_routed(case, gpu) for _ in range(routings)]
    weights = torch.full((tokens, top_k), 1.0 / top_k, dtype=torch.float32, device=gpu.device)
    out = vacant(gpu, _DTYPE, tokens, hidden)

    def launch(i: int, choice: tuple[Any, Any]) -> None:
        tile, room = choice
        s = i % sets
        fused_experts(x[i], gate_up[s], down[s], ids[i], weights, out, room, tile=tile)

    choices = []
    for tile in TILES:
        if tile.rows > max(16, 4 * tokens * top_k / case["num_experts"]):
            continue  # nearly all of a block would be padding
        room = Room.make(tokens * top_k, experts, hidden, inner, torch.bfloat16, gpu.device, tile)
        choices.append((tile.label, (tile, room)))
    return Work(variants(choices, launch), routings)

"""Which rank holds which part of a request's KV, and so what each sends to whom."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from simulator.parallel import ParallelPlan


Portion: TypeAlias = tuple[int, int, int]
"""(low, high, of): what is from ``low`` to ``high`` of ``of`` equal parts of some bytes."""

Share: TypeAlias = tuple[int, int, tuple[Portion, ...]]
"""Sender's rank, receiver's rank, and which bytes: a portion of a portion and so on, the first one of the whole."""


def share_bytes(num_bytes: int, portions: Iterable[Portion]) -> int:
    """Return how many whole bytes a portion of a portion is; portions that make up a whole add up to its bytes."""
    for low, high, of in portions:
        num_bytes = num_bytes * high // of - num_bytes * low // of
    return num_bytes


def kv_shares(
    sender: ParallelPlan,
    receiver: ParallelPlan,
    *,
    num_layers: int,
    num_kv_heads: int,
    layers: Sequence[int] | None = None,
) -> list[Share]:
    """Return what each rank of one replica sends to each of another so that the other has the KV of some tokens.

    Ranks hold the key-value heads of their tensor parallel share in the layers of their stage; with more ranks than
    heads, neighbours hold the same head (as `simulator.parallel.tp_feasible` says), each of the receiver's copies is
    sent, and those of the sender take turns. Context parallel ranks divide heads (Ulysses) or tokens (ring).

    Parameters
    ----------
    num_kv_heads
        1 where every rank holds everything (the latent cache of MLA).
    layers
        Which the bytes are of, ascending; None: all.

    Returns
    -------
    list of Share
        Of the KV's bytes, each head of each layer counted once, equal over layers and heads. Ranks stage by stage, then
        by part of the tokens, then by heads; every pair once. They add up to as many times all bytes as the receiver
        has copies.
    """
    chosen = range(num_layers) if layers is None else layers
    from_parts, to_parts = _token_parts(sender), _token_parts(receiver)
    tokens = overlaps(from_parts, to_parts)
    heads = _heads_between(sender.attention_ranks, receiver.attention_ranks, num_kv_heads)
    found: list[Share] = []
    for from_stage, of_sender in enumerate(sender.stage_layers(num_layers)):
        for to_stage, of_receiver in enumerate(receiver.stage_layers(num_layers)):
            # Stages hold consecutive layers, so what two of them have in common is consecutive among the chosen.
            first = bisect_left(chosen, max(of_sender.start, of_receiver.start))
            last = bisect_left(chosen, min(of_sender.stop, of_receiver.stop))
            if first >= last:
                continue
            for from_part, to_part, low, high in tokens:
                sends = (from_stage * from_parts + from_part) * sender.attention_ranks
                receives = (to_stage * to_parts + to_part) * receiver.attention_ranks
                for rank, other, below, above, shards in heads:
                    portions = (first, last, len(chosen)), (low, high, from_parts * to_parts), (below, above, shards)
                    found.append((sends + rank, receives + other, portions))
    return found


def overlaps(senders: int, receivers: int) -> list[tuple[int, int, int, int]]:
    """Return (sender, receiver, low, high) where both divide the same thing evenly, in order.

    What sender and receiver have in common is from ``low`` to ``high`` of ``senders x receivers`` equal parts.
    """
    found = []
    for i in range(senders):
        for j in range(receivers):
            low, high = max(i * receivers, j * senders), min((i + 1) * receivers, (j + 1) * senders)
            if low < high:
                found.append((i, j, low, high))
    return found


def _token_parts(plan: ParallelPlan) -> int:
    """Return how many ranks the tokens of a request's KV are divided over (ring), each beside those of its heads."""
    return plan.rank_gpus // (plan.pp * plan.attention_ranks)


def _heads_between(senders: int, receivers: int, num_kv_heads: int) -> list[tuple[int, int, int, int, int]]:
    """Return (sender, receiver, low, high, of how many parts) of the heads that the one sends to the other."""
    held, wanted = min(senders, num_kv_heads), min(receivers, num_kv_heads)
    alike = senders // held
    of_shard: dict[int, list[tuple[int, int, int]]] = {}
    for i, j, low, high in overlaps(held, wanted):
        of_shard.setdefault(j, []).append((i, low, high))
    return [
        (i * alike + rank % alike, rank, low, high, held * wanted)
        for rank in range(receivers)
        for i, low, high in of_shard[rank * wanted // receivers]
    ]

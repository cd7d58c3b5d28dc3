"""Which rank holds which part of a request's KV, and so what each sends to whom."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simulator.parallel import ParallelPlan


def even_shares(num_bytes: int, count: int) -> list[int]:
    """Return bytes split evenly, whole ones, that add up."""
    return [num_bytes * (i + 1) // count - num_bytes * i // count for i in range(count)]


def kv_shares(
    sender: ParallelPlan,
    receiver: ParallelPlan,
    num_bytes: int,
    *,
    num_layers: int,
    num_kv_heads: int,
    layers: Sequence[int] | None = None,
) -> list[tuple[int, int, int]]:
    """Return what each rank of one replica sends to each of another so that the other has the KV of some tokens.

    Ranks hold the key-value heads of their tensor parallel share in the layers of their stage; with more ranks than
    heads, neighbours hold the same head (as `simulator.parallel.tp_feasible` says), each of the receiver's copies is
    sent, and those of the sender take turns.

    Parameters
    ----------
    num_bytes
        Each head of each layer counted once; equal over layers and heads.
    num_kv_heads
        1 where every rank holds everything (the latent cache of MLA).
    layers
        Which the bytes are of, ascending; None: all.

    Returns
    -------
    list of (sender's rank, receiver's rank, bytes)
        Ranks stage by stage; every pair once. The bytes add up to ``num_bytes`` times the receiver's copies.
    """
    chosen = range(num_layers) if layers is None else layers
    held, wanted = min(sender.tp, num_kv_heads), min(receiver.tp, num_kv_heads)
    alike = sender.tp // held
    found = []
    for from_stage, of_sender in enumerate(sender.stage_layers(num_layers)):
        for to_stage, of_receiver in enumerate(receiver.stage_layers(num_layers)):
            # Stages hold consecutive layers, so what two of them have in common is consecutive among the chosen.
            first = bisect_left(chosen, max(of_sender.start, of_receiver.start))
            last = bisect_left(chosen, min(of_sender.stop, of_receiver.stop))
            if first >= last:
                continue
            begin, end = num_bytes * first // len(chosen), num_bytes * last // len(chosen)
            for rank in range(receiver.tp):
                shard = rank * wanted // receiver.tp
                for other in range(held):
                    # Both shards as parts of held x wanted equal ones.
                    low, high = max(other * wanted, shard * held), min((other + 1) * wanted, (shard + 1) * held)
                    if low >= high:
                        continue
                    units = held * wanted
                    size = (end - begin) * high // units - (end - begin) * low // units
                    found.append(
                        (from_stage * sender.tp + other * alike + rank % alike, to_stage * receiver.tp + rank, size)
                    )
    return found

"""Context parallelism: ranks that share a prompt's tokens, and how its attention crosses between them.

All of a layer but attention goes token by token, so each of N ranks computes a share of the step's tokens, prompts and
decodes alike, with weights of its own. For attention, which needs all tokens before:

*Ulysses* (DeepSpeed-Ulysses, Jacobs et al., arXiv:2309.14509, section 3): an all-to-all turns queries, keys and values
of a rank's tokens into those of all tokens for a share of the heads, each rank attends with its heads, and a second one
turns the outputs back. The cache is divided by heads, so a decode goes the same way. Where there are fewer key-value
heads than ranks, they are sent to, and held by, several.

*Ring* (Ring Attention, Liu et al., arXiv:2310.01889, section 3): each rank keeps its queries; blocks of keys and values
go round, and while one is attended to the next arrives: N rounds of attention, N - 1 transfers under all but the last.
With one piece of the prompt for each rank the causal mask leaves some rank a full block in every round but the first,
whose blocks are half: (2 - 1/N) times the work of balanced ranks. Striped (Brandon et al., arXiv:2311.09431: each rank
has every N-th token) the rounds are alike. Cached tokens are divided evenly, and their keys and values go round too
(pass-KV of Yang et al., arXiv:2411.01783; its pass-Q, better for few new tokens after many cached ones, isn't
modelled). The cache is divided by tokens. For a decode the queries are gathered on all ranks, each attends to its
tokens, and partial outputs with their log-sum-exps go back to the query's rank, which combines them.

Not modelled: traffic of others on the links; all-to-alls and gathers that overlap with computation; ranks whose decodes
differ in length; several chunks of unlike size in a step under an unstriped ring, which are taken as alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from simulator.cost.attention import Attention, Ints
from simulator.cost.kernels import Floats, Kernels, KernelShapes
from simulator.cost.links import P2P_LATENCY_S, CollectiveLink
from simulator.cost.piecewise import Piecewise
from simulator.parallel import ParallelPlan
from simulator.sharding import Matrix, kv_elements_per_token_layer, rank_heads, rank_kv_heads

LSE_BYTES = 4
"""Bytes of a log-sum-exp, one for each query and head: fp32, as FlashAttention returns it."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """An all-to-all between context parallel ranks.

    Attributes
    ----------
    latency_s
        Whatever the size: one round of kernels that write to their peers, else a message to each.
    token_s
        For each token of the step: what a rank sends of its share.
    """

    latency_s: float
    token_s: float

    @classmethod
    def of(cls, link: CollectiveLink, ranks: int, bytes_per_token: float) -> Exchange:
        """Return that of ``bytes_per_token`` for each token that a rank holds; one in ``ranks`` stays where it is."""
        rounds = 1 if link.kernels else ranks - 1
        return cls(link.latency_s * rounds, bytes_per_token * (ranks - 1) / (ranks * ranks) / link.bandwidth)


@dataclass(frozen=True, slots=True)
class UlyssesAttention:
    """Attention of one layer with the heads divided over the ranks, and the two all-to-alls around it.

    Attributes
    ----------
    wide
        Attention of one rank: all tokens, its heads.
    inwards, outwards
        Of queries, keys and values; and of the outputs.
    """

    wide: Attention
    inwards: Exchange
    outwards: Exchange

    def _exchange_s(self, tokens: int) -> float:
        latency = self.inwards.latency_s + self.outwards.latency_s
        return latency + tokens * (self.inwards.token_s + self.outwards.token_s)

    def decode(self, decodes: int) -> Piecewise:
        """Return the seconds of so many decodes."""
        return self.wide.decode(decodes).scaled(1.0, self._exchange_s(decodes))

    def prefill_s(self, chunks: int, new: int, cached: int, pairs: int, context: int) -> float:
        """Return the seconds of the chunks of one step."""
        return self.wide.prefill_s(chunks, new, cached, pairs, context) + self._exchange_s(new)

    def prefill_run_s(self, chunks: int, new: int, cached: Ints, pairs: Ints, context: Ints) -> Floats:
        """Return the same for each step of a run."""
        return self.wide.prefill_run_s(chunks, new, cached, pairs, context) + self._exchange_s(new)


@dataclass(frozen=True, slots=True)
class RingAttention:
    """Attention of one layer whose keys and values go round.

    Attributes
    ----------
    block
        Attention of one rank, asked about one block of keys and values at a time.
    ranks, striped
        Of the ring.
    send_s
        Seconds of handing on the keys and values of one token.
    queries, partials
        Decodes: gathering the queries, returning the partial outputs.
    combine_s
        Decodes: seconds of combining the partial outputs, by decodes.
    """

    block: Attention
    ranks: int
    striped: bool
    send_s: float
    queries: Exchange
    partials: Exchange
    combine_s: Callable[[int], float]

    def decode(self, decodes: int) -> Piecewise:
        """Return the seconds of so many decodes over the tokens attended to, of which each rank holds its share."""
        latency = self.queries.latency_s + self.partials.latency_s
        exchange = latency + decodes * (self.queries.token_s + self.partials.token_s)
        return self.block.decode(decodes).stretched(float(self.ranks), exchange + self.combine_s(decodes))

    def prefill_s(self, chunks: int, new: int, cached: int, pairs: int, context: int) -> float:
        """Return the seconds of the chunks of one step."""
        send = P2P_LATENCY_S + context / self.ranks * self.send_s
        rank = new / self.ranks, cached / self.ranks, context / self.ranks
        first_pairs, other_pairs = self._round_pairs(chunks, new, cached, pairs)
        first = self.block.prefill_s(chunks, rank[0], rank[1], first_pairs, rank[2])  # type: ignore[arg-type]
        other = first
        if not self.striped:
            other = self.block.prefill_s(chunks, rank[0], rank[1], other_pairs, rank[2])  # type: ignore[arg-type]
        begun = first if first > send else send
        under_way = other if other > send else send
        return begun + (self.ranks - 2) * under_way + other

    def prefill_run_s(self, chunks: int, new: int, cached: Ints, pairs: Ints, context: Ints) -> Floats:
        """Return the same for each step of a run."""
        send = P2P_LATENCY_S + context / self.ranks * self.send_s
        rank = new / self.ranks, cached / self.ranks, context / self.ranks
        first_pairs, other_pairs = self._round_pairs(chunks, new, cached, pairs)
        first = self.block.prefill_run_s(chunks, rank[0], rank[1], first_pairs, rank[2])  # type: ignore[arg-type]
        other = first
        if not self.striped:
            other = self.block.prefill_run_s(chunks, rank[0], rank[1], other_pairs, rank[2])  # type: ignore[arg-type]
        begun = np.maximum(first, send)
        under_way = np.maximum(other, send)
        return np.asarray(begun + (self.ranks - 2) * under_way + other)

    def _round_pairs(self, chunks: int, new: int, cached: Any, pairs: Any) -> tuple[Any, Any]:
        """Return the pairs of the busiest rank in the first round and in each of the others; numbers or arrays.

        Of a chunk's pairs, those with cached tokens are balanced; those among its new tokens only if striped.
        """
        blocks = self.ranks * self.ranks
        balanced = pairs / blocks
        if self.striped:
            return balanced, balanced
        among_new = pairs - new * cached / chunks
        return balanced, balanced + among_new / blocks


@dataclass
class ContextParallelKernels:
    """Kernels of one rank, with attention that crosses between ranks.

    Attributes
    ----------
    rank
        All but attention.
    substitutions
        Of the source of attention.
    note
        A line for the result.
    """

    rank: Kernels
    attention: Attention
    window_attention: Attention
    substitutions: Counter[str]
    note: str

    @property
    def sources(self) -> Sequence[str]:
        """Where the times come from."""
        return (*self.rank.sources, self.note)

    def gemm(self, matrix: Matrix, rows: Floats) -> Floats:
        """Return the seconds of one matrix product."""
        return self.rank.gemm(matrix, rows)

    @property
    def choice_kernels(self) -> int:
        """Kernels of the choice of experts."""
        return self.rank.choice_kernels

    def absorbed(self, expansion: Matrix, rows: Floats) -> Floats:
        """Return the seconds of MLA's products of decodes."""
        return self.rank.absorbed(expansion, rows)

    def elementwise(self, elements_per_row: float, rows: Floats, kernels: int) -> Floats:
        """Return the seconds of kernels that only move memory."""
        return self.rank.elementwise(elements_per_row, rows, kernels)

    def experts(self, tokens: Floats, idle: Floats) -> Floats:
        """Return the seconds of a layer's routed experts."""
        return self.rank.experts(tokens, idle)

    def all_reduce(self, size: Floats) -> Floats:
        """Return the seconds of an all-reduce over the tensor parallel ranks."""
        return self.rank.all_reduce(size)

    def all_gather(self, size: Floats) -> Floats:
        """Return the seconds of an all-gather over them."""
        return self.rank.all_gather(size)


def context_parallel_kernels(shapes: KernelShapes, make: Callable[[KernelShapes], Kernels]) -> Kernels:
    """Return the kernels of one rank of a layout, whether it has context parallelism or not.

    Parameters
    ----------
    make
        Makes the kernels of one rank without.
    """
    plan, link, model = shapes.plan, shapes.context_link, shapes.model
    if plan.cp == 1 or link is None:
        return make(shapes)
    rank = make(shapes)
    heads, width = rank_heads(model, plan.tp), model.head_dim * shapes.activation_bytes
    note = f"context parallelism over {plan.cp} ranks, {plan.context}"
    if plan.context == "ulysses":
        kernels = make(replace(shapes, plan=ParallelPlan(plan.attention_ranks, plan.pp), context_link=None))
        kv_heads = 2 * plan.cp * rank_kv_heads(model, plan.attention_ranks)
        inwards = Exchange.of(link, plan.cp, (heads + kv_heads) * width)
        outwards = Exchange.of(link, plan.cp, heads * width)
        attention, window = (
            UlyssesAttention(each, inwards, outwards) for each in (kernels.attention, kernels.window_attention)
        )
        note = f"{note}: all-to-all estimated for {link.name}"
        return ContextParallelKernels(rank, attention, window, kernels.substitutions, note)
    rows = (plan.cp + 1) * heads * model.head_dim
    ring = RingAttention(
        block=rank.attention,
        ranks=plan.cp,
        striped=plan.striped,
        send_s=kv_elements_per_token_layer(model, plan.tp) * shapes.kv_bytes / link.bandwidth,
        # Gathered: a rank receives all the others' queries, as many times what it sends of its own in an all-to-all.
        queries=Exchange.of(link, plan.cp, plan.cp * heads * width),
        partials=Exchange.of(link, plan.cp, plan.cp * heads * (width + LSE_BYTES)),
        combine_s=lambda decodes: float(rank.elementwise(rows, np.ceil(np.array([decodes / plan.cp])), 1)[0]),
    )
    note = f"{note}{', striped' if plan.striped else ''}: transfers estimated for {link.name}"
    return ContextParallelKernels(rank, ring, ring, rank.substitutions, note)

"""What a KV budget is, as data: what an engine keeps of each request's keys and values, reads, and computes for it.

A policy of the kind ``kv_budget`` returns one `KVBudget` for a model. The memory plan, the engine and the cost model
see that declaration and nothing of the policy. All work is of the whole model, all layers, on one rank: the cost model
divides it over tensor parallel ranks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a policy may know of the model that it is to serve.

    Attributes
    ----------
    num_layers, hidden_size, num_heads, num_kv_heads, head_dim
        Shapes.
    kv_elements
        Elements that one token adds to the cache of one layer, keys and values.
    kv_bits
        Bits of one of them as the scenario's datatype stores it.
    activation_bits
        Bits of one element of activations.
    """

    num_layers: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    kv_elements: int
    kv_bits: float
    activation_bits: float

    @property
    def token_bits(self) -> float:
        """Bits that one token takes in one layer without a budget."""
        return self.kv_elements * self.kv_bits

    @property
    def kv_width(self) -> int:
        """Elements of a token's keys in one layer."""
        return self.num_kv_heads * self.head_dim


@dataclass(frozen=True, slots=True)
class Cap:
    """At most so many tokens of a sequence: a number, a share of its prompt, or both together.

    Attributes
    ----------
    tokens
        Tokens.
    prompt_share
        Share of the prompt's tokens, in [0, 1], rounded up.
    """

    tokens: int = 0
    prompt_share: float = 0.0

    def __post_init__(self) -> None:
        if self.tokens < 0 or not 0 <= self.prompt_share <= 1:
            raise ValueError(f"a cap needs at least 0 tokens and a share in [0, 1], got {self}")
        if not self.tokens and not self.prompt_share:
            raise ValueError("a cap of nothing: give tokens, a share of the prompt, or both")

    def of(self, prompt_tokens: int) -> int:
        """Return the tokens of a sequence with such a prompt, at least 1."""
        # A share such as 0.1 isn't exact: 0.1 x 30 must not round up to 4.
        return max(1, self.tokens + math.ceil(self.prompt_share * prompt_tokens - 1e-9))


@dataclass(frozen=True, slots=True)
class LayerGroup:
    """Layers that are treated alike.

    Attributes
    ----------
    layers
        How many.
    keep
        Tokens of a sequence that they keep in GPU memory at most; None: all.
    read
        Tokens that a decode step attends to at most; None: all that there are of the sequence, wherever kept.
    prefill_share
        Share of a prompt's tokens that these layers compute, in (0, 1].
    """

    layers: int
    keep: Cap | None = None
    read: Cap | None = None
    prefill_share: float = 1.0

    def __post_init__(self) -> None:
        if self.layers < 1 or not 0 < self.prefill_share <= 1:
            raise ValueError(f"a group needs at least 1 layer and a prefill_share in (0, 1], got {self}")


@dataclass(frozen=True, slots=True)
class Work:
    """Extra work, on one token or pair of tokens, in all layers; an operation takes the longer of its two parts.

    Attributes
    ----------
    flops
        Arithmetic, FLOPs.
    memory_bytes
        Traffic to GPU memory, bytes.
    """

    flops: float = 0.0
    memory_bytes: float = 0.0

    def __post_init__(self) -> None:
        if self.flops < 0 or self.memory_bytes < 0:
            raise ValueError(f"work can't be negative, got {self}")


NO_WORK = Work()


@dataclass(frozen=True, slots=True)
class Offload:
    """Where the tokens of a sequence are beyond those in GPU memory.

    Attributes
    ----------
    gpu_tokens
        Tokens of a sequence in GPU memory at most; each further one is written to host memory when it is computed.
    host_tokens
        Tokens in host memory at most; None: all others. Those beyond are deleted, and computed again when read.
    load_share
        Share of the tokens in host memory that a decode step loads.
    recompute_share
        Share of the deleted tokens that a decode step computes again.
    recompute
        Work for one of them.
    """

    gpu_tokens: int
    host_tokens: int | None
    load_share: float
    recompute_share: float
    recompute: Work

    def __post_init__(self) -> None:
        if self.gpu_tokens < 1 or (self.host_tokens is not None and self.host_tokens < 0):
            raise ValueError(f"an offload needs at least 1 token on the GPU and 0 on the host, got {self}")
        if not (0 <= self.load_share <= 1 and 0 <= self.recompute_share <= 1):
            raise ValueError(f"shares of an offload must be in [0, 1], got {self}")


@dataclass(frozen=True, slots=True)
class KVBudget:
    """What an engine keeps and reads of each request, and what it computes for that.

    Attributes
    ----------
    groups
        All layers, first to last.
    token_bits
        Bits that a kept token takes in one layer, scales and all that belongs to it included.
    read_bits
        Bits of a token that a decode step's attention reads in one layer.
    read_share
        Share of the tokens (those within ``LayerGroup.read``) that a decode step attends to, in (0, 1].
    drop
        When tokens beyond ``keep`` are dropped: at the end of the prefill, which then holds all of them at its peak,
        or ``"prefill"``: all along, a chunk attending to itself and to what is kept.
    grows
        Whether decoded tokens come on top of what is kept of the prompt; without it each takes the place of another.
    residual_tokens
        The latest tokens of a sequence are kept uncompressed: how many.
    step_kernels
        Kernels that each layer launches more in a step.
    per_decode, per_read
        Work for each decoded token, and for each token that a decode attends to.
    per_prefill, per_cached, per_pair
        Work for each prompt token computed, for each token before a prefill chunk, and for each pair of a prompt token
        and one that it attends to.
    offload
        Tokens outside GPU memory; None: there are none.
    """

    groups: tuple[LayerGroup, ...]
    token_bits: float
    read_bits: float
    read_share: float = 1.0
    drop: Literal["prefill_end", "prefill"] = "prefill_end"
    grows: bool = False
    residual_tokens: int = 0
    step_kernels: int = 0
    per_decode: Work = NO_WORK
    per_read: Work = NO_WORK
    per_prefill: Work = NO_WORK
    per_cached: Work = NO_WORK
    per_pair: Work = NO_WORK
    offload: Offload | None = None

    def __post_init__(self) -> None:
        if not self.groups:
            raise ValueError("a KV budget needs a group of layers")
        if self.token_bits <= 0 or self.read_bits <= 0 or not 0 < self.read_share <= 1:
            raise ValueError("a KV budget needs token_bits and read_bits above 0 and a read_share in (0, 1]")
        if self.residual_tokens < 0 or self.step_kernels < 0:
            raise ValueError("residual_tokens and step_kernels of a KV budget must be at least 0")
        if len({group.keep is None for group in self.groups}) > 1:
            raise ValueError("either all groups of layers of a KV budget keep everything, or none does")
        if self.drop == "prefill" and any(g.keep is None or g.keep.prompt_share for g in self.groups):
            raise ValueError("only a fixed number of tokens can be kept all along the prefill")
        if self.grows and (not self.capped or self.drop != "prefill_end" or self.offload is not None):
            raise ValueError("only a budget that drops tokens of the prompt at its end, for good, can grow after it")
        if self.offload is None and any(group.keep is not None and group.read is None for group in self.groups):
            raise ValueError("a group of layers that drops tokens must say how many it reads")
        if self.offload is not None and {g.keep for g in self.groups} != {Cap(self.offload.gpu_tokens)}:
            raise ValueError("with an offload every group must keep exactly its gpu_tokens")

    @property
    def num_layers(self) -> int:
        """Layers of all groups."""
        return sum(group.layers for group in self.groups)

    @property
    def capped(self) -> bool:
        """Whether a sequence stops growing in GPU memory."""
        return self.groups[0].keep is not None

    @property
    def shares_prefixes(self) -> bool:
        """Whether KV of a prefix is the same whoever computed it, all of it there: nothing dropped or skipped."""
        return not self.capped and all(group.prefill_share == 1.0 for group in self.groups)

    def kept_tokens(self, prompt_tokens: int) -> int | None:
        """Return the tokens whose memory a sequence takes at most (with ``grows``, of its prompt); None: no limit.

        Where layers keep different numbers it is their mean, rounded up: what a sequence takes when all are full, and
        not less than it takes before, when some are and others go on.
        """
        total = 0
        for group in self.groups:
            if group.keep is None:
                return None
            total += group.layers * group.keep.of(prompt_tokens)
        return -(-total // self.num_layers)

    @property
    def tracked(self) -> tuple[Cap, ...]:
        """Caps for which the engine keeps the sum of min(attended, cap) over the decodes: each one once."""
        caps = [group.read for group in self.groups if group.read is not None]
        if self.offload is not None:
            caps.append(Cap(self.offload.gpu_tokens))
            if self.offload.host_tokens:
                caps.append(Cap(self.offload.gpu_tokens + self.offload.host_tokens))
        return tuple(dict.fromkeys(caps))


def uniform(model: ModelFacts, keep: Cap | None = None, read: Cap | None = None) -> tuple[LayerGroup, ...]:
    """Return one group of all layers, which reads what it keeps unless told otherwise."""
    return (LayerGroup(model.num_layers, keep, keep if read is None else read),)

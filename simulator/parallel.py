"""How the accelerators of one replica share a model: tensor, pipeline, context, attention data, expert parallelism."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from simulator.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from simulator.models.spec import ModelSpec

CONTEXTS = ("ring", "ulysses")
"""How context parallel ranks can attend to each other's tokens."""


@dataclass(frozen=True, slots=True)
class ParallelPlan:
    """Parallel layout of one replica.

    Attributes
    ----------
    tp
        Tensor parallel ranks: each holds a slice of every matrix, and its share of the heads.
    pp
        Pipeline stages: each holds consecutive layers; the first the embedding, the last the LM head.
    ep
        Expert parallelism: how many of the ``tp x dp`` GPUs of a stage the routed experts are spread over;
        ``tp x dp / ep`` of them divide each expert.
    dp
        Attention data parallel ranks: each is a tensor parallel group of its own with all of the attention, its own
        scheduler, queue and KV cache, while the routed experts are shared by all of them (see
        `simulator.cost.lockstep`). With 1 every rank has all the tokens, so nothing but the all-reduce is exchanged.
    redundant_experts
        Copies of routed experts beside the experts themselves, over all ranks (``policies/parallelism``).
    cp
        Context parallel ranks: each holds all that a tensor parallel rank does, and computes its share of the tokens.
    context
        How context parallel ranks attend to each other's tokens, ``"ring"`` or ``"ulysses"``; see
        `simulator.cost.context_parallel`.
    striped
        Ring only: whether each rank has tokens from all over the prompt, so that causal attention is balanced.
    """

    tp: int = 1
    pp: int = 1
    ep: int = 1
    cp: int = 1
    context: str = "ring"
    striped: bool = True
    dp: int = 1
    redundant_experts: int = 0

    @property
    def moe_tp(self) -> int:
        """GPUs that divide each routed expert."""
        return self.tp * self.dp // self.ep

    def __post_init__(self) -> None:
        for name in ("tp", "pp", "ep", "cp", "dp"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"parallel plan: {name} must be a whole number of at least 1, got {value!r}")
        if self.tp * self.dp % self.ep:
            what = f"tp={self.tp}" if self.dp == 1 else f"tp x dp = {self.tp} x {self.dp}"
            raise InputError(f"parallel plan: ep={self.ep} must divide {what}, whose ranks hold the experts")
        if self.redundant_experts < 0:
            raise InputError(f"parallel plan: redundant_experts must be at least 0, got {self.redundant_experts}")
        if self.context not in CONTEXTS:
            raise InputError(f"parallel plan: context must be one of {', '.join(CONTEXTS)}, got {self.context!r}")

    @property
    def gpus(self) -> int:
        """Accelerators of one replica."""
        return self.tp * self.pp * self.cp * self.dp

    @property
    def attention_ranks(self) -> int:
        """Ranks that the heads are divided over while attention is computed."""
        return self.tp * self.cp if self.context == "ulysses" else self.tp

    @property
    def rank_gpus(self) -> int:
        """Accelerators of one attention data parallel rank."""
        return self.tp * self.pp * self.cp

    def experts_held(self, num_experts: int) -> int:
        """Return how many routed experts, copies included, a GPU holds (whole, or its parts of them)."""
        return (num_experts + self.redundant_experts) // self.ep

    def check(self, model: ModelSpec) -> None:
        """Raise unless the model can be split so.

        Raises
        ------
        InputError
            With the nearest feasible choice.
        """
        if not tp_feasible(model, self.tp):
            feasible = feasible_tp(model)
            kv = "" if model.mla is not None else f" and {model.num_kv_heads} key-value heads"
            raise InputError(
                f"parallel plan: tp={self.tp} does not split the {model.num_heads} heads{kv} of {model.name} evenly; "
                f"nearest: tp={_nearest(self.tp, feasible)} (feasible: {', '.join(map(str, feasible))})"
            )
        if self.ep > 1 and (model.moe is None or model.moe.num_experts % self.ep):
            what = "has no routed experts" if model.moe is None else f"has {model.moe.num_experts} routed experts"
            raise InputError(f"parallel plan: ep={self.ep} does not divide the experts: {model.name} {what}")
        if self.cp > 1:
            self._check_context(model)
        if self.dp > 1 and model.moe is None:
            raise InputError(
                f"parallel plan: dp={self.dp} shares routed experts between ranks, and {model.name} has none; ranks of "
                f"a dense model have nothing in common: use replicas: {self.dp}"
            )
        for name, size in (("pipeline stages (pp", self.pp), ("context parallelism (cp", self.cp)):
            if self.dp > 1 and size > 1:
                raise InputError(
                    f"parallel plan: attention data parallelism (dp={self.dp}) with {name}={size}) is not modelled; "
                    f"use {name[-2:]}=1"
                )
        if self.redundant_experts and (self.ep == 1 or model.moe is None):
            raise InputError(
                "parallel plan: copies of experts (redundant_experts) need expert parallelism (ep above 1)"
            )
        if model.moe is not None and (model.moe.num_experts + self.redundant_experts) % self.ep:
            raise InputError(
                f"parallel plan: {model.moe.num_experts} experts and {self.redundant_experts} copies are not divided "
                f"by ep={self.ep}; nearest: redundant_experts={-(-self.redundant_experts // self.ep) * self.ep}"
            )
        if self.pp > model.num_layers:
            raise InputError(
                f"parallel plan: pp={self.pp} exceeds the {model.num_layers} layers of {model.name}; "
                f"nearest: pp={model.num_layers}"
            )

    def _check_context(self, model: ModelSpec) -> None:
        if model.mla is not None:
            raise InputError(
                f"parallel plan: cp={self.cp} is modelled for multi-head and grouped-query attention, and {model.name} "
                "has latent attention (MLA); use cp=1 and a larger tp"
            )
        if self.context == "ulysses" and not tp_feasible(model, self.attention_ranks):
            feasible = [cp for cp in range(1, model.num_heads + 1) if tp_feasible(model, self.tp * cp)]
            raise InputError(
                f"parallel plan: context=ulysses divides the heads over tp x cp = {self.attention_ranks} ranks, and "
                f"{model.name} has {model.num_heads} heads and {model.num_kv_heads} key-value heads; nearest: "
                f"cp={_nearest(self.cp, feasible)} (feasible with tp={self.tp}: {', '.join(map(str, feasible))}), or "
                "context=ring"
            )
        if self.context == "ring" and model.num_sliding_layers:
            raise InputError(
                f"parallel plan: context=ring is not modelled for sliding windows, which {model.name} has; use "
                "context=ulysses, or cp=1"
            )

    def stage_layers(self, num_layers: int) -> tuple[range, ...]:
        """Return the layers of each stage, as vLLM splits them.

        Layers that are left over go one each to the stages before the last, from the back: the last holds the final
        norm and the LM head, and as few as possible go to the first, which holds the embedding (``get_pp_indices`` in
        ``vllm/distributed/utils.py``).
        """
        each, left = divmod(num_layers, self.pp)
        counts = [each] * self.pp
        for back in range(2, left + 2):
            counts[-back] += 1
        stages = []
        begin = 0
        for count in counts:
            stages.append(range(begin, begin + count))
            begin += count
        return tuple(stages)


def tp_feasible(model: ModelSpec, tp: int) -> bool:
    """Tell whether ``tp`` ranks can share the model's heads.

    Query heads divide evenly; key-value heads divide evenly or are replicated evenly (``QKVParallelLinear`` in
    ``vllm/model_executor/layers/linear.py``). The latent cache of MLA is replicated on every rank.
    """
    if model.num_heads % tp:
        return False
    return model.mla is not None or model.num_kv_heads % tp == 0 or tp % model.num_kv_heads == 0


def feasible_tp(model: ModelSpec) -> list[int]:
    """Return every tensor parallel size that the model's heads allow, ascending."""
    return [tp for tp in range(1, model.num_heads + 1) if tp_feasible(model, tp)]


def _nearest(value: int, options: Iterable[int]) -> int:
    """Option nearest to a value, the smaller of two equally near."""
    return min(options, key=lambda option: (abs(option - value), option))

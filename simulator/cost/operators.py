"""Operators of a model on one rank that depend on the number of tokens only, composed of a source's kernels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulator.cost.kernels import Floats, Kernels, KernelShapes
from simulator.cost.links import CollectiveLink
from simulator.models.dtypes import WEIGHT_FORMATS
from simulator.models.spec import ModelSpec
from simulator.sharding import (
    Matrix,
    attention_matrices,
    kv_elements_per_token_layer,
    latent_expansion,
    mlp_matrices,
    rank_heads,
    rank_kv_heads,
    rank_vocab,
    share,
)


@dataclass(frozen=True)
class OperatorTimes:
    """Times of the operators of one model on one rank."""

    shapes: KernelShapes
    kernels: Kernels

    def all_reduce(self, tokens: Floats) -> Floats:
        """Return the seconds of one all-reduce of the hidden states; 0 for one rank."""
        return self.kernels.all_reduce(tokens * (self.shapes.model.hidden_size * self.shapes.activation_bytes))

    @property
    def decodes_differ(self) -> bool:
        """Whether a layer of a step of decodes alone takes another time than with chunks of as many tokens."""
        model = self.shapes.model
        return model.mla is not None or bool(self.shapes.shared_beside and model.moe is not None)

    def layer(self, tokens: Floats, idle: Floats, moe_layer: bool, decodes: bool = False) -> dict[str, Floats]:
        """Return the seconds of one decoder layer by family, but for attention.

        Two norms, each reading and writing the residual beside the hidden states; rotary embedding of queries and
        keys; the write of the cache; the activation. Attention data parallel ranks share the experts: `experts` has
        those for the tokens of all.

        Parameters
        ----------
        decodes
            True for steps of decodes alone: MLA's expansion is absorbed, and shared experts may be computed beside
            the routed ones.
        """
        shapes, kernels = self.shapes, self.kernels
        model, tp = shapes.model, shapes.plan.tp
        zero = np.zeros_like(tokens)
        seconds: dict[str, Floats] = {}
        absorbed = latent_expansion(model, tp) if decodes else None
        for matrix in attention_matrices(model, tp) + mlp_matrices(model, tp, moe_layer):
            product = kernels.absorbed if matrix == absorbed else kernels.gemm
            seconds[matrix.family] = seconds.get(matrix.family, zero) + product(matrix, tokens)
        rotary = 2 * (rank_heads(model, tp) + rank_kv_heads(model, tp)) * model.head_dim
        if model.mla is not None:
            rotary = 2 * (rank_heads(model, tp) + 1) * model.mla.qk_rope_head_dim
        cached = kv_elements_per_token_layer(model, tp) * (1 + shapes.kv_bytes / shapes.activation_bytes)
        seconds["norms_rotary_cache"] = kernels.elementwise(8 * model.hidden_size + rotary + cached, tokens, 4)
        if moe_layer and model.moe is not None:
            # Softmax and choice of the experts, and sorting the tokens by expert.
            if kernels.choice_kernels:
                choice = kernels.elementwise(2 * model.moe.num_experts, tokens, kernels.choice_kernels)
                seconds["router"] = seconds["router"] + choice
            if shapes.plan.dp == 1:
                seconds["experts"] = self.experts(tokens, idle)
            inner = share(model.moe.shared_intermediate_size, tp)
        else:
            inner = share(model.intermediate_size, tp)
        if inner:
            seconds["activation"] = kernels.elementwise(model.mlp_matrices * inner, tokens, 1)
        if decodes and "shared" in seconds and shapes.shared_beside:
            self._beside(seconds, tokens, idle)
        seconds["collectives"] = 2 * self.all_reduce(tokens)
        return seconds

    def _beside(self, seconds: dict[str, Floats], tokens: Floats, idle: Floats) -> None:
        """Hide shared experts behind the router and the routed ones, up to ``shared_beside`` tokens.

        Engines compute them on another stream of a CUDA graph, or as one more expert of the same kernels. Either way
        their weights are read beside the routed ones', so what is left is at least the time to read them, at the data
        sheet's bandwidth: how far kernels of two streams slow each other down beyond that is not modelled. Of attention
        data parallel ranks, which share the experts, those of a rank's own tokens are what can hide them.
        """
        shapes = self.shapes
        model, tp = shapes.model, shapes.plan.tp
        alone = seconds["shared"] + seconds["activation"]
        routed = seconds["router"] + (seconds["experts"] if "experts" in seconds else self.experts(tokens, idle))
        form = WEIGHT_FORMATS[shapes.formats["shared"]]
        held = sum(form.bytes_of(each.elements) for each in mlp_matrices(model, tp, True) if each.family == "shared")
        left = np.minimum(alone, np.maximum(alone - routed, held / shapes.accelerator.memory_bandwidth))
        beside = tokens <= shapes.shared_beside
        seconds["shared"] = np.where(beside, left, seconds["shared"])
        seconds["activation"] = np.where(beside, 0.0, seconds["activation"])

    def experts(self, tokens: Floats, idle: Floats) -> Floats:
        """Return the seconds of one layer's routed experts on the busiest rank, by the tokens of all ranks."""
        hottest = self.shapes.load.hottest
        return self.kernels.experts(tokens if hottest == 1.0 else tokens * hottest, idle)

    def first_stage(self, tokens: Floats) -> dict[str, Floats]:
        """Return the seconds before the layers: rows of the embedding, summed over the ranks that hold them."""
        return {
            "embedding": self.kernels.elementwise(2 * self.shapes.model.hidden_size, tokens, 1),
            "collectives": self.all_reduce(tokens),
        }

    def last_stage(self, tokens: Floats) -> dict[str, Floats]:
        """Return the seconds after the layers that depend on tokens: the final norm."""
        return {"norms_rotary_cache": self.kernels.elementwise(4 * self.shapes.model.hidden_size, tokens, 1)}

    def head(self, rows: Floats, sampler_bytes_per_logit: float) -> dict[str, Floats]:
        """Return the seconds of rows of logits: LM head, gathering them from the ranks, sampling."""
        shapes = self.shapes
        model = shapes.model
        matrix = Matrix("lm_head", model.hidden_size, rank_vocab(model, shapes.plan.tp))
        per_row = model.vocab_size * sampler_bytes_per_logit / shapes.activation_bytes
        seconds = {"lm_head": self.kernels.gemm(matrix, rows), "sampler": self.kernels.elementwise(per_row, rows, 1)}
        if shapes.plan.tp > 1:
            seconds["collectives"] = self.kernels.all_gather(rows * (model.vocab_size * shapes.activation_bytes))
        return seconds

    def send(self, tokens: Floats, link: CollectiveLink, latency_s: float) -> Floats:
        """Return the seconds of handing hidden states and residual to the next stage.

        Each rank sends its share to its counterpart, and the ranks there gather them (``send_tensor_dict`` in
        ``vllm/distributed/parallel_state.py``).
        """
        size = tokens * (2 * self.shapes.model.hidden_size * self.shapes.activation_bytes)
        seconds = latency_s + size / (self.shapes.plan.tp * link.bandwidth)
        return np.asarray(seconds + self.kernels.all_gather(size))


def idle_experts(model: ModelSpec, max_tokens: int) -> Floats:
    """Return the expected share of experts that 0 ... ``max_tokens`` tokens leave idle, shape (max_tokens + 1,).

    With uniform, independent routing a token passes an expert by with probability 1 - k/E, so T tokens leave
    (1 - k/E)^T of them idle and touch E (1 - (1 - k/E)^T). The power is a running product, whose rounding is the same
    on every processor, unlike that of ``pow``.
    """
    factors = np.ones(max_tokens + 1)
    if model.moe is not None:
        factors[1:] = 1.0 - model.moe.experts_per_token / model.moe.num_experts
    return np.multiply.accumulate(factors)

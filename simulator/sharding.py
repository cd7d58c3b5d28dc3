"""What one tensor parallel rank holds of a model: the slices of its matrices, as vLLM cuts them.

Columns of the input projections, of gate and up, and rows of the output projections and of down are divided over the
ranks; key-value heads are replicated where there are fewer of them than ranks; the compressions of latent attention,
the router and the norms are replicated; embedding and LM head are divided by vocabulary, which is padded to a multiple
of 64 (``VocabParallelEmbedding``). A width that the ranks do not divide is rounded up, as if padded.
"""

from __future__ import annotations

from dataclasses import dataclass

from simulator.models.dtypes import WEIGHT_FORMATS
from simulator.models.spec import ExtraParameters, ModelSpec
from simulator.models.weights import weight_formats
from simulator.parallel import ParallelPlan

VOCAB_PADDING = 64
"""Rows that engines pad the vocabulary to a multiple of (``DEFAULT_VOCAB_PADDING_SIZE`` in vLLM)."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """One rank's slice of a weight matrix that every token of the step goes through.

    Attributes
    ----------
    family
        Operator family, as in `simulator.models.spec.FAMILIES`.
    inputs, outputs
        Elements of a token's input row and output row.
    """

    family: str
    inputs: int
    outputs: int

    @property
    def elements(self) -> int:
        """Weights in it."""
        return self.inputs * self.outputs


def share(size: int, ranks: int) -> int:
    """Return one rank's share of a width, rounded up."""
    return -(-size // ranks)


def rank_heads(model: ModelSpec, tp: int) -> int:
    """Return the query heads of a rank."""
    return share(model.num_heads, tp)


def rank_kv_heads(model: ModelSpec, tp: int) -> int:
    """Return the key-value heads of a rank, at least 1: they are replicated where there are fewer than ranks."""
    return max(1, model.num_kv_heads // tp)


def rank_vocab(model: ModelSpec, tp: int) -> int:
    """Return the rows of the embedding, and of the LM head, that a rank holds."""
    padded = share(model.vocab_size, VOCAB_PADDING) * VOCAB_PADDING
    return share(padded, tp)


def kv_elements_per_token_layer(model: ModelSpec, tp: int) -> int:
    """Return the elements that one token adds to a layer's cache on one rank; the latent of MLA is replicated."""
    if model.mla is not None:
        return model.kv_elements_per_token_layer()
    return 2 * rank_kv_heads(model, tp) * model.head_dim


def attention_matrices(model: ModelSpec, tp: int) -> tuple[Matrix, ...]:
    """Return a rank's projections around attention, of one layer.

    The expansion of MLA's latent is one matrix, which prefill applies to keys and values and decode, absorbed, to
    queries and outputs: the same weights and, for each new token, the same multiplications.
    """
    hidden, heads = model.hidden_size, rank_heads(model, tp)
    if model.mla is None:
        width = (heads + 2 * rank_kv_heads(model, tp)) * model.head_dim
        return Matrix("qkv", hidden, width), Matrix("o", heads * model.head_dim, hidden)
    mla = model.mla
    query = heads * (mla.qk_nope_head_dim + mla.qk_rope_head_dim)
    latent = mla.kv_lora_rank + mla.qk_rope_head_dim
    expand = latent_expansion(model, tp)
    assert expand is not None
    out = Matrix("o", heads * mla.v_head_dim, hidden)
    if mla.q_lora_rank is None:
        return Matrix("qkv", hidden, query), Matrix("qkv", hidden, latent), expand, out
    compress = Matrix("qkv", hidden, mla.q_lora_rank + latent)
    return compress, Matrix("qkv", mla.q_lora_rank, query), expand, out


def latent_expansion(model: ModelSpec, tp: int) -> Matrix | None:
    """Return a rank's expansion of MLA's latent into keys and values; None without MLA."""
    if model.mla is None:
        return None
    mla = model.mla
    return Matrix("qkv", mla.kv_lora_rank, rank_heads(model, tp) * (mla.qk_nope_head_dim + mla.v_head_dim))


def mlp_matrices(model: ModelSpec, tp: int, moe_layer: bool) -> tuple[Matrix, ...]:
    """Return a rank's feed-forward matrices of one layer that every token visits: all but the routed experts."""
    hidden = model.hidden_size
    wide = model.mlp_matrices - 1
    if not (moe_layer and model.moe is not None):
        width = share(model.intermediate_size, tp)
        return Matrix("gate_up", hidden, wide * width), Matrix("down", width, hidden)
    moe = model.moe
    router = (Matrix("router", hidden, moe.num_experts + moe.shared_expert_gate),)
    if not moe.shared_intermediate_size:
        return router
    width = share(moe.shared_intermediate_size, tp)
    return *router, Matrix("shared", hidden, wide * width), Matrix("shared", width, hidden)


def expert_elements(model: ModelSpec, plan: ParallelPlan) -> int:
    """Return the weights of one routed expert that a rank holds; 0 where the model has none."""
    if model.moe is None:
        return 0
    return model.mlp_matrices * model.hidden_size * share(model.moe.expert_intermediate_size, plan.moe_tp)


def layer_weight_bytes(model: ModelSpec, plan: ParallelPlan, moe_layer: bool, weights_dtype: str | None = None) -> int:
    """Return the bytes of one layer's weights on one rank, scales included."""
    formats = weight_formats(model, weights_dtype)
    matrices = attention_matrices(model, plan.tp) + mlp_matrices(model, plan.tp, moe_layer)
    total = sum(WEIGHT_FORMATS[formats[matrix.family]].bytes_of(matrix.elements) for matrix in matrices)
    extras = model.extras or ExtraParameters()
    other = extras.layer + (extras.moe if moe_layer else extras.dense)
    if moe_layer and model.moe is not None:
        moe = model.moe
        total += WEIGHT_FORMATS[formats["experts"]].bytes_of(
            expert_elements(model, plan) * plan.experts_held(moe.num_experts)
        )
        total += WEIGHT_FORMATS[formats["router"]].bytes_of(moe.router_bias * moe.num_experts)
        other += share(extras.expert, plan.moe_tp) * plan.experts_held(moe.num_experts)
    return total + WEIGHT_FORMATS[formats["other"]].bytes_of(other)


def stage_weight_bytes(model: ModelSpec, plan: ParallelPlan, weights_dtype: str | None = None) -> tuple[int, ...]:
    """Return the bytes of the weights on one GPU of each pipeline stage, scales included.

    Tied embeddings are held once where one stage is first and last, else by both. Parameters outside the layers
    (final norm, learned positions) are counted on the first and on the last stage.
    """
    formats = weight_formats(model, weights_dtype)
    layers = {moe: layer_weight_bytes(model, plan, moe, weights_dtype) for moe in (False, True)}
    table = rank_vocab(model, plan.tp) * model.hidden_size
    embedding, head = (WEIGHT_FORMATS[formats[family]].bytes_of(table) for family in ("embedding", "lm_head"))
    outside = model.extras.model if model.extras else model.extra_parameters
    outside_bytes = WEIGHT_FORMATS[formats["other"]].bytes_of(outside)
    stages = plan.stage_layers(model.num_layers)
    totals = []
    for stage, members in enumerate(stages):
        first, last = stage == 0, stage == len(stages) - 1
        total = sum(layers[model.is_moe_layer(layer)] for layer in members)
        total += embedding * first + head * (last and not (first and model.tied_embeddings))
        totals.append(total + outside_bytes * (first or last))
    return tuple(totals)

"""What the simulator knows of a model: its shapes, and what follows from them.

Every count is exact arithmetic on the published configuration; nothing here depends on hardware.
"""

from __future__ import annotations

from dataclasses import dataclass

FAMILIES = ("qkv", "o", "gate_up", "down", "router", "experts", "shared", "other")
"""Operator families of a decoder layer; ``other`` is norms, biases, sinks and router corrections."""

LINEAR_FAMILIES = ("qkv", "o", "gate_up", "down", "experts", "shared")
"""Families whose matrices a quantised checkpoint stores in fewer bits."""


@dataclass(frozen=True, slots=True)
class MoESpec:
    """Mixture-of-experts feed-forward layers.

    Attributes
    ----------
    num_layers
        How many of the model's layers are MoE (the rest use the dense feed-forward).
    num_experts, experts_per_token
        Routed experts in a layer, and how many each token visits.
    expert_intermediate_size
        Width of one routed expert.
    shared_intermediate_size
        Total width of the experts that every token visits (0: none).
    router_bias
        True where the router's matrix has a bias, one value an expert.
    shared_expert_gate
        True where a learned gate, a vector of the hidden size, weighs the shared expert.
    dense_layer_ids
        Which layers are dense, counted from 0; empty: the first ones.
    """

    num_layers: int
    num_experts: int
    experts_per_token: int
    expert_intermediate_size: int
    shared_intermediate_size: int = 0
    router_bias: bool = False
    shared_expert_gate: bool = False
    dense_layer_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class MLASpec:
    """Multi-head latent attention (DeepSeek-V2 paper, arXiv:2405.04434, section 2.1).

    ``q_lora_rank`` is None where queries are not compressed. The cache holds ``kv_lora_rank`` +
    ``qk_rope_head_dim`` elements a token and layer, whatever the number of heads.
    """

    q_lora_rank: int | None
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int


@dataclass(frozen=True, slots=True)
class ExtraParameters:
    """Parameters that are no matrix: norms, biases, learned positions, sinks, router corrections.

    Attributes
    ----------
    layer
        In every decoder layer.
    dense
        In every layer with the dense feed-forward, besides ``layer``.
    moe
        In every MoE layer, besides ``layer`` and the experts.
    expert
        In every routed expert.
    model
        Outside the layers.
    """

    layer: int = 0
    dense: int = 0
    moe: int = 0
    expert: int = 0
    model: int = 0


@dataclass(frozen=True, slots=True)
class Quantization:
    """Which matrices the published checkpoint stores in fewer bits, and how.

    Attributes
    ----------
    weight_format
        A key of `simulator.models.dtypes.WEIGHT_FORMATS`, e.g. ``"fp8"`` or ``"mxfp4"``.
    families
        Operator families stored so, of `LINEAR_FAMILIES`; the rest is in the model's 16-bit datatype.
    """

    weight_format: str
    families: tuple[str, ...] = LINEAR_FAMILIES


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A decoder-only transformer, as its published configuration gives it.

    Attributes
    ----------
    name
        Catalogue name, e.g. ``"llama-3.1-8b"``.
    hf_id
        Hugging Face repository of the configuration, e.g. ``"meta-llama/Llama-3.1-8B"``.
    hidden_size, num_layers, vocab_size
        Shapes of the stack; ``num_layers`` leaves out multi-token-prediction layers, which serving does not
        load by default.
    max_context_tokens
        Longest context that the configuration allows, tokens.
    num_heads, num_kv_heads, head_dim
        Attention (``num_kv_heads == num_heads`` is MHA, 1 is MQA); ``head_dim`` of queries and keys.
    intermediate_size
        Width of the dense feed-forward (of the layers that are not MoE).
    gated_mlp
        True for gate/up/down (SwiGLU), False for two matrices (OPT, Falcon).
    sliding_window, num_sliding_layers
        Window in tokens and how many layers use it; None and 0 where every layer attends to everything.
    default_dtype
        What the published weights are stored in: ``"bf16"``, ``"fp16"``, ``"fp8"``, ``"fp4"``; where only
        some are (``quantization``), the datatype of those.
    extra_parameters
        Parameters outside the matrices that the other fields describe (norms, biases, learned positions,
        router corrections, attention sinks), worked out from the configuration.
    base_dtype
        What the matrices that are not quantised are stored in, ``"bf16"`` or ``"fp16"`` (``"fp32"``).
    quantization
        Which matrices are stored in fewer bits; None where none is.
    extras
        Where the extra parameters are; None: not known, all counted as outside the layers.
    sliding_layer_ids
        Which layers use the window, counted from 0; empty: not known, or none.
    """

    name: str
    hf_id: str
    hidden_size: int
    num_layers: int
    vocab_size: int
    max_context_tokens: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    tied_embeddings: bool = False
    gated_mlp: bool = True
    sliding_window: int | None = None
    num_sliding_layers: int = 0
    moe: MoESpec | None = None
    mla: MLASpec | None = None
    default_dtype: str = "bf16"
    extra_parameters: int = 0
    source: str = ""
    base_dtype: str = "bf16"
    quantization: Quantization | None = None
    extras: ExtraParameters | None = None
    sliding_layer_ids: tuple[int, ...] = ()

    @property
    def is_moe(self) -> bool:
        """True where some layers are mixtures of experts."""
        return self.moe is not None

    @property
    def moe_layers(self) -> int:
        """Number of mixture-of-experts layers."""
        return self.moe.num_layers if self.moe else 0

    @property
    def dense_layers(self) -> int:
        """Number of layers with the dense feed-forward."""
        return self.num_layers - self.moe_layers

    @property
    def attention_layers(self) -> int:
        """Number of layers that attend and so keep a KV cache: all of them."""
        return self.num_layers

    @property
    def full_attention_layers(self) -> int:
        """Number of layers that attend to everything."""
        return self.num_layers - self.num_sliding_layers

    @property
    def gqa_group(self) -> int:
        """Query heads that share one key-value head (1: MHA)."""
        return self.num_heads // self.num_kv_heads

    @property
    def mlp_matrices(self) -> int:
        """Matrices of a feed-forward: 3 where it is gated, else 2."""
        return 3 if self.gated_mlp else 2

    def is_moe_layer(self, layer: int) -> bool:
        """Tell whether layer ``layer``, counted from 0, is a mixture of experts."""
        if self.moe is None:
            return False
        if self.moe.dense_layer_ids:
            return layer not in self.moe.dense_layer_ids
        return layer >= self.dense_layers

    def is_sliding_layer(self, layer: int) -> bool:
        """Tell whether layer ``layer``, counted from 0, attends to the sliding window only.

        Where the configuration does not say which layers do, the last ``num_sliding_layers`` are taken.
        """
        if self.sliding_layer_ids:
            return layer in self.sliding_layer_ids
        return layer >= self.full_attention_layers

    def kv_elements_per_token_layer(self) -> int:
        """Elements that one token adds to the cache of one layer: keys and values, or the latent."""
        if self.mla is not None:
            return self.mla.kv_lora_rank + self.mla.qk_rope_head_dim
        return 2 * self.num_kv_heads * self.head_dim

    def kv_elements_per_token(self) -> int:
        """Elements that one token adds to the cache of all layers, layers with a sliding window included."""
        return self.kv_elements_per_token_layer() * self.attention_layers

    def layer_weight_elements(self, moe_layer: bool | None = None) -> dict[str, int]:
        """Weights of one decoder layer by operator family, in elements.

        Parameters
        ----------
        moe_layer
            True for a mixture-of-experts layer, False for a dense one; None: whichever the model has more of.

        Returns
        -------
        dict
            A value for each of `FAMILIES`, 0 where the layer has none; ``qkv`` of latent attention is the sum
            of its compression and expansion matrices.
        """
        if moe_layer is None:
            moe_layer = self.moe_layers > self.dense_layers
        qkv, out = self._attention_elements()
        extras = self.extras or ExtraParameters()
        counts = dict.fromkeys(FAMILIES, 0)
        counts.update(qkv=qkv, o=out, other=extras.layer)
        if moe_layer and self.moe is not None:
            moe = self.moe
            per_width = self.mlp_matrices * self.hidden_size
            counts["router"] = (
                self.hidden_size * moe.num_experts
                + moe.router_bias * moe.num_experts
                + moe.shared_expert_gate * self.hidden_size
            )
            counts["experts"] = per_width * moe.expert_intermediate_size * moe.num_experts
            counts["shared"] = per_width * moe.shared_intermediate_size
            counts["other"] += extras.moe + extras.expert * moe.num_experts
        else:
            counts["gate_up"] = (self.mlp_matrices - 1) * self.hidden_size * self.intermediate_size
            counts["down"] = self.hidden_size * self.intermediate_size
            counts["other"] += extras.dense
        return counts

    def _attention_elements(self) -> tuple[int, int]:
        """Elements of one layer's input projections and of its output projection."""
        hidden, heads = self.hidden_size, self.num_heads
        if self.mla is None:
            return hidden * self.head_dim * (heads + 2 * self.num_kv_heads), heads * self.head_dim * hidden
        mla = self.mla
        query_width = heads * (mla.qk_nope_head_dim + mla.qk_rope_head_dim)
        query = hidden * query_width
        if mla.q_lora_rank is not None:
            query = mla.q_lora_rank * (hidden + query_width)
        latent = hidden * (mla.kv_lora_rank + mla.qk_rope_head_dim)
        expand = mla.kv_lora_rank * heads * (mla.qk_nope_head_dim + mla.v_head_dim)
        return query + latent + expand, heads * mla.v_head_dim * hidden

    def weight_elements(self) -> dict[str, int]:
        """Weights of the whole model by operator family, in elements.

        Returns
        -------
        dict
            The families of `layer_weight_elements` summed over all layers, and ``embedding`` and ``lm_head``
            (0 where it is tied to the embedding); ``other`` holds the parameters outside the layers too.
        """
        totals = dict.fromkeys(FAMILIES, 0)
        for moe_layer, layers in ((True, self.moe_layers), (False, self.dense_layers)):
            for family, elements in self.layer_weight_elements(moe_layer).items():
                totals[family] += elements * layers
        totals["other"] += self.extras.model if self.extras else self.extra_parameters
        totals["embedding"] = self.vocab_size * self.hidden_size
        totals["lm_head"] = 0 if self.tied_embeddings else totals["embedding"]
        return totals

    def parameter_count(self) -> int:
        """Parameters of the model: embeddings, LM head unless tied, layers; no multi-token prediction."""
        return sum(self.weight_elements().values())

    def active_parameter_count(self, include_embedding: bool = True) -> int:
        """Parameters that one token uses: all but the routed experts that it does not visit.

        Parameters
        ----------
        include_embedding
            False leaves the input embedding out (a look-up, no product), as the figures of gpt-oss do; an
            embedding that the LM head is tied to always counts.
        """
        active = self.parameter_count()
        if self.moe is not None:
            moe = self.moe
            idle = moe.num_layers * (moe.num_experts - moe.experts_per_token)
            active -= idle * self.mlp_matrices * self.hidden_size * moe.expert_intermediate_size
            active -= idle * (self.extras.expert if self.extras else 0)
        if not include_embedding and not self.tied_embeddings:
            active -= self.vocab_size * self.hidden_size
        return active

"""What the simulator knows of a model: its shapes, and what follows from them.

Every count is exact arithmetic on the published configuration; nothing here depends on hardware.
"""

from __future__ import annotations

from dataclasses import dataclass


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
    """

    num_layers: int
    num_experts: int
    experts_per_token: int
    expert_intermediate_size: int
    shared_intermediate_size: int = 0
    router_bias: bool = False
    shared_expert_gate: bool = False


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
class ModelSpec:
    """A decoder-only transformer, as its published configuration gives it.

    Attributes
    ----------
    name
        Catalogue name, e.g. ``"llama-3.1-8b"``.
    hf_id
        Hugging Face repository of the configuration, e.g. ``"meta-llama/Llama-3.1-8B"``.
    hidden_size, num_layers, vocab_size
        Shapes of the stack; ``num_layers`` leaves out multi-token-prediction layers, which serving does not load
        by default.
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
        What the published weights are stored in: ``"bf16"``, ``"fp16"``, ``"fp8"``, ``"fp4"``.
    extra_parameters
        Parameters outside the matrices that the other fields describe (norms, biases, learned positions, router
        corrections, attention sinks), worked out from the configuration.
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

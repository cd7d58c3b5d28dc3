"""Hugging Face ``config.json`` to `ModelSpec`: one function a family of architectures.

The keys and their defaults are those of the ``configuration_*.py`` of Hugging Face transformers, the
parameters outside the matrices (norms, biases, sinks) those of the ``modeling_*.py`` beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from simulator.errors import InputError, did_you_mean
from simulator.models._quantization import read_quantization
from simulator.models._reader import ConfigReader
from simulator.models.dtypes import canonical_dtype
from simulator.models.spec import ExtraParameters, MLASpec, ModelSpec, MoESpec


@dataclass(frozen=True, slots=True)
class _Shape:
    """Sizes that nearly every architecture has, under the keys that nearly every one uses."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int

    @property
    def qkv_width(self) -> int:
        """Outputs of the query, key and value projections together."""
        return (self.heads + 2 * self.kv_heads) * self.head_dim


def _shape(reader: ConfigReader, kv_heads: int | None = None) -> _Shape:
    """Read the common sizes; ``kv_heads`` where the architecture gives their number in a way of its own."""
    hidden = reader.count("hidden_size")
    heads = reader.count("num_attention_heads")
    if kv_heads is None:
        kv_heads = reader.count("num_key_value_heads", heads)
    if heads % kv_heads:
        raise reader.error("num_key_value_heads", f"must divide the {heads} attention heads, got {kv_heads}")
    if reader.mapping.get("head_dim") is None and hidden % heads:
        raise reader.error("num_attention_heads", f"must divide hidden_size {hidden}, as there is no head_dim")
    head_dim = reader.count("head_dim", hidden // heads)
    return _Shape(hidden, reader.count("num_hidden_layers"), heads, kv_heads, head_dim)


def _spec(
    reader: ConfigReader,
    shape: _Shape,
    extras: ExtraParameters,
    *,
    intermediate_size: int | None = None,
    max_context_tokens: int | None = None,
    tied_by_default: bool = False,
    gated_mlp: bool = True,
    sliding_layer_ids: tuple[int, ...] = (),
    moe: MoESpec | None = None,
    mla: MLASpec | None = None,
) -> ModelSpec:
    """Assemble the specification from what the architecture's function worked out and the shared keys."""
    base_dtype = canonical_dtype(reader.text(reader.first_of("torch_dtype", "dtype"), "bf16"), reader.where)
    quantization, default_dtype = read_quantization(reader, base_dtype)
    moe_layers = moe.num_layers if moe else 0
    moe_extra = moe_layers * (extras.moe + moe.num_experts * extras.expert) if moe else 0
    return ModelSpec(
        name="",
        hf_id="",
        hidden_size=shape.hidden,
        num_layers=shape.layers,
        vocab_size=reader.count("vocab_size"),
        max_context_tokens=max_context_tokens or reader.count("max_position_embeddings"),
        num_heads=shape.heads,
        num_kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        intermediate_size=intermediate_size or reader.count("intermediate_size"),
        tied_embeddings=reader.flag("tie_word_embeddings", tied_by_default),
        gated_mlp=gated_mlp,
        sliding_window=reader.count("sliding_window") if sliding_layer_ids else None,
        num_sliding_layers=len(sliding_layer_ids),
        sliding_layer_ids=sliding_layer_ids,
        moe=moe,
        mla=mla,
        base_dtype=base_dtype,
        default_dtype=default_dtype,
        quantization=quantization,
        extras=extras,
        extra_parameters=extras.model
        + shape.layers * extras.layer
        + (shape.layers - moe_layers) * extras.dense
        + moe_extra,
    )


def _sliding_layers(reader: ConfigReader, by_default: tuple[int, ...]) -> tuple[int, ...]:
    """Layers with the sliding window: those that ``layer_types`` names, else the architecture's default.

    A window as long as the context is none.
    """
    window = reader.optional_count("sliding_window")
    if window is None or window >= reader.count("max_position_embeddings"):
        return ()
    types = reader.items("layer_types")
    if types is None:
        return by_default
    layers = reader.count("num_hidden_layers")
    if len(types) != layers:
        raise reader.error("layer_types", f"must have {layers} entries, one a layer, got {len(types)}")
    known = ("full_attention", "sliding_attention")
    for entry in types:
        if entry not in known:
            raise reader.error("layer_types", f"must hold {' or '.join(known)}, got {entry!r}")
    return tuple(layer for layer, entry in enumerate(types) if entry == "sliding_attention")


def _llama(reader: ConfigReader) -> ModelSpec:
    """Llama, and Mistral and Phi-3, which differ in the sliding window of all their layers."""
    shape = _shape(reader)
    width = reader.count("intermediate_size")
    layer = 2 * shape.hidden
    if reader.flag("attention_bias", False):
        layer += shape.qkv_width + shape.hidden
    dense = 2 * width + shape.hidden if reader.flag("mlp_bias", False) else 0
    windowed = reader.architecture != "LlamaForCausalLM"
    return _spec(
        reader,
        shape,
        ExtraParameters(layer=layer, dense=dense, model=shape.hidden),
        sliding_layer_ids=_sliding_layers(reader, tuple(range(shape.layers))) if windowed else (),
    )


def _mixtral(reader: ConfigReader) -> ModelSpec:
    """Mixtral: every layer is a mixture of experts."""
    shape = _shape(reader)
    moe = MoESpec(
        num_layers=shape.layers,
        num_experts=reader.count("num_local_experts"),
        experts_per_token=_experts_per_token(reader, "num_local_experts"),
        expert_intermediate_size=reader.count("intermediate_size"),
    )
    return _spec(
        reader,
        shape,
        ExtraParameters(layer=2 * shape.hidden, model=shape.hidden),
        moe=moe,
        sliding_layer_ids=_sliding_layers(reader, tuple(range(shape.layers))),
    )


def _experts_per_token(reader: ConfigReader, experts_key: str) -> int:
    """Routed experts that a token visits, at most as many as there are."""
    experts, visited = reader.count(experts_key), reader.count("num_experts_per_tok")
    if visited > experts:
        raise reader.error("num_experts_per_tok", f"must be at most {experts_key} {experts}, got {visited}")
    return visited


def _qwen_sliding_layers(reader: ConfigReader, layers: int) -> tuple[int, ...]:
    """Qwen uses its window from layer ``max_window_layers`` on, where ``use_sliding_window`` is true."""
    if not reader.flag("use_sliding_window", False):
        return ()
    return _sliding_layers(reader, tuple(range(reader.count("max_window_layers", layers, least=0), layers)))


def _qwen_layer_extra(reader: ConfigReader, shape: _Shape) -> int:
    """Norms and biases of a Qwen layer: Qwen2 has biases on q, k and v; Qwen3 norms on queries and keys."""
    extra = 2 * shape.hidden
    if reader.architecture.startswith("Qwen2"):
        return extra + (shape.qkv_width if reader.flag("qkv_bias", True) else 0)
    if reader.flag("attention_bias", False):
        extra += shape.qkv_width + shape.hidden
    return extra + 2 * shape.head_dim


def _qwen(reader: ConfigReader) -> ModelSpec:
    """Qwen2 (and 2.5) and Qwen3, dense."""
    shape = _shape(reader)
    return _spec(
        reader,
        shape,
        ExtraParameters(layer=_qwen_layer_extra(reader, shape), model=shape.hidden),
        sliding_layer_ids=_qwen_sliding_layers(reader, shape.layers),
    )


def _qwen_moe(reader: ConfigReader) -> ModelSpec:
    """Qwen2-MoE (a gated shared expert) and Qwen3-MoE (none)."""
    shape = _shape(reader)
    step = reader.count("decoder_sparse_step", 1)
    listed = reader.items("mlp_only_layers") or []
    dense = tuple(layer for layer in range(shape.layers) if layer in listed or (layer + 1) % step)
    shared = 0
    if reader.architecture.startswith("Qwen2"):
        shared = reader.count("shared_expert_intermediate_size", least=0)
    moe = MoESpec(
        num_layers=shape.layers - len(dense),
        num_experts=reader.count("num_experts"),
        experts_per_token=_experts_per_token(reader, "num_experts"),
        expert_intermediate_size=reader.count("moe_intermediate_size"),
        shared_intermediate_size=shared,
        shared_expert_gate=shared > 0,
        dense_layer_ids=dense,
    )
    return _spec(
        reader,
        shape,
        ExtraParameters(layer=_qwen_layer_extra(reader, shape), model=shape.hidden),
        moe=moe if moe.num_layers else None,
        sliding_layer_ids=_qwen_sliding_layers(reader, shape.layers),
    )


def _deepseek(reader: ConfigReader) -> ModelSpec:
    """DeepSeek-V2 and V3 (R1, Kimi K2): latent attention, the first layers dense, shared experts."""
    mla = MLASpec(
        q_lora_rank=reader.optional_count("q_lora_rank"),
        kv_lora_rank=reader.count("kv_lora_rank"),
        qk_nope_head_dim=reader.count("qk_nope_head_dim"),
        qk_rope_head_dim=reader.count("qk_rope_head_dim"),
        v_head_dim=reader.count("v_head_dim"),
    )
    heads = reader.count("num_attention_heads")
    shape = _Shape(
        hidden=reader.count("hidden_size"),
        layers=reader.count("num_hidden_layers"),
        heads=heads,
        kv_heads=heads,
        head_dim=mla.qk_nope_head_dim + mla.qk_rope_head_dim,
    )
    layer = 2 * shape.hidden + mla.kv_lora_rank + (mla.q_lora_rank or 0)
    if reader.flag("attention_bias", False):
        layer += (mla.q_lora_rank or 0) + mla.kv_lora_rank + mla.qk_rope_head_dim + shape.hidden
    first, step = reader.count("first_k_dense_replace", 0, least=0), reader.count("moe_layer_freq", 1)
    dense = tuple(index for index in range(shape.layers) if index < first or index % step)
    experts, width = reader.count("n_routed_experts"), reader.count("moe_intermediate_size")
    moe = MoESpec(
        num_layers=shape.layers - len(dense),
        num_experts=experts,
        experts_per_token=_experts_per_token(reader, "n_routed_experts"),
        expert_intermediate_size=width,
        shared_intermediate_size=width * reader.count("n_shared_experts", 0, least=0),
        dense_layer_ids=dense,
    )
    corrected = reader.text("topk_method", "noaux_tc" if "V3" in reader.architecture else "greedy") == "noaux_tc"
    return _spec(
        reader,
        shape,
        ExtraParameters(layer=layer, moe=experts if corrected else 0, model=shape.hidden),
        moe=moe if moe.num_layers else None,
        mla=mla,
    )


def _gpt_oss(reader: ConfigReader) -> ModelSpec:
    """gpt-oss: biases everywhere, an attention sink a head, a window in every other layer from the first."""
    shape = _shape(reader)
    width = reader.count("intermediate_size")
    moe = MoESpec(
        num_layers=shape.layers,
        num_experts=reader.count("num_local_experts"),
        experts_per_token=_experts_per_token(reader, "num_local_experts"),
        expert_intermediate_size=width,
        router_bias=True,
    )
    layer = 2 * shape.hidden + shape.heads
    if reader.flag("attention_bias", True):
        layer += shape.qkv_width + shape.hidden
    return _spec(
        reader,
        shape,
        ExtraParameters(layer=layer, expert=2 * width + shape.hidden, model=shape.hidden),
        moe=moe,
        sliding_layer_ids=_sliding_layers(reader, tuple(range(0, shape.layers, 2))),
    )


def _opt(reader: ConfigReader) -> ModelSpec:
    """OPT: learned positions (two more than the context), biases, LayerNorms with biases, tied embeddings."""
    shape = _shape(reader)
    if reader.count("word_embed_proj_dim", shape.hidden) != shape.hidden:
        raise reader.error(
            "word_embed_proj_dim", f"must equal hidden_size {shape.hidden}: projections are not modelled"
        )
    width, context = reader.count("ffn_dim"), reader.count("max_position_embeddings")
    biased = reader.flag("enable_bias", True)
    norm = 2 * shape.hidden if reader.flag("layer_norm_elementwise_affine", True) else 0
    final_norm = reader.flag("do_layer_norm_before", True) and not reader.flag("_remove_final_layer_norm", False)
    return _spec(
        reader,
        shape,
        ExtraParameters(
            layer=2 * norm + (shape.qkv_width + shape.hidden if biased else 0),
            dense=width + shape.hidden if biased else 0,
            model=(context + 2) * shape.hidden + (norm if final_norm else 0),
        ),
        intermediate_size=width,
        tied_by_default=True,
        gated_mlp=False,
    )


def _falcon(reader: ConfigReader) -> ModelSpec:
    """Falcon: MQA in the old architecture (7B), GQA in the new one (40B, 180B), two-matrix feed-forward."""
    names = {"num_hidden_layers": "n_layer", "num_attention_heads": "n_head", "num_kv_heads": "n_head_kv"}
    older = {new: reader.mapping[old] for new, old in names.items() if reader.mapping.get(old) is not None}
    reader = replace(reader, mapping={**older, **reader.mapping})
    heads, new = reader.count("num_attention_heads"), reader.flag("new_decoder_architecture", False)
    old_kv_heads = 1 if reader.flag("multi_query", True) else heads
    kv_heads = reader.count("num_kv_heads", heads) if new else old_kv_heads
    shape = _shape(reader, kv_heads)
    width = reader.count("ffn_hidden_size", 4 * shape.hidden)
    parallel = reader.flag("parallel_attn", True)
    norms = reader.count("num_ln_in_parallel_attn", 2) if new else (1 if parallel else 2)
    biased = reader.flag("bias", False)
    return _spec(
        reader,
        shape,
        ExtraParameters(
            layer=norms * 2 * shape.hidden + (shape.qkv_width + shape.hidden if biased else 0),
            dense=width + shape.hidden if biased else 0,
            model=2 * shape.hidden,
        ),
        intermediate_size=width,
        max_context_tokens=reader.count("max_position_embeddings", 2048),
        tied_by_default=True,
        gated_mlp=False,
    )


def _gpt_neox(reader: ConfigReader) -> ModelSpec:
    """GPT-NeoX and Pythia: biases and LayerNorms with biases, two-matrix feed-forward."""
    shape = _shape(reader)
    width = reader.count("intermediate_size")
    layer = 4 * shape.hidden
    if reader.flag("attention_bias", True):
        layer += shape.qkv_width + shape.hidden
    return _spec(
        reader,
        shape,
        ExtraParameters(layer=layer, dense=width + shape.hidden, model=2 * shape.hidden),
        gated_mlp=False,
    )


def _gemma(reader: ConfigReader) -> ModelSpec:
    """Gemma 2 (a window in every other layer) and Gemma 3 text (in five of six, norms on q and k)."""
    shape = _shape(replace(reader, mapping={"head_dim": 256, **reader.mapping}))
    third = reader.architecture.startswith("Gemma3")
    every = reader.count("sliding_window_pattern", 6) if third else 2
    windowed = tuple(layer for layer in range(shape.layers) if (layer + 1) % every)
    layer = 4 * shape.hidden + (2 * shape.head_dim if third else 0)
    if reader.flag("attention_bias", False):
        layer += shape.qkv_width + shape.hidden
    return _spec(
        reader,
        shape,
        ExtraParameters(layer=layer, model=shape.hidden),
        tied_by_default=True,
        sliding_layer_ids=_sliding_layers(reader, windowed),
    )


_ARCHITECTURES: Mapping[str, Callable[[ConfigReader], ModelSpec]] = MappingProxyType(
    {
        "DeepseekV2ForCausalLM": _deepseek,
        "DeepseekV3ForCausalLM": _deepseek,
        "FalconForCausalLM": _falcon,
        "GPTNeoXForCausalLM": _gpt_neox,
        "Gemma2ForCausalLM": _gemma,
        "Gemma3ForCausalLM": _gemma,
        "GptOssForCausalLM": _gpt_oss,
        "LlamaForCausalLM": _llama,
        "MistralForCausalLM": _llama,
        "MixtralForCausalLM": _mixtral,
        "OPTForCausalLM": _opt,
        "Phi3ForCausalLM": _llama,
        "Qwen2ForCausalLM": _qwen,
        "Qwen2MoeForCausalLM": _qwen_moe,
        "Qwen3ForCausalLM": _qwen,
        "Qwen3MoeForCausalLM": _qwen_moe,
    }
)

_DEFAULT_WINDOWS: Mapping[str, int] = MappingProxyType(
    {
        "Gemma2ForCausalLM": 4096,
        "Gemma3ForCausalLM": 4096,
        "GptOssForCausalLM": 128,
        "MistralForCausalLM": 4096,
        "Qwen2ForCausalLM": 4096,
        "Qwen2MoeForCausalLM": 4096,
        "Qwen3ForCausalLM": 4096,
        "Qwen3MoeForCausalLM": 4096,
    }
)
"""Sliding window, tokens, of a configuration that leaves the key out (null says that there is none)."""

SUPPORTED_ARCHITECTURES: tuple[str, ...] = tuple(sorted(_ARCHITECTURES))
"""Architectures that `from_hf_config` understands, in sorted order."""


def from_hf_config(mapping: Mapping[str, object], name: str, where: str) -> ModelSpec:
    """Read the specification of a model from its Hugging Face configuration.

    Parameters
    ----------
    mapping
        The content of ``config.json``. Keys that decide no shape (``rope_theta``, token ids, dropout, ...)
        are ignored.
    name
        Name that the specification gets.
    where
        File that the mapping is from, for messages.

    Returns
    -------
    ModelSpec
        Its ``hf_id`` is the configuration's ``_name_or_path`` where it has one; its ``source`` is ``where``.

    Raises
    ------
    InputError
        If the architecture is not supported, or a key that it needs is missing or ill-typed.
    """
    listed = mapping.get("architectures")
    architecture = listed[0] if isinstance(listed, list) and listed else None
    if not isinstance(architecture, str):
        raise InputError(
            f"{where}: key 'architectures' must be a list with the name of the architecture, got {listed!r}; "
            f"known: {', '.join(SUPPORTED_ARCHITECTURES)}"
        )
    if architecture not in _ARCHITECTURES:
        nearest = did_you_mean(architecture, SUPPORTED_ARCHITECTURES)
        known = "" if nearest.startswith("; known") else f" Known: {', '.join(SUPPORTED_ARCHITECTURES)}"
        raise InputError(f"{where}: key 'architectures' names {architecture!r}, not supported{nearest}{known}")
    if architecture in _DEFAULT_WINDOWS:
        mapping = {"sliding_window": _DEFAULT_WINDOWS[architecture], **mapping}
    reader = ConfigReader(mapping, architecture, where)
    spec = _ARCHITECTURES[architecture](reader)
    return replace(spec, name=name, hf_id=reader.text("_name_or_path", ""), source=where)

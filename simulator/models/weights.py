"""Bytes of a model's weights and of its KV cache, by datatype."""

from __future__ import annotations

from simulator.models.dtypes import WEIGHT_FORMATS, canonical_dtype
from simulator.models.spec import LINEAR_FAMILIES, ModelSpec


def weight_formats(spec: ModelSpec, weights_dtype: str | None = None) -> dict[str, str]:
    """Return the name of the format that each operator family is stored in.

    Parameters
    ----------
    spec
        The model.
    weights_dtype
        None for the published checkpoint. A plain datatype (``"bf16"``, ``"fp16"``, ``"fp32"``) holds
        everything. A quantised format holds the linear layers of the decoder, experts included; embeddings,
        LM head, router, norms and biases keep the model's 16-bit datatype, as engines load such checkpoints.
        Where the published checkpoint is in that very format, its own choice of matrices is kept (gpt-oss in
        ``"mxfp4"`` or ``"fp4"``: the experts only).

    Returns
    -------
    dict
        Keys as in `ModelSpec.weight_elements`, values as in `simulator.models.dtypes.WEIGHT_FORMATS`.

    Raises
    ------
    InputError
        If the datatype is not known.
    """
    quantised = spec.quantization
    chosen = None if weights_dtype is None else canonical_dtype(weights_dtype, f"weights of {spec.name}")
    families: tuple[str, ...] = ()
    base = spec.base_dtype
    if chosen is None or (quantised is not None and chosen in (quantised.weight_format, spec.default_dtype)):
        if quantised is not None:
            chosen, families = quantised.weight_format, quantised.families
    elif WEIGHT_FORMATS[chosen].matrices_only:
        families = LINEAR_FAMILIES
    else:
        base = chosen
    quantised_name = chosen if chosen is not None else base
    return {family: quantised_name if family in families else base for family in spec.weight_elements()}


def weight_bytes_by_family(spec: ModelSpec, weights_dtype: str | None = None) -> dict[str, int]:
    """Return the bytes of the whole model's weights by operator family, scales included.

    Parameters and errors as `weight_formats`.
    """
    formats = weight_formats(spec, weights_dtype)
    return {
        family: WEIGHT_FORMATS[formats[family]].bytes_of(elements)
        for family, elements in spec.weight_elements().items()
    }


def weight_bytes(spec: ModelSpec, weights_dtype: str | None = None) -> int:
    """Return the bytes of the whole model's weights, scales included (see `simulator.models.dtypes`).

    Parameters and errors as `weight_formats`.
    """
    return sum(weight_bytes_by_family(spec, weights_dtype).values())


def kv_bytes_per_token(spec: ModelSpec, kv_dtype: str = "bf16") -> int:
    """Return the bytes that one token adds to the KV cache of all layers.

    Layers with a sliding window count as if they kept every token. Scales of a quantised cache are not
    counted: engines keep one a tensor.

    Raises
    ------
    InputError
        If the datatype is not known.
    """
    bits = WEIGHT_FORMATS[canonical_dtype(kv_dtype, f"KV cache of {spec.name}")].element_bits
    return -(-spec.kv_elements_per_token() * bits // 8)

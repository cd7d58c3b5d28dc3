"""What a configuration's ``quantization_config`` says: which matrices are stored in which format."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from simulator.errors import did_you_mean
from simulator.models._reader import ConfigReader
from simulator.models.spec import LINEAR_FAMILIES, Quantization

_METHODS: Mapping[str, str] = MappingProxyType(
    {"fp8": "fp8", "fbgemm_fp8": "fp8", "mxfp4": "mxfp4", "awq": "bits", "gptq": "bits"}
)
_SUPPORTED = sorted([*_METHODS, "compressed-tensors", "modelopt"])
_BITS: Mapping[int, str] = MappingProxyType({4: "int4", 8: "int8"})
_ALGORITHMS: Mapping[str, str] = MappingProxyType({"FP8": "fp8", "NVFP4": "fp4", "W4A16_AWQ": "int4", "MXFP4": "mxfp4"})
_ATTENTION = ("qkv", "o")
_SKIP_KEYS = ("modules_to_not_convert", "ignore", "exclude_modules", "ignored_layers")


def read_quantization(reader: ConfigReader, base_dtype: str) -> tuple[Quantization | None, str]:
    """Read ``quantization_config``.

    Parameters
    ----------
    reader
        The whole configuration.
    base_dtype
        What is not quantised is stored in.

    Returns
    -------
    quantization
        None where the configuration has no ``quantization_config``.
    default_dtype
        ``"bf16"``, ``"fp16"``, ``"fp32"``, ``"fp8"``, ``"int8"``, ``"int4"`` or ``"fp4"`` (MXFP4 and NVFP4
        alike).

    Raises
    ------
    InputError
        If the method or a value in it is not known.
    """
    table = reader.table("quantization_config")
    if table is None:
        return None, base_dtype
    inner = ConfigReader(table, f"quantization_config of {reader.architecture}", reader.where)
    name = _format_name(inner)
    families = tuple(family for family in LINEAR_FAMILIES if family not in _skipped(inner))
    return Quantization(name, families), "fp4" if name == "mxfp4" else name


def _format_name(table: ConfigReader) -> str:
    """Name of the weight format, of `simulator.models.dtypes.WEIGHT_FORMATS`."""
    method = table.text("quant_method", "")
    if method == "compressed-tensors":
        return _compressed_tensors(table)
    if method == "modelopt":
        algorithm = table.text("quant_algo", "")
        if algorithm not in _ALGORITHMS:
            raise table.error("quant_algo", f"is unknown: {algorithm!r}{did_you_mean(algorithm, _ALGORITHMS)}")
        return _ALGORITHMS[algorithm]
    if method not in _METHODS:
        raise table.error("quant_method", f"is unknown: {method!r}{did_you_mean(method, _SUPPORTED)}")
    if _METHODS[method] == "bits":
        return _integer_format(table)
    return _METHODS[method]


def _integer_format(table: ConfigReader) -> str:
    """Integer format by the key that gives its bits."""
    key = table.first_of("bits", "w_bit", "num_bits")
    bits = table.count(key)
    if bits not in _BITS:
        raise table.error(key, f"must be 4 or 8, got {bits}")
    return _BITS[bits]


def _compressed_tensors(table: ConfigReader) -> str:
    """Format of a compressed-tensors checkpoint, whose groups must agree on it."""
    names = set()
    for group in (table.table("config_groups") or {}).values():
        weights = group.get("weights") if isinstance(group, Mapping) else None
        if not isinstance(weights, Mapping):
            raise table.error("config_groups", "must hold groups with a 'weights' mapping")
        inner = ConfigReader({str(key): value for key, value in weights.items()}, table.architecture, table.where)
        floating = inner.text("type", "int") == "float"
        bits = inner.count("num_bits")
        if floating and bits in (4, 8):
            names.add("fp8" if bits == 8 else "fp4")
        else:
            names.add(_integer_format(inner))
    if len(names) != 1:
        raise table.error("config_groups", f"must name one weight format, got {sorted(names)}")
    return names.pop()


def _skipped(table: ConfigReader) -> frozenset[str]:
    """Families that the checkpoint leaves in 16 bits: those that a pattern over all layers names."""
    patterns = [str(entry) for key in _SKIP_KEYS for entry in (table.items(key) or [])]
    everywhere = [pattern for pattern in patterns if not any(char.isdigit() for char in pattern)]
    skipped: set[str] = set()
    if any("self_attn" in pattern for pattern in everywhere):
        skipped.update(_ATTENTION)
    if any("shared_expert" in pattern and "gate" not in pattern for pattern in everywhere):
        skipped.add("shared")
    return frozenset(skipped)

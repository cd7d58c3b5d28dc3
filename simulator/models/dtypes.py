"""Datatypes: bytes of an element, and formats of stored weights with what their scales add."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from simulator.errors import InputError, did_you_mean


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """How a weight matrix is stored.

    Attributes
    ----------
    name
        Name in scenarios, e.g. ``"fp8"``.
    element_bits
        Bits of one weight.
    group_elements
        Weights that share one scale (0: no scales are counted).
    group_bits
        Bits that each group adds: its scale, and its zero point where the format has one.
    matrices_only
        True where only the linear layers of the decoder are stored so, and embeddings, LM head, router and
        norms keep the 16-bit datatype; False for plain floating point, which everything is stored in.
    note
        What the scales are, and where that is published.
    """

    name: str
    element_bits: int
    group_elements: int = 0
    group_bits: int = 0
    matrices_only: bool = False
    note: str = ""

    @property
    def bits_per_element(self) -> float:
        """Mean bits of one weight, scales included."""
        extra = self.group_bits / self.group_elements if self.group_elements else 0.0
        return self.element_bits + extra

    def bytes_of(self, elements: int) -> int:
        """Bytes of ``elements`` weights with their scales, rounded up to whole bytes and whole groups."""
        groups = -(-elements // self.group_elements) if self.group_elements else 0
        return -(-(elements * self.element_bits + groups * self.group_bits) // 8)


_FORMATS = (
    WeightFormat("fp32", 32),
    WeightFormat("bf16", 16),
    WeightFormat("fp16", 16),
    WeightFormat(
        "fp8",
        8,
        group_elements=128 * 128,
        group_bits=32,
        matrices_only=True,
        note="e4m3 with one fp32 scale per 128 x 128 block, as DeepSeek-V3 is published (0.02 % of the "
        "bytes); per-tensor and per-channel scales take less",
    ),
    WeightFormat(
        "fp8_block",
        8,
        group_elements=128 * 128,
        group_bits=32,
        matrices_only=True,
        note="the same in bytes; says that the kernels are those of blocks, where measurements tell them apart",
    ),
    WeightFormat(
        "int8",
        8,
        matrices_only=True,
        note="one scale per output channel (W8A8), under 0.1 % of the bytes: not counted",
    ),
    WeightFormat(
        "int4",
        4,
        group_elements=128,
        group_bits=20,
        matrices_only=True,
        note="weight-only, groups of 128 with one fp16 scale and a 4-bit zero point, as in AWQ and GPTQ",
    ),
    WeightFormat(
        "fp4",
        4,
        group_elements=16,
        group_bits=8,
        matrices_only=True,
        note="NVFP4: e2m1 with one e4m3 scale per 16; the fp32 scale of the tensor is not counted",
    ),
    WeightFormat(
        "mxfp4",
        4,
        group_elements=32,
        group_bits=8,
        matrices_only=True,
        note="OCP Microscaling Formats v1.0: e2m1 with one e8m0 scale per 32",
    ),
)

WEIGHT_FORMATS: Mapping[str, WeightFormat] = MappingProxyType({form.name: form for form in _FORMATS})
"""Formats that weights can be stored in, by name."""

DTYPE_BYTES: Mapping[str, float] = MappingProxyType({form.name: form.element_bits / 8 for form in _FORMATS})
"""Bytes of one element by datatype, without scales."""

_SPELLINGS: Mapping[str, str] = MappingProxyType(
    {
        "bfloat16": "bf16",
        "float16": "fp16",
        "half": "fp16",
        "float32": "fp32",
        "float": "fp32",
        "float8_e4m3fn": "fp8",
        "fp8_e4m3": "fp8",
        "fp8_e5m2": "fp8",
        "nvfp4": "fp4",
        "awq": "int4",
        "gptq": "int4",
    }
)


def canonical_dtype(name: str, where: str) -> str:
    """Return the short name of a datatype, ``"bfloat16"`` giving ``"bf16"``.

    Parameters
    ----------
    name
        A key of `WEIGHT_FORMATS`, or a spelling that PyTorch or engines use for one.
    where
        What the datatype belongs to, for the message of the error.

    Raises
    ------
    InputError
        If the datatype is not known.
    """
    lowered = name.lower().removeprefix("torch.")
    short = _SPELLINGS.get(lowered, lowered)
    if short not in WEIGHT_FORMATS:
        raise InputError(f"{where}: unknown datatype {name!r}{did_you_mean(lowered, WEIGHT_FORMATS)}")
    return short

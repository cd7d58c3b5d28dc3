"""Datatypes as the package names them, and as we do.

Names are those of `simulator.models.dtypes` where it has them. ``fp8_block`` (scales for blocks of 128 x 128 weights
and of 128 activations) stays apart from ``fp8`` (a scale for the tensor or the token): other kernels, other times.
"""

from __future__ import annotations

from types import MappingProxyType

QUANTIZATION = MappingProxyType(
    {
        "bfloat16": ("bf16", "bf16"),
        "float16": ("fp16", "fp16"),
        "fp8": ("fp8", "fp8"),
        "fp8_block": ("fp8", "fp8_block"),
        "sq": ("int8", "int8"),
        "int8_wo": ("bf16", "int8"),
        "int4_wo": ("bf16", "int4"),
        "w4afp8": ("fp8", "int4"),
        "nvfp4": ("fp4", "fp4"),
        "nvfp4_wo": ("bf16", "fp4"),
        "w4a16_nvfp4": ("bf16", "fp4"),
        "w4a16_mxfp4": ("bf16", "mxfp4"),
        "w4a16_mxfp4_cutlass": ("bf16", "mxfp4"),
        "w4a8_mxfp4_mxfp8": ("fp8", "mxfp4"),
        "w4a8_mxfp4_mxfp8_trtllm": ("fp8", "mxfp4"),
    }
)
"""(datatype of activations and arithmetic, of weights) by ``GEMMQuantMode`` and ``MoEQuantMode`` (sdk/common.py)."""

DTYPE = MappingProxyType(
    {
        "bfloat16": "bf16",
        "float16": "fp16",
        "half": "fp16",
        "fp8": "fp8",
        "fp8_block": "fp8",
        "int8": "int8",
        "nvfp4": "fp4",
        "fp4": "fp4",
    }
)
"""Datatype of activations, KV cache or messages."""

ELEMENT_BYTES = MappingProxyType({"bfloat16": 2, "float16": 2, "half": 2, "int8": 1})
"""Bytes of one element of a collective's message."""

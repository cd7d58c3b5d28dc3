"""Compiles each kernel for a compute capability and prints what instructions its code holds: ``name: word word``.

Run by `test_compilation`, in a process of its own: Triton decides once whether it interprets.
"""

from __future__ import annotations

import sys
from typing import Any

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from simulator.calibration.microbenchmarks.kernels import (
    activation,
    decode_attention,
    empty,
    experts,
    gemm,
    kv_blocks,
    norm,
    prefill_attention,
    rotary,
)

WORDS = {"wgmma": "wgmma.mma_async", "mma.sync": "mma.sync", "cp.async": "cp.async.c"}

FLOATS = {"scale", "out_scale", "eps"}
WHOLE = {"counts_ptr", "ids_ptr", "sorted_ptr", "block_experts_ptr", "blocks_ptr", "table_ptr", "starts_ptr",
         "cached_ptr", "lengths_ptr", "positions_ptr", "indices_ptr"}  # fmt: skip


def words(kernel: Any, constants: dict[str, Any], capability: int, warps: int = 4, stages: int = 3) -> str:
    """Compile a kernel for bf16, pointers and shapes divisible by 16, and return the instructions that it holds."""

    def kind(name: str) -> str:
        if name in constants:
            return "constexpr"
        if name.endswith("_ptr"):
            fp32 = name in ("sums_ptr", "lse_ptr") or (name == "table_ptr" and "HALF" in constants)
            return "*fp32" if fp32 else "*i32" if name in WHOLE else "*bf16"
        return "fp32" if name in FLOATS else "i32"

    names = kernel.arg_names
    source = ASTSource(
        fn=kernel,
        signature={name: kind(name) for name in names},
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={
            (i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if kind(name) not in ("constexpr", "fp32")
        },
    )
    options = {"num_warps": warps, "num_stages": stages}
    code = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options).asm["ptx"]
    return " ".join(word for word, instruction in WORDS.items() if instruction in code)


def main(capability: int) -> None:
    """Compile all of them."""
    operands = {"OPERANDS": tl.bfloat16, "STAGES": 3}
    tile = {"BLOCK_M": 64, "BLOCK_N": 128, "BLOCK_K": 64, "GROUP": 8, **operands}
    heads = {"HEAD_DIM": 128, "DIM_BLOCK": 128}
    paged = {"GROUP": 4, "PAGE": 16, "WINDOWED": False, **heads, **operands}
    kernels = {
        "gemm": (gemm._gemm, {"SCALED": False, **tile}),
        "prefill": (prefill_attention._prefill, {"BLOCK_M": 64, "BLOCK_N": 64, **paged}),
        "decode": (decode_attention._partial, {"ROWS": 16, "BLOCK_N": 64, **paged}),
        "join": (decode_attention._join, {"SPLITS_BLOCK": 16, **heads}),
        "count": (experts._count, {"BLOCK": 1024}),
        "place": (experts._place, {"BLOCK": 1024, "EXPERTS_BLOCK": 128, "ROWS": 64}),
        "grouped": (experts._grouped_gemm, {"PAIRS_A_ROW": 8, "WEIGHTED": False, **tile}),
        "sum": (experts._sum_pairs, {"TOP_K": 8, "BLOCK": 1024}),
        "norm": (norm._add_rms_norm, {"BLOCK": 4096}),
        "swiglu": (activation._swiglu, {"BLOCK": 1024}),
        "rotary": (rotary._rotary, {"HALF": 64, "HEADS_BLOCK": 4}),
        "copy": (kv_blocks._copy_blocks, {"GATHER": True, "BLOCK": 1024}),
        "empty": (empty._empty, {}),
    }
    for name, (kernel, constants) in kernels.items():
        print(f"{name}: {words(kernel, constants, capability)}")


if __name__ == "__main__":
    main(int(sys.argv[1]))

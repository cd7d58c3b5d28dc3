"""A layer profile that is small enough to be checked by hand, written as its profiler writes one."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import yaml

META = {
    "vllm_version": "0.19.0",
    "hardware": "RTXPRO6000",
    "model": "meta-llama/Llama-3.1-8B",
    "variant": "bf16",
    "profiled_at": "2026-04-24T12:44:27+00:00",
}
DENSE_US = {
    "embedding": 1,
    "layernorm": 2,
    "qkv_proj": 30,
    "rotary_emb": 3,
    "o_proj": 20,
    "gate_up_proj": 100,
    "act_fn": 5,
    "down_proj": 50,
    "final_layernorm": 2,
}
"""Microseconds of each layer for 1 token; 100 tokens take twice as long."""


def attention_us(new: float, cached: float, decodes: float, kv: float) -> float:
    """Return made-up microseconds, linear in each argument, so that interpolation gives them back."""
    chunk = 10 + 0.1 * new + 0.001 * new * cached if new else 0
    decode = 5 + 0.01 * decodes * kv if decodes else 0
    return chunk + decode + 0.0001 * new * decodes


def write_profile(
    folder: Path,
    *,
    skew: bool = True,
    tps: tuple[int, ...] = (1,),
    meta: dict[str, object] | None = None,
    layers: dict[str, float] | None = None,
) -> Path:
    """Write a profile of Llama-3.1-8B and return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "meta.yaml").write_text(yaml.safe_dump({**META, **(meta or {})}))
    for tp in tps:
        inner = folder / f"tp{tp}"
        inner.mkdir()
        lines = [
            f"{name},{tokens},{us * factor}"
            for name, us in (layers or DENSE_US).items()
            for tokens, factor in ((1, 1), (100, 2))
        ]
        (inner / "dense.csv").write_text("\n".join(["layer,tokens,time_us", *lines]) + "\n")
        lines = [
            f"{name},{rows},{us}"
            for name, rows, us in (("lm_head", 1, 700), ("lm_head", 11, 800), ("sampler", 1, 20), ("sampler", 11, 30))
        ]
        (inner / "per_sequence.csv").write_text("\n".join(["layer,sequences,time_us", *lines]) + "\n")
        shapes = [(0, 0, n, kv) for n, kv in product((1, 10), (16, 1000))]
        shapes += [(new, cached, 0, 0) for new, cached in product((16, 64), (0, 512))]
        shapes += list(product((16, 64), (0, 512), (1, 10), (16, 1000)))
        lines = [",".join(map(str, (*shape, attention_us(*shape)))) for shape in shapes]
        header = "prefill_chunk,kv_prefill,n_decode,kv_decode,time_us"
        (inner / "attention.csv").write_text("\n".join([header, *lines]) + "\n")
        if skew:  # one of two decodes is three times as long: cv = 0.5, and takes a tenth longer
            header = "regime,n,nb,ratio,skew,pc,kp,kvs,kv_big,kv_mean,t_mean_us,t_max_us,t_skew_us,alpha"
            lines = ["pure,2,1,0.5,3,0,0,100,300,200,60,90,66,0.2", "mixed,2,1,0.5,3,16,0,100,300,200,90,99,99,1"]
            (inner / "skew.csv").write_text("\n".join([header, *lines]) + "\n")
    return folder

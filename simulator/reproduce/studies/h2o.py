"""H2O: heavy hitters and recent tokens, so that a decode reads less and more of them fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from simulator.reproduce.runs import Run, generated
from simulator.reproduce.study import Options, PaperFigure, Row, Study

PROMPT, OUTPUT = 2048, 2047
"""Tokens of each request; the paper's logs generate 2,048, one more than Llama-2's context leaves."""
H2O = {"name": "h2o", "params": {"heavy_ratio": 0.2, "recent_ratio": 0.2, "score_pass": False}}
"""As ``--hh-ratio 0.2 --hh-all``: the logs' peak memory falls by 38.4 GB of a 48 GB cache, so 819 of 4,096 tokens of
each sequence stay, 0.2 of the prompt as heavy hitters and as many recent ones. FlexGen's unfused attention has the
scores."""


@dataclass(frozen=True)
class _Batch:
    """What a batch of equal requests took: tokens generated a second, over all and over decode steps alone."""

    total: float
    decode: float
    run: Run


def run(options: Options) -> Sequence[Row]:
    """Throughput of a batch with all KV kept and with H2O, and of a larger batch with H2O."""
    full = _batch(24, None, options)
    h2o = _batch(24, H2O, options)
    both = (full.run, h2o.run)
    rows = [
        Row("all KV, 24 requests: throughput", full.total, "tokens/s", "full", runs=(full.run,)),
        Row("H2O, 24 requests: throughput", h2o.total, "tokens/s", "h2o", runs=(h2o.run,)),
        Row("24 requests: H2O over all KV", h2o.total / full.total, "x", "gain", runs=both),
        Row(
            "24 requests, decode steps alone: H2O over all KV", h2o.decode / full.decode, "x", "decode_gain", runs=both
        ),
    ]
    if not options.quick:
        more = _batch(64, H2O, options)
        rows.append(Row("H2O, 64 requests: throughput", more.total, "tokens/s", "h2o_64", runs=(more.run,)))
        both = (full.run, more.run)
        rows.append(Row("H2O with 64 requests over all KV with 24", more.total / full.total, "x", "gain_64", runs=both))
    return rows


def _batch(size: int, kv_budget: dict[str, Any] | None, options: Options) -> _Batch:
    """Serve equal requests that arrive at once, on one replica."""
    output = OUTPUT // 8 if options.quick else OUTPUT
    # So many a second is at once: the last comes 64 us after the first.
    requests = generated("poisson", rate=1e6, requests=size, prompt=str(PROMPT), output=str(output), seed=1)
    pool: dict[str, Any] = {"accelerator": "a100-80gb", "batching": "vllm-v1", "engine": {"max_num_seqs": size}}
    pool["engine"] |= {"max_num_batched_tokens": 4096, "prefix_caching": False}
    if kv_budget is not None:
        pool["kv_budget"] = kv_budget
    name = f"{size} requests, {'all KV' if kv_budget is None else 'H2O'}"
    one = Run(name, {"workload": requests, "model": "llama-2-7b", "cluster": {"pools": [pool]}})
    summary = one.simulate().summary
    options.progress(f"{name}: done")
    tokens = size * output
    prefill_s = summary["ttft_s"]["max"]
    end_s = summary["simulated_s"]
    return _Batch(tokens / end_s, (tokens - size) / (end_s - prefill_s), one)


STUDY = Study(
    name="h2o",
    paper="Z. Zhang et al., H2O: Heavy-Hitter Oracle for Efficient Generative Inference of Large Language Models, "
    "NeurIPS 2023, arXiv:2306.14048",
    claim="With a fifth of the KV kept, OPT-6.7B on one A100 generates 1.86 times as many tokens a second in the "
    "same batch as FlexGen with all of it, and 2.35 times as many in the larger batch that then fits.",
    figures={
        "full": PaperFigure(494.1, "tokens/s", "logs in the paper's repository, a100_80, batch 24, first run: FlexGen"),
        "h2o": PaperFigure(918.9, "tokens/s", "the same, second run: H2O"),
        "gain": PaperFigure(1.86, "x", "918.9 / 494.1 of these logs"),
        "decode_gain": PaperFigure(1.92, "x", "decode throughput of the same logs, 995.2 / 517.5"),
        "h2o_64": PaperFigure(1160.9, "tokens/s", "logs, a100_80, batch 64: H2O"),
        "gain_64": PaperFigure(2.35, "x", "1160.9 / 494.1 of these logs"),
    },
    setup="24 or 64 requests of 2,048 prompt tokens arrive at once and generate 2,047 tokens each (quick: 255) on "
    "one A100-80GB. Llama-2-7B stands for OPT-6.7B: as many layers, heads and bytes of KV a token. Baseline: "
    "everything kept. Throughput is generated tokens over the time until the last one; decode steps alone leave "
    "out the time until all prompts are computed.",
    differences="Costs are those of fused kernels in a paged engine, so the baseline is faster than FlexGen's "
    "here and the ratios rest on how much of a step reads the cache. FlexGen's attention and its eviction are "
    "PyTorch operators that take time of their own. With quick the sequences are shorter, so that there is less "
    "to save. The paper's 3 times over FlexGen are with the cache in CPU memory on a T4; offloading of all KV "
    "isn't part of this study.",
    run=run,
)

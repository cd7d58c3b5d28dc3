"""FastKV: later layers compute a part of the prompt, and each keeps a share of its KV."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from simulator.reproduce.runs import Run, generated
from simulator.reproduce.study import Options, PaperFigure, Row, Study

PROMPTS = (8_192, 32_768, 130_000)
"""Prompt tokens: those of the paper's code, the longest a little shorter, for the answer to fit Llama-3.1's context."""
OUTPUT = 129


def run(options: Options) -> Sequence[Row]:
    """Time to the first token and between tokens, without and with FastKV, one request at a time."""
    rows = []
    for prompt in PROMPTS[1:2] if options.quick else PROMPTS:
        runs = tuple(_run(prompt, budget) for budget in (None, "fastkv"))
        full, fast = (one.simulate().summary for one in runs)
        options.progress(f"{prompt:,} prompt tokens: done")
        longest = prompt == PROMPTS[-1]
        rows.append(
            Row(
                f"{prompt:,} prompt tokens: time to the first token, all over FastKV",
                full["ttft_s"]["mean"] / fast["ttft_s"]["mean"],
                "x",
                "prefill" if longest else None,
                runs=runs,
            )
        )
        rows.append(
            Row(
                f"{prompt:,} prompt tokens: time between tokens, all over FastKV",
                full["tpot_s"]["mean"] / fast["tpot_s"]["mean"],
                "x",
                "decode" if longest else None,
                runs=runs,
            )
        )
    return rows


def _run(prompt: int, kv_budget: str | None) -> Run:
    requests = generated("poisson", rate=1.0, requests=1, prompt=str(prompt), output=str(OUTPUT), seed=1)
    pool: dict[str, Any] = {"accelerator": "a100-80gb", "batching": "vllm-v1"}
    pool["engine"] = {"max_num_batched_tokens": 8192, "prefix_caching": False}
    if kv_budget is not None:
        pool["kv_budget"] = kv_budget
    scenario = {"workload": requests, "model": "llama-3.1-8b", "cluster": {"pools": [pool]}}
    return Run(f"{prompt} prompt tokens, {kv_budget or 'everything kept'}", scenario)


STUDY = Study(
    name="fastkv",
    paper="D. Jo et al., FastKV: Decoupling of Context Reduction and KV Cache Compression for Prefill-Decoding "
    "Acceleration, arXiv:2502.01068 (version 3)",
    claim="Llama-3.1-8B computes a long prompt up to 1.82 times and decodes up to 2.87 times as fast.",
    figures={
        "prefill": PaperFigure(1.82, "x", "abstract, version 3; up to"),
        "decode": PaperFigure(2.87, "x", "abstract, version 3; up to"),
    },
    setup="One request at a time on an A100-80GB, Llama-3.1-8B, 129 tokens generated. FastKV's defaults in its "
    "code: all tokens through 16 of 32 layers, a fifth through the others, a tenth of the KV kept.",
    differences="Which GPU the abstract's figures are from isn't part of them; the A100 is a choice. A fifth of "
    "the tokens in half of the layers saves a factor of 1.67 of what grows with the tokens and 1.92 of attention, "
    "which dominates the longest prompt: the prefill figure is arithmetic. One decode here reads the weights in "
    "any case, as many bytes as the whole cache of the longest prompt; the paper's baseline in PyTorch spends "
    "more on the cache.",
    run=run,
)

"""SARATHI: a chunk of a prompt in every step, with as many decodes as there is room for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.reproduce.runs import Run, generated
from simulator.reproduce.study import Options, PaperFigure, Row, Study

if TYPE_CHECKING:
    from workloads import Trace

_LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
}
LLAMA_13B = {
    **_LLAMA,
    "hidden_size": 5120,
    "intermediate_size": 13824,
    "num_hidden_layers": 40,
    "num_attention_heads": 40,
    "num_key_value_heads": 40,
}
LLAMA_33B = {
    **_LLAMA,
    "hidden_size": 6656,
    "intermediate_size": 17920,
    "num_hidden_layers": 60,
    "num_attention_heads": 52,
    "num_key_value_heads": 52,
}
"""Section 4.5: layers, heads and widths; intermediate widths of LLaMA (arXiv:2302.13971). Context for 3K sequences."""
GPT_3 = {
    "architectures": ["OPTForCausalLM"],
    "model_type": "opt",
    "hidden_size": 12288,
    "ffn_dim": 49152,
    "num_hidden_layers": 96,
    "num_attention_heads": 96,
    "vocab_size": 50272,
    "word_embed_proj_dim": 12288,
    "max_position_embeddings": 4096,
    "do_layer_norm_before": True,
    "torch_dtype": "float16",
}
"""Section 4.5: 96 layers and heads, width 12,288. Written as OPT, whose layers are GPT-3's; context for 4K tokens."""
ROUNDS = 30
"""Requests are so many times the batch, so that its beginning and end count for little: a choice."""
PIPELINE_TOKENS = 256
"""Section 5.3: chunk size."""
BATCH_TP, BATCH_PP = 11, 27
"""Section 5.3: requests of a batch that fit with tensor parallelism alone, and of each of the pipeline's."""


@dataclass(frozen=True)
class _Case:
    """Equal requests on one GPU, at the ratio of prompt to answer at which all decodes find a chunk: C / (B - 1)."""

    name: str
    model: Mapping[str, Any]
    accelerator: str
    length: int
    batch: int
    chunk: int
    paper: str | None

    @property
    def label(self) -> str:
        return f"{self.name}, {self.batch} of {self.length} tokens, chunks of {self.chunk}"

    @property
    def tokens(self) -> tuple[int, int]:
        """Tokens of a prompt and of an answer."""
        output = round(self.length / (1 + self.chunk / (self.batch - 1)))
        return self.length - output, output


_CASES = (
    # Section 5.1.3: batches of 18 at 1K. Longer ones: so many tokens in memory (figure 11 has the largest that fit).
    _Case("LLaMA-13B on A6000", LLAMA_13B, "a6000", 1024, 18, 256, "1k"),
    _Case("LLaMA-13B on A6000", LLAMA_13B, "a6000", 1024, 18, 512, "1k-512"),
    _Case("LLaMA-13B on A6000", LLAMA_13B, "a6000", 2048, 9, 256, "2k"),
    _Case("LLaMA-13B on A6000", LLAMA_13B, "a6000", 3072, 6, 256, "3k"),
    # What 80 GB hold beside 65 GB of weights, 1.6 MB a token: nine sequences of 1K.
    _Case("LLaMA-33B on A100", LLAMA_33B, "a100-80gb", 1024, 9, 256, "33b"),
)


def run(options: Options) -> Sequence[Row]:
    """Throughput on one GPU, the time of a decode that rides along, and pipelines."""
    rows = []
    for case in _CASES[:1] if options.quick else _CASES:
        rows += _throughput(case)
        options.progress(f"{case.label}: done")
    rows += _decodes()
    rows += _pipelines(600 if options.quick else 2000)
    options.progress("pipelines: done")
    return rows


# ----------------------------------------------------------------------------------------------------- on one GPU


def closed_batch(case: _Case, policy: str) -> Run:
    """Return the run of a policy on equal requests that are all there at the start."""
    prompt, output = case.tokens
    pool = _pool(case.accelerator, policy, case.batch, case.length, case.chunk)
    requests = generated("closed-loop", requests=ROUNDS * case.batch, prompt=prompt, output=output)
    return Run(f"{case.label}, {policy}", {"workload": requests, "cluster": {"pools": [pool]}}, model=case.model)


def _pool(accelerator: str, policy: str, batch: int, length: int, tokens: int) -> dict[str, Any]:
    """Return a pool that has memory for the batch and no more; ``static`` computes a batch's prompts in one step."""
    static = policy == "static"
    return {
        "accelerator": accelerator,
        "batching": {"name": "static", "params": {"batch_size": batch}} if static else policy,
        "engine": {
            "max_num_seqs": batch,
            "max_num_batched_tokens": batch * length if static else tokens,
            "max_model_len": length + 16,
            "num_kv_blocks": (batch + 1) * (length // 16 + 2),
        },
    }


def _throughput(case: _Case) -> list[Row]:
    """Tokens a second of prompts and answers together, with chunks and with prompts and decodes apart."""
    runs = {policy: closed_batch(case, policy) for policy in ("sarathi", "static")}
    tokens = ROUNDS * case.batch * case.length
    rates = {policy: tokens / one.simulate().summary["simulated_s"] for policy, one in runs.items()}
    remark = f"{rates['sarathi']:.0f} against {rates['static']:.0f} tokens/s"
    text = f"{case.label}: throughput over the baseline"
    return [Row(text, rates["sarathi"] / rates["static"], "x", case.paper, remark, tuple(runs.values()))]


def _decodes() -> list[Row]:
    """Time of a decode: of four alone, and of three beside 1,021 tokens of a prompt (table 2)."""
    model, accelerator = LLAMA_13B, "a6000"

    def one(name: str, policy: str, batch: int, count: int, prompt: int, output: int) -> Run:
        pool = _pool(accelerator, policy, batch, 1024, 1024)
        requests = generated("closed-loop", requests=count, prompt=prompt, output=output)
        return Run(f"table 2, {name}", {"workload": requests, "cluster": {"pools": [pool]}}, model=model)

    alone = one("four decodes", "static", 4, 4, 1016, 8)
    prompt = one("one prompt", "sarathi", 1, 4, 1021, 1)
    mixed = one("three decodes beside a prompt", "sarathi", 4, 40, 1021, 4)
    decode = _step_s(alone, 4, 0) / 4
    beside = (_step_s(mixed, 3, 1021) - _step_s(prompt, 0, 1021)) / 3
    return [
        Row("LLaMA-13B on A6000: a decode, of four alone", 1e3 * decode, "ms", "decode", runs=(alone,)),
        Row(
            "LLaMA-13B on A6000: a decode, of three beside a prompt", 1e3 * beside, "ms", "beside", runs=(mixed, prompt)
        ),
        Row("LLaMA-13B on A6000: the one over the other", decode / beside, "x", "decodes", runs=(alone, mixed, prompt)),
    ]


def _step_s(one: Run, decodes: int, prompt_tokens: int) -> float:
    """Return the median time of the steps of a run that have so many decodes and prompt tokens, seconds."""
    batches = one.simulate(keep_steps=True).data.cluster.recorder.batches or []
    times = [end - start for _, _, start, end, _, d, tokens in batches if (d, tokens) == (decodes, prompt_tokens)]
    return float(np.median(times)) / 1e9


# ----------------------------------------------------------------------------------------------------- pipelines


def pipeline(policy: str, stages: int, requests: Trace) -> Run:
    """Return the run on 64 A100: one replica of eight stages, or eight replicas of one; tensor parallel over eight."""
    batch = BATCH_PP if stages > 1 else BATCH_TP
    orca = {"name": "orca", "params": {"reserve": "predicted"}}
    pool = {
        "node": "dgx-a100",
        "replicas": 8 // stages,
        "parallel": {"tp": 8, "pp": stages},
        "batching": orca if policy == "orca" else policy,
        # A prompt is longer than half of 1,024, so that Orca computes one of them a step: its best case.
        "engine": {
            "max_num_seqs": batch * stages,
            "max_num_batched_tokens": 1024 if policy == "orca" else PIPELINE_TOKENS,
        },
    }
    scenario = {"predictor": "oracle", "cluster": {"pools": [pool]}}
    return Run(f"GPT-3, {policy}, {stages} stages", scenario, requests, GPT_3)


def zipf_requests(count: int) -> Trace:
    """Return requests of 1K to 4K tokens, Zipf-distributed with theta 0.4, ten prompt tokens for one of the answer."""
    from workloads import Trace

    ranks = np.arange(1, 4096 - 1024 + 2)
    weights = ranks**-0.4
    lengths = 1023 + np.random.default_rng(3).choice(ranks, count, p=weights / weights.sum())
    output = np.maximum(1, np.round(lengths / 11)).astype(np.int64)
    return Trace(
        arrival_s=np.zeros(count),
        prompt_tokens=(lengths - output).astype(np.int64),
        output_tokens=output,
        source="study sarathi",
    )


def _pipelines(count: int) -> list[Row]:
    """Time until all requests have ended: pipelines with Orca and with chunks, and tensor parallelism alone."""
    requests = zipf_requests(count)
    runs = {name: pipeline(name, 8, requests) for name in ("orca", "sarathi")}
    runs["tp"] = pipeline("orca", 1, requests)
    seconds = {name: float(one.simulate().summary["simulated_s"]) for name, one in runs.items()}
    rows = []
    for over, under, what in (
        ("orca", "sarathi", "pipeline with Orca over pipeline with chunks"),
        ("orca", "tp", "pipeline with Orca over tensor parallelism alone"),
        ("tp", "sarathi", "tensor parallelism alone over pipeline with chunks"),
    ):
        remark = f"{seconds[over]:.0f} against {seconds[under]:.0f} s"
        text = f"GPT-3 on 64 A100: time, {what}"
        rows.append(
            Row(text, seconds[over] / seconds[under], "x", f"{over}-{under}", remark, (runs[over], runs[under]))
        )
    return rows


STUDY = Study(
    name="sarathi",
    paper="A. Agrawal et al., SARATHI: Efficient LLM Inference by Piggybacking Decodes with Chunked Prefills, "
    "arXiv:2308.16369",
    claim="Decodes beside a chunk of a prompt take up to a tenth of the time, which makes LLaMA-13B on an A6000 up to "
    "1.33 times and LLaMA-33B on an A100 up to 1.25 times as fast; GPT-3 in a pipeline 1.91 times.",
    figures={
        "1k": PaperFigure(1.27, "x", "sections 5.1.3 and 5.2, figure 11; 1.33 at the best batch size (table 4)"),
        "1k-512": PaperFigure(1.23, "x", "sections 5.1.3 and 5.2"),
        "2k": PaperFigure(1.25, "x", "section 5.2, figure 11"),
        "3k": PaperFigure(1.23, "x", "section 5.2, figure 11"),
        "33b": PaperFigure(1.25, "x", "abstract; 1.14 to 1.25 over lengths (section 5.1.2)"),
        "decode": PaperFigure(12.49, "ms", "table 2"),
        "beside": PaperFigure(1.2, "ms", "table 2"),
        "decodes": PaperFigure(10.0, "x", "abstract; up to"),
        "orca-sarathi": PaperFigure(1.91, "x", "section 5.3, figure 12b"),
        "orca-tp": PaperFigure(1.28, "x", "section 5.3, figure 12b"),
        "tp-sarathi": PaperFigure(1.48, "x", "section 5.3, figure 12b"),
    },
    setup="One GPU: equal requests, 30 times the batch, at the ratio of prompt to answer tokens at which all decodes "
    "find a chunk (chunk size over batch less one). Baseline: prompts of a batch in one step, then its decodes. "
    "Throughput counts tokens of prompts and answers. Decodes: steps of table 2. Pipelines: GPT-3 on eight DGX-A100, "
    "tensor parallel over eight GPUs, eight stages or eight replicas, 2,000 (quick: 600) requests of 1K to 4K tokens "
    "at once, batches of 27 a stage or 11; Orca takes one whole prompt a step. Quick: one GPU case.",
    differences="An A6000 has no measured kernels here: its times are a roofline of its data sheet, which knows no "
    "tiles and no kernel that is slow for few tokens; the paper loses up to 20 % of a prompt's time to chunks of 256. "
    "LLaMA-33B's batch is what memory holds; table 4 has the paper's. The paper's pipelines are simulated too, from "
    "profiles, with 10,000 requests. Its bubbles of each request (6.29 times fewer) have no counterpart among our "
    "figures: the time until all have ended says what they cost.",
    run=run,
)

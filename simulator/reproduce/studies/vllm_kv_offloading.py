"""vLLM's offloading connector: KV loaded from host memory in place of being computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from simulator.reproduce.runs import Run
from simulator.reproduce.study import Options, PaperFigure, Row, Study

if TYPE_CHECKING:
    from workloads import Trace

BLOCK = 16
"""Tokens of a block on the GPU and in host memory, as in its setup."""
LENGTHS = (1_000, 4_000, 16_000, 64_000, 90_000)
"""Tokens of the single prompts; the post names 1K and 90K."""
REQUESTS, PROMPT = 10_000, 512
"""Requests of the second benchmark, and tokens of each."""
HIT_SHARES = (0.0, 0.5, 0.8, 1.0)
"""Shares of the requests that are in host memory."""
POOL = {"accelerator": "h100-sxm", "engine": {"name": "vllm@0.19", "block_size": BLOCK, "prefix_caching": True}}


def run(options: Options) -> Sequence[Row]:
    """TTFT of one request by its length, and throughput of many by their hits; with and without loads."""
    rows, gains, pairs = [], {}, {}
    for length in LENGTHS[::2] if options.quick else LENGTHS:
        runs = [single(length, choice) for choice in ("always-recompute", "always-load")]
        computed, loaded = (ttft_s(one) for one in runs)
        gains[length], pairs[length] = computed / loaded, tuple(runs)
        options.progress(f"{length} tokens: {1e3 * computed:.1f} ms computed, {1e3 * loaded:.1f} ms loaded")
        rows.append(Row(f"TTFT of a prompt of {length} tokens, computed", 1e3 * computed, "ms", runs=runs[:1]))
        rows.append(Row(f"TTFT of a prompt of {length} tokens, loaded", 1e3 * loaded, "ms", runs=runs[1:]))
    for name, length, paper in (("shortest", min(gains), "ttft-least"), ("longest", max(gains), "ttft-most")):
        text = f"TTFT computed over loaded, the {name} prompt"
        rows.append(Row(text, gains[length], "x", paper, runs=pairs[length]))
    requests = 300 if options.quick else REQUESTS
    rates, sent = {}, {}
    for share in HIT_SHARES:
        sent[share] = one = many(requests, share)
        rates[share] = tokens_per_s(one, requests)
        options.progress(f"{100 * share:.0f} % in host memory: {rates[share]:.0f} tokens/s")
        text = f"throughput of {requests} requests, {100 * share:.0f} % in host memory"
        rows.append(Row(text, rates[share], "tokens/s", runs=(one,)))
    both = (sent[1.0], sent[0.0])
    rows.append(Row("throughput, all in host memory over none", rates[1.0] / rates[0.0], "x", "throughput", runs=both))
    return rows


def single(length: int, choice: str) -> Run:
    """Return the run of a prompt that comes again, and was evicted from the GPU in between."""
    longest = max(LENGTHS) + 2 * BLOCK
    blocks = longest // BLOCK + 1
    prompts = [_identities(0, length), _identities(1, longest - BLOCK), _identities(0, length)]
    trace = _trace([0.0, 100.0, 200.0], [length, longest - BLOCK, length], prompts)
    return _run(f"{length} tokens {choice}", {"num_kv_blocks": blocks, "max_model_len": longest}, choice, trace)


def ttft_s(one: Run) -> float:
    """Return the TTFT of the prompt when it comes again."""
    requests = one.simulate().requests
    return float(requests["first_token_s"].iloc[2] - requests["arrival_s"].iloc[2])


def many(requests: int, share: float) -> Run:
    """Return the run of requests sent at once, a share of which were served before, and others in between."""
    known = round(requests * share)
    rounds = [_identities(i, PROMPT) for i in range(known)]
    # Enough others to have evicted the first of them, which come in the same order again.
    blocks = 200 * PROMPT // BLOCK
    others = [_identities(requests + i, PROMPT) for i in range(400)]
    again = [_identities(i, PROMPT) for i in range(requests)]
    prompts = rounds + others + again
    later = 0.05 * len(rounds + others) + 100.0
    arrivals = [0.05 * i for i in range(len(rounds + others))] + [later] * requests
    trace = _trace(arrivals, [PROMPT] * len(prompts), prompts)
    name = f"{requests} requests, {100 * share:.0f} percent in host memory"
    return _run(name, {"num_kv_blocks": blocks, "max_model_len": 2 * PROMPT}, "always-load", trace)


def tokens_per_s(one: Run, requests: int) -> float:
    """Return the prompt tokens a second of the last ``requests``, which are sent at once."""
    served = one.simulate().requests.iloc[-requests:]
    return float(requests * PROMPT / (served["last_token_s"].max() - served["arrival_s"].iloc[0]))


def _run(name: str, engine: dict[str, Any], choice: str, trace: Trace) -> Run:
    tiers = {"tiers": [{"tier": "host", "capacity_gib": 1000}], "load_or_recompute": choice}
    pool = {**POOL, "engine": {**POOL["engine"], **engine}, "kv_tiers": tiers}  # type: ignore[dict-item]
    return Run(name, {"model": "llama-3.1-8b", "cluster": {"pools": [pool]}}, trace)


def _identities(prompt: int, length: int) -> list[int]:
    return [prompt * 10_000 + i for i in range(length // BLOCK)]


def _trace(arrivals: list[float], lengths: list[int], prompts: list[list[int]]) -> Trace:
    import numpy as np

    from workloads import Ragged, Trace

    return Trace(
        arrival_s=np.array(arrivals),
        prompt_tokens=np.array(lengths),
        output_tokens=np.ones(len(lengths), np.int64),
        block_hashes=Ragged.of(prompts),
        block_size_tokens=BLOCK,
        source="prompts served before",
    )


STUDY = Study(
    name="vllm-kv-offloading",
    paper="O. Ozeri, D. Harnik, Inside vLLM's New KV Offloading Connector, vLLM blog, 8 January 2026",
    claim="Loading KV from host memory makes the TTFT of a single request 2 to 22 times as short as computing it, and "
    "the throughput of many up to 9 times as high.",
    figures={
        "ttft-least": PaperFigure(2.0, "x", "figure 1, least (depending on the prompt size)"),
        "ttft-most": PaperFigure(22.0, "x", "figure 1, most"),
        "throughput": PaperFigure(9.0, "x", "figure 2: up to"),
    },
    setup="Llama-3.1-8B on one H100, vLLM 0.19's defaults, blocks of 16 tokens, host memory that holds everything. One "
    "prompt alone, computed or loaded whole but for its last block; 10,000 (quick: 300) prompts of 512 tokens sent at "
    "once, a share of which was served before and evicted from the GPU since; one output token each.",
    differences="Of vLLM's own work only its host overhead a step is known here: a short prompt's TTFT is that of a "
    "step or two. Copies go at 55 GB/s (the post: about 50), calls cost nothing, and what is loaded doesn't slow down "
    "the steps beside it. The post switches GPU prefix caching off; here prompts are evicted before they come back. "
    "What share of a prompt is found at a hit rate in between it doesn't say: here it is a share of the prompts.",
    run=run,
)

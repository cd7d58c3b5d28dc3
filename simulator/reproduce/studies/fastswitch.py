"""FastSwitch: what it costs to change who runs, and what its three mechanisms take off that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from simulator.reproduce.runs import Run, generated
from simulator.reproduce.study import Options, PaperFigure, Row, Study

MODEL = "llama-3.1-8b"
KV_BLOCKS = 3000
"""KV memory of 48,000 tokens, so that it fills at these loads: an assumption (an 8B model leaves a whole A100 more)."""
PROMPT = "lognormal:median=300,sigma=1.2,max=4000"
OUTPUT = "lognormal:median=250,sigma=0.8,max=2000"
"""Turns of conversations: assumptions."""
RATES = (4.0, 5.0, 6.0)
"""Requests/s: below, near and beyond where the baseline falls behind."""
CALL_S = 6e-6
"""One ``cudaMemcpyAsync``: 5 to 7 us by Wu et al., DualPath, arXiv:2602.21548, section 5.2."""
BLOCKS_PER_GROUP = 20
"""KV blocks that lie together in FastSwitch's block groups: an assumption."""
UPDATE_PERIOD = 50
"""Steps between two updates of priorities: of the paper's frequencies of a few in a hundred steps."""

SYSTEMS: dict[str, tuple[bool, dict[str, Any]]] = {
    "vllm": (False, {"blocks_per_call": 1, "keep_copies": False}),
    "with block groups": (False, {"blocks_per_call": BLOCKS_PER_GROUP, "keep_copies": False}),
    "and kept copies": (False, {"blocks_per_call": BLOCKS_PER_GROUP, "keep_copies": True}),
    "fastswitch": (True, {"blocks_per_call": BLOCKS_PER_GROUP, "keep_copies": True}),
}
"""Asynchronous swaps, and the pool's ``swap`` part: one mechanism on top of the other."""


def run(options: Options) -> Sequence[Row]:
    """Tail latencies with each mechanism, and the baseline's over all of them together."""
    rows = []
    for pattern in ("markov",) if options.quick else ("markov", "random"):
        for rate in RATES[1:2] if options.quick else RATES:
            number = 600 if options.quick else 2000
            case, found, runs = f"{pattern}, {rate:g} requests/s", {}, {}
            for system in SYSTEMS:
                runs[system] = one = described(rate, number, pattern, system)
                found[system] = figures(one)
                rows.append(Row(f"{case}, {system}: P99 TTFT", found[system]["ttft_s"], "s", runs=(one,)))
                rows.append(Row(f"{case}, {system}: P99 TBT", found[system]["gap_s"], "s", runs=(one,)))
                options.progress(f"{case}, {system}")
            stall = found["vllm"]["stall"]
            behind = f"vllm's steps wait {stall:.1%} of the time" + (
                "; it is overloaded" * bool(found["vllm"]["behind"])
            )
            for name, label in (("ttft_s", "P99 TTFT"), ("gap_s", "P99 TBT")):
                ratio = found["vllm"][name] / found["fastswitch"][name]
                both = (runs["vllm"], runs["fastswitch"])
                rows.append(Row(f"{case}: {label}, vllm over fastswitch", ratio, "x", "tails", behind, both))
    return rows


def described(rate: float, number: int, pattern: str, system: str) -> Run:
    """Return the run of a system: Poisson arrivals of turns."""
    asynchronous, swap = SYSTEMS[system]
    params = {"pattern": pattern, "update_period": UPDATE_PERIOD, "asynchronous": asynchronous}
    pool = {
        "accelerator": "a100-80gb",
        "batching": {"name": "fastswitch", "params": params},
        "engine": {"num_kv_blocks": KV_BLOCKS, "swap_space_gib": 64.0, "prefix_caching": False},
        "swap": {"call_overhead_s": CALL_S, **swap},
    }
    requests = generated("poisson", rate=rate, requests=number, prompt=PROMPT, output=OUTPUT, seed=21)
    scenario = {"workload": requests, "model": MODEL, "cluster": {"pools": [pool]}}
    return Run(f"{pattern}, {rate:g} requests per s, {system}", scenario)


def figures(one: Run) -> dict[str, float]:
    """Return P99 of TTFT and TBT, seconds, the share of time that steps waited for swaps, and 1 if overloaded."""
    summary = one.simulate().summary
    return {
        "ttft_s": summary["ttft_s"]["p99"],
        "gap_s": summary["itl_s"]["p99"],
        "stall": summary["memory"]["swap_stall_s"] / summary["simulated_s"],
        "behind": float(bool(summary["overloaded"])),
    }


STUDY = Study(
    name="fastswitch",
    paper="A. Shen, Z. Li and M. Gao, FastSwitch: Optimizing Context Switching Efficiency in Fairness-aware Large "
    "Language Model Serving, arXiv:2411.18424",
    claim="Where priorities change, tail TTFT and TBT are 1.4 to 11.2 times shorter than vLLM's.",
    figures={"tails": PaperFigure(11.2, "x", "abstract; 1.4 to 11.2 over tails of TTFT and TBT, models and patterns")},
    setup="Llama-3.1-8B on one A100 with KV memory for 48,000 tokens, 2,000 requests (quick: 600) of log-normal "
    "lengths at a few loads. Priorities of all requests change every 50 steps, at random or as a Markov chain; the "
    "most urgent that fit run. Baseline: the same priorities, swapped block by block while the step waits, as vLLM v0 "
    "does. Then block groups, kept copies and asynchronous swaps, one on top of the other.",
    differences="The ratio is what the load makes it: where little is swapped both are alike, and where the baseline "
    "falls behind (which is said) its tail is that of a growing queue and the ratio grows with the length of the run. "
    "Block groups make most of the gain, as calls and not bytes bound a swap. Requests are single turns: copies kept "
    "between turns, of which the paper gains, are not modelled, nor is its choice between both kinds of swap.",
    run=run,
)

"""DeepSpeed-FastGen: prompts cut and fused into steps of constant size, against steps of whole prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from simulator.reproduce.runs import Run, generated
from simulator.reproduce.study import Options, PaperFigure, Row, Study
from simulator.reproduce.tokens import token_gaps_s

if TYPE_CHECKING:
    from simulator.result import RunResult

MODEL, ACCELERATOR, TP = "llama-2-70b", "a100-80gb", 4
SYSTEMS = {"FastGen": "fastgen", "vLLM": "vllm"}
"""The batching policy of each, with its own defaults: 768 tokens a step, and vLLM's first scheduler."""
CLIENTS = (1, 2, 4, 6, 8, 12, 16, 20, 24, 28, 32)
"""Section 4.1: 1 to 32; these numbers are the default of DeepSpeedExamples, benchmarks/inference/mii/src/utils.py."""
REQUESTS = 512
"""Section 4.1."""
PROMPT = "normal:mean=2600,sd=780,max=3840"
OUTPUTS = {60: "normal:mean=60,sd=18,max=256", 128: "normal:mean=128,sd=38.4,max=256"}
"""Figures 4 and 5: normal distributions with 30 % of the mean as standard deviation. Longest: the benchmark cuts
prompts at 4,000 tokens; a little less here, so that every answer fits Llama-2's context of 4,096."""
PROMPT_RATE = 512.0
"""Section 4.1: the first token must come within a second for every so many prompt tokens."""
TOKEN_RATES = (2.0, 4.0, 6.0)
"""Section 4.1: tokens a second that the exponential moving average of a request's gaps must never fall below."""
EMA_SPAN = 16
"""DeepSpeedExamples, benchmarks/inference/mii/src/plot_effective_throughput.py: ``--ema_span``."""


@dataclass(frozen=True)
class Point:
    """What a number of clients got of a system.

    Attributes
    ----------
    rate
        Requests/s, all 512 over the time that they took.
    latency_s
        Mean time from sending a request to its last token, seconds.
    effective
        Requests/s that kept the objectives, by tokens a second of the moving average.
    """

    rate: float
    latency_s: float
    effective: Mapping[float, float]


def run(options: Options) -> Sequence[Row]:
    """Curves of throughput and latency over clients, effective throughput, and gaps between tokens."""
    clients = CLIENTS[3::4] if options.quick else CLIENTS
    requests = 128 if options.quick else REQUESTS
    curves: dict[str, dict[int, Point]] = {}
    runs: dict[str, dict[int, Run]] = {}
    for system in SYSTEMS:
        runs[system] = {number: described(system, number, 60, requests) for number in clients}
        curves[system] = {number: point(one.simulate(keep_steps=True)) for number, one in runs[system].items()}
        options.progress(f"{system}: up to {max(each.rate for each in curves[system].values()):.2f} requests/s")
    return [*_effective(curves, runs), *_alike(curves, runs), *_gaps(requests)]


def described(system: str, clients: int, output: int, requests: int) -> Run:
    """Return the run of a system under so many clients, with answers of so many tokens on average."""
    made = generated("closed-loop", requests=requests, prompt=PROMPT, output=OUTPUTS[output], seed=17)
    workload = {**made, "loop": {"clients": clients}}
    pool: dict[str, Any] = {"accelerator": ACCELERATOR, "parallel": {"tp": TP}, "batching": SYSTEMS[system]}
    scenario = {"workload": workload, "model": MODEL, "cluster": {"pools": [pool]}}
    return Run(f"{system} {clients} clients answers of {output}", scenario)


def point(result: RunResult) -> Point:
    """Return what the clients of a run got."""
    table = result.requests
    span = float(table["last_token_s"].max() - table["arrival_s"].min())
    in_time = (table["first_token_s"] - table["arrival_s"]).to_numpy() <= table[
        "prompt_tokens"
    ].to_numpy() / PROMPT_RATE
    slowest = np.array([slowest_average_s(gaps) for gaps in token_gaps_s(result)])
    effective = {rate: float((in_time & (slowest < 1 / rate)).sum()) / span for rate in TOKEN_RATES}
    return Point(len(table) / span, float((table["last_token_s"] - table["arrival_s"]).mean()), effective)


def slowest_average_s(gaps: npt.NDArray[np.float64]) -> float:
    """Return the largest exponential moving average of gaps, seconds; 0 if there are none.

    As pandas' ``ewm(span=16).mean()``: the weight of a gap falls by 1 - 2 / (span + 1) with each later one, and weights
    are divided by their sum.
    """
    import pandas as pd

    return float(pd.Series(gaps).ewm(span=EMA_SPAN).mean().max()) if len(gaps) else 0.0


def _effective(curves: Mapping[str, Mapping[int, Point]], runs: Mapping[str, Mapping[int, Run]]) -> list[Row]:
    """Highest effective throughput of each over the clients."""
    rows = []
    for rate in TOKEN_RATES:
        best = {}
        for system, curve in curves.items():
            number = max(curve, key=lambda clients: curve[clients].effective[rate])
            best[system] = found = curve[number].effective[rate]
            missed = 100 * (1 - found / curve[number].rate)
            remark = f"with {number} clients; {missed:.0f} % of the requests miss it"
            paper = {"FastGen": "effective-fastgen", "vLLM": "effective-vllm"}[system] if rate == 4 else None
            what = f"{system}: effective throughput, {rate:g} tokens/s"
            rows.append(Row(what, found, "requests/s", paper, remark, (runs[system][number],)))
        what = f"effective throughput, {rate:g} tokens/s: FastGen over vLLM"
        both = (*rows[-2].runs, *rows[-1].runs)
        gain = best["FastGen"] / best["vLLM"] if best["vLLM"] else None
        remark = "" if best["vLLM"] else "vLLM keeps the objectives of no request"
        rows.append(Row(what, gain, "x", "effective" if rate == 4 else None, remark, both))
    return rows


def _alike(curves: Mapping[str, Mapping[int, Point]], runs: Mapping[str, Mapping[int, Run]]) -> list[Row]:
    """Throughput at vLLM's latency, and latency at vLLM's throughput, where FastGen is the furthest ahead."""
    fast, slow = curves["FastGen"], curves["vLLM"]

    def throughput(clients: int) -> float:
        return _at(fast, "latency_s", slow[clients].latency_s, "rate") / slow[clients].rate

    def latency(clients: int) -> float:
        return slow[clients].latency_s / _at(fast, "rate", slow[clients].rate, "latency_s")

    faster, shorter = max(slow, key=throughput), max(slow, key=latency)
    here, there = slow[faster], slow[shorter]
    of_fastgen = tuple(runs["FastGen"].values())
    return [
        Row(
            f"throughput at the same mean latency ({here.latency_s:.1f} s): FastGen over vLLM, most",
            throughput(faster),
            "x",
            "throughput",
            f"vLLM with {faster} clients: {here.rate:.2f} requests/s; FastGen between its points",
            (runs["vLLM"][faster], *of_fastgen),
        ),
        Row(
            f"mean latency at the same throughput ({there.rate:.2f} requests/s): vLLM over FastGen, most",
            latency(shorter),
            "x",
            "latency",
            f"vLLM with {shorter} clients: {there.latency_s:.1f} s; FastGen between its points",
            (runs["vLLM"][shorter], *of_fastgen),
        ),
    ]


def _at(curve: Mapping[int, Point], given: str, value: float, wanted: str) -> float:
    """Return one figure of a curve where another has a value: between its points, held beyond its ends."""
    points = sorted((getattr(point, given), getattr(point, wanted)) for point in curve.values())
    return float(np.interp(value, [x for x, _ in points], [y for _, y in points]))


def _gaps(requests: int) -> list[Row]:
    """Percentiles of the gaps between tokens with 16 clients and longer answers."""
    found, runs = {}, {}
    for system in SYSTEMS:
        runs[system] = one = described(system, 16, 128, requests)
        found[system] = np.concatenate(token_gaps_s(one.simulate(keep_steps=True)))
    rows = []
    for percentile in (50, 90, 95):
        ours, theirs = (float(np.percentile(found[system], percentile)) for system in ("FastGen", "vLLM"))
        rows.append(
            Row(
                f"P{percentile} gap between tokens, 16 clients, answers of 128: vLLM over FastGen",
                theirs / ours,
                "x",
                "p95" if percentile == 95 else None,
                f"{theirs * 1e3:.0f} ms against {ours * 1e3:.0f} ms",
                (runs["vLLM"], runs["FastGen"]),
            )
        )
    return rows


STUDY = Study(
    name="fastgen",
    paper="C. Holmes et al., DeepSpeed-FastGen: High-throughput Text Generation for LLMs via MII and "
    "DeepSpeed-Inference, arXiv:2401.08671",
    claim="With long prompts, up to 2.3 times the requests/s within an objective on each request's first token and "
    "pace, half the mean latency, and gaps between tokens up to 3.7 times as short at P95, against vLLM.",
    figures={
        "effective-fastgen": PaperFigure(1.42, "requests/s", "section 4.3, figure 4; less than 1 % miss it"),
        "effective-vllm": PaperFigure(0.63, "requests/s", "section 4.3, figure 4; about 28 % miss it"),
        "effective": PaperFigure(2.3, "x", "abstract and section 4.3, figure 4; up to"),
        "throughput": PaperFigure(2.0, "x", "section 4.2, figure 2; 1.36 against 0.67 requests/s at 9 s, up to"),
        "latency": PaperFigure(2.0, "x", "section 4.2, figure 2; 7 against 14 s at 1.2 requests/s, up to"),
        "p95": PaperFigure(3.7, "x", "section 4.4, figure 5; 16 clients, answers of 128 tokens"),
    },
    setup="Llama-2-70B, tensor parallel over four A100-80GB. 1 to 32 clients, each with one request at a time, 512 "
    "requests in all (quick: 6 and 20 clients, 128 requests), normally distributed prompts of 2,600 tokens and answers "
    "of 60 (gaps: 128), 30 % of the mean as standard deviation. FastGen: Dynamic SplitFuse, 768 tokens a step. vLLM: "
    "its first scheduler. Effective throughput: requests/s whose first token came within a second for every 512 prompt "
    "tokens and whose exponential moving average of gaps (span 16, as in the authors' benchmark) never fell below 2, 4 "
    "or 6 tokens/s; the best number of clients for each system. A result doesn't hold the gaps of each request: "
    "simulator.reproduce.tokens works them out from the steps of the same run.",
    differences="What splitting prompts does is here: gaps that no prompt lengthens, and requests that keep their pace "
    "up to the load that fills the GPUs. The rest of the engines differs. Here both have the same kernels and little "
    "time on the host, so that each computes as many tokens a second when it is full and FastGen gains little "
    "throughput at the same latency; the paper's vLLM of 2023 peaks at half of FastGen's requests/s; how much "
    "of that is kernels and host work isn't said, nor which lengths its 1.36 against 0.67 requests/s are of. "
    "Where throughput no longer grows with clients, the latency at the same throughput depends on small differences "
    "of it. Steps of 768 tokens also mean that FastGen's P90 gap is the longer one.",
    run=run,
)

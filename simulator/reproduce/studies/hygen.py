"""HyGen: offline requests beside online ones, as many as the online objective allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.reproduce.runs import Run
from simulator.reproduce.study import Options, PaperFigure, Row, Study

if TYPE_CHECKING:
    from workloads import Trace

MODEL = "llama-2-7b"
TOLERANCE = 0.10
"""How much larger the 99th percentile of online time between tokens may be than without offline work: an assumption."""
ONLINE_RATE = 1.0
"""Online requests/s on average: an assumption, an A100 well below its capacity."""
ONLINE_PROMPT = "lognormal:median=1020,sigma=0.8,max=3500"
ONLINE_OUTPUT = "lognormal:median=129,sigma=0.9,max=500"
"""Log-normal lengths with the medians of the Azure LLM inference trace of 2023 (conversation): 1,020 tokens of prompts,
129 of answers. Sigmas are assumptions; lengths are cut to the model's context of 4,096."""
OFFLINE_PROMPT = "lognormal:median=1500,sigma=0.6,max=3500"
OFFLINE_OUTPUT = "lognormal:median=150,sigma=0.5,max=500"
"""Summaries of articles: assumptions."""
SWING, PERIOD_S = 0.5, 120.0
"""The online rate goes up and down threefold over two minutes; the paper has it of production traces that load changes
up to threefold within minutes."""
MOST_OFFLINE_RATE = 6.0
"""Offline requests/s: all that HyGen may draw from, and above what bisection looks for the baseline's; an assumption
beyond the capacity of one A100."""
MOST_BUDGET_S = 0.2
"""Step budget below which bisection looks, seconds."""
BISECTIONS = 7


def run(options: Options) -> Sequence[Row]:
    """Serve online requests alone, then offline ones beside them by either system, within the same objective."""
    seconds = 120.0 if options.quick else 600.0
    first = described("online only", requests(seconds, 0.0), "sarathi", seconds)
    alone = figures(first, seconds)
    objective = alone["gap_s"] * (1 + TOLERANCE)
    options.progress(f"online only: P99 time between tokens {alone['gap_s'] * 1e3:.0f} ms")

    def hybrid_of(rate: float) -> Run:
        return described(f"hybrid {rate:.4g} offline requests per s", requests(seconds, rate), "sarathi", seconds)

    flood = requests(seconds, MOST_OFFLINE_RATE, at_start=True)

    def hygen_of(budget_s: float) -> Run:
        return described(f"hygen step budget {1e3 * budget_s:.4g} ms", flood, "hygen", seconds, budget_s)

    hybrid = _largest(lambda rate: figures(hybrid_of(rate), seconds), objective, MOST_OFFLINE_RATE)
    options.progress(f"hybrid: {hybrid['offline']:.0f} offline tokens/s")
    hygen = _largest(lambda budget_s: figures(hygen_of(budget_s), seconds), objective, MOST_BUDGET_S)
    options.progress(f"hygen: {hygen['offline']:.0f} offline tokens/s")
    none = "" if hybrid["offline"] else "the hybrid keeps the objective with no offline work at all"
    ratio = hygen["offline"] / hybrid["offline"] if hybrid["offline"] else None
    base, one, other = (first,), (hybrid_of(hybrid["setting"]),), (hygen_of(hygen["setting"]),)
    rate, budget = f"{hybrid['setting']:.2f} offline requests/s", f"step budget {hygen['setting'] * 1e3:.1f} ms"
    gain = hygen["all"] / alone["all"]
    return [
        Row("online only: P99 time between tokens", alone["gap_s"], "s", runs=base),
        Row("objective: P99 time between tokens of online requests", objective, "s", runs=base),
        Row("hybrid: the same", hybrid["gap_s"], "s", remark=rate, runs=one),
        Row("hygen: the same", hygen["gap_s"], "s", remark=budget, runs=other),
        Row("online only: P99 time to first token", alone["ttft_s"], "s", runs=base),
        Row("hybrid: P99 time to first token of online requests", hybrid["ttft_s"], "s", runs=one),
        Row("hygen: P99 time to first token of online requests", hygen["ttft_s"], "s", runs=other),
        Row("hybrid: offline tokens", hybrid["offline"], "tokens/s", runs=one),
        Row("hygen: offline tokens", hygen["offline"], "tokens/s", runs=other),
        Row("hygen over online only: tokens of both classes", gain, "x", "overall", runs=(*other, *base)),
        Row("hygen over hybrid: offline tokens", ratio, "x", "offline", none, (*other, *one)),
    ]


def _largest(measure: Callable[[float], dict[str, float]], objective_s: float, highest: float) -> dict[str, float]:
    """Return the figures of the largest setting that keeps the objective: the lower bound of a bisection."""
    low, high = 0.0, highest
    best = {**measure(low), "setting": low}
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        found = measure(middle)
        if found["gap_s"] <= objective_s:
            low, best = middle, {**found, "setting": middle}
        else:
            high = middle
    return best


def described(name: str, trace: Trace, system: str, seconds: float, budget_s: float = 0.0) -> Run:
    """Return the run of a system, which ends after the time."""
    batching = {"name": "hygen", "params": {"step_budget_s": budget_s}} if system == "hygen" else system
    pool: dict[str, Any] = {
        "accelerator": "a100-80gb",
        "batching": batching,
        "queueing": "hygen" if system == "hygen" else "priority",
        "engine": {"max_num_batched_tokens": 512, "max_num_seqs": 128},
    }
    scenario = {"model": MODEL, "cluster": {"pools": [pool]}, "measure": {"until_s": seconds, "drain": False}}
    return Run(name, scenario, trace)


def figures(one: Run, seconds: float) -> dict[str, float]:
    """Return P99 of online TBT and TTFT, and tokens per second, offline and all, of what finished in the time."""
    result = one.simulate()
    online = result.summary["classes"]["online"]
    table = result.requests
    done = table[table["outcome"] == "finished"]
    tokens = (done["prompt_tokens"] + done["output_tokens"]).groupby(done["class"].astype(str)).sum()
    return {
        "gap_s": online["itl_s"]["p99"],
        "ttft_s": online["ttft_s"]["p99"],
        "offline": float(tokens.get("offline", 0.0)) / seconds,
        "all": float(tokens.sum()) / seconds,
    }


def requests(seconds: float, offline_rate: float, *, at_start: bool = False) -> Trace:
    """Return online requests at a swinging rate, and offline ones evenly over the time or all at the start."""
    from workloads import Trace, generate
    from workloads.trace import Categorical

    number = int(ONLINE_RATE * seconds)
    extra = int(offline_rate * seconds)
    online = generate("poisson", rate=1.0, requests=number, prompt=ONLINE_PROMPT, output=ONLINE_OUTPUT, seed=11)
    most = int(MOST_OFFLINE_RATE * seconds)
    offline = generate("poisson", rate=1.0, requests=most, prompt=OFFLINE_PROMPT, output=OFFLINE_OUTPUT, seed=12)
    # Arrivals of rate 1 through the inverse of the expected number until t: rate x (t - swing / w sin(w t)).
    clock = np.linspace(0.0, 2 * seconds, 100_001)
    turn = 2 * np.pi / PERIOD_S
    arrivals = np.interp(online.arrival_s, ONLINE_RATE * (clock - SWING / turn * np.sin(turn * clock)), clock)
    extras = np.zeros(extra) if at_start else np.linspace(0.0, seconds, extra, endpoint=False)
    at = np.concatenate((arrivals, extras))
    order = np.argsort(at, kind="stable")
    code = np.repeat([0, 1], [number, extra])[order]
    return Trace(
        arrival_s=at[order],
        prompt_tokens=np.concatenate((online.prompt_tokens, offline.prompt_tokens[:extra]))[order],
        output_tokens=np.concatenate((online.output_tokens, offline.output_tokens[:extra]))[order],
        priority=code,
        request_class=Categorical(code.astype(np.int32), ("online", "offline")),
        source="study hygen",
    )


STUDY = Study(
    name="hygen",
    paper="T. Sun, P. Wang and F. Lai, HyGen: Efficient LLM Serving via Elastic Online-Offline Request Co-location, "
    "NeurIPS 2025, arXiv:2501.14808",
    claim="Offline requests in the time that online ones leave give up to 3.87 times the tokens of online-only "
    "serving, and up to 5.84 times the offline tokens of a hybrid baseline, within the online objective.",
    figures={
        "overall": PaperFigure(3.87, "x", "abstract (version 2); over online-only serving, up to"),
        "offline": PaperFigure(5.84, "x", "abstract (version 2); over hybrid serving, up to"),
    },
    setup="Llama-2-7B on one A100, steps of 512 tokens. Online: 1 request/s on average, the rate swinging threefold "
    "over two minutes, log-normal lengths with the medians of Azure's conversation trace. Objective: the 99th "
    "percentile of the time between tokens of online requests within 10 % of online-only serving. Hybrid: "
    "Sarathi-Serve with online requests first and offline ones at the highest constant rate that keeps the objective. "
    "HyGen: all offline requests are there from the start, and its step budget is the largest that keeps the "
    "objective. Both are found by bisection. 600 s (quick: 120 s); tokens of requests that finished in that time.",
    differences="The paper's traces, models and tolerances differ case by case, and its figures are the largest of "
    "them. Offline requests share no prefixes here, so the gain by order of prefixes is left out. Preempted offline "
    "requests are recomputed, where HyGen keeps their state.",
    run=run,
)

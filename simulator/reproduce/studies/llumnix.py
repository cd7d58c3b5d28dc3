"""Llumnix: requests that migrate between replicas, priorities, and scaling by freeness."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.reproduce.runs import Run, generated
from simulator.reproduce.study import Options, PaperFigure, Row, Study

if TYPE_CHECKING:
    from workloads import Trace

LONGEST = 6144
"""Tokens of the longest prompt and answer; artifact/63_serving_performance/config/serving_exp (irange, oranges)."""
TOKENS_A_STEP = 12800
"""There: max_batch_total_tokens_vals."""
REPLICAS = 16
MODEL = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "vocab_size": 32000,
    "max_position_embeddings": 2 * LONGEST + 512,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
}
"""LLaMA-7B with a longer context, as the paper's requests need."""
HIGH_SHARE = 0.1
"""Share of the requests that have high priority: an assumption, the scripts of the artifact don't say it."""


@dataclass(frozen=True)
class _Case:
    """A generated trace of the paper: mean lengths, its lowest rate there, and the threshold of its script."""

    name: str
    prompt: int
    output: int
    rate: float
    threshold: float


_CASES = (
    _Case("S-S", 128, 128, 32.0, 3.0),
    _Case("M-M", 256, 256, 7.4, 10.0),
    _Case("L-L", 512, 512, 2.6, 3.0),
)
_STEP = 1.1
_STEPS = 12


def run(options: Options) -> Sequence[Row]:
    """Compare serving at a high load, priorities under bursts, and scaling."""
    return [
        *(row for case in (_CASES[1:2] if options.quick else _CASES) for row in _serving(case, options)),
        *_priorities(options),
        *_scaling(options),
    ]


# ------------------------------------------------------------------------------------------------ serving, 6.3


def _serving(case: _Case, options: Options) -> list[Row]:
    """Compare the three at the highest rate at which INFaaS++ still keeps up."""
    rate = _highest_rate(case, options)
    requests = _requests(case.prompt, case.output, rate, options)
    llumnix = {"name": "llumnix", "params": {"threshold": case.threshold}}
    at = f"{case.name}, {rate:.2f} requests/s"
    freest = _ran(f"{at}, INFaaS++", requests, {}, "llumnix")
    turns = _ran(f"{at}, round-robin", requests, {}, "round-robin")
    moved = _ran(f"{at}, Llumnix", requests, {"rescheduler": llumnix}, "llumnix")
    options.progress(f"{case.name} at {rate:.2f} requests/s: {moved.summary['rescheduling']['moved']} migrations")
    rows = [
        _gain(f"{at}: mean first token of INFaaS++ over Llumnix", freest, moved, "ttft_s", "mean", "prefill_mean"),
        _gain(f"{at}: P99 first token of INFaaS++ over Llumnix", freest, moved, "ttft_s", "p99", "prefill_p99"),
        _gain(f"{at}: P99 token of INFaaS++ over Llumnix", freest, moved, "tpot_s", "p99", "decode_p99"),
        _gain(f"{at}: P99 request of INFaaS++ over Llumnix", freest, moved, "e2e_s", "p99", "request_p99"),
        _gain(f"{at}: P99 first token of round-robin over Llumnix", turns, moved, "ttft_s", "p99", "round_robin_p99"),
    ]
    before, after = _preemptions(freest.summary), _preemptions(moved.summary)
    remark = f"{before} preemptions with INFaaS++, {after} with Llumnix"
    saved = None if not before else 100.0 * (before - after) / before
    both = (freest.run, moved.run)
    rows.append(Row(f"{at}: preemptions less than with INFaaS++", saved, "%", "preemptions", remark, both))
    told = moved.summary["rescheduling"]
    down = told["downtime_s"]["p50"]
    rows.append(
        Row(
            f"{at}: median downtime of a migration",
            None if down is None else 1e3 * down,
            "ms",
            "downtime",
            f"{told['moved']} moved, {sum(told['failed'].values())} given up",
            (moved.run,),
        )
    )
    return rows


def _highest_rate(case: _Case, options: Options) -> float:
    """Return the highest rate, in steps of a tenth from the paper's lowest, at which INFaaS++ isn't overloaded."""
    rate = case.rate
    for _ in range(_STEPS):
        requests = _requests(case.prompt, case.output, rate * _STEP, options)
        if _ran("INFaaS++", requests, {}, "llumnix").summary["overloaded"]:
            break
        rate *= _STEP
    return rate


def _preemptions(summary: Mapping[str, Any]) -> int:
    return sum(replica["preemptions"] for replica in summary["replicas"])


# --------------------------------------------------------------------------------------------- priorities, 6.4


def _priorities(options: Options) -> list[Row]:
    """Compare requests of high priority with and without priorities, short ones that come in bursts."""
    rows = []
    for cv in (8.0,) if options.quick else (2.0, 8.0):
        trace = _with_priorities(_requests(128, 128, 26.0, options, cv=cv))
        at = f"S-S, 26 requests/s, CV {cv:g}"
        plain = _ran(f"{at}, without priorities", {}, {"rescheduler": "llumnix"}, "llumnix", trace=trace)
        params = {"high_priority": 0}
        told = _ran(
            f"{at}, with priorities",
            {},
            {"rescheduler": {"name": "llumnix", "params": params}},
            {"name": "llumnix", "params": params},
            trace=trace,
            queueing="priority",
        )
        options.progress(f"priorities at a CV of {cv:g}: done")
        high = [_Ran(each.run, each.summary["classes"]["high"]) for each in (plain, told)]
        normal = [each.summary["classes"]["normal"]["e2e_s"]["mean"] for each in (plain, told)]
        for what, key, figure, paper in (
            ("mean request", "e2e_s", "mean", "high_request"),
            ("mean first token", "ttft_s", "mean", "high_prefill"),
            ("mean token", "tpot_s", "mean", "high_decode"),
        ):
            rows.append(_gain(f"{at}: high priority, {what} without over with", high[0], high[1], key, figure, paper))
        more, both = 100.0 * (normal[1] / normal[0] - 1.0), (plain.run, told.run)
        rows.append(Row(f"{at}: mean request of the others, longer by", more, "%", "normal_request", runs=both))
    return rows


def _with_priorities(requests: Mapping[str, Any]) -> Trace:
    """Return what a generator makes, a share of it with high priority."""
    from workloads import generate
    from workloads.trace import Categorical

    trace = generate(requests["generator"]["kind"], **requests["generator"]["params"])
    urgent = np.random.default_rng(5).random(len(trace)) < HIGH_SHARE
    classes = Categorical.of(np.where(urgent, "high", "normal").tolist())
    return replace(trace, priority=np.where(urgent, 0, 1).astype(np.int64), request_class=classes)


# ------------------------------------------------------------------------------------------------ scaling, 6.5


def _scaling(options: Options) -> list[Row]:
    """Compare the replicas that each needs when both scale by the same rule."""
    rows = []
    for cv in (4.0,) if options.quick else (1.0, 4.0):
        requests = _requests(512, 512, 2.0, options, cv=cv)
        at = f"L-L, 2 requests/s, CV {cv:g}"
        found = {}
        for name, rescheduler in (("INFaaS++", None), ("Llumnix", "llumnix")):
            keys: dict[str, Any] = {"scaler": "llumnix"}
            if rescheduler is not None:
                keys["rescheduler"] = rescheduler
            found[name] = _ran(f"{at}, {name}", requests, keys, "llumnix", scales=True)
        options.progress(f"scaling at a CV of {cv:g}: done")
        freest, moved = found["INFaaS++"], found["Llumnix"]
        means = [each.summary["scaling"]["pools"]["default"]["mean_replicas"] for each in (freest, moved)]
        remark = f"{means[0]:.2f} replicas on average with INFaaS++, {means[1]:.2f} with Llumnix"
        saved, both = 100.0 * (1 - means[1] / means[0]), (freest.run, moved.run)
        rows.append(Row(f"{at}: replicas saved", saved, "%", "scaling_cost", remark, both))
        name = f"{at}: P99 first token of INFaaS++ over Llumnix"
        rows.append(_gain(name, freest, moved, "ttft_s", "p99", "scaling_p99"))
    return rows


# ---------------------------------------------------------------------------------------------------- what runs


@dataclass(frozen=True)
class _Ran:
    """A run and its figures, of all requests or of a class."""

    run: Run
    summary: Mapping[str, Any]


def _gain(what: str, base: _Ran, ours: _Ran, key: str, figure: str, paper: str) -> Row:
    one, other = base.summary[key][figure], ours.summary[key][figure]
    remark = f"{one:.3g} s against {other:.3g} s"
    return Row(what, one / other, "x", paper, remark, (base.run, ours.run))


def _ran(
    name: str,
    requests: Mapping[str, Any],
    cluster: Mapping[str, Any],
    router: Any,
    *,
    trace: Trace | None = None,
    queueing: str | None = None,
    scales: bool = False,
) -> _Ran:
    """Serve requests, of a generator or given, on 16 GPUs."""
    pool: dict[str, Any] = {
        "node": "aws-g5.12xlarge",
        "replicas": REPLICAS,
        "batching": {"name": "vllm", "params": {"priority_preemption": False}},
        "engine": {"max_num_batched_tokens": TOKENS_A_STEP, "prefix_caching": False},
    }
    if queueing is not None:
        pool["queueing"] = queueing
    if scales:
        pool |= {"replicas": 4, "min_replicas": 1, "max_replicas": REPLICAS}
    scenario = {
        **({"workload": requests} if trace is None else {}),
        "router": router,
        "network": {"nic_gbit_per_s": 64.0},
        "cluster": {"pools": [pool], **cluster},
    }
    one = Run(name, scenario, trace, MODEL)
    return _Ran(one, one.simulate().summary)


def _requests(prompt: int, output: int, rate: float, options: Options, *, cv: float = 1.0) -> dict[str, Any]:
    return generated(
        "gamma",
        rate=rate,
        requests=1500 if options.quick else 4000,
        burstiness=1 / cv**2,
        prompt=f"zipf:exponent={_exponent(prompt)},most={LONGEST}",
        output=f"zipf:exponent={_exponent(output)},most={LONGEST}",
        seed=7,
    )


@lru_cache
def _exponent(mean: int) -> float:
    """Return the exponent of a power law over 1 to `LONGEST` with this mean, by bisection."""
    lengths = np.arange(1, LONGEST + 1, dtype=np.float64)
    low, high = 0.0, 4.0
    for _ in range(50):
        middle = (low + high) / 2
        weights = lengths**-middle
        larger = math.fsum(lengths * weights) > mean * math.fsum(weights)
        low, high = (middle, high) if larger else (low, middle)
    return low


_figure = partial(PaperFigure, unit="x")

STUDY = Study(
    name="llumnix",
    paper="B. Sun et al., Llumnix: Dynamic Scheduling for Large Language Model Serving, OSDI 2024",
    claim="Migrating requests between instances cuts the P99 of first tokens by up to 14.8 times against dispatching "
    "by load alone, makes requests of high priority up to 1.5 times as fast, and saves up to 36 % of the instances.",
    figures={
        "prefill_mean": _figure(7.7, source="figure 11, generated distributions; over INFaaS++, up to"),
        "prefill_p99": _figure(14.8, source="figure 11, generated distributions; over INFaaS++, up to"),
        "decode_p99": _figure(2.0, source="figure 11, generated distributions; over INFaaS++, up to"),
        "request_p99": _figure(1.6, source="figure 11, generated distributions; over INFaaS++, up to"),
        "round_robin_p99": _figure(34.4, source="figure 11, ShareGPT and BurstGPT; over round-robin, up to"),
        "preemptions": PaperFigure(70.4, "%", "section 6.3; loss by preemptions, on average"),
        "downtime": PaperFigure(25.0, "ms", "figure 10; roughly 20 to 30 ms"),
        "high_request": _figure(1.5, source="figure 13; 1.2 to 1.5 with the CV"),
        "high_prefill": _figure(8.6, source="figure 13; 2.9 to 8.6 with the CV"),
        "high_decode": _figure(1.5, source="figure 13; 1.2 to 1.5 with the CV"),
        "normal_request": PaperFigure(4.5, "%", "figure 13; up to"),
        "scaling_cost": PaperFigure(18.0, "%", "figure 14; 16 % (Poisson) and 18 % (Gamma), 36 % at equal P99; up to"),
        "scaling_p99": _figure(12.2, source="figure 14; up to"),
    },
    setup="16 replicas of LLaMA-7B with a longer context on A10G GPUs, four to a server with 64 Gbit/s. Power-law "
    "lengths up to 6,144 tokens with means of 128 (S), 256 (M) and 512 (L), 4,000 requests (quick: 1,500). The first "
    "scheduler of vLLM. INFaaS++: the router llumnix alone, as in the paper's artifact. Rates for serving: from the "
    "paper's lowest in steps of a tenth to the highest at which INFaaS++'s queue doesn't grow, 12 steps at most. "
    "Priorities: Gamma arrivals, a tenth of the requests has high priority. Scaling: 1 to 16 replicas, a freeness of "
    "10 to 60 blocks, cold starts of a minute.",
    differences="The paper gives the largest gain of five rates a trace; here there is one rate, found by a rule. "
    "Step times are a roofline of the A10G (the A10 has more FLOP/s and the same bandwidth), and engines lose little "
    "time on the host, so that rates are higher than the paper's until memory is short. Where INFaaS++ finds room for "
    "nearly everybody (S, M) the mean first token gains and its P99, the time of the longest prompts then, doesn't: "
    "moves empty a replica for what waits there, and whoever waits elsewhere at that moment may wait longer. The share "
    "of requests with high priority and the load at which their headroom begins are assumptions; here the headroom is "
    "so large that the others pay more than in the paper. Cold starts of the paper's instances aren't known.",
    run=run,
)

"""Scheduling by learning to rank: the request whose answer is predicted to be the shortest goes first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from simulator.reproduce.runs import Run, generated
from simulator.reproduce.study import Options, PaperFigure, Row, Study

if TYPE_CHECKING:
    from simulator.result import RunResult

ACCELERATOR = "a100-40gb"
ENGINE = {"max_num_seqs": 256, "max_num_batched_tokens": 512, "prefix_caching": False}
"""Defaults of vLLM 0.4.1 with ``--enable-chunked-prefill``, as the paper's scripts run it."""
BURST, CANDIDATES, SAMPLES, LIMIT_S = 2000, 10_000, 1000, 300.0
"""Requests of a burst (section 5.2); prompts, samples and seconds of synthetic data generation (section 5.3)."""
RATE, ARRIVALS_S = 64.0, 60.0
"""Highest request rate of figure 3; for how long requests come: ``--request-time`` of the paper's bench-lmsys.sh."""
SIGMA = 1.0
"""Sigma of answers' lengths: an assumption; of their distribution the paper states the mean."""
SEED = 23
FAIR_RATE = 32.0
"""Requests/s of figure 4, its highest."""
AGEING = 30.0
"""Predicted tokens that a second of waiting takes off: about as many as a second of decoding gives; a choice."""


@dataclass(frozen=True)
class _Dataset:
    """Lengths like a dataset's, by Llama-3-8B, and how well its answers' order is predicted.

    Attributes
    ----------
    tau
        Kendall's tau of the paper's predictor, OPT-125M (table 8).
    """

    name: str
    prompt: str
    output: str
    tau: float

    @property
    def noise(self) -> float:
        """Sigma of the predictor's error that gives this tau.

        The logarithms of answers and predictions are normal with correlation r = SIGMA / sqrt(SIGMA^2 + noise^2), and
        tau = 2 / pi asin(r) then (Kruskal, Ordinal Measures of Association, JASA 1958).
        """
        return SIGMA * math.sqrt(1 / math.sin(math.pi * self.tau / 2) ** 2 - 1)


_DATASETS = (
    # Appendix B: mean prompts of 85 and 240 tokens, mean answers of 293 and 412 (Llama-3-8B). Medians are those of
    # log-normals that have these means when cut at 2,048 tokens, where figure 7 ends. Sigma of ShareGPT's prompts: 1 %
    # of them exceed 900 tokens (appendix G); of LMSYS-Chat-1M's: an assumption.
    _Dataset(
        "LMSYS-Chat-1M",
        "lognormal:median=51.6,sigma=1,max=2048",
        f"lognormal:median=182.3,sigma={SIGMA:g},max=2048",
        0.64,
    ),
    _Dataset(
        "ShareGPT",
        "lognormal:median=193.1,sigma=0.66,max=2048",
        f"lognormal:median=263.5,sigma={SIGMA:g},max=2048",
        0.55,
    ),
)


def run(options: Options) -> Sequence[Row]:
    """Bursts, high loads, synthetic data, and what waiting long counts."""
    rows: list[Row] = []
    for dataset in _DATASETS[:1] if options.quick else _DATASETS:
        rows += [*_predictor(dataset), *_chat(dataset, options), *_samples(dataset)]
        options.progress(f"{dataset.name}: done")
    return [*rows, *_starvation(options)]


# ------------------------------------------------------------------------------------------------------ what runs


def burst(dataset: _Dataset, order: str, requests: int = BURST) -> Run:
    """Return the run of requests that are all there at the start."""
    workload = generated("closed-loop", requests=requests, prompt=dataset.prompt, output=dataset.output, seed=SEED)
    return _run(f"{dataset.name} {requests} at once {order}", dataset, order, workload)


def arriving(dataset: _Dataset, order: str, rate: float, **keys: Any) -> Run:
    """Return the run of Poisson arrivals for a minute."""
    workload = generated(
        "poisson", rate=rate, duration_s=ARRIVALS_S, prompt=dataset.prompt, output=dataset.output, seed=SEED
    )
    return _run(f"{dataset.name} {rate:g} requests per s {order}", dataset, order, workload, **keys)


def _run(
    name: str,
    dataset: _Dataset,
    order: str,
    workload: Mapping[str, Any],
    *,
    model: str = "llama-3-8b",
    tp: int = 1,
) -> Run:
    """Return the run of an order: ``fcfs``, ``ranking``, ``ranking with ageing`` or ``oracle``."""
    shortest: Any = {"name": "sjf", "params": {"ageing_tokens_per_s": AGEING}} if "ageing" in order else "sjf"
    pool = {
        "accelerator": ACCELERATOR,
        "parallel": {"tp": tp},
        "batching": "vllm-v1",
        "queueing": "fcfs" if order == "fcfs" else shortest,
        "engine": ENGINE,
    }
    scenario: dict[str, Any] = {"workload": workload, "model": model, "cluster": {"pools": [pool]}}
    if order != "fcfs":
        noisy = {"kind": "noisy", "sigma": dataset.noise}
        scenario["predictor"] = "oracle" if order == "oracle" else noisy
    return Run(name, scenario)


# ------------------------------------------------------------------------------------------------------- figures


def latencies_s(result: RunResult) -> npt.NDArray[np.float64]:
    """Return every request's end-to-end latency over its output tokens, s/token (section 5.1)."""
    table = result.requests
    found: npt.NDArray[np.float64] = ((table["last_token_s"] - table["arrival_s"]) / table["output_tokens"]).to_numpy()
    return found


def kendalls_tau(one: Run) -> float:
    """Return Kendall's tau of what a run's predictor says and the lengths of the answers."""
    from scipy.stats import kendalltau

    from simulator.build import load_trace, predictions
    from simulator.scenario import Scenario

    scenario = Scenario.from_mapping(one.scenario)
    lengths = load_trace(scenario).output_tokens
    return float(kendalltau(lengths, predictions(scenario, lengths)).statistic)


def longest_waits_s(result: RunResult) -> npt.NDArray[np.float64]:
    """Return each request's longest wait for a token, the first one included, seconds (equation 3)."""
    table = result.requests
    first = (table["first_token_s"] - table["arrival_s"]).to_numpy()
    found: npt.NDArray[np.float64] = np.fmax(first, table["itl_max_s"].to_numpy())
    return found


def _predictor(dataset: _Dataset) -> list[Row]:
    one = burst(dataset, "ranking")
    text = f"{dataset.name}: Kendall's tau of the predictor"
    return [Row(text, kendalls_tau(one), "tau", f"tau-{dataset.name}", f"noise of sigma {dataset.noise:.2f}", (one,))]


def _chat(dataset: _Dataset, options: Options) -> list[Row]:
    """Latency of a burst, and of a load that is too high."""
    rows = []
    runs = {order: burst(dataset, order) for order in ("fcfs", "ranking", "oracle")}
    found = {order: latencies_s(one.simulate()) for order, one in runs.items()}
    for name, figure in (("mean", np.mean), ("P90", lambda each: np.percentile(each, 90))):
        value = {order: float(figure(each)) for order, each in found.items()}
        for order in ("fcfs", "ranking"):
            key = f"{name}-{order}-{dataset.name}"
            text = f"{dataset.name}, burst of 2,000, {order}: {name} latency"
            rows.append(Row(text, value[order], "s/token", key, "", (runs[order],)))
        both = (runs["fcfs"], runs["ranking"])
        text = f"{dataset.name}, burst of 2,000: {name} latency, fcfs over ranking"
        rows.append(Row(text, value["fcfs"] / value["ranking"], "x", f"{name}-{dataset.name}", "", both))
        text = f"{dataset.name}, burst of 2,000: {name} latency, fcfs over an oracle's ranking"
        rows.append(Row(text, value["fcfs"] / value["oracle"], "x", runs=(runs["fcfs"], runs["oracle"])))
    load = {order: arriving(dataset, order, RATE) for order in ("fcfs", "ranking")}
    means = {order: float(latencies_s(one.simulate()).mean()) for order, one in load.items()}
    remark = f"{means['fcfs']:.3g} against {means['ranking']:.3g} s/token"
    text = f"{dataset.name}, {RATE:g} requests/s: mean latency, fcfs over ranking"
    rows.append(Row(text, means["fcfs"] / means["ranking"], "x", "load", remark, tuple(load.values())))
    return rows


def _samples(dataset: _Dataset) -> list[Row]:
    """Time to generate a thousand answers of ten thousand prompts, and answers within five minutes."""
    runs = {order: burst(dataset, order, CANDIDATES) for order in ("fcfs", "ranking")}
    ends = {order: np.sort(one.simulate().requests["last_token_s"].to_numpy()) for order, one in runs.items()}
    seconds = {order: float(each[SAMPLES - 1]) for order, each in ends.items()}
    within = {order: float((each <= LIMIT_S).sum()) for order, each in ends.items()}
    both, name = tuple(runs.values()), dataset.name
    return [
        Row(
            f"{name}: time to generate 1,000 of 10,000, fcfs over ranking",
            seconds["fcfs"] / seconds["ranking"],
            "x",
            f"time-{name}",
            f"{seconds['fcfs']:.1f} against {seconds['ranking']:.1f} s",
            both,
        ),
        Row(
            f"{name}: samples within 5 min, ranking over fcfs",
            within["ranking"] / within["fcfs"],
            "x",
            f"samples-{name}",
            f"{within['ranking']:.0f} against {within['fcfs']:.0f}",
            both,
        ),
    ]


def _starvation(options: Options) -> list[Row]:
    """Longest waits with and without ageing, at a load that is too high."""
    dataset = _DATASETS[0]
    model = {} if options.quick else {"model": "llama-3-70b", "tp": 8}
    size = "8B" if options.quick else "70B"
    runs = {order: arriving(dataset, order, FAIR_RATE, **model) for order in ("ranking", "ranking with ageing")}
    found = {order: one.simulate() for order, one in runs.items()}
    both = tuple(runs.values())
    rows = []
    for name, figure in (("mean", np.mean), ("P99", lambda each: np.percentile(each, 99))):
        without, aged = (float(figure(longest_waits_s(found[order]))) for order in runs)
        text = f"Llama-3-{size}, {FAIR_RATE:g} requests/s: {name} of longest waits, without ageing over with"
        paper = "waits" if name == "mean" else None
        rows.append(Row(text, without / aged, "x", paper, f"{without:.3g} against {aged:.3g} s", both))
    without, aged = (float(latencies_s(found[order]).mean()) for order in runs)
    text = f"Llama-3-{size}, {FAIR_RATE:g} requests/s: mean latency, longer with ageing by"
    return [
        *rows,
        Row(text, 100 * (aged / without - 1), "%", "overhead", f"{without:.3g} and {aged:.3g} s/token", both),
    ]


_TABLE_1 = {
    ("mean", "fcfs", "LMSYS-Chat-1M"): 1.73,
    ("mean", "ranking", "LMSYS-Chat-1M"): 0.38,
    ("P90", "fcfs", "LMSYS-Chat-1M"): 4.86,
    ("P90", "ranking", "LMSYS-Chat-1M"): 0.52,
    ("mean", "fcfs", "ShareGPT"): 1.15,
    ("mean", "ranking", "ShareGPT"): 0.56,
    ("P90", "fcfs", "ShareGPT"): 1.60,
    ("P90", "ranking", "ShareGPT"): 0.67,
}
"""Latency with a burst of 2,000 requests, Llama-3-8B, s/token."""


def _stated() -> dict[str, PaperFigure]:
    """Return the paper's figures by key."""
    found = {
        f"{name}-{order}-{dataset}": PaperFigure(value, "s/token", "table 1")
        for (name, order, dataset), value in _TABLE_1.items()
    }
    for dataset in ("LMSYS-Chat-1M", "ShareGPT"):
        for name in ("mean", "P90"):
            ratio = _TABLE_1[name, "fcfs", dataset] / _TABLE_1[name, "ranking", dataset]
            found[f"{name}-{dataset}"] = PaperFigure(round(ratio, 2), "x", "table 1, quotient")
    return found | {
        "tau-LMSYS-Chat-1M": PaperFigure(0.64, "tau", "table 8, OPT-125M"),
        "tau-ShareGPT": PaperFigure(0.55, "tau", "table 8, OPT-125M"),
        "load": PaperFigure(6.9, "x", "section 5.2, figure 3; up to, over models and datasets"),
        "time-LMSYS-Chat-1M": PaperFigure(6.5, "x", "abstract, table 2: 197.4 against 30.5 s"),
        "time-ShareGPT": PaperFigure(2.4, "x", "section 5.3, table 2: 343.3 against 143.2 s"),
        "samples-LMSYS-Chat-1M": PaperFigure(3.29, "x", "table 2, quotient: 4434 against 1348"),
        "samples-ShareGPT": PaperFigure(2.03, "x", "table 2, quotient: 1706 against 841"),
        "waits": PaperFigure(3.4, "x", "section 5.5, figure 4; up to"),
        "overhead": PaperFigure(30.0, "%", "section 5.5, figure 5; less than, most often below 10 %"),
    }


STUDY = Study(
    name="learning-to-rank",
    paper="Y. Fu et al., Efficient LLM Scheduling by Learning to Rank, NeurIPS 2024, arXiv:2408.15792",
    claim="Shortest predicted answers first give 2.8 times lower latency in chat (P90 of a burst, against predictions "
    "by the model itself) and 6.5 times the throughput of first come, first served in making synthetic data.",
    figures=_stated(),
    setup="Llama-3-8B on one A100-40GB, vLLM v1's steps (decodes beside chunks of prompts) of at most 512 tokens and "
    "256 requests, log-normal lengths with the datasets' means. fcfs, against the shortest predicted answer first; the "
    "predictor is the true length with a log-normal error, as large as gives the paper's Kendall's tau. A burst of "
    "2,000 requests and a minute of 64 requests/s: end-to-end latency over output tokens. Synthetic data: the time to "
    "the 1,000th answer, and the answers of 5 minutes, of 10,000 prompts that are there at the start. Longest waits: "
    "Llama-3-70B on eight A100-40GB (quick: 8B on one), a minute of 32 requests/s. Quick: LMSYS-Chat-1M alone.",
    differences="The paper's 2.8 is against the model's own predictions, which aren't simulated; fcfs is the baseline "
    "here. Its vLLM 0.4.1 in eager mode takes several times as long for the same requests as the engine here, so that "
    "queues are shorter here, and most of the 10,000 prompts are done after 5 minutes. Of lengths the means are known "
    "and not the spread, on which gains depend: LMSYS-Chat-1M's real answers seem to differ more than a log-normal of "
    "sigma 1. The predictor's own time (below 2 %) isn't modelled. Ageing here is linear and running requests are "
    "never preempted for shorter ones, where the paper counts steps and preempts: without preemption there are no "
    "long gaps for it to mend, so that it takes from the longest waits and adds to the mean.",
    run=run,
)

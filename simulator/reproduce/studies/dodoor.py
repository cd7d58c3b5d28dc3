"""Dodoor: placement on cached loads, with fewer messages than asking at each decision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from simulator.reproduce.runs import Run, generated
from simulator.reproduce.study import Options, PaperFigure, Row, Study

_RATES = (2.8, 4.2)
"""Requests/s for each replica, on average: a choice."""
_ACCELERATORS = ("a100-80gb", "l40s")
_ROUTERS: dict[str, Any] = {
    "random": "random",
    "power-of-two (outstanding requests)": "power-of-two",
    "probed": {"name": "dodoor", "params": {"loads": "probed"}},
    "cached": "dodoor",
}


def run(options: Options) -> Sequence[Row]:
    """Compare messages and latency of cached loads with those of probed ones, of two choices, and of none."""
    rows = []
    for rate in _RATES[1:] if options.quick else _RATES:
        found, runs = {}, {}
        for name in _ROUTERS:
            runs[name] = _run(name, rate, options)
            found[name] = runs[name].simulate().summary
            options.progress(f"{rate:g} requests/s a replica, {name}: P99 request {found[name]['e2e_s']['p99']:.1f} s")
        at = f"{rate:g} requests/s a replica"
        cached = found["cached"]
        sent = {name: found[name]["router"]["figures"]["messages"] for name in ("probed", "cached")}
        rows.append(
            Row(
                f"{at}: messages fewer than with probes",
                100 * (1 - sent["cached"] / sent["probed"]),
                "%",
                "messages",
                f"{sent['cached']:.0f} against {sent['probed']:.0f}",
                (runs["probed"], runs["cached"]),
            )
        )
        for name in ("probed", "power-of-two (outstanding requests)", "random"):
            for what, key, paper in (("P99 first token", "ttft_s", None), ("P99 request", "e2e_s", "tail")):
                base, ours = found[name][key]["p99"], cached[key]["p99"]
                rows.append(
                    Row(
                        f"{at}: {what} shorter than {name}",
                        100 * (1 - ours / base),
                        "%",
                        paper if name == "probed" else None,
                        f"{base:.3g} s against {ours:.3g} s",
                        (runs[name], runs["cached"]),
                    )
                )
    return rows


def _run(name: str, rate: float, options: Options) -> Run:
    """Return the run with a router."""
    size = 10 if options.quick else 50
    requests = generated(
        "poisson",
        rate=rate * size * len(_ACCELERATORS),
        requests=3000 if options.quick else 15000,
        prompt="lognormal:median=1000,sigma=1.0,max=8192",
        output="lognormal:median=250,sigma=0.8,max=2048",
        seed=11,
    )
    scenario = {
        "workload": requests,
        "model": "llama-3.1-8b",
        "router": _ROUTERS[name],
        "predictor": "oracle",
        "cluster": {"pools": [{"name": each, "accelerator": each, "replicas": size} for each in _ACCELERATORS]},
    }
    return Run(f"{rate:g} requests per s a replica, {name}", scenario)


STUDY = Study(
    name="dodoor",
    paper="W. Da and E. Kalyvianaki, Dodoor: Efficient Randomized Decentralized Scheduling with Load Caching for "
    "Heterogeneous Tasks and Clusters, arXiv:2510.12889",
    claim="Two choices on load scores that are cached and refreshed in batches need 55 to 66 % fewer messages than "
    "schedulers that probe, and shorten the tail by 22 to 25 %.",
    figures={
        "messages": PaperFigure(66.0, "%", "abstract; 55 to 66 %"),
        "tail": PaperFigure(24.6, "%", "abstract; 21.9 and 24.6 %, best of its workloads against its baselines"),
    },
    setup="50 A100 and 50 L40S (quick: 10 and 10) serve Llama-3.1-8B, Poisson arrivals of log-normal lengths at two "
    "rates, output lengths known. 'cached' and 'probed' are the same rule, with loads refreshed every 50 decisions or "
    "asked for at each; five schedulers get each refresh.",
    differences="The paper's tasks are virtual machines and serverless functions on CPUs, whose work is known before; "
    "here requests share a GPU, and work pending is counted in tokens. Its tail gains come from the load score against "
    "schedulers that count tasks and whose probes take time; here probes are instant, so cached loads can only lose "
    "against the same rule with probes. How many placements and ends one message to the store tells of (10) is an "
    "assumption, as is the number of schedulers.",
    run=run,
)

"""Splitwise: prompts and tokens on machines of their own, against machines that mix them, at equal power and cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from simulator.reproduce.runs import Run, generated
from simulator.reproduce.study import Options, PaperFigure, Row, Study

if TYPE_CHECKING:
    from workloads import Trace

MODEL = "llama-3.1-70b"
"""The layers of the paper's Llama2-70B, with a longer context and a vocabulary four times as large."""
PERCENTILES = (50, 90, 99)
BOUNDS = {"ttft": (2.0, 3.0, 6.0), "tbt": (1.25, 1.5, 5.0), "e2e": (1.25, 1.5, 5.0)}
"""Table 6: largest slowdown against an idle DGX-A100 at each of the percentiles; all nine must hold."""
PRICES = {"A": 2.21, "H": 4.76}
"""Of a GPU hour, $, as in SplitwiseSim's notebooks/plots.ipynb, which sizes the clusters of equal cost with them."""
POWERS = {"A": 24.8, "H": 44.0, "Hcap": 30.8}
"""Provisioned for a machine, as in the same notebook; only ratios matter (table 5: 1, 1.75, 1.23)."""
SCALE = 5
"""The paper's clusters have so many times the machines of those here."""
RESOLUTION = 0.06
"""Bisection ends when the bounds of the load are this share apart."""
SEED = 11


@dataclass(frozen=True)
class Design:
    """A cluster: machines for prompts and for tokens, or for both where ``token`` is empty.

    Attributes
    ----------
    prompt, token
        Machine types: ``A`` (DGX-A100), ``H`` (DGX-H100), ``Hcap`` (DGX-H100 with GPUs capped at 350 W).
    machines
        Of each, in the paper.
    """

    name: str
    prompt: str
    token: str
    machines: tuple[int, int]

    @property
    def counts(self) -> tuple[int, int]:
        """Machines simulated."""
        first, second = self.machines
        return max(1, round(first / SCALE)), max(1, round(second / SCALE)) if second else 0

    @property
    def cost(self) -> float:
        """Of the machines simulated, $ an hour."""
        first, second = self.counts
        token = PRICES[(self.token or self.prompt)[0]]
        return 8 * (first * PRICES[self.prompt[0]] + second * token)

    @property
    def power(self) -> float:
        """Provisioned for the machines simulated, in units of `POWERS`."""
        first, second = self.counts
        return first * POWERS[self.prompt] + second * POWERS[self.token or self.prompt]


@dataclass(frozen=True)
class Requests:
    """The requests at 1 request/s: the ``workload`` that makes them, or a trace."""

    workload: Mapping[str, Any]
    trace: Trace | None = None


_SIZES = {
    # notebooks/plots.ipynb of SplitwiseSim; section 6.2 and figure 16 have the same numbers where they state them.
    "conversation": {
        "power": {"AA": (45, 25), "HH": (25, 15), "HA": (25, 26), "HHcap": (25, 21)},
        "cost": {"AA": (51, 35), "HA": (30, 21), "HHcap": (30, 10)},
    },
    "coding": {
        "power": {"AA": (55, 15), "HH": (35, 5), "HA": (35, 8), "HHcap": (35, 7)},
        "cost": {"AA": (66, 20), "HA": (35, 10), "HHcap": (35, 7)},
    },
}
_LENGTHS = {
    "conversation": ("lognormal:median=1020,sigma=0.81,max=14050", "lognormal:median=129,sigma=0.68,max=1000"),
    "coding": ("lognormal:median=1500,sigma=0.81,max=7437", "lognormal:median=13,sigma=1.2,max=1899"),
}
"""Medians: section 3.1. Spread: log-normal with the mean and standard deviation in SplitwiseSim's generate_trace.py
(1155 and 1109, 211 and 163; 2048 and 1973, 28 and 60), which has the largest too; coding outputs by median and mean."""


def designs(workload: str, quick: bool) -> list[Design]:
    """Return the clusters compared."""
    found = [Design("Baseline-A100, equal power", "A", "", (70, 0)), Design("Baseline-H100", "H", "", (40, 0))]
    types = {"AA": ("A", "A"), "HH": ("H", "H"), "HA": ("H", "A"), "HHcap": ("H", "Hcap")}
    for name, machines in _SIZES[workload]["power"].items():
        if not quick or name in ("AA", "HA"):
            found.append(Design(f"Splitwise-{name}, equal power", *types[name], machines))
    if not quick:
        found.append(Design("Baseline-A100, equal cost", "A", "", (86, 0)))
        for name, machines in _SIZES[workload]["cost"].items():
            found.append(Design(f"Splitwise-{name}, equal cost", *types[name], machines))
    return found


def run(options: Options) -> Sequence[Row]:
    """Highest load of each design within the objectives, and the ratios that the paper states."""
    workload, requests = drawn(options, 250 if options.quick else 1500)
    on_one = [one_machine(machine, requests) for machine in ("A", "H")]
    alone, on_h100 = (latencies(one) for one in on_one)
    runs: dict[str, tuple[Run, ...]] = {}
    loads: dict[str, float] = {}
    told: dict[str, Design] = {}
    rows = [
        Row(
            f"{workload}: median {what.upper()} of a request alone, DGX-H100 over DGX-A100",
            float(np.nanmedian(on_h100[what]) / np.nanmedian(alone[what])),
            "x",
            f"{what}-{workload}",
            remark=f"{np.nanmedian(on_h100[what]) * 1e3:.0f} and {np.nanmedian(alone[what]) * 1e3:.0f} ms",
            runs=on_one,
        )
        for what in ("ttft", "tbt")
    ]
    for design in designs(workload, options.quick):
        load, binds = highest_load(design, requests, alone)
        loads[design.name], told[design.name] = load, design
        first, second = design.counts
        machines = f"{first} prompt and {second} token machines" if second else f"{first} machines"
        remark = f"{machines}, {design.cost:.0f} $/h, power {design.power:.0f}; beyond it {binds}"
        options.progress(f"{design.name}: {load:.1f} requests/s; {remark}")
        runs[design.name] = (at_load(design, requests, load), on_one[0]) if load else ()
        what = f"{workload}: highest load of {design.name}"
        rows.append(Row(what, load, "requests/s", remark=remark, runs=runs[design.name]))
    base_a, base_h = "Baseline-A100, equal power", "Baseline-H100"
    compared: list[tuple[str, str, str, str | None]] = [
        ("AA", "power", base_a, "aa-power"),
        ("HA", "power", base_h, "ha-power"),
        ("AA", "power", base_h, "cheap"),
    ]
    if not options.quick:
        compared += [("AA", "cost", base_h, "aa-cost"), ("HH", "power", base_h, None), ("HA", "cost", base_h, None)]
        compared += [("HHcap", "power", base_h, None), ("HHcap", "cost", base_h, None)]
    for_conversation = ("aa-power", "ha-power")
    for name, equal, base, key in compared:
        ours = f"Splitwise-{name}, equal {equal}"
        stated = key if workload == "conversation" or key not in for_conversation else None
        row = _ratio(workload, ours, base, loads, told, stated)
        rows.append(replace(row, runs=(*runs[ours], *runs[base])))
    alike = [("Splitwise-AA, equal power", base_a), ("Splitwise-HH, equal power", base_h)]
    gains = {(ours, base): loads[ours] / loads[base] for ours, base in alike if ours in loads and loads[base]}
    ours, base = most = max(gains, key=gains.__getitem__)
    both = (*runs[ours], *runs[base])
    rows.append(Row(f"{workload}: most at the same power and cost", gains[most], "x", "most", f"by {ours}", both))
    return rows


def _ratio(
    workload: str, ours: str, base: str, loads: dict[str, float], told: dict[str, Design], key: str | None
) -> Row:
    cost, power = told[ours].cost / told[base].cost, told[ours].power / told[base].power
    remark = f"at {cost:.2f} of its cost and {power:.2f} of its power"
    what = f"{workload}: {ours} over {base}"
    if not loads[base]:
        return Row(what, None, "x", key, f"{base} keeps the objectives at no load")
    return Row(what, loads[ours] / loads[base], "x", key, remark)


def highest_load(design: Design, requests: Requests, alone: dict[str, npt.NDArray[np.float64]]) -> tuple[float, str]:
    """Return the highest load that keeps all nine objectives, requests/s, and those that a higher one misses."""
    low, high, binds = 0.0, 1.0 * sum(design.counts), ""
    while not (beyond := missed(design, requests, alone, high)):
        low, high = high, 2 * high
    binds = beyond
    while high - low > RESOLUTION * high and high > 0.05:
        load = (low + high) / 2
        beyond = missed(design, requests, alone, load)
        low, high = (low, load) if beyond else (load, high)
        binds = beyond or binds
    return low, binds


def missed(design: Design, requests: Requests, alone: dict[str, npt.NDArray[np.float64]], load: float) -> str:
    """Return the objectives that a load misses, in words; empty: it keeps them all."""
    found = latencies(at_load(design, requests, load))
    beyond = []
    for what, bounds in BOUNDS.items():
        slowdown = found[what] / alone[what]
        slowdown = slowdown[np.isfinite(slowdown)]
        for percentile, bound in zip(PERCENTILES, bounds, strict=True):
            reached = float(np.percentile(slowdown, percentile))
            if reached > bound:
                beyond.append(f"P{percentile} {what.upper()} {reached:.2f} of {bound:g}")
    return ", ".join(beyond)


def at_load(design: Design, requests: Requests, load: float) -> Run:
    """Return the run of a design at a load, requests/s."""
    scenario = {"workload": {**requests.workload, "rate_scale": load}, **_scenario(design)}
    return Run(f"{design.name} {load:.4g} requests per s", scenario, requests.trace)


def one_machine(machine: str, requests: Requests) -> Run:
    """Return the run of each request alone on one machine."""
    scenario = _scenario(Design("one machine", machine, "", (SCALE, 0)))
    one_by_one = {**requests.workload, "loop": {"kind": "closed", "clients": 1}}
    return Run(f"one DGX-{machine}100, one request at a time", {"workload": one_by_one, **scenario}, requests.trace)


def latencies(one: Run) -> dict[str, npt.NDArray[np.float64]]:
    """Return the time to first token, the mean time of later ones (NaN without) and the time to the last, s, by row."""
    table = one.simulate().requests.sort_values("request_id")
    arrival, first, last = (table[f"{what}_s"].to_numpy(float) for what in ("arrival", "first_token", "last_token"))
    later = table["output_tokens"].to_numpy(float) - 1
    tbt = np.divide(last - first, later, out=np.full_like(later, np.nan), where=later > 0)
    return {"ttft": first - arrival, "tbt": tbt, "e2e": last - arrival}


def _scenario(design: Design) -> dict[str, Any]:
    """Return the scenario of a design: tensor parallelism 8, the batching of Splitwise on all machines."""
    first, second = design.counts
    pools = []
    for name, machine, count, role in (
        ("prompt", design.prompt, first, "prefill" if second else "mixed"),
        ("token", design.token, second, "decode"),
    ):
        if not count:
            continue
        pool: dict[str, Any] = {"name": name, "role": role, "replicas": count, "parallel": {"tp": 8}}
        pool |= {"batching": "splitwise", "node": "dgx-a100" if machine == "A" else "dgx-h100"}
        if machine == "Hcap":
            pool["power"] = {"cap_w": 350}
        pools.append(pool)
    scenario: dict[str, Any] = {"model": MODEL, "cluster": {"pools": pools}, "predictor": "oracle"}
    if second:
        slower = "A" in (design.prompt, design.token)
        scenario["disaggregation"] = {"kind": "splitwise", "sync_s": 0.008 if slower else 0.005}
    else:
        scenario["router"] = "least-tokens"
    return scenario


def drawn(options: Options, count: int) -> tuple[str, Requests]:
    """Return the workload's name and its requests, at 1 request/s: generated, or drawn from the user's trace."""
    from workloads import Trace, read_trace

    if options.trace is None:
        prompt, output = _LENGTHS["conversation"]
        made = generated("poisson", rate=1.0, requests=count, prompt=prompt, output=output, seed=SEED)
        return "conversation", Requests(made)
    trace = read_trace(options.trace)
    rng = np.random.default_rng(SEED)
    chosen = rng.integers(0, len(trace), count)
    arrivals = np.cumsum(rng.exponential(1.0, count))
    found = Trace(
        arrival_s=arrivals - arrivals[0],
        prompt_tokens=trace.prompt_tokens[chosen],
        output_tokens=trace.output_tokens[chosen],
        source=f"{trace.source}, {count} drawn",
    )
    return "coding" if float(np.median(trace.output_tokens)) < 50 else "conversation", Requests({}, found)


STUDY = Study(
    name="splitwise",
    paper="P. Patel et al., Splitwise: Efficient Generative LLM Inference Using Phase Splitting, ISCA 2024",
    claim="Clusters that compute prompts and tokens on different machines serve 1.4 times the load at 20 % lower cost, "
    "or 2.35 times the load at the same power and cost, within the same latency objectives.",
    figures={
        "ttft-conversation": PaperFigure(0.54, "x", "table 4, Llama2-70B: 84 of 155 ms"),
        "ttft-coding": PaperFigure(0.51, "x", "table 4, Llama2-70B: 95 of 185 ms"),
        "tbt-conversation": PaperFigure(0.70, "x", "table 4, Llama2-70B: 28 of 40 ms"),
        "tbt-coding": PaperFigure(0.70, "x", "table 4, Llama2-70B (of its 31 and 52 ms the ratio would be 0.60)"),
        "aa-power": PaperFigure(2.15, "x", "section 6.2, figure 18a; conversation, same power and cost"),
        "ha-power": PaperFigure(
            1.18, "x", "section 6.2, figure 18a; conversation, 10 % lower cost, same power: by cost over Baseline-H100"
        ),
        "aa-cost": PaperFigure(1.4, "x", "section 6.3, figure 18b; same cost, 25 % more power (workload not stated)"),
        "cheap": PaperFigure(1.4, "x", "abstract; at 20 % lower cost, up to: by cost and power this pair of designs"),
        "most": PaperFigure(2.35, "x", "abstract; same power and cost, up to"),
    },
    setup="The highest Poisson load at which the slowdowns of time to first token, mean time between tokens and "
    "end-to-end time, against the same request alone on one DGX-A100, keep within table 6 at the 50th, 90th and 99th "
    "percentile. Clusters: a fifth of SplitwiseSim's for equal power and equal cost, tensor parallelism 8 in each "
    "machine, all with the batching policy splitwise (the paper's mixed batching); baselines send a request to the "
    "machine with the fewest outstanding tokens. Requests: 1,500 (quick: 250, and only AA and HA at equal power), "
    "lengths with the paper's medians of the conversation trace, or drawn from a trace; the sizes of the coding "
    "clusters are taken where its median answer is short.",
    differences="The paper's machines run vLLM of 2023, and its clusters are sized for BLOOM-176B (section 6.4); here "
    "it is the 70B model, whose KV is a twelfth as large, with kernels of today: a DGX-H100 is further ahead of the "
    "DGX-A100 that the objectives are relative to (first rows), so its mixed steps keep them at higher loads, and "
    "designs of A100 gain less on Baseline-H100, most of all where answers are long. A fifth of the machines smooth "
    "bursts less, and pools are rounded to whole machines. SplitwiseSim takes 200 GB/s for a transfer; here it goes "
    "over eight interfaces of 200 or 400 Gbit/s. HHcap slows steps by a model of power, not by the paper's measurement "
    "that tokens don't feel the cap.",
    run=run,
    takes_trace="lengths are drawn from it with replacement, as SplitwiseSim does",
)

"""What is measured: each case is a generator of runs, and is sent what was measured of the one before."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.measuring import ROOT, Measurement

Runs = Generator["Run", Measurement, None]


class Skipped(Exception):  # noqa: N818  # nothing is wrong with the simulator
    """The case can't be measured here; the message says why."""


@dataclass(frozen=True)
class Run:
    """One simulation to measure.

    Attributes
    ----------
    stepwise_requests
        The first requests on which it is compared with a stepwise run of the same; None: all.
    once
        Too long for medians.
    """

    name: str
    scenario: Mapping[str, Any]
    stepwise_requests: int | None = None
    once: bool = False


@dataclass(frozen=True)
class Setting:
    """Where and how large: the folder of the traces, and whether small sizes will do."""

    traces: Path = field(default=ROOT.parent / "shared" / "data" / "traces")
    quick: bool = False

    def size(self, full: int, quick: int) -> int:
        """Return the size to take."""
        return quick if self.quick else full

    def trace(self, name: str) -> Path | None:
        """Return the path of a trace, None where it is absent."""
        path = self.traces / name
        return path if path.is_file() else None


AZURE = "azure_llm_2023_conv.csv"
MOONCAKE = "mooncake_conversation.jsonl"

# Lognormal with the medians and means of the Azure conversation trace: sigma = sqrt(2 ln(mean / median)).
AZURE_PROMPT = "lognormal:median=1020,sigma=0.499,max=14050"
AZURE_OUTPUT = "lognormal:median=129,sigma=0.992,max=1000"
AZURE_RATE = 5.53
AZURE_REQUESTS = 19_366

SARATHI = {"batching": "sarathi", "accelerator": "a100-80gb", "engine": {"max_num_batched_tokens": 512}}
VLLM_V1 = {"batching": "vllm-v1", "accelerator": "a100-80gb"}
POLICIES: Mapping[str, Mapping[str, Any]] = {"sarathi": SARATHI, "vllm-v1": VLLM_V1}

LOADS = (0.02, 0.1, 0.3, 0.6, 1.0, 1.5, 3.0)
"""Requests offered over the requests that a saturated replica serves in the same time."""


def scenario(workload: Mapping[str, Any], pool: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Return a scenario of one pool, of the 8B model."""
    return {"model": "llama-3.1-8b", "workload": dict(workload), "cluster": {"pools": [dict(pool)]}, **more}


def generated(kind: str, **params: Any) -> dict[str, Any]:
    """Return a workload that a generator makes."""
    return {"generator": {"kind": kind, "params": params}}


def like_azure(requests: int, rate: float = AZURE_RATE) -> dict[str, Any]:
    """Return Poisson arrivals with lengths like those of the Azure conversation trace."""
    return generated("poisson", requests=requests, rate=rate, prompt=AZURE_PROMPT, output=AZURE_OUTPUT)


def azure_trace(setting: Setting) -> tuple[dict[str, Any], str]:
    """Return the Azure conversation trace, or requests like it where it is absent, and which it is."""
    path = setting.trace(AZURE)
    if path is None:
        return like_azure(AZURE_REQUESTS), "stand-in"
    return {"trace": str(path)}, "whole"


def azure(setting: Setting) -> Runs:
    """Serve the Azure conversation trace by one replica, whole and its first 2,000 requests: (a) of the targets."""
    workload, whole = azure_trace(setting)
    first = setting.size(2000, 200)
    for policy, pool in POLICIES.items():
        if not setting.quick:
            yield Run(f"{whole}, {policy}", scenario(workload, pool))
        yield Run(f"first {first:,}, {policy}", scenario({**workload, "limit": first}, pool))


def load(setting: Setting) -> Runs:
    """Serve the same at loads from idle to three times what a replica can serve: (b)."""
    workload, _ = azure_trace(setting)
    limit = setting.size(AZURE_REQUESTS, 200)
    for policy, pool in POLICIES.items():

        def at(rate_scale: float, pool: Mapping[str, Any] = pool) -> dict[str, Any]:
            return scenario({**workload, "limit": limit, "rate_scale": rate_scale}, pool)

        at_once = yield Run(f"all at once, {policy}", at(1e6), 2000)
        saturation = at_once.requests / at_once.simulated_s
        for offered in LOADS[:: setting.size(1, 3)]:
            yield Run(f"load {offered:g}, {policy}", at(offered * saturation / AZURE_RATE), 2000)


def burstgpt(setting: Setting) -> Runs:
    """Serve 61 days of BurstGPT-style traffic by four replicas: (c)."""
    requests = setting.size(1_430_000, 1000)
    traffic = generated("burstgpt", requests=requests, rate=1_430_000 / (61 * 86400), failure_rate=0.0)
    pool = {**VLLM_V1, "replicas": 4}
    yield Run("61 days, 4 replicas", scenario(traffic, pool), setting.size(5000, 200), once=True)


def replicas(setting: Setting) -> Runs:
    """Put 1,024 replicas behind each router; those that look for prefixes or sessions get some, too: (d)."""
    from policies.registry import names

    requests, rate = setting.size(300_000, 500), 5000.0
    pool = {**SARATHI, "replicas": setting.size(1024, 16)}
    stepwise = setting.size(10_000, 200)
    for router in names("routing"):
        yield Run(router, scenario(like_azure(requests, rate), pool, router=router), stepwise)
    sharing = generated(
        "shared-prefix",
        requests=requests,
        rate=rate,
        groups=1000,
        system_tokens=256,
        tools="lognormal:median=400,sigma=0.4",
        prompt="lognormal:median=400,sigma=0.5",
        output=AZURE_OUTPUT,
    )
    caching = {**pool, "engine": {**SARATHI["engine"], "prefix_caching": True}}  # type: ignore[dict-item]
    yield Run("prefix-aware, shared prefixes", scenario(sharing, caching, router="prefix-aware"), stepwise)
    # One a second, so that conversations end within the trace, then as fast as the others.
    talks = generated(
        "burstgpt",
        requests=requests,
        rate=1.0,
        burstiness=1.0,
        diurnal=False,
        modulation_sigma=0.0,
        conversation_share=1.0,
        message="lognormal:median=300,sigma=0.5",
        answer=AZURE_OUTPUT,
    ) | {"rate_scale": rate}
    yield Run("session-affinity, sessions", scenario(talks, pool, router="session-affinity"), stepwise)


def mooncake(setting: Setting) -> Runs:
    """Serve the Mooncake conversation trace with the prefix cache on: (e)."""
    path = setting.trace(MOONCAKE)
    if path is None:
        raise Skipped(f"{MOONCAKE} is not in the folder of traces (--data), and no generator makes its like")
    workload = {"trace": str(path), **({"limit": 200} if setting.quick else {})}
    for count in (4, 64):
        pool = {**VLLM_V1, "engine": {"prefix_caching": True}, "replicas": count}
        yield Run(f"{count} replicas", scenario(workload, pool, router="prefix-aware"))


def decodes(setting: Setting) -> Runs:
    """Decode 512 requests of 32K output tokens each: (f). 8 B200 hold these 16.8 M tokens in 8 bits."""
    tokens = setting.size(32_768, 512)
    workload = generated("closed-loop", requests=512, prompt=64, output=tokens)
    yield Run(f"512 in flight, {tokens:,} output tokens", scenario(workload, decoding_pool(512)))


def disaggregation(setting: Setting) -> Runs:
    """Send KV from a machine that computes prompts to one that decodes, twice as fast as the Azure trace arrives.

    Most prompts are two transfers (layer-wise: all layers but the last, then that one) of 8 ranks each.
    """
    workload, _ = azure_trace(setting)
    limit = setting.size(3000, 200)
    workload = {**workload, "limit": limit, "rate_scale": 2.0}
    yield Run(
        f"splitwise-ha, first {limit:,}",
        {"model": "llama-3.1-70b", "preset": "splitwise-ha", "workload": workload},
        setting.size(1000, 200),
    )


def decoding_pool(batch: int) -> dict[str, Any]:
    """Return a replica that holds ``batch`` requests of 32K tokens, up to 512."""
    return {
        "batching": "vllm-v1",
        "accelerator": "b200",
        "parallel": {"tp": 8},
        "dtypes": {"kv": "fp8"},
        "engine": {"max_num_seqs": batch},
    }


CASES: Mapping[str, Callable[[Setting], Runs]] = {
    "azure": azure,
    "load": load,
    "burstgpt": burstgpt,
    "replicas": replicas,
    "mooncake": mooncake,
    "decodes": decodes,
    "disaggregation": disaggregation,
}

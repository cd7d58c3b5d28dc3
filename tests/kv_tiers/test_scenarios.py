"""Whole runs with tiers: what is refused, what the summary says, presets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from simulator import run
from simulator.errors import InputError
from simulator.scenario import Scenario, ScenarioError
from simulator.terminal import details
from workloads import Ragged, Trace


def without_simulator(summary: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in summary.items() if key != "simulator"}


HOST = {"tier": "host", "capacity_gib": 8}
REMOTE = {"tier": "remote", "capacity_gib": 64}


def trace(number: int = 60, prefixes: int = 13) -> Trace:
    """Return requests of 2,048 tokens, each prefix coming back every ``prefixes`` requests."""
    rng = np.random.default_rng(3)
    return Trace(
        arrival_s=np.cumsum(rng.exponential(0.25, number)),
        prompt_tokens=np.full(number, 2100),
        output_tokens=np.full(number, 20),
        block_hashes=Ragged.of([[1000 * (i % prefixes) + k for k in range(4)] for i in range(number)]),
        block_size_tokens=512,
        source="prefixes that come back",
    )


def pool(tiers: Any, **keys: Any) -> dict[str, Any]:
    engine = {"num_kv_blocks": 500, "max_model_len": 4096, **keys.pop("engine", {})}
    return {"cluster": {"pools": [{"accelerator": "h100-sxm", "engine": engine, "kv_tiers": tiers, **keys}]}}


def test_tiers_are_used_and_told_of() -> None:
    scenario = pool([HOST, REMOTE], replicas=2)
    fast, slow = (run(scenario, trace=trace(), stepwise=stepwise) for stepwise in (False, True))
    assert without_simulator(fast.summary) == without_simulator(slow.summary)
    told = fast.summary["kv_tiers"]["pools"]["default"]
    assert told["loads"] > 5
    assert sum(each["loaded_tokens"] for each in told["tiers"]) == told["loaded_tokens"]
    assert [each["stores"] for each in told["tiers"]] == [2, 1]
    # What was loaded counts as found in the prefix cache, which would have found less alone.
    alone = run(pool(None, replicas=2), trace=trace()).summary
    assert alone["kv_tiers"] is None
    assert fast.summary["prefix_cache"]["hit_tokens"] >= told["loaded_tokens"]
    assert fast.summary["prefix_cache"]["hit_tokens"] > alone["prefix_cache"]["hit_tokens"]
    assert fast.summary["ttft_s"]["mean"] < alone["ttft_s"]["mean"]
    links = {each["name"]: each["bytes"] for each in fast.summary["links"]["links"]}
    assert links["storage/read"] == told["tiers"][1]["loaded_bytes"]
    assert links["storage/write"] == told["tiers"][1]["written_bytes"]
    assert any(label == "KV tiers" for label, _, _ in details(fast.summary))


def test_the_stored_scenario_runs_again_the_same() -> None:
    first = run(pool([{**HOST, "eviction": "gdsf"}]), trace=trace(20))
    again = run(Scenario.from_mapping(dict(first.scenario)), trace=trace(20))
    assert without_simulator(first.summary) == without_simulator(again.summary)


def test_without_identities_the_section_says_why() -> None:
    plain = Trace(arrival_s=np.array([0.0]), prompt_tokens=np.array([100]), output_tokens=np.array([3]), source="plain")
    told = run(pool([HOST]), trace=plain).summary["kv_tiers"]["pools"]["default"]
    assert told["tiers"] == []
    assert "no KV has an identity" in told["reason"]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"engine": {"prefix_caching": False}}, "switch engine.prefix_caching on"),
        ({"batching": "hygen"}, "preempts requests to make room"),
        ({"kv_budget": "kv8"}, "not modelled together with kv_budget"),
        ({"kv_budget": "h2o"}, "not modelled together with kv_budget"),
        ({"node": "dgx-h100", "kv_tiers": [{"tier": "host", "capacity_gib": 300}]}, "are 2400 GiB in a dgx-h100"),
    ],
)
def test_what_is_refused(keys: dict[str, Any], said: str) -> None:
    scenario = pool([HOST])
    scenario["cluster"]["pools"][0] |= keys
    with pytest.raises(InputError, match=said):
        run(scenario, trace=trace(2))


def test_there_is_one_remote_pool() -> None:
    pools = [
        {"name": name, "accelerator": "h100-sxm", "kv_tiers": [{"tier": "remote", "capacity_gib": size}]}
        for name, size in (("a", 10), ("b", 20))
    ]
    with pytest.raises(InputError, match="there is one remote pool for all"):
        run({"cluster": {"pools": pools}}, trace=trace(2))


def test_a_pool_that_nothing_leads_to() -> None:
    with pytest.raises(InputError, match="remote pool can't be reached"):
        run({**pool([REMOTE]), "network": {"fabric": "none"}}, trace=trace(2))


@pytest.mark.parametrize(
    ("tiers", "said"),
    [
        ([REMOTE, HOST], "each tier once, in the order host, flash, remote; got remote, host"),
        ([HOST, HOST], "each tier once"),
        ([{**REMOTE, "prefetch": "best-effort"}], "name the tier 'host' too"),
        ([{**HOST, "prefetch": "best-effort"}], "leave it out for the tier 'host'"),
    ],
)
def test_lists_that_mean_nothing(tiers: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(ScenarioError, match=said):
        Scenario.from_mapping(pool(tiers))


@pytest.mark.parametrize("name", ["vllm-kv-offloading", "hicache", "mooncake-store"])
def test_presets_run(name: str) -> None:
    engine = {"num_kv_blocks": 500, "max_model_len": 4096}
    if name == "hicache":
        engine = {"num_kv_blocks": 8000, "max_model_len": 4096}  # tokens: blocks of one
    keys = {"preset": name, "cluster": {"pools": [{"accelerator": "h100-sxm", "engine": engine}]}}
    told = run(keys, trace=trace(40)).summary["kv_tiers"]["pools"]["default"]
    assert told["loads"] > 3
    assert told["recomputes"] == 0


def test_with_prefill_and_decode_apart() -> None:
    """Prompts find their prefixes in the pool, on replicas that send their KV elsewhere when it is computed."""
    engine = {"num_kv_blocks": 500, "max_model_len": 4096}
    both = {"accelerator": "h100-sxm", "engine": engine, "kv_tiers": [HOST, REMOTE]}
    pools = [{**both, "name": "p", "role": "prefill", "replicas": 2}, {**both, "name": "d", "role": "decode"}]
    fast, slow = (run({"cluster": {"pools": pools}}, trace=trace(), stepwise=way) for way in (False, True))
    assert without_simulator(fast.summary) == without_simulator(slow.summary)
    told = fast.summary["kv_tiers"]["pools"]
    assert told["p"]["loads"] > 3
    assert told["d"]["loads"] == 0
    assert fast.summary["disaggregation"]["handovers"] == 60

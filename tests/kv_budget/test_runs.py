"""Whole runs under KV budgets: exact fast-forward with real costs, and the directions that the papers report."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from policies import registry
from simulator.runner import run
from workloads import Trace, generate

PRESETS = registry.names("kv_budget")


def requests(count: int, prompt: int, output: int, rate: float = 1000.0) -> Trace:
    return generate("poisson", rate=rate, requests=count, prompt=str(prompt), output=str(output), seed=1)


def summary(trace: Trace, kv_budget: Any = None, *, stepwise: bool = False, **pool: Any) -> dict[str, Any]:
    if kv_budget is not None:
        pool["kv_budget"] = kv_budget
    found = run({"cluster": {"pools": [{"batching": "vllm-v1", **pool}]}}, trace=trace, stepwise=stepwise).summary
    return {key: value for key, value in found.items() if key != "simulator"}


@pytest.mark.parametrize("name", PRESETS)
def test_stepwise_gives_the_same(name: str) -> None:
    """Prompts around the caps, memory that fills, all of a run's figures equal."""
    trace = generate(
        "poisson", rate=3.0, requests=25, prompt="uniform:low=10,high=4000", output="uniform:low=2,high=600", seed=2
    )
    pool = {"engine": {"num_kv_blocks": 1200, "max_model_len": 8192, "max_num_seqs": 16}}
    quick, slow = (summary(trace, name, stepwise=stepwise, **pool) for stepwise in (False, True))
    assert json.dumps(quick, sort_keys=True) == json.dumps(slow, sort_keys=True)
    assert quick["requests"]["finished"] == 25


def test_h2o_serves_more_where_memory_is_short() -> None:
    """With 20 % of the KV kept the batch is larger and so is throughput, as H2O reports over FlexGen."""
    trace = requests(60, 1000, 1000)
    memory = {"engine": {"num_kv_blocks": 1500, "max_model_len": 8192}}
    full, h2o = summary(trace, **memory), summary(trace, "h2o", **memory)
    rate = [each["throughput"]["output_tokens_per_s"] for each in (full, h2o)]
    assert rate[1] > 2 * rate[0]
    assert h2o["memory"]["preemptions"] <= full["memory"]["preemptions"]


def test_h2o_gains_nothing_where_memory_is_plenty() -> None:
    """A single short request: no batch to grow, and the extra kernels cost time."""
    trace = requests(1, 200, 200)
    assert summary(trace, "h2o")["e2e_s"]["mean"] > summary(trace)["e2e_s"]["mean"]


def test_fastkv_halves_the_time_to_the_first_token_of_a_long_prompt() -> None:
    """The paper: up to 1.97 times at 128k tokens; half the layers at a fifth of the tokens bound it by 1.67 to 1.92."""
    trace = requests(1, 32_000, 2)
    full, fast = summary(trace), summary(trace, "fastkv")
    assert 1.5 < full["ttft_s"]["mean"] / fast["ttft_s"]["mean"] < 1.97


def test_quantised_caches_decode_sooner_and_hold_more() -> None:
    trace = requests(48, 4000, 200)
    runs = {name: summary(trace, name) for name in ("kv8", "kv4")}
    full = summary(trace)
    gaps = [each["tpot_s"]["mean"] for each in (full, runs["kv8"], runs["kv4"])]
    blocks = [each["memory"]["kv_blocks"] for each in (full, runs["kv8"], runs["kv4"])]
    assert gaps == sorted(gaps, reverse=True)
    assert blocks == sorted(blocks)


def test_reading_in_a_kernel_of_its_own_costs_what_8_bits_save() -> None:
    trace = requests(16, 4000, 100)
    unfused = summary(trace, {"name": "kv8", "params": {"fused": False}})["tpot_s"]["mean"]
    assert unfused > summary(trace)["tpot_s"]["mean"] > summary(trace, "kv8")["tpot_s"]["mean"]


def test_the_summary_says_what_is_kept() -> None:
    trace = requests(2, 100, 5)
    section = summary(trace, "h2o")["kv_budget"]
    assert section["pools"][0] == {
        "pool": "default",
        "policy": "h2o",
        "bytes_per_token_layer": 4096.0,
        "compression": 1.0,
        "read_share": 1.0,
        "drops_tokens": True,
        "kept_tokens_of_a_1000_token_prompt": 200,
        "offloads": False,
    }
    assert summary(trace)["kv_budget"] == {"pools": None, "reason": "no pool has a KV budget"}
    efficiency = summary(trace, "h2o")["efficiency"]
    assert efficiency["mbu"] is None and "KV budget" in efficiency["mbu_reason"]


def test_a_constant_cost_says_that_time_stays() -> None:
    found = run(
        {"cluster": {"pools": [{"kv_budget": "h2o", "cost": {"constant": {"step_s": 0.01}}}]}},
        trace=requests(2, 100, 5),
    ).summary
    assert any("changes memory, not time" in note for note in found["notes"])
    assert np.isclose(found["tpot_s"]["mean"], 0.01)

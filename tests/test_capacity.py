"""What can't work is refused before the run, with what would do: capacity below one request, and layouts."""

from __future__ import annotations

from typing import Any

import pytest

from simulator import run
from simulator.errors import InputError
from simulator.resolve import resolve
from simulator.scenario import Scenario
from workloads import Trace, generate


def trace(prompt: int) -> Trace:
    return generate("poisson", rate=1, requests=3, prompt=f"constant:value={prompt}", output="constant:value=2", seed=1)


def scenario(**pool: Any) -> Scenario:
    return Scenario.from_mapping({"cluster": {"pools": [{"cost": {"kind": "constant", "step_s": 0.01}, **pool}]}})


def test_capacity_below_one_request_is_refused_with_what_limits_it() -> None:
    small = scenario(engine={"num_kv_blocks": 4})  # 4 blocks of 16 tokens, one of them for the answer
    with pytest.raises(InputError, match=r"even the shortest prompt of 64 tokens: pool 'default' takes 63 at most"):
        run(small, trace=trace(64))
    assert run(small, trace=trace(63)).summary["requests"]["finished"] == 3


def test_one_pool_that_holds_a_request_is_enough() -> None:
    pool = {"cost": {"kind": "constant", "step_s": 0.01}}
    pools = [{"name": "small", "engine": {"num_kv_blocks": 4}, **pool}, {"name": "large", **pool}]
    counts = run({"cluster": {"pools": pools}}, trace=trace(64)).summary["requests"]
    assert counts["rejected"] + counts["finished"] == 3 and counts["finished"]


@pytest.mark.parametrize(("role", "which"), [("prefill", "no replica"), ("decode", "no replica that decodes")])
def test_either_phase_of_disaggregation_needs_a_pool_that_holds_a_request(role: str, which: str) -> None:
    pools = [
        {"name": each, "role": each, "cost": {"kind": "constant", "step_s": 0.01}} for each in ("prefill", "decode")
    ]
    small = [{**pool, "engine": {"num_kv_blocks": 4}} if pool["role"] == role else pool for pool in pools]
    with pytest.raises(
        InputError, match=rf"^{which} takes even the shortest prompt of 64 tokens: pool '{role}' takes 63"
    ):
        run({"cluster": {"pools": small}}, trace=trace(64))
    assert run({"cluster": {"pools": pools}}, trace=trace(64)).summary["requests"]["finished"] == 3


@pytest.mark.parametrize(
    ("model", "pool", "words"),
    [
        ("mixtral-8x7b", {"parallel": {"tp": 8, "ep": 3}}, "ep=3 must divide"),
        ("deepseek-v3", {"parallel": {"tp": 128, "ep": 128}, "accelerator": "h200"}, None),
        ("qwen3-30b-a3b", {"parallel": {"tp": 3}}, "tp=3 does not split the 32 heads"),
        ("llama-3.1-8b", {"parallel": {"tp": 2, "ep": 2}}, "does not divide the experts: llama-3.1-8b has no routed"),
        ("llama-3.1-8b", {"parallel": {"pp": 33}}, "pp=33 exceeds the 32 layers"),
        (
            "llama-3.1-8b",
            {"parallel": {"tp": 16}, "node": "dgx-h100"},
            "tp=16 needs more GPUs than the 8 of a dgx-h100",
        ),
    ],
)
def test_a_layout_that_can_not_be_is_refused(model: str, pool: dict[str, Any], words: str | None) -> None:
    given = scenario(**pool).updated({"model": model})
    if words is None:
        assert resolve(given).pools[0].plan.ep == 128
        return
    with pytest.raises(InputError, match=words):
        resolve(given)


def test_experts_that_do_not_divide_are_refused() -> None:
    given = scenario(parallel={"tp": 16, "ep": 16}, accelerator="h200").updated({"model": "mixtral-8x22b"})
    with pytest.raises(InputError, match="ep=16 does not divide the experts: mixtral-8x22b has 8 routed experts"):
        resolve(given)


def test_tensor_parallelism_over_a_slow_link_is_warned_of() -> None:
    given = scenario(parallel={"tp": 4}, node="l40s-8x-pcie")
    assert any("tensor parallelism over a slow link: tp=4" in note for note in resolve(given).notes)
    fast = scenario(parallel={"tp": 4}, node="dgx-h100")
    assert not any("slow link" in note for note in resolve(fast).notes)

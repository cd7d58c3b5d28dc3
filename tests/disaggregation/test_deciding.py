"""What a scenario leaves open, as the engines do it, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from simulator import Scenario
from simulator.build import build
from simulator.disaggregation.making import make_disaggregation
from simulator.engine.recorder import Outcome
from simulator.errors import InputError
from simulator.resolve import resolve
from simulator.runner import run
from workloads import generate

PREFILL: dict[str, Any] = {"name": "p", "role": "prefill"}
DECODE: dict[str, Any] = {"name": "d", "role": "decode"}


def scenario(*pools: dict[str, Any], **more: Any) -> Scenario:
    return Scenario.from_mapping({"cluster": {"pools": list(pools)}, **more})


@pytest.mark.parametrize(
    ("engine", "kind", "reserve", "first_token", "transfer", "reserved"),
    [
        ("vllm", "connector", "after-prefill", "recomputed", "after-prefill", 0),
        ("sglang", "connector", "before-prefill", "forwarded", "after-prefill", 512),
        ("trtllm", "connector", "after-prefill", "recomputed", "after-prefill", 0),
        ("vllm", "splitwise", "beside-prefill", "streamed", "layer-wise", 0),
    ],
)
def test_what_is_left_open_is_as_the_decode_pool_s_engine_does_it(
    engine: str, kind: str, reserve: str, first_token: str, transfer: str, reserved: int
) -> None:
    part = resolve(
        scenario(PREFILL | {"engine": engine}, DECODE | {"engine": engine}, disaggregation={"kind": kind})
    ).scenario.disaggregation
    assert part is not None
    assert (part.reserve, part.first_token, part.transfer) == (reserve, first_token, transfer)
    assert (part.reserved_decode_tokens, part.serial_below_tokens) == (reserved, 512)


@pytest.mark.parametrize(
    ("engines", "part", "note"),
    [
        ({"name": "trtllm"}, {}, "how trtllm hands requests over is not known here"),
        ({"max_model_len": 1000}, {}, "max_model_len is 1000 where prompts are computed and 2000 where tokens are"),
        ({}, {"kind": "splitwise"}, "without a predictor"),
    ],
)
def test_what_is_taken_for_granted_is_in_the_notes(engines: dict[str, Any], part: dict[str, Any], note: str) -> None:
    longer = {"max_model_len": 2000} if "max_model_len" in engines else {}
    resolved = resolve(
        scenario(PREFILL | {"engine": engines}, DECODE | {"engine": engines | longer}, disaggregation=part)
    )
    assert any(note in each for each in resolved.notes)


def test_roles_alone_are_enough_and_without_them_there_is_none() -> None:
    assert resolve(scenario(PREFILL, DECODE)).scenario.disaggregation is not None
    assert resolve(scenario({})).scenario.disaggregation is None


@pytest.mark.parametrize(
    ("pools", "part", "message"),
    [
        ([PREFILL], {}, "there is a pool of role 'prefill' and none of role 'decode'"),
        ([DECODE], {}, "there is a pool of role 'decode' and none of role 'prefill'"),
        ([{"name": "m"}], {}, "all pools are 'mixed'"),
        ([PREFILL, DECODE | {"engine": {"block_size": 32}}], {}, "differ in their tokens a KV block: 16 and 32"),
        ([PREFILL, DECODE | {"dtypes": {"kv": "fp8"}}], {}, "differ in their KV datatype: bf16 and fp8"),
        ([PREFILL, DECODE | {"batching": "orca"}], {}, "cluster.pools.1.batching: 'orca' plans"),
        ([PREFILL | {"batching": "orca"}, DECODE], {"kind": "splitwise"}, "cluster.pools.0.batching: 'orca' plans"),
        ([PREFILL, DECODE | {"kv_budget": "h2o"}], {}, "cluster.pools.1.kv_budget: not modelled"),
        ([PREFILL, DECODE], {"transfer": "layer-wise"}, "set 'reserve' to beside-prefill"),
        ([PREFILL, DECODE], {"kind": "splitwise", "reserve": "after-prefill"}, "splitwise assigns both machines"),
    ],
)
def test_pools_that_can_not_work_together_are_refused(
    pools: list[dict[str, Any]], part: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        resolve(scenario(*pools, disaggregation=part))


def test_a_prefill_replica_may_plan_whole_requests() -> None:
    assert resolve(scenario(PREFILL | {"batching": "orca"}, DECODE)).scenario.disaggregation is not None


def test_pools_without_a_link_are_refused() -> None:
    resolved = resolve(scenario(PREFILL, DECODE, network={"fabric": "none", "placement": "separate"}))
    with pytest.raises(InputError, match="disaggregation moves data between pools 'p' and 'd'"):
        make_disaggregation(resolved)


def test_layouts_may_differ() -> None:
    trace = generate("poisson", rate=2, requests=30, seed=1)
    pools = [PREFILL | {"parallel": {"tp": 4}}, DECODE | {"parallel": {"tp": 2, "pp": 2}}]
    done = run(scenario(*pools), trace=trace).summary
    told = done["disaggregation"]
    assert told["handovers"] == 30
    assert sum(link["bytes"] for link in done["links"]["links"] if link["name"].endswith("out")) == told["bytes"]


@pytest.mark.parametrize("preset", ["pd-vllm", "pd-sglang", "splitwise"])
def test_presets_are_the_same_step_by_step(preset: str) -> None:
    trace = generate("poisson", rate=6, requests=120, seed=2)
    columns = []
    for stepwise in (False, True):
        built = build(resolve(Scenario.from_mapping({"preset": preset})), trace, stepwise=stepwise)
        built.cluster.run()
        built.cluster.stop()
        columns.append(built.cluster.recorder.columns)
    fast, slow = columns
    assert all((fast[name] == slow[name]).all() for name in fast)
    assert (fast["outcome"] == Outcome.FINISHED).all()

"""Shared-prefix attention: the parts by hand, runs against steps, and what Hydragen's paper says of its direction."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware_profiles import load_accelerator
from simulator import InputError, Scenario, run
from simulator.cost.fitted_kernels import fitted_cost
from simulator.cost.operator_cost import OperatorCost
from simulator.cost.roofline import roofline_cost
from simulator.cost.shape import BatchShape
from simulator.cost.shared_prefix import SharedPrefixCost, key_splits, shared_prefix_cost
from simulator.models import load_model
from simulator.parallel import ParallelPlan
from tests.calibration.support import write_profile
from tests.cost.support import advanced, batch, shapes
from tests.test_run import assert_same, hashed

A100 = load_accelerator("a100-80gb")
LLAMA = load_model("llama-2-13b")


def sharing(base: OperatorCost) -> SharedPrefixCost:
    return shared_prefix_cost(base, base.operators.shapes, base.operators.kernels)


def one_prefix(decodes: int, prefix: int, suffix: int) -> BatchShape:
    """Decodes that all share a prefix and have as much of their own."""
    shape = batch(decodes, prefix + suffix)
    shape.shared_kv, shape.shared_read, shape.sharers = decodes * prefix, prefix, decodes
    return shape


def later(shape: BatchShape, i: int) -> BatchShape:
    found = advanced(shape, i)
    found.shared_kv, found.shared_read, found.sharers = shape.shared_kv, shape.shared_read, shape.sharers
    return found


def test_parts_by_hand() -> None:
    """One rank of A100: arithmetic of tokens x sharers at the rate of prefill kernels, launches besides."""
    base = roofline_cost(LLAMA, A100, host_overhead_s=0.0)
    decodes, prefix, suffix = 512, 4096, 64
    kernel = 12e-6 + decodes * prefix * 4 * 40 * 128 / (312e12 * 0.55)
    combine = 2.5e-6 + decodes * 3 * 40 * 128 * 2 / (2039e9 * 0.8)
    expected = base.step_ns(batch(decodes, suffix)) + 40 * (kernel + combine) * 1e9
    assert sharing(base).step_ns(one_prefix(decodes, prefix, suffix)) == pytest.approx(expected, abs=2)


def test_two_sharers_read_the_prefix_once() -> None:
    """Few queries: the kernel waits for the prefix's keys and values, read once, in 5 parts.

    40 heads make 40 thread blocks on 108 processors: 5 parts fill 200 of 216 places, 93 %; 2 to 4 fill 56 to 74 %.
    """
    base = roofline_cost(LLAMA, A100, host_overhead_s=0.0)
    kernel = 12e-6 + (65536 * 2 * 40 * 128 * 2 + 2 * 2 * 40 * 128 * 2) / (2039e9 * 0.33)
    combine = 2.5e-6 + 2 * 3 * 40 * 128 * 2 / (2039e9 * 0.8)
    parts = 2.5e-6 + 2 * (4 * 5 + 1) * 40 * 128 * 2 / (2039e9 * 0.8)
    expected = base.step_ns(batch(2, 64)) + 40 * (kernel + combine + parts) * 1e9
    assert sharing(base).step_ns(one_prefix(2, 65536, 64)) == pytest.approx(expected, abs=2)


def test_prefixes_are_divided_as_flash_attention_does() -> None:
    """48 blocks on 108 processors: 2 parts are busy at 89 %, 3 at 67 %; the example of its own comment."""
    assert key_splits(48, 108, 64) == 2
    assert key_splits(87, 108, 64) == 1  # more than 80 % are busy as it is
    assert key_splits(1, 108, 1) == 1  # nothing to divide
    assert key_splits(1, 108, 4) == 4


def test_without_sharers_it_is_the_base() -> None:
    base = roofline_cost(LLAMA, A100)
    shape = batch(7, 900, [(100, 50)])
    assert sharing(base).step_ns(shape) == base.step_ns(shape)
    assert sharing(base).few_ns(shape, 5) == base.few_ns(shape, 5)


@cache
def made(make, model: str) -> SharedPrefixCost:  # type: ignore[no-untyped-def]
    return sharing(make(load_model(model), load_accelerator("h200")))


@pytest.mark.parametrize("make", [roofline_cost, fitted_cost])
@pytest.mark.parametrize("model", ["llama-3.1-8b", "gpt-oss-20b"])
@settings(max_examples=20, deadline=None)
@given(shape=shapes(), k=st.integers(1, 60), share=st.floats(0.0, 1.0), sharers=st.integers(2, 2000))
def test_runs_equal_steps(make, model: str, shape: BatchShape, k: int, share: float, sharers: int) -> None:  # type: ignore[no-untyped-def]
    cost = made(make, model)
    if shape.decodes > 1:
        shape.sharers = min(sharers, shape.decodes)
        shape.shared_kv = int(share * (shape.decode_kv - shape.decodes))
        shape.shared_read = -(-shape.shared_kv // shape.sharers)
    steps = [cost.step_ns(later(shape, i)) for i in range(k)]
    assert cost.run_ns(shape, k).tolist() == cost.few_ns(shape, k) == steps
    assert [sum(cost.stage_ns(later(shape, i))) for i in range(0, k, 7)] == steps[::7]


def test_pipeline_stages_share_the_layers() -> None:
    base = roofline_cost(LLAMA, A100, ParallelPlan(pp=2))
    shape = one_prefix(64, 2048, 64)
    plain = base.stage_ns(batch(64, 64))
    stages = sharing(base).stage_ns(shape)
    more = [stage - alone for stage, alone in zip(stages, plain, strict=True)]
    assert len(stages) == 2 and more[0] == more[1] > 0


def test_the_longer_the_prefix_and_the_larger_the_batch_the_greater_the_gain() -> None:
    """Hydragen's Figures 3 and 4: the gain grows with both; with it the prefix costs little, without it nearly all."""
    base = roofline_cost(LLAMA, A100, ParallelPlan(tp=8))
    cost = sharing(base)

    def gain(decodes: int, prefix: int) -> float:
        shape = one_prefix(decodes, prefix, 64)
        return base.step_ns(shape) / cost.step_ns(shape)

    by_batch = [gain(decodes, 16384) for decodes in (32, 128, 512, 1024)]
    by_prefix = [gain(1024, prefix) for prefix in (1024, 4096, 16384)]
    assert by_batch == sorted(by_batch) and by_prefix == sorted(by_prefix)
    assert by_prefix[-1] > 5
    short, long = (cost.step_ns(one_prefix(1024, prefix, 64)) for prefix in (1024, 16384))
    short_alone, long_alone = (base.step_ns(one_prefix(1024, prefix, 64)) for prefix in (1024, 16384))
    assert 1 - short / long < 0.5 < 0.8 < 1 - short_alone / long_alone


def test_a_layer_profile_takes_the_shared_part_from_fits(tmp_path: Path) -> None:
    """Attention there is measured for whole batches, so the shared part is of the accelerator's fits."""
    profile = str(write_profile(tmp_path / "profile"))
    part = {"accelerator": "rtx-pro-6000", "cost": {"kind": "measured", "profile": profile}}
    engine = {"shared_prefix_attention": "hydragen"}
    scenario = {"workload": {"time_scale": 0.05}, "cluster": {"pools": [{**part, "engine": engine}]}}
    one = run(scenario, trace=hashed(16, 30))
    assert_same(one, run(scenario, trace=hashed(16, 30), stepwise=True))
    assert one.summary["shared_prefix_attention"]["shared_read_tokens"] > 0
    plain = run({**scenario, "cluster": {"pools": [part]}}, trace=hashed(16, 30))
    assert one.summary["tpot_s"]["mean"] != plain.summary["tpot_s"]["mean"]


def pool(**engine: object) -> dict[str, object]:
    """A pool whose requests come fast enough to decode together."""
    engine = {"shared_prefix_attention": "hydragen", **engine}
    return {"workload": {"time_scale": 0.05}, "cluster": {"pools": [{"engine": engine}]}}


def test_a_scenario_from_end_to_end() -> None:
    trace = hashed(16, 60)
    one = run(Scenario.from_mapping(pool()), trace=trace)
    assert_same(one, run(Scenario.from_mapping(pool()), trace=trace, stepwise=True))
    section = one.summary["shared_prefix_attention"]
    assert 0 < section["shared_read_tokens"] < section["shared_attended_tokens"] < section["attended_tokens"]
    assert one.summary["efficiency"]["mbu"] is None
    assert any("Hydragen" in line for line in one.summary["costs"]["sources"])
    plain = run({"workload": {"time_scale": 0.05}}, trace=trace)
    assert plain.summary["shared_prefix_attention"]["reason"]
    assert not np.array_equal(one.requests["last_token_s"], plain.requests["last_token_s"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"engine": {"prefix_caching": False}}, "set engine.prefix_caching to true"),
        ({"cost": {"kind": "constant", "step_s": 0.01}}, "use another cost than constant"),
    ],
)
def test_refusals(change: dict[str, dict[str, object]], message: str) -> None:
    mapping = {
        "engine": {"shared_prefix_attention": "hydragen", **change.get("engine", {})},
        **{k: v for k, v in change.items() if k != "engine"},
    }
    with pytest.raises(InputError, match=message):
        run({"cluster": {"pools": [mapping]}}, trace=hashed(16, 2))


def test_latent_attention_is_refused() -> None:
    with pytest.raises(InputError, match="latent attention"):
        run({"model": "deepseek-v2-lite", **pool()}, trace=hashed(16, 2))

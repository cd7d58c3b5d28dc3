"""Power of whole runs: what the result says, caps, money and carbon."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hardware_profiles import load_accelerator
from simulator import run
from simulator.cost.shape import BatchShape
from simulator.errors import InputError
from simulator.models import load_model
from simulator.parallel import ParallelPlan
from simulator.power.capped_cost import CappedCost
from simulator.power.model import PowerModel, power_model
from simulator.scenario_power import PoolPower
from workloads import Trace

MODEL = "llama-3.1-8b"


def trace_of(count: int, gap_s: float, prompt: int = 800, output: int = 60) -> Trace:
    """Return equal requests at equal distances."""
    return Trace(
        arrival_s=np.arange(count) * gap_s,
        prompt_tokens=np.full(count, prompt, dtype=np.int64),
        output_tokens=np.full(count, output, dtype=np.int64),
    )


def energy_of(trace: Trace, pool: dict[str, Any], stepwise: bool = False, **top: Any) -> dict[str, Any]:
    """Run on one H100 and return the energy section."""
    scenario = {"model": MODEL, "cluster": {"pools": [{"accelerator": "h100-sxm", **pool}]}, **top}
    energy: dict[str, Any] = run(scenario, trace=trace, stepwise=stepwise).summary["energy"]
    return energy


def h100(**given: Any) -> PowerModel:
    """Return the power model of one H100 with Llama-3.1-8B."""
    plan = ParallelPlan()
    return power_model(load_accelerator("h100-sxm"), load_model(MODEL), plan, PoolPower(**given), gpus_per_node=8)


def shape_of(decodes: int, context: int = 500, chunks: list[tuple[int, int]] | None = None) -> BatchShape:
    """Return a batch of equal decodes, and of chunks."""
    shape = BatchShape()
    shape.decodes, shape.chunks = decodes, chunks or []
    shape.decode_kv = shape.decode_window_kv = decodes * context
    shape.prefill_tokens = sum(new for new, _ in shape.chunks)
    shape.logit_rows = decodes + len(shape.chunks)
    return shape


def test_constant_steps_draw_the_limit_while_they_run() -> None:
    # Two requests 1 s apart, 2 steps of 0.1 s each: 0.4 s at 700 W, the rest of 1.2 s at 86 W idle.
    energy = energy_of(trace_of(2, 1.0, 10, 2), {"cost": {"kind": "constant", "step_s": 0.1}})
    assert energy["total_j"] == pytest.approx(0.4 * 700 + 0.8 * 86)
    assert energy["mean_power_w"] == pytest.approx((0.4 * 700 + 0.8 * 86) / 1.2)
    assert energy["by_phase_j"]["idle"] == pytest.approx(1.2 * 86)
    assert energy["energy_j_per_output_token"] == pytest.approx(energy["total_j"] / 4)
    assert energy["energy_j_per_token"] == pytest.approx(energy["total_j"] / 24)
    given = {"idle_w": 100.0, "busy_w": 300.0, "overhead_w_per_gpu": 50.0}
    energy = energy_of(trace_of(2, 1.0, 10, 2), {"cost": {"kind": "constant", "step_s": 0.1}, "power": given})
    assert energy["accelerators_j"] == pytest.approx(0.4 * 300 + 0.8 * 100)
    assert energy["rest_of_servers_j"] == pytest.approx(1.2 * 50)


def test_samples_and_what_is_left_add_up_to_the_total() -> None:
    scenario = {"model": MODEL, "cluster": {"pools": [{"accelerator": "h100-sxm", "replicas": 2}]}}
    scenario["measure"] = {"sample_interval_s": 0.05}
    result = run(scenario, trace=trace_of(40, 0.05))
    frame, energy = result.timeseries, result.summary["energy"]
    sampled_s = frame["t_s"].max()
    last = result.data.cluster.recorder.timeline.columns()["energy_nj"][-2:].sum() / 1e9
    tail = energy["total_j"] - last - energy["by_phase_j"]["idle"]
    idle_after = 2 * 86 * (result.summary["simulated_s"] - sampled_s)
    assert frame["power_w"].sum() * 0.05 + tail + idle_after == pytest.approx(energy["total_j"])
    assert 0 <= tail < 0.05 * 2 * 700
    assert frame["power_w"].between(86, 700.001).all()
    assert energy["peak_power_w"] == pytest.approx(frame.groupby("t_s")["power_w"].sum().max())
    phases = energy["by_phase_j"]
    assert sum(phases.values()) == pytest.approx(energy["total_j"])
    assert min(phases.values()) > 0


def test_more_load_draws_more_power_and_less_a_token() -> None:
    loads = [energy_of(trace_of(60, gap), {}) for gap in (0.4, 0.1, 0.02)]
    power = [each["mean_power_w"] for each in loads]
    token = [each["energy_j_per_token"] for each in loads]
    assert power == sorted(power) and power[0] > 86
    assert token == sorted(token, reverse=True)


def test_prompts_come_near_the_limit_and_few_decodes_stay_far_below() -> None:
    power, at_once = h100(), 8_000_000  # a step of decodes of 8 ms, as vLLM's is on H100
    assert power.steps.limit_mw is not None
    idle_and_busy = power.idle_w + power.steps.busy_mw / 1000
    decodes = [idle_and_busy + power.steps.linear_pj(shape_of(n), 0) / at_once / 1000 for n in (1, 16, 128)]
    assert 250 < decodes[0] < decodes[1] < decodes[2] < 600
    taken = 42_000_000  # a prompt of 2,048 tokens at 0.7 of peak: at the limit
    prompt = shape_of(0, chunks=[(2048, 0)])
    assert (
        power.steps.step_dynamic_pj(prompt, 0, taken) == power.steps.limit_mw * taken < power.steps.linear_pj(prompt, 0)
    )


@pytest.mark.parametrize("given", [{"cap_w": 350.0}, {"clock": 0.6}, {"cap_w": 300.0, "clock": 0.8}])
def test_a_cap_stretches_prompts_and_leaves_small_decodes(given: dict[str, float]) -> None:
    class Fixed:
        sources = ("test",)

        def step_ns(self, shape: BatchShape) -> int:
            return 50_000_000 if shape.chunks else 8_000_000

        def few_ns(self, shape: BatchShape, k: int) -> list[int]:
            return [self.step_ns(shape) + i for i in range(k)]

        def run_ns(self, shape: BatchShape, k: int) -> Any:
            return np.array(self.few_ns(shape, k), dtype=np.int64)

        def stage_ns(self, shape: BatchShape) -> list[int]:
            return [self.step_ns(shape)]

    power = h100(**given)
    cost = CappedCost(Fixed(), power)
    prompt, decodes = shape_of(0, chunks=[(2048, 0)]), shape_of(4)
    taken = cost.step_ns(prompt)
    assert 55_000_000 < taken < 150_000_000
    assert cost.step_ns(decodes) < 8_000_000 * 1.04
    assert power.steps.limit_mw is not None
    if "cap_w" in given:  # it draws the cap, idle and busy included
        drawn = power.steps.step_dynamic_pj(prompt, 0, taken) / taken + power.steps.busy_mw + power.idle_w * 1000
        assert drawn == pytest.approx(given["cap_w"] * 1000)
    many = shape_of(200, chunks=[(64, 100)])
    for shape in (prompt, decodes, many, shape_of(200)):
        assert cost.run_ns(shape, 50).tolist()[:7] == cost.few_ns(shape, 7)
        assert cost.few_ns(shape, 7)[0] == cost.step_ns(shape)
    assert "estimate" in cost.sources[-1]


def test_a_cap_takes_longer_draws_less_and_is_the_same_step_by_step() -> None:
    trace = trace_of(60, 0.02)
    free, capped = energy_of(trace, {}), energy_of(trace, {"power": {"cap_w": 350.0}})
    assert capped["peak_power_w"] <= 350.001 < free["peak_power_w"]
    assert capped["accelerators_j"] < free["accelerators_j"]
    assert capped["replicas"][0]["at_limit_s"] > 0
    assert energy_of(trace, {"power": {"cap_w": 350.0}}, stepwise=True) == capped
    assert energy_of(trace, {}, stepwise=True) == free


@pytest.mark.parametrize(
    "pool",
    [
        {"accelerator": "h200", "model": "qwen3-30b-a3b", "parallel": {"tp": 2}},
        {"model": "mistral-7b-v0.1"},
        {"parallel": {"pp": 2}},
    ],
)
def test_other_models_and_layouts(pool: dict[str, Any]) -> None:
    model = pool.pop("model", MODEL)
    found = [energy_of(trace_of(20, 0.05), dict(pool), stepwise, model=model) for stepwise in (False, True)]
    assert found[0] == found[1]
    limit = found[0]["pools"][0]["limit_w"] * (2 if "parallel" in pool else 1)
    assert found[0]["pools"][0]["idle_w"] < found[0]["mean_power_w"] < limit


def test_money_and_carbon_of_what_the_site_draws() -> None:
    trace = trace_of(2, 1.0, 10, 2)
    pool = {"cost": {"kind": "constant", "step_s": 0.1}, "node": "dgx-h100", "power": {"node_overhead_w": 800.0}}
    given = {"pue": 1.5, "price_per_kwh": 0.2, "grid_g_per_kwh": 400, "embodied_g_per_gpu_hour": 36.0}
    energy = energy_of(trace, pool, power=given)
    total = 0.4 * 700 + 0.8 * 86 + 1.2 * 100
    assert energy["total_j"] == pytest.approx(total)
    assert energy["site_kwh"] == pytest.approx(1.5 * total / 3.6e6)
    assert energy["electricity_cost"] == pytest.approx(0.2 * 1.5 * total / 3.6e6)
    assert energy["carbon_g"] == pytest.approx(400 * 1.5 * total / 3.6e6)
    assert energy["embodied_carbon_g"] == pytest.approx(36 * 1.2 / 3600)
    plain = energy_of(trace, {"cost": {"kind": "constant", "step_s": 0.1}})
    assert plain["carbon_g"] is None and "grid_g_per_kwh" in plain["carbon_reason"]


@pytest.mark.parametrize(
    ("pool", "said"),
    [
        ({"power": {"cap_w": 900.0}}, "above the 700 W"),
        ({"power": {"cap_w": 100.0}}, "at least 156 W would do"),
        ({"power": {"idle_w": 690.0}}, "idle_w = 690 .* at most 630 W would do"),
        ({"power": {"node_overhead_w": 900.0}}, "needs the pool's 'node'"),
        ({"power": {"busy_w": 50.0}}, "must lie between idle, 86 W"),
        ({"power": {"busy_w": 500.0, "cap_w": 600.0}}, "by utilisation"),
        ({"power": {"node_overhead_w": 1.0, "overhead_w_per_gpu": 1.0}}, "not both"),
        ({"power": {"cap_w": 500.0}, "cost": {"kind": "constant", "step_s": 0.1}}, "constant step times"),
    ],
)
def test_what_can_not_be_is_refused(pool: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        energy_of(trace_of(2, 1.0), pool)


def test_idle_power_without_a_source_is_called_an_assumption() -> None:
    accelerator = load_accelerator("l4")
    assert accelerator.idle_w is None
    power = power_model(accelerator, load_model(MODEL), ParallelPlan(), PoolPower(), gpus_per_node=None)
    assert power.idle_w == pytest.approx(0.15 * accelerator.tdp_w)
    assert any("assumption" in line for line in power.sources)

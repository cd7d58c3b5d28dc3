"""Measured costs: interpolation by hand, rules at the edges, and a run that equals its steps."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware_profiles import load_accelerator
from simulator import Scenario, run
from simulator.calibration.load import load_measurements
from simulator.calibration.schema import frame, write_measurements
from simulator.cost.measured import MeasuredCost
from simulator.cost.measured_attention import MeasuredAttention, effective_chunk
from simulator.cost.tables import Axis, curve, experts_curve, grid_of
from simulator.errors import InputError
from simulator.models import load_model
from simulator.parallel import ParallelPlan
from tests.calibration.support import META, attention_us, write_profile
from tests.cost.support import advanced, batch, shapes

LLAMA = load_model("llama-3.1-8b")
GPU = load_accelerator("rtx-pro-6000")
LAYERS = 32
DENSE_1_US = 2 * 2 + 30 + 3 + 20 + 100 + 5 + 50
"""One token through the dense operators of one layer, of which the norm is called twice."""


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    return write_profile(tmp_path_factory.mktemp("profile") / "p", tps=(1, 2))


@pytest.fixture(scope="module")
def table(profile):
    return load_measurements(profile)


@pytest.fixture(scope="module")
def cost(table):
    return MeasuredCost(LLAMA, GPU, table, host_overhead_s=0.0)


def ns(us: float) -> int:
    return round(us * 1000)


def test_a_decode_by_hand(cost):
    """32 layers of dense operators and attention, embedding, final norm, LM head and sampler once."""
    attention = attention_us(0, 0, 1, 508)  # between 16 and 1000
    expected = LAYERS * (DENSE_1_US + attention) + 1 + 2 + 700 + 20
    assert cost.step_ns(batch(1, 508)) == pytest.approx(ns(expected), abs=1)


def test_a_mixed_batch_by_hand(cost):
    """40 new tokens and 10 decodes: dense operators at 50 tokens, 49/99 of the way from 1 to 100; 11 rows."""
    dense = DENSE_1_US * (1 + 49 / 99)
    attention = attention_us(40, 100, 10, 500)
    expected = LAYERS * (dense + attention) + 3 * (1 + 49 / 99) + 800 + 30
    assert cost.step_ns(batch(10, 500, [(40, 100)])) == pytest.approx(ns(expected), abs=1)


def test_unequal_decodes_take_the_measured_share_longer(cost):
    """Two of 100 and 300 tokens take a tenth longer than two of 200, as measured; half the variation, half of it."""
    equal, unequal, between = batch(2, 200), batch(2, 200), batch(2, 200)
    unequal.decode_kv_sq = 100**2 + 300**2
    between.decode_kv_sq = 150**2 + 250**2
    attention = attention_us(0, 0, 2, 200)
    assert cost.step_ns(unequal) - cost.step_ns(equal) == pytest.approx(ns(LAYERS * attention * 0.1), abs=1)
    assert cost.step_ns(between) - cost.step_ns(equal) == pytest.approx(ns(LAYERS * attention * 0.05), abs=1)


def test_less_than_the_least_measured_counts_as_it(cost):
    assert cost.step_ns(batch(1, 3)) == cost.step_ns(batch(1, 16))
    small, least = batch(1, 100, [(1, 0)]), batch(1, 100, [(16, 0)])
    small.padding_tokens = 15  # the dense operators see as many tokens
    assert cost.step_ns(small) == cost.step_ns(least)


def test_beyond_what_was_measured_is_counted(table):
    cost = MeasuredCost(LLAMA, GPU, table)
    cost.step_ns(batch(1, 500))
    assert cost.substitutions == {}
    cost.step_ns(batch(1, 2000))
    cost.run_ns(batch(1, 999), 3)  # 999, 1000, 1001
    cost.step_ns(batch(0, 0, [(200, 0)]))
    assert cost.substitutions == {
        "attention: prefill chunk above what was measured (64)": 1,
        "attention: tokens of a decode above what was measured (1000)": 2,
        "dense operators: tokens of a step above what was measured (100)": 1,
    }


def test_beyond_what_was_measured_is_a_choice(table):
    def made(outside):
        return MeasuredCost(LLAMA, GPU, table, outside=outside, host_overhead_s=0.0)

    longest = made("clip").step_ns(batch(1, 1000))
    assert made("clip").step_ns(batch(1, 5000)) == longest
    grown = LAYERS * (attention_us(0, 0, 1, 5000) - attention_us(0, 0, 1, 1000))
    assert made("extrapolate").step_ns(batch(1, 5000)) - longest == pytest.approx(ns(grown), abs=1)
    with pytest.raises(InputError, match=r"tokens of a decode above what was measured: 5000, measured to 1000"):
        made("raise").step_ns(batch(1, 5000))
    with pytest.raises(InputError, match="200 tokens of a step, measured to 100"):
        made("raise").step_ns(batch(0, 0, [(200, 0)]))


def test_several_chunks_count_as_one_with_as_many_tokens_and_pairs():
    assert effective_chunk([(64, 100)]) == (64, 100.0)
    # 100 x (300 + 50) twice is 200 x (250 + 100)
    assert effective_chunk([(100, 300), (100, 300)]) == (200, 250.0)
    # 300^2 / 2 + 400^2 / 2 is 500^2 / 2, fewer than the pairs of 700 tokens
    assert effective_chunk([(300, 0), (400, 0)]) == (500, 0.0)


COSTS = {
    "extrapolate": {},
    "clip": {"outside": "clip"},
    "tp2": {"plan": ParallelPlan(tp=2)},
    "pp3": {"plan": ParallelPlan(pp=3)},
}


@pytest.fixture(scope="module")
def costs(table):
    return {name: MeasuredCost(LLAMA, GPU, table, **options) for name, options in COSTS.items()}


@pytest.mark.parametrize("name", COSTS)
@given(shape=shapes(), k=st.integers(1, 40))
def test_run_equals_its_steps(costs, name, shape, k):
    cost = costs[name]
    found = cost.run_ns(shape, k)
    assert found.dtype == "int64"
    assert found.tolist() == [cost.step_ns(advanced(shape, i)) for i in range(k)]


@pytest.mark.parametrize("name", COSTS)
@given(shape=shapes())
def test_stages_and_operators_add_up_to_the_step(costs, name, shape):
    cost = costs[name]
    stages = cost.stage_ns(shape)
    assert sum(stages) == cost.step_ns(shape)
    assert min(stages) >= 1
    assert sum(cost.breakdown(shape).values()) * 1e9 == pytest.approx(cost.step_ns(shape), abs=4, rel=1e-9)


def test_sources_name_what_was_measured_and_what_is_assumed(table):
    lines = "\n".join(MeasuredCost(LLAMA, GPU, table, ParallelPlan(tp=2), where="p").sources)
    assert "kernel times on RTXPRO6000, vllm 0.19.0, 2026-04-24" in lines
    assert "host overhead: 0.5 ms a step" in lines
    assert "tensor parallel all_reduce: not in these measurements; fitted all_reduce" in lines


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"plan": ParallelPlan(tp=4)}, r"p: was not measured for tp=4; measured: tp=1, tp=2"),
        ({"model": load_model("llama-2-7b")}, "measured for meta-llama/Llama-3.1-8B, whose shapes are not those of"),
        ({"accelerator": load_accelerator("h200")}, "was measured on rtx-pro-6000, and the pool has h200"),
        ({"kv_dtype": "fp8"}, "measured with the KV cache in bf16, and the run has fp8"),
        ({"outside": "clap"}, "unknown choice outside='clap'; did you mean 'clip'"),
        ({"host_overhead_s": -1.0}, "host_overhead_s must be at least 0, got -1"),
    ],
)
def test_measurements_of_something_else_are_refused(table, options, message):
    given_options = {"model": LLAMA, "accelerator": GPU, "where": "p", **options}
    with pytest.raises(InputError, match=message):
        MeasuredCost(measurements=table, **given_options)


def test_operators_that_are_missing_are_named(table):
    with pytest.raises(InputError, match=r"operator 'down' of llama-3\.1-8b was not measured for tp=1; measured: act"):
        MeasuredCost(LLAMA, GPU, table[table["operator"] != "down"])
    with pytest.raises(InputError, match="attention was not measured for both together"):
        mixed = (table["new_tokens"].fillna(0) > 0) & (table["decodes"].fillna(0) > 0)
        MeasuredCost(LLAMA, GPU, table[~mixed])


# ------------------------------------------------------------------------------------------------------------ tables


def test_beyond_a_curve_its_last_rate_or_its_last_time_holds():
    points, times, at = np.array([10.0, 20.0]), np.array([1.0, 3.0]), np.array([5.0, 15.0, 30.0])
    assert curve(points, times, at, hold=False).tolist() == [1.0, 2.0, 4.5]  # 30 at 3 for 20
    assert curve(points, times, at, hold=True).tolist() == [1.0, 2.0, 3.0]
    assert curve(points, np.array([3.0, 1.0]), at, hold=False).tolist() == [3.0, 2.0, 1.5]


def test_experts_between_measured_tokens_and_experts():
    """At 3 tokens and 12 experts: halfway between 15 (2 tokens) and 25 (4 tokens, halfway from 20 to 30)."""
    points = np.array([[2.0, 8.0], [2.0, 16.0], [4.0, 8.0], [4.0, 16.0]])
    times = np.array([10.0, 20.0, 20.0, 30.0])
    assert experts_curve(points, times, np.array([3.0]), np.array([12.0]), hold=False).tolist() == [20.0]


def test_cells_that_were_not_measured_lie_between_those_that_were():
    columns = [np.array([0.0, 0.0, 4.0, 4.0, 2.0]), np.array([0.0, 10.0, 0.0, 10.0, 0.0])]
    axes, grid, beyond = grid_of(columns, np.array([1.0, 2.0, 5.0, 6.0, 9.0]), (0, 1))
    assert [axis.values for axis in axes] == [(0.0, 2.0, 4.0), (0.0, 10.0)]
    assert grid.tolist() == [[1.0, 2.0], [9.0, 4.0], [5.0, 6.0]]  # (2, 10) between 2 and 6
    assert beyond == 0


def test_cells_at_the_edge_take_the_nearest_and_are_counted():
    columns = [np.array([0.0, 4.0, 0.0]), np.array([0.0, 0.0, 10.0])]
    _, grid, beyond = grid_of(columns, np.array([1.0, 5.0, 2.0]), (0, 1))
    assert grid[1, 1] in (2.0, 5.0)
    assert beyond == 1


def test_a_single_value_changes_nothing():
    axis = Axis.of([7.0, 7.0])
    index, weight = axis.locate(np.array([0.0, 100.0]))
    assert (index.tolist(), weight.tolist()) == ([0, 0], [0.0, 0.0])
    assert (axis.low, axis.high) == (7.0, 7.0)


def test_attention_without_skew_takes_decodes_as_equal(table):
    rows = table[(table["tp"] == 1) & (table["operator"] == "attention")]
    plain = MeasuredAttention(rows, rows[:0])
    unequal = batch(2, 200)
    unequal.decode_kv_sq = 100**2 + 300**2
    assert plain.one(unequal) == plain.one(batch(2, 200))


# ---------------------------------------------------------------------------------------------------------- scenario


def scenario(folder, **cost):
    return {
        "workload": {"generator": {"kind": "poisson", "params": {"requests": 5, "rate": 2.0}}},
        "model": "llama-3.1-8b",
        "cluster": {
            "pools": [{"accelerator": "rtx-pro-6000", "cost": {"kind": "measured", "profile": str(folder), **cost}}]
        },
    }


def test_a_scenario_runs_on_measured_costs_and_names_them(profile, tmp_path, table):
    from_folder = run(scenario(profile))
    write_measurements(table, tmp_path / "m.parquet")
    from_file = run(scenario(tmp_path / "m.parquet"))
    assert from_folder.requests["last_token_s"].tolist() == from_file.requests["last_token_s"].tolist()
    assert "kernel times on RTXPRO6000, vllm 0.19.0" in str(from_folder.summary["costs"])


@pytest.mark.parametrize("given", ["profiles/p", "[profiles/p]"])
def test_a_relative_profile_is_relative_to_the_scenario_file(tmp_path, given):
    write_profile(tmp_path / "profiles" / "p")
    file = tmp_path / "s.yaml"
    file.write_text(f"cluster: {{pools: [{{cost: {{kind: measured, profile: {given}, outside: clip}}}}]}}")
    cost = Scenario.from_yaml(file).cluster.pools[0].cost
    assert (cost.profile, cost.outside) == ((str(tmp_path / "profiles" / "p"),), "clip")


@pytest.mark.parametrize(
    ("cost", "message"),
    [
        ({"kind": "roofline"}, "'profile' is needed by the measured cost model, and by no other"),
        ({"profile": None}, "'profile' is needed by the measured cost model, and by no other"),
        ({"kind": "roofline", "profile": None, "outside": "clip"}, "'outside' is for the measured cost model only"),
        ({"profile": "/nowhere"}, "/nowhere: no such file or directory"),
    ],
)
def test_a_scenario_with_a_wrong_cost_says_so(profile, cost, message):
    with pytest.raises(InputError, match=message):
        run(scenario(profile, **cost))


def test_measurements_of_two_models_are_refused(table):
    two = table.copy()
    two.loc[0, "model"] = "other"
    with pytest.raises(InputError, match="rows have several values of model"):
        MeasuredCost(LLAMA, GPU, two)


def test_a_model_that_was_never_measured_here_has_no_name(table):
    nameless = frame(
        {
            **dict.fromkeys(META),
            "operator": "launch",
            "time_s": 1e-6,
            "hardware": "x",
            "software": "s",
            "software_version": "1",
            "date": "d",
            "source": "s",
        },
        1,
    )
    with pytest.raises(InputError, match="names no model"):
        MeasuredCost(LLAMA, GPU, nameless)


def test_experts_of_one_rank_stand_for_those_of_several():
    model, tokens = load_model("qwen3-30b-a3b"), [1, 64]
    made = {"hardware": "RTXPRO6000", "software": "vllm", "software_version": "1", "date": "2026-01-01", "source": "x"}
    parts = []
    for tp in (1, 2):
        common = {**made, "model": model.hf_id, "tp": tp, "time_s": 1e-5, "dtype": "bf16"}
        parts += [
            frame({**common, "operator": name, "tokens": tokens}, 2) for name in ("qkv", "o_proj", "router", "qk_norm")
        ]
        parts.append(frame({**common, "operator": "lm_head", "sequences": tokens}, 2))
        for new, decodes in ((0, 1), (16, 0), (16, 1)):
            shape = {"new_tokens": new, "cached_tokens": 0, "decodes": decodes, "decode_kv": 100.0}
            parts.append(frame({**common, "operator": "attention", **shape}, 1))
    # 1 us for each token and 10 us for each expert visited, on one rank.
    grid = [(t, e) for t in (1, 64) for e in (8, 128)]
    shape = {"tokens": [t for t, _ in grid], "activated_experts": [e for _, e in grid]}
    times = [t * 1e-6 + e * 1e-5 for t, e in grid]
    parts.append(frame({**made, "model": model.hf_id, "tp": 1, "operator": "moe", "time_s": times, **shape}, 4))
    table = pd.concat(parts, ignore_index=True)
    shape = batch(64, 100)
    visited = 128 * (1 - (1 - 8 / 128) ** 64)

    def experts_s(plan: ParallelPlan) -> float:
        return MeasuredCost(model, GPU, table, plan, host_overhead_s=0.0).breakdown(shape)["moe"]

    assert experts_s(ParallelPlan()) == pytest.approx(48 * (64e-6 + visited * 1e-5))
    assert experts_s(ParallelPlan(2, 1, 2)) == pytest.approx(48 * (32e-6 + visited / 2 * 1e-5))
    assert 0.4 < experts_s(ParallelPlan(2)) / experts_s(ParallelPlan()) < 0.6


def test_a_chunk_of_more_tokens_than_measured_goes_on_in_pieces(table):
    attention = table[(table["operator"] == "attention") & (table["tp"] == 1)]
    found = MeasuredAttention(attention, table[:0])
    most = int(attention["new_tokens"].max())
    pieces = [found.one(batch(chunks=[(most - 1, 100 + i * (most - 1))])) for i in range(3)]
    assert found.substitutions == {}
    whole = batch(chunks=[(3 * (most - 1), 100)])
    assert found.one(whole) == pytest.approx(sum(pieces))
    assert found.run(whole, np.arange(1))[0] == found.one(whole)
    assert found.substitutions == {f"attention: prefill chunk above what was measured ({most:g})": 3}


def test_collectives_of_another_machine_are_refused(table):
    made = {"software": "nccl", "software_version": "2", "date": "2026-01-01", "source": "x", "hardware": "h200"}
    other = frame({**made, "operator": "all_reduce", "message_bytes": [1, 2], "ranks": 2, "time_s": 1e-5}, 2)
    with pytest.raises(InputError, match="was measured on h200, and the pool has rtx-pro-6000"):
        MeasuredCost(LLAMA, GPU, pd.concat([table, other], ignore_index=True), ParallelPlan(2))

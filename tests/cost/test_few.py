"""A few steps as a list, a run as an array, and one step after the other: the same durations to the last bit.

Asked for at the seams: 16 decodes and 17, where pieces of a curve meet, the end of a table of runs, steps with padding,
chunks or windows, times that would fall below a nanosecond.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware_profiles import load_accelerator
from simulator.calibration.load import load_measurements
from simulator.calibration.schema import frame
from simulator.cost import operator_cost
from simulator.cost.constant import ConstantCost
from simulator.cost.efficiency import DEFAULT_EFFICIENCY
from simulator.cost.fitted_kernels import fitted_cost
from simulator.cost.graphs import CudaGraphs
from simulator.cost.kernels import RooflineKernels
from simulator.cost.measured import MeasuredCost
from simulator.cost.operator_cost import BEYOND_DECODES, OperatorCost
from simulator.cost.roofline import kernel_shapes, roofline_cost
from simulator.cost.shape import BatchShape, CostModel
from simulator.cost.table_attention import BEYOND_CHUNKS
from simulator.cost.table_kernels import TableKernels
from simulator.models import load_model
from simulator.parallel import ParallelPlan
from tests.calibration.support import write_profile
from tests.cost.support import advanced, batch, shapes

LLAMA = load_model("llama-3.1-8b")
H200 = load_accelerator("h200")
GRAPHS = CudaGraphs((1, 2, 4, 8, 16, 32), decode_only=True)


def measured_attention(decode_s: Callable[[int, int], float]) -> pd.DataFrame:
    """Attention of Llama-3.1-8B on an H200, measured at few points: up to 8 decodes of 3,000 tokens, 4 chunks."""
    made = {"hardware": "h200", "software": "vllm", "software_version": "1", "date": "2026-01-01", "source": "by hand"}
    heads = {"heads": 32, "kv_heads": 8, "head_dim": 128, "kv_dtype": "bf16"}
    kv = [1, 40, 500, 3000]
    parts = [
        frame(
            {
                **made,
                **heads,
                "operator": "decode_attention",
                "decodes": count,
                "decode_kv": [float(size) for size in kv[: 4 if count < 8 else 3]],
                "time_s": [decode_s(count, size) for size in kv[: 4 if count < 8 else 3]],
            },
            4 if count < 8 else 3,
        )
        for count in (1, 3, 8)
    ]
    new = [1, 64, 700]
    parts += [
        frame(
            {
                **made,
                **heads,
                "operator": "prefill_attention",
                "sequences": count,
                "new_tokens": new,
                "cached_tokens": 0,
                "time_s": [7e-6 + count * tokens**2 * 1e-11 for tokens in new],
            },
            3,
        )
        for count in (1, 4)
    ]
    return pd.concat(parts, ignore_index=True)


def table_cost(
    decode_s: Callable[[int, int], float] = lambda count, kv: 6e-6 + (count * kv) ** 1.1 * 1e-9, **options: Any
) -> OperatorCost:
    shapes_ = kernel_shapes(LLAMA, H200)
    kernels = TableKernels(measured_attention(decode_s), shapes_, RooflineKernels(shapes_, DEFAULT_EFFICIENCY))
    return OperatorCost(shapes_, kernels, **{"host_overhead_s": 1e-3, **options})


COSTS: dict[str, CostModel] = {
    "fits": fitted_cost(LLAMA, H200, graphs=GRAPHS),
    "fits, experts": fitted_cost(load_model("qwen3-30b-a3b"), H200, ParallelPlan(tp=2)),
    "fits, windows": fitted_cost(load_model("gpt-oss-20b"), H200),
    "tables": table_cost(graphs=GRAPHS),
    "roofline": roofline_cost(LLAMA, load_accelerator("a100-80gb")),
    "roofline, windows": roofline_cost(load_model("mistral-7b-v0.1"), load_accelerator("l4"), host_overhead_s=0.0),
    "roofline, stages": roofline_cost(LLAMA, load_accelerator("a100-80gb"), ParallelPlan(pp=3)),
    "constant": ConstantCost(0.02),
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> MeasuredCost:
    table = load_measurements(write_profile(tmp_path_factory.mktemp("profile") / "p", tps=(1,)))
    return MeasuredCost(LLAMA, load_accelerator("rtx-pro-6000"), table)


def hold(cost: CostModel, shape: BatchShape, k: int) -> list[int]:
    """Assert that the three ways agree; return the durations."""
    stepped = [cost.step_ns(advanced(shape, i)) for i in range(k)]
    few, run = cost.few_ns(shape, k), cost.run_ns(shape, k)
    assert few == stepped
    assert run.tolist() == stepped
    assert run.dtype == np.int64
    assert all(type(duration) is int for duration in few)
    assert min(stepped) >= 1
    return stepped


@st.composite
def small_batches(draw: st.DrawFn) -> BatchShape:
    """Draw what a replica that isn't full computes, where the tables of runs are and many pieces meet."""
    chunks = draw(st.lists(st.tuples(st.integers(1, 600), st.integers(0, 4000)), max_size=3))
    shape = batch(draw(st.integers(0, 20)), draw(st.integers(1, 5000)), chunks, window=draw(st.sampled_from([None, 9])))
    shape.padding_tokens = draw(st.sampled_from([0, 0, 0, 7]))
    if shape.decodes:
        shape.decode_kv += draw(st.integers(0, shape.decodes))  # decodes of unequal length
    return shape


@pytest.mark.parametrize("name", COSTS)
@settings(max_examples=40, deadline=None)
@given(shape=st.one_of(small_batches(), small_batches(), shapes()), k=st.integers(1, 45))
def test_few_run_and_steps_agree(name: str, shape: BatchShape, k: int) -> None:
    hold(COSTS[name], shape, k)


@settings(max_examples=40, deadline=None)
@given(shape=st.one_of(small_batches(), shapes()), k=st.integers(1, 45))
def test_few_run_and_steps_agree_on_a_layer_profile(measured: MeasuredCost, shape: BatchShape, k: int) -> None:
    hold(measured, shape, k)


@pytest.mark.parametrize("name", COSTS)
@pytest.mark.parametrize("decodes", range(1, 18))
def test_any_few_decodes_on_either_side_of_a_long_run(name: str, decodes: int) -> None:
    for k in (1, 2, 39, 40, 41):
        hold(COSTS[name], batch(decodes, 480), k)  # one measured point of the tables lies at 500


@pytest.mark.parametrize("decodes", [1, 5, 8, 16, 17])
def test_a_long_run_over_several_pieces(decodes: int) -> None:
    durations = hold(table_cost(), batch(decodes, 10), 3200)
    rates = {round(after - before, -2) for before, after in zip(durations, durations[40:], strict=False)}
    assert len(rates) > 2  # it did leave pieces behind


@pytest.mark.parametrize("decodes", [1, 3, 16])
def test_a_run_that_outgrows_its_table(decodes: int) -> None:
    cost = table_cost()
    # The first makes one of 64 for a single decode: as long as what the second needs, and one less than the third does.
    for kv, k in ((30, 5), (50, 14), (50, 15), (30, 40), (700, 40), (30, 2000), (5000, 3), (30, 5)):
        hold(cost, batch(decodes, kv), k)


@pytest.mark.parametrize("decodes", [1, 3, 16])
def test_a_run_at_the_end_of_the_longest_table(decodes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operator_cost, "_LONGEST_RUN_TABLE", 1 << 12)
    cost = table_cost()
    last = (1 << 12) // decodes  # tokens of each decode
    for k in (1, 2, 39, 40, 41, 80):
        for start in (last - k - 1, last - k, last - k + 1, last - 1, last, last + 1):
            hold(cost, batch(decodes, start), k)


@pytest.mark.parametrize("decodes", [1, 17])
def test_a_time_that_would_fall_below_a_nanosecond_is_one(decodes: int) -> None:
    # Attention takes less and less, and beyond what was measured would give back all that the rest takes.
    falling = table_cost(lambda _, kv: 10.0 / kv, host_overhead_s=0.0)
    durations = hold(falling, batch(decodes, 400), 4000)
    assert durations[0] > 1
    first = durations.index(1)
    assert hold(falling, batch(decodes, 400 + first - 20), 40)[-20:] == [1] * 20


# ------------------------------------------------------------------------------------------- what wasn't measured


@pytest.mark.parametrize(
    ("shape", "k", "beyond"),
    [
        (batch(2, 2900), 40, {}),  # the last attends to 2 x 2,939
        (batch(2, 3000), 1, {}),
        (batch(2, 2990), 11, {}),
        (batch(2, 2990), 12, {BEYOND_DECODES: 1}),
        (batch(2, 3001), 12, {BEYOND_DECODES: 12}),
        (batch(9, 100), 12, {BEYOND_DECODES: 12}),  # more than were measured
        (batch(17, 100), 12, {BEYOND_DECODES: 12}),
        (batch(2, 100, [(10, 20)]), 12, {}),
        (batch(2, 2990, [(10, 20)]), 12, {BEYOND_DECODES: 1}),
        (batch(2, 3001, [(10, 20)]), 12, {BEYOND_DECODES: 12}),
        (batch(0, 0, [(700, 0)]), 1, {}),
        # 50 tokens after 4,782, 4,832 and 4,882 have 240,375, 242,875 and 245,375 pairs; 700 fresh ones have 245,350.
        (batch(0, 0, [(50, 4782)]), 3, {BEYOND_CHUNKS: 1}),
        (batch(2, 2990, [(50, 4782)]), 12, {BEYOND_CHUNKS: 10, BEYOND_DECODES: 1}),
    ],
)
def test_what_was_not_measured_is_counted(shape: BatchShape, k: int, beyond: dict[str, int]) -> None:
    stepped, few, run = table_cost(), table_cost(), table_cost()
    for i in range(k):
        stepped.step_ns(advanced(shape, i))
    few.few_ns(shape, k)
    run.run_ns(shape, k)
    assert stepped.substitutions == beyond
    for counted in (few.substitutions, run.substitutions):
        # A run whose last step lies beyond may be counted whole, so that nobody has to look for the first that does.
        assert counted.keys() == beyond.keys()
        assert all(beyond[what] <= counted[what] <= k for what in beyond)


def test_what_comes_out_of_a_table_of_runs_is_counted_each_time() -> None:
    cost = table_cost()
    for times in (1, 2):
        cost.few_ns(batch(2, 3500), 10)
        cost.run_ns(batch(2, 3500), 10)
        cost.step_ns(batch(2, 3500))
        assert cost.substitutions == {BEYOND_DECODES: 21 * times}

"""Grids: the work that cases claim, worked out by hand; what bounds a grid; how long it takes."""

from __future__ import annotations

import itertools

import pytest

from hardware_profiles import load_accelerator
from simulator.calibration.microbenchmarks import budget, report
from simulator.calibration.microbenchmarks.case import Case, sets_beyond_cache, shape
from simulator.calibration.microbenchmarks.operators import attention, collectives, copies, experts
from simulator.calibration.microbenchmarks.operators.base import Limits
from simulator.calibration.microbenchmarks.run import OPERATORS, check_operators, grid
from simulator.calibration.microbenchmarks.sampling import FULL, QUICK
from simulator.calibration.schema import COLUMNS
from simulator.calibration.schema import OPERATORS as SCHEMA
from simulator.errors import InputError

H200 = load_accelerator("h200")
LIMITS = [Limits(quick, True, H200.process_memory_bytes) for quick in (True, False)]


def found(cases: list[Case], operator: str, kernel: str = "", **columns: int) -> Case:
    """Return the one case of those columns (and bf16, without a window)."""
    (one,) = [
        case
        for case in cases
        if case.operator == operator
        and case.kernel.startswith(kernel)
        and case.get("window") is None
        and (case.dtype, case.kv_dtype) in (("bf16", None), ("bf16", "bf16"), (None, None))
        and all(case.get(name) == value for name, value in columns.items())
    ]
    return one


@pytest.mark.parametrize("limits", LIMITS)
def test_cases_are_distinct_and_have_what_the_schema_wants(limits: Limits) -> None:
    cases = grid(limits, 8, OPERATORS)
    assert len({case.key for case in cases}) == len(cases)
    for case in cases:
        assert {name for name, _ in case.shape} >= set(SCHEMA[case.operator])
        assert {name for name, _ in case.shape} <= set(COLUMNS)
    assert {case.operator for case in cases} == set(OPERATORS)


def test_gemm_counts_products_and_each_matrix_once() -> None:
    case = found(grid(LIMITS[1], 1, ["gemm"]), "gemm", "cublas", tokens=16, n=4096, k=1024)
    assert case.flops == 2 * 16 * 4096 * 1024
    assert case.bytes == 2 * (16 * 1024 + 4096 * 1024 + 16 * 4096)


CHUNKS = list(itertools.product((1, 3, 8), (0, 1, 5, 20), (None, 1, 4, 30)))


@pytest.mark.parametrize(("new", "cached", "window"), CHUNKS)
def test_attended_pairs(new: int, cached: int, window: int | None) -> None:
    pairs = sum(min(cached + i + 1, window or 10**9) for i in range(new))
    assert attention.attended_pairs(new, cached, window) == pairs


def test_decode_reads_keys_and_values_of_all_sequences_once() -> None:
    case = found(grid(LIMITS[1], 1, ["decode_attention"]), "decode_attention", decodes=16, decode_kv=1024, heads=32,
                 kv_heads=8)  # fmt: skip
    assert case.bytes == 16 * (2 * 1024 * 8 * 128 * 2 + 2 * 32 * 128 * 2)
    assert case.flops == 16 * 4 * 32 * 128 * 1024  # scores and sums, 2 each


def test_experts_that_are_visited() -> None:
    assert experts.visited_experts(1, 128, 8, "balanced") == experts.visited_experts(1, 128, 8, "uniform") == 8
    assert experts.visited_experts(100, 128, 8, "balanced") == 128
    # A token misses one of 4 experts that has 1 with 3/4; two tokens with 9/16.
    assert experts.visited_experts(2, 4, 1, "uniform") == pytest.approx(4 * 7 / 16)


def test_collectives_take_powers_of_two_ranks_up_to_the_gpus() -> None:
    assert collectives.cases(1, quick=False) == []
    assert {case["ranks"] for case in collectives.cases(7, quick=False)} == {2, 4}
    assert {case["ranks"] for case in collectives.cases(7, quick=True)} == {4}


def test_fp8_and_large_inputs_are_left_out_where_the_gpu_has_no_room() -> None:
    old = grid(Limits(False, False, 24e9), 1, OPERATORS)
    assert not [case for case in old if "fp8" in (case.dtype, case.kv_dtype)]
    assert all(2 * c["decodes"] * c["decode_kv"] * c["kv_heads"] * c["head_dim"] * 2 <= 0.6 * 24e9
               for c in old if c.operator == "decode_attention")  # fmt: skip
    assert len(old) < len(grid(LIMITS[1], 1, OPERATORS))


def test_operators_that_are_asked_for() -> None:
    assert check_operators([]) == OPERATORS
    assert check_operators(["norm", "gemm", "norm"]) == ("norm", "gemm")
    assert {case.operator for case in grid(LIMITS[0], 8, ["norm", "all_reduce"])} == {"norm", "all_reduce"}
    with pytest.raises(InputError, match=r"--only gem: .* did you mean 'gemm'"):
        check_operators(["gem"])


@pytest.mark.parametrize(("set_bytes", "sets"), [(1e9, 1), (100, 1), (99, 2), (26, 4), (1, 64), (0, 64)])
def test_sets_of_inputs_are_twice_the_cache_together(set_bytes: float, sets: int) -> None:
    assert sets_beyond_cache(set_bytes, 50) == sets


def test_roofline_takes_the_link_that_bytes_cross() -> None:
    pcie, hbm = (Case("copy", kernel, shape(message_bytes=64), bytes=64e9) for kernel in ("h2d pinned", "hbm"))
    assert copies.over_pcie(pcie)
    assert budget.roofline_s(pcie, H200) == pytest.approx(1.0)
    assert budget.roofline_s(hbm, H200) == pytest.approx(64 / 4800)
    product = Case("gemm", "cublas", shape(tokens=1, n=1, k=1), "fp8", flops=1978.9e12, bytes=1.0)
    assert budget.roofline_s(product, H200) == pytest.approx(1.0)


def test_quick_takes_less_than_three_minutes_on_an_h200_by_its_shapes() -> None:
    # With 8 GPUs too; the budget holds it in any case.
    assert budget.estimate_s(grid(LIMITS[0], 8, OPERATORS), H200, QUICK) < 180
    assert budget.QUICK_LIMIT_S < 180


def test_the_estimate_counts_samples_warm_up_and_compilation() -> None:
    case = Case("norm", "triton add_rms_norm", shape(tokens=1, n=1024), "bf16", bytes=1.0)
    full = budget.SETUP_S + FULL.warmup_s + FULL.window_s + 3 * (FULL.tune_s + 2 * budget.LEAST_S) + 2 * budget.LEAST_S
    assert budget.estimate_s([case], H200, FULL) == pytest.approx(full + 3 * budget.COMPILE_S)
    assert budget.estimate_s([case, case], H200, FULL) == pytest.approx(2 * full + 3 * budget.COMPILE_S)


def test_fractions_are_of_the_biggest_shape_that_was_measured() -> None:
    small, big, unmeasured = (
        Case("gemm", "cublas", shape(tokens=t, n=8, k=8), "bf16", flops=flops, bytes=1.0)
        for t, flops in ((1, 1e9), (2, 989.4e9), (3, 1e15))
    )
    copy = Case("copy", "hbm", shape(message_bytes=64), bytes=4.8e9)
    times = {small.key: 1.0, big.key: 2e-3, copy.key: 1.25e-3}
    first, second = report.fractions([small, big, unmeasured, copy], times, H200)
    assert (first.case, first.bound, first.reached) == (big, "FLOP/s", pytest.approx(0.5))
    assert (second.case, second.bound, second.reached) == (copy, "memory", pytest.approx(0.8))
    assert report.lines([first])[0].startswith("50 % of FLOP/s  2,000.0 us  gemm cublas bf16 tokens=2")
    assert report.lines([]) == []

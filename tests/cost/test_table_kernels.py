"""Costs from kernel tables: what was measured comes back, what lies between is interpolated, what lacks is said."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hardware_profiles import load_accelerator
from simulator.calibration.schema import frame, write_measurements
from simulator.cost.collectives import Collectives
from simulator.cost.efficiency import DEFAULT_EFFICIENCY
from simulator.cost.graphs import CudaGraphs
from simulator.cost.kernels import RooflineKernels
from simulator.cost.measured_sources import measured_cost
from simulator.cost.operator_cost import OperatorCost
from simulator.cost.roofline import kernel_shapes
from simulator.cost.shape import BatchShape
from simulator.cost.table_attention import Surface, prefill_surface
from simulator.cost.table_kernels import TableKernels
from simulator.errors import InputError
from simulator.models.loading import load_model
from simulator.parallel import ParallelPlan
from simulator.sharding import Matrix

H200 = load_accelerator("h200")
LLAMA = load_model("llama-3.1-8b")
MADE = {"hardware": "h200", "software": "vllm", "software_version": "1.0", "date": "2026-01-01", "source": "by hand"}


def rows(operator: str, **columns: object) -> pd.DataFrame:
    count = max((len(value) for value in columns.values() if isinstance(value, list)), default=1)
    return frame({"operator": operator, **MADE, **columns}, count)


def gemm(n: int, k: int, times: dict[int, float], dtype: str = "bf16") -> pd.DataFrame:
    return rows("gemm", n=n, k=k, tokens=list(times), time_s=list(times.values()), weight_dtype=dtype)


def kernels(table: pd.DataFrame, model=LLAMA, plan: ParallelPlan | None = None, **options) -> TableKernels:
    shapes = kernel_shapes(model, H200, plan, **options)
    return TableKernels(table, shapes, RooflineKernels(shapes, DEFAULT_EFFICIENCY))


def batch(decodes: int = 0, kv: int = 0, chunks: tuple[tuple[int, int], ...] = ()) -> BatchShape:
    shape = BatchShape()
    shape.decodes, shape.decode_kv, shape.decode_kv_sq = decodes, decodes * kv, decodes * kv * kv
    shape.decode_window_kv = shape.decode_kv
    shape.chunks = list(chunks)
    shape.prefill_tokens = sum(new for new, _ in chunks)
    shape.logit_rows = decodes + len(chunks)
    return shape


def test_a_measured_product_takes_what_was_measured_and_is_linear_between():
    found = kernels(gemm(6144, 4096, {1: 30e-6, 9: 40e-6, 17: 80e-6})).gemm(
        Matrix("qkv", 4096, 6144), np.array([1.0, 5.0, 9.0, 13.0, 17.0, 25.0])
    )
    assert found == pytest.approx([30e-6, 35e-6, 40e-6, 60e-6, 80e-6, 80e-6 * 25 / 17])  # the last rate goes on


def test_a_matrix_between_measured_ones_takes_their_share_of_the_estimate():
    shapes = kernel_shapes(LLAMA, H200)
    estimate = RooflineKernels(shapes, DEFAULT_EFFICIENCY)
    tokens = np.array([1.0, 64.0, 1024.0])
    tables = []
    for n, k, ratio in ((4096, 2048, 1.2), (8192, 2048, 1.2), (4096, 8192, 1.6), (8192, 8192, 1.6)):
        times = ratio * estimate.gemm(Matrix("qkv", k, n), tokens)
        tables.append(gemm(n, k, dict(zip((1, 64, 1024), times.tolist(), strict=True))))
    matrix = Matrix("qkv", 4096, 6144)  # k = 4096 lies a third of the way from 2048 to 8192
    found = kernels(pd.concat(tables, ignore_index=True)).gemm(matrix, tokens)
    assert found == pytest.approx(estimate.gemm(matrix, tokens) * (1.2 + (1.6 - 1.2) / 3))


def test_products_in_fp8_lose_the_quantisation_that_engines_fuse():
    measured = gemm(6144, 4096, {1: 20e-6, 3: 30e-6}, "fp8")
    quantize = rows("quantize", k=4096, tokens=[1, 3], time_s=[2e-6, 4e-6], kernel="dynamic: x")
    table = pd.concat([measured, quantize], ignore_index=True)
    found = kernels(table, weights_dtype="fp8").gemm(Matrix("qkv", 4096, 6144), np.array([1.0, 3.0]))
    assert found == pytest.approx([18e-6, 26e-6])


def test_what_was_not_measured_is_the_estimates_and_is_said():
    shapes = kernel_shapes(LLAMA, H200)
    estimate = RooflineKernels(shapes, DEFAULT_EFFICIENCY)
    found = TableKernels(gemm(6144, 4096, {1: 1e-6, 2: 2e-6}, "int8"), shapes, estimate)
    matrix, tokens = Matrix("qkv", 4096, 6144), np.array([1.0, 100.0])
    assert found.gemm(matrix, tokens) == pytest.approx(estimate.gemm(matrix, tokens))
    assert found.attention.decode(2).at(1000) == estimate.attention.decode(2).at(1000)
    lines = "\n".join(found.sources)
    assert "not measured, a fit or an estimate in its place: products with bf16 weights" in lines
    assert "decode_attention with 32 heads, 8 key-value heads of 128, KV in bf16" in lines


def test_decodes_are_looked_up_by_number_and_mean_context():
    shape = {"heads": 32, "kv_heads": 8, "head_dim": 128, "kv_dtype": "bf16"}
    table = rows(
        "decode_attention",
        decodes=[1, 1, 3, 3],
        decode_kv=[100.0, 300.0] * 2,
        time_s=[10e-6, 30e-6, 20e-6, 80e-6],
        **shape,
    )
    attention = kernels(table).attention
    assert attention.decode(1).at(200) == pytest.approx(20e-6)
    assert attention.decode(2).at(2 * 200) == pytest.approx((20e-6 + 50e-6) / 2)


def test_chunks_are_looked_up_by_pairs():
    table = rows("prefill_attention", sequences=1, new_tokens=[3, 7], cached_tokens=0, time_s=[6e-6, 28e-6])
    surface = prefill_surface(table, None)
    assert surface is not None
    # 2 new tokens after 4 cached attend to 5 + 6 = 11 pairs; 3 fresh ones to 6, 7 fresh ones to 28.
    assert surface.curve(1).at(1 * 11.0) == pytest.approx(11e-6)


def test_experts_by_their_sizes_layout_and_routing():
    model = load_model("qwen3-30b-a3b")
    shape = {"hidden_size": 2048, "intermediate_size": 768, "num_experts": 128, "top_k": 8, "weight_dtype": "bf16"}
    parts = [
        rows("experts", tokens=[1, 3], time_s=[a, 3 * a], moe_tp=tp, moe_ep=ep, routing=routing, **shape)
        for a, tp, ep, routing in (
            (1e-6, 2, 1, "balanced"),
            (2e-6, 2, 1, "power_law_1.2"),
            (5e-6, 1, 2, "power_law_1.2"),
        )
    ]
    table = pd.concat(parts, ignore_index=True)
    for plan, expected in ((ParallelPlan(2), 4e-6), (ParallelPlan(2, 1, 2), 10e-6)):
        found = kernels(table, model, plan).experts(np.array([2.0]), np.zeros(1))
        assert found == pytest.approx([expected])


def test_an_engines_collective_in_a_graph_comes_before_nccl():
    def measured(kernel: str, time_s: float) -> pd.DataFrame:
        return rows("all_reduce", message_bytes=[1000, 2000], ranks=2, time_s=[time_s, 2 * time_s], kernel=kernel)

    table = pd.concat([measured("NCCL", 1e-6), measured("own_eager", 2e-6), measured("own_graph", 3e-6)])
    estimate = RooflineKernels(kernel_shapes(LLAMA, H200, ParallelPlan(2)), DEFAULT_EFFICIENCY)
    found = Collectives(table.reset_index(drop=True), 2, estimate)
    assert found.all_reduce(np.array([0.0, 1000.0, 1500.0])) == pytest.approx([0.0, 3e-6, 4.5e-6])
    assert "own_graph" in found.sources[0]
    assert found.sources[1].startswith("tensor parallel all_gather: not in these measurements; ")
    assert found.sources[1].endswith("estimate for nvlink4")
    assert found.all_gather(np.array([1e6])) == pytest.approx(estimate.all_gather(np.array([1e6])))


@pytest.fixture(scope="module")
def whole() -> pd.DataFrame:
    """Return tables of everything that Llama-3.1-8B on one rank is made of, of roughly the right size."""
    rng = np.random.default_rng(3)
    tokens = [1, 2, 8, 64, 256, 1024, 4096]
    parts = []
    for n, k in ((6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336), (128256, 4096)):
        times = 4e-6 + np.maximum(n * k * 2 / 4e12, np.array(tokens) * n * k * 2 / 7e14) * rng.uniform(1, 1.1, 7)
        parts.append(gemm(n, k, dict(zip(tokens, times.tolist(), strict=True))))
    shape = {"heads": 32, "kv_heads": 8, "head_dim": 128, "kv_dtype": "bf16"}
    for count in (1, 4, 64):
        kv = np.array([1.0, 128.0, 1024.0, 8192.0])
        parts.append(
            rows(
                "decode_attention",
                decodes=count,
                decode_kv=kv.tolist(),
                time_s=(6e-6 + count * kv * 4096 / 4e12).tolist(),
                **shape,
            )
        )
    for count in (1, 8):
        new = np.array([1, 128, 1024, 4096])
        times = 8e-6 + count * new * (new + 1) / 2 * 4 * 4096 / 5e14
        parts.append(
            rows(
                "prefill_attention",
                sequences=count,
                new_tokens=new.tolist(),
                cached_tokens=0,
                time_s=times.tolist(),
                **shape,
            )
        )
    return pd.concat(parts, ignore_index=True)


def cost(whole: pd.DataFrame, tmp_path, **options) -> OperatorCost:
    path = tmp_path / "tables.parquet"
    write_measurements(whole, path)
    given = {"weights_dtype": None, "activation_dtype": None, "kv_dtype": None, "host_overhead_s": 1e-3, "node": None}
    found = measured_cost(
        LLAMA, H200, [str(path)], ParallelPlan(), outside="extrapolate", where="pool", **{**given, **options}
    )
    assert isinstance(found, OperatorCost)
    return found


def test_a_run_equals_its_steps(whole, tmp_path):
    model = cost(whole, tmp_path, graphs=CudaGraphs((1, 2, 4, 8, 16), decode_only=True))
    for shape in (batch(5, 700), batch(3, 90, ((64, 0), (17, 500))), batch(0, 0, ((256, 128),)), batch(200, 20_000)):
        run = model.run_ns(shape, 9).tolist()
        stepped = []
        for _ in range(9):
            stepped.append(model.step_ns(shape))
            shape.decode_kv_sq += 2 * shape.decode_kv + shape.decodes
            shape.decode_kv += shape.decodes
            shape.chunks = [(new, cached + new) for new, cached in shape.chunks]
        assert run == stepped


def test_a_step_is_the_sum_of_its_parts_and_names_them(whole, tmp_path):
    model = cost(whole, tmp_path)
    shape = batch(4, 1024)
    parts = model.breakdown(shape)
    assert sum(parts.values()) * 1e9 == pytest.approx(model.step_ns(shape), abs=2)
    assert parts["attention_decode"] == pytest.approx(32 * (6e-6 + 4 * 1024 * 4096 / 4e12))
    assert any(line.startswith("measured gemm: vllm 1.0, by hand") for line in model.sources)


def test_steps_beyond_what_was_measured_are_counted(whole, tmp_path):
    model = cost(whole, tmp_path)
    model.step_ns(batch(64, 8192))
    assert model.substitutions == {}
    model.step_ns(batch(65, 100))
    model.run_ns(batch(1, 9000), 3)
    assert model.substitutions == {"decode attention: more or longer decodes than measured": 4}


def test_padded_steps_take_as_long_as_the_graph(whole, tmp_path):
    plain = cost(whole, tmp_path)
    graphs = cost(whole, tmp_path, graphs=CudaGraphs((1, 8, 64)))
    assert graphs.breakdown(batch(5, 100))["down"] == plain.breakdown(batch(8, 100))["down"]
    assert graphs.breakdown(batch(5, 100))["lm_head"] == plain.breakdown(batch(5, 100))["lm_head"]
    assert graphs.breakdown(batch(65, 100)) == plain.breakdown(batch(65, 100))
    decode_only = cost(whole, tmp_path, graphs=CudaGraphs((1, 8, 64), decode_only=True))
    assert decode_only.step_ns(batch(5, 100)) == graphs.step_ns(batch(5, 100))
    assert decode_only.step_ns(batch(5, 100, ((6, 0),))) == plain.step_ns(batch(5, 100, ((6, 0),)))


def test_tables_of_another_accelerator_are_refused(whole, tmp_path):
    with pytest.raises(InputError, match="was measured on h100-sxm, and the pool has h200"):
        cost(whole.assign(hardware="h100-sxm"), tmp_path)


def test_a_surface_holds_below_its_first_point_and_goes_on_beyond_its_last():
    surface = Surface(np.array([2.0, 2.0, 4.0, 4.0]), np.array([10.0, 20.0] * 2), np.array([1.0, 2.0, 3.0, 6.0]))
    assert surface.curve(2).at(2 * 5.0) == 1.0
    assert surface.curve(1).at(1 * 10.0) == 1.0
    assert surface.curve(2).at(2 * 30.0) == 3.0
    assert surface.curve(6).at(6 * 20.0) == 10.0
    assert surface.curve(3).many(np.array([30, 45, 120])).tolist() == [surface.curve(3).at(x) for x in (30, 45, 120)]


def test_a_short_chunk_takes_as_long_as_its_context_is_for_one_head():
    shape = {"operator": "prefill_attention", "sequences": 1, "cached_tokens": 0, "head_dim": 128, "kv_dtype": "bf16"}
    table = pd.concat(
        [
            rows(**shape, heads=32, kv_heads=8, new_tokens=[16, 4096], time_s=[10e-6, 400e-6]),
            rows(**shape, heads=1, kv_heads=1, new_tokens=[16, 4096], time_s=[8e-6, 90e-6]),
        ],
        ignore_index=True,
    )
    attention = kernels(table).attention
    assert attention.prefill_s(1, 4096, 0, 4096 * 4097 // 2, 4096) == pytest.approx(400e-6)
    # 16 tokens after 4,080: 65,416 pairs are few, but a single head's row of 4,096 takes 90 us.
    assert attention.prefill_s(1, 16, 4080, 16 * 4080 + 136, 4096) == pytest.approx(90e-6)

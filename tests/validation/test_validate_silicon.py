"""Serving points: layouts that can't be judged, a closed loop worked out by hand, verdicts by group."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simulator import InputError
from simulator.validation import kernel_tables, silicon, validate
from simulator.validation.inferencemax import MTP, Server, most_tokens, server_of
from simulator.validation.judging import serving_verdicts
from simulator.validation.rows import compared, to_frame
from simulator.validation.silicon import INFERENCEMAX, Assumptions
from simulator.validation.silicon_disagg import COLUMNS, PHASES, workers_of
from tests.validation.validate_support import POINT, write_points

pytestmark = pytest.mark.usefixtures("no_package")

SHARED = Path(__file__).parents[3] / "shared" / "data"

ONCE = Assumptions(requests_per_client=1)

NUMBERED = 17
"""Disaggregated points on H100 and H200 whose rows name their numbers of workers, or that have one request."""


@pytest.fixture
def steps_of_10_ms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silicon, "costs_for", lambda point, tables: {"kind": "constant", "step_s": 0.01})


@pytest.mark.usefixtures("steps_of_10_ms")
def test_a_point_by_hand(tmp_path: Path) -> None:
    """Two prompts in the first step of 10 ms, then 10 steps of a token each: TTFT 10 ms for 8, TPOT 10 for 12.5."""
    write_points(tmp_path, {})
    frame = validate(tmp_path, only="silicon", assumptions=ONCE, workers=1).set_index("metric")
    assert frame.loc["ttft_mean", "simulated"] == pytest.approx(0.010)
    assert frame.loc["ttft_mean", "error"] == pytest.approx(0.25)
    assert frame.loc["tpot_mean", "simulated"] == pytest.approx(0.010)
    assert frame.loc["tpot_mean", "error"] == pytest.approx(-0.2)
    costs = frame.loc["ttft_mean", "costs"]
    assert costs.startswith("constant")
    assert "closed loop, 1 requests a client, fixed lengths, all clients start at 0" in costs
    assert "server trtllm 1.0.0" in costs


@pytest.mark.parametrize(
    ("changes", "metric", "reason"),
    [
        ({"mode": "disagg", "system": "gb200"}, "not_judged", "disaggregated: simulated on h100_sxm and h200_sxm only"),
        ({"mode": "disagg", "system": "h200_sxm"}, "not_judged", "names no layout of its prefill workers"),
        ({"mode": "apart"}, "not_judged", "mode 'apart' is not known"),
        ({"tp_size": 16.0}, "not_judged", "the id says tp1"),
        ({"tp_size": 16.0, "id": "none"}, "not_judged", "more than the 8 GPUs"),
        ({"silicon_data_source": "nothing"}, "not_judged", "no silicon_concurrency"),
        ({"backend": "mystery"}, "not_judged", "backend 'mystery'"),
        ({"tp_size": 3.0, "id": "none"}, "not_judged", "does not split"),
        ({"model_path": "nobody/x"}, "not_run", "unknown model"),
        ({"system": "abacus"}, "not_run", "no accelerator"),
        ({"gemm_quant_mode": "odd"}, "not_run", "gemm_quant_mode 'odd'"),
        (
            {"model_path": "deepseek-ai/DeepSeek-R1", "tp_size": 8.0, "moe_tp_size": 2.0, "id": "none"},
            "not_judged",
            "experts over 2 x 1 ranks",
        ),
        (
            {"model_path": "deepseek-ai/DeepSeek-R1", "attention_dp_size": 6.0, "moe_ep_size": 6.0, "id": "none"},
            "not_judged",
            "ep=6 does not divide the experts",
        ),
        (
            {
                "model_path": "deepseek-ai/DeepSeek-R1",
                "tp_size": 64.0,
                "moe_tp_size": 8.0,
                "moe_ep_size": 8.0,
                "id": "none",
            },
            "not_judged",
            "more than the 8 GPUs",
        ),
        (
            {
                "system": "gb200",
                "model_path": "deepseek-ai/DeepSeek-R1",
                "tp_size": 12.0,
                "moe_tp_size": 12.0,
                "id": "none",
            },
            "not_judged",
            "does not split the 128 heads",
        ),
    ],
)
def test_points_that_are_listed_with_their_reason(
    tmp_path: Path, changes: dict[str, Any], metric: str, reason: str
) -> None:
    write_points(tmp_path, changes)
    (row,) = validate(tmp_path, only="silicon", workers=1).itertuples()
    assert row.metric == metric
    assert reason in row.costs


def test_a_layout_that_fits_its_id_in_any_spelling_is_judged() -> None:
    point = {**POINT, "model_path": "deepseek-ai/DeepSeek-R1", "tp_size": 4.0, "moe_tp_size": 1.0, "moe_ep_size": 4.0}
    model = silicon.model_for("deepseek-ai/DeepSeek-R1")
    for name in ("x_c4_tp4_ep4_7", "x_c4_tp4_0_ep4_0_7", "x_c4_tp4_epnone_7", "dsr1_c4_cfg7"):
        assert silicon.impossible({**point, "id": name}, model, silicon._layout(point)) is None
    assert "ep2" in str(silicon.impossible({**point, "id": "x_tp4_ep2_7"}, model, silicon._layout(point)))


def test_the_scenario_of_a_point() -> None:
    """Weights by the quantisation; gpt-oss as published, whatever the row says; experts spread over ranks."""

    def scenario(assumptions: Assumptions = ONCE, **changes: Any) -> dict[str, Any]:
        point = {**POINT, "gemm_quant_mode": None, **changes}
        model, accelerator = silicon.model_for(point["model_path"]), silicon.accelerator_for(point["system"])
        return silicon.scenario_for(point, model, accelerator, silicon._layout(point), assumptions)[0]

    def pool(assumptions: Assumptions = ONCE, **changes: Any) -> dict[str, Any]:
        found: dict[str, Any] = scenario(assumptions, **changes)["cluster"]["pools"][0]
        return found

    assert pool(gemm_quant_mode="fp8_block")["dtypes"] == {"weights": "fp8_block"}
    assert pool(gemm_quant_mode="fp8")["dtypes"] == {"weights": "fp8", "kv": "fp8"}  # NVIDIA's checkpoint
    assert pool(gemm_quant_mode="fp8", model_path="deepseek-ai/DeepSeek-V3")["dtypes"] == {"weights": "fp8"}
    assert pool(gemm_quant_mode="fp8", model_path="Qwen/Qwen3-235B-A22B-FP8")["dtypes"] == {"weights": "fp8_block"}
    assert pool(gemm_quant_mode="nvfp4")["dtypes"] == {"weights": "fp4", "kv": "fp8"}
    assert pool(gemm_quant_mode=None)["dtypes"] == {}
    assert pool(gemm_quant_mode="nvfp4", model_path="openai/gpt-oss-120b")["dtypes"] == {}
    moe = {"model_path": "openai/gpt-oss-120b", "tp_size": 8.0, "moe_tp_size": 2.0, "moe_ep_size": 4.0}
    assert pool(**moe)["parallel"] == {"tp": 8, "pp": 1, "ep": 4}
    assert scenario()["workload"]["loop"]["clients"] == 2
    assert pool()["engine"] == {"name": "trtllm@1.0"}
    assert pool(INFERENCEMAX, isl=8192)["engine"]["max_num_batched_tokens"] == 8320  # 2 + 8192 + 64, up to 64
    assert "max_num_batched_tokens" not in pool(INFERENCEMAX, isl=8192, backend="vllm")["engine"]


def test_attention_data_parallelism_of_a_point() -> None:
    """As InferenceMAX starts TensorRT-LLM with it: prompts begin together, or after 60 steps."""
    changes = {"model_path": "deepseek-ai/DeepSeek-R1", "system": "h200_sxm", "attention_dp_size": 8.0}
    point = {**POINT, **changes, "moe_ep_size": 8.0, "backend": "trtllm", "gemm_quant_mode": "fp8"}
    model, accelerator = silicon.model_for(point["model_path"]), silicon.accelerator_for("h200_sxm")
    layout = silicon._layout(point)
    assert silicon.impossible({**point, "id": "none"}, model, layout) is None
    scenario, notes = silicon.scenario_for(point, model, accelerator, layout, INFERENCEMAX)
    parallel = scenario["cluster"]["pools"][0]["parallel"]
    assert (parallel["tp"], parallel["dp"], parallel["ep"]) == (1, 8, 8)
    assert parallel["prefill_balance"] == {"timeout_steps": 60, "batching_wait_steps": 0}
    assert any("after 60 steps" in note for note in notes)
    plain, _ = silicon.scenario_for(point, model, accelerator, layout, ONCE)
    assert "prefill_balance" not in plain["cluster"]["pools"][0]["parallel"]


SERVED = {
    **POINT,
    "model_path": "deepseek-ai/DeepSeek-R1",
    "system": "h200_sxm",
    "isl": 1024.0,
    "osl": 1024.0,
    "id": "none",
    "tp_size": 8.0,
    "moe_tp_size": 8.0,
    "gemm_quant_mode": "fp8",
    "silicon_data_source": "silicon_concurrency=16; measured=2026-01-28T06:18:44Z",
}


def test_servers_that_public_scripts_started() -> None:
    """What they set is set for their points, unless servers are to have their defaults."""

    def pool(assumptions: Assumptions = INFERENCEMAX, **changes: Any) -> dict[str, Any]:
        point = {**SERVED, **changes}
        model, accelerator = silicon.model_for(point["model_path"]), silicon.accelerator_for(point["system"])
        made = silicon.scenario_for(point, model, accelerator, silicon._layout(point), assumptions)[0]
        found: dict[str, Any] = made["cluster"]["pools"][0]
        return found

    ours = pool(backend="trtllm")
    assert ours["dtypes"] == {"weights": "fp8", "kv": "fp8"}
    assert ours["engine"] == {
        "name": "trtllm@1.0",
        "max_num_batched_tokens": 8192,
        "gpu_memory_utilization": 0.75,
        "prefix_caching": False,
    }
    assert pool(ONCE, backend="trtllm")["dtypes"] == {"weights": "fp8"}
    ours = pool(backend="sglang")
    assert ours["batching"] == {"name": "sglang", "params": {"max_prefill_tokens": 32768}}
    assert (ours["engine"]["max_num_batched_tokens"], ours["engine"]["max_num_seqs"]) == (32768, 512)
    assert pool(backend="sglang", osl=8192.0)["engine"]["max_num_seqs"] == 256
    assert "batching" not in pool(ONCE, backend="sglang")
    for changes in ({"system": "b200_sxm"}, {"model_path": "Qwen/Qwen3-235B-A22B-FP8"}, {"isl": 2000.0}):
        assert server_of({**SERVED, **changes}) == Server()


def test_the_most_tokens_of_a_step_had_no_floor_at_first() -> None:
    """16 clients, 1024 tokens and 64, up to a multiple of 64."""
    assert most_tokens(SERVED, 16) == 8192
    early = {**SERVED, "silicon_data_source": "silicon_concurrency=16; measured=2025-11-02T00:00:00.000Z"}
    assert most_tokens(early, 16) == 1152
    assert most_tokens({**early, "isl": 8192.0}, 64) == 8320
    assert most_tokens({**early, "system": "b200_sxm"}, 16) == 8192  # not known of others


def test_points_with_multi_token_prediction_are_left_out() -> None:
    point = {**SERVED, "backend": "trtllm", "backend_version": "1.1.0rc2.post2"}
    assert silicon.left_out(point) is None
    run = {**point, "silicon_data_source": "silicon_concurrency=16; measured=2026-01-14T22:26:21Z"}
    assert silicon.left_out(run) == MTP
    for changes in ({"backend": "sglang"}, {"system": "b200_sxm"}):
        assert silicon.left_out({**run, **changes}) is None


DISAGG = {
    "mode": "disagg",
    "system": "h200_sxm",
    "id": "none",
    **{f"prefill_{name}": 1 for name in COLUMNS},
    **{f"decode_{name}": 1 for name in COLUMNS},
}


@pytest.mark.usefixtures("steps_of_10_ms")
def test_a_disaggregated_point_by_hand(tmp_path: Path) -> None:
    """A prompt takes a step of 10 ms on one worker, its KV some 100 us to the other, which goes on from there."""
    write_points(tmp_path, {**DISAGG, "decode_num_workers": 2})
    frame = validate(tmp_path, only="silicon", assumptions=ONCE, workers=1).set_index("metric")
    assert "vllm disagg/" in frame.loc["ttft_mean", "case"] or "trtllm disagg/" in frame.loc["ttft_mean", "case"]
    assert 0.010 <= frame.loc["ttft_mean", "simulated"] < 0.035
    assert frame.loc["tpot_mean", "simulated"] == pytest.approx(0.010, rel=0.05)
    assert "workers on nodes of their own" in frame.loc["ttft_mean", "costs"]


def test_workers_that_are_not_recorded_can_only_serve_one_request_at_a_time() -> None:
    """Two requests in flight may meet on a worker or not; one meets one worker of each phase, however many."""
    point = {**POINT, **DISAGG, "prefill_num_workers": None, "decode_num_workers": None, "gemm_quant_mode": None}
    assert "no numbers of workers" in str(silicon.left_out({**point, "decode_num_workers": 3}))
    point["silicon_data_source"] = "silicon_concurrency=1"
    assert silicon.left_out(point) is None
    assert "disagg/" in silicon.case_name(point)
    workers = {phase: workers_of(point, phase, silicon._field) for phase in PHASES}
    model, accelerator = silicon.model_for(point["model_path"]), silicon.accelerator_for("h200_sxm")
    scenario, notes = silicon.disaggregated_scenario(point, model, accelerator, workers, ONCE)
    assert [(pool["role"], pool["replicas"]) for pool in scenario["cluster"]["pools"]] == [
        ("prefill", 1),
        ("decode", 1),
    ]
    assert any("numbers of workers are not recorded" in note for note in notes)


def test_requests_of_a_point() -> None:
    fixed = silicon._trace(POINT, Assumptions(requests_per_client=10))
    assert len(fixed) == 20
    assert set(fixed.prompt_tokens.tolist()) == {100}
    assert set(fixed.output_tokens.tolist()) == {11}
    spread = silicon._trace({**POINT, "isl": 1000}, Assumptions(requests_per_client=500, shortest=0.8))
    assert spread.prompt_tokens.min() >= 800
    assert spread.prompt_tokens.max() <= 1000
    assert np.mean(spread.prompt_tokens) == pytest.approx(900, rel=0.02)
    around = silicon._trace({**POINT, "osl": 1000}, Assumptions(requests_per_client=500, answers_within=0.1))
    assert set(around.prompt_tokens.tolist()) == {100}
    assert 900 <= around.output_tokens.min() < 910 < 1090 < around.output_tokens.max() <= 1100


def test_the_load_of_a_point_is_that_of_the_scripts_with_its_lengths() -> None:
    assert silicon.load_of({**POINT, "isl": 8192, "osl": 1024}) is INFERENCEMAX
    assert silicon.load_of({**POINT, "isl": 1000, "osl": 1024}) is silicon.AS_RECORDED


def test_kernel_tables_are_found_by_system_and_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of the caller's goes before the installed package."""
    assert silicon.costs_for(POINT, None) is None
    assert silicon.costs_for(POINT, tmp_path) is None
    monkeypatch.setattr(kernel_tables, "installed_systems", lambda: ("h200_sxm",))
    assert silicon.costs_for(POINT, tmp_path) == {"kind": "measured", "profile": "aiconfigurator:h200_sxm/trtllm"}
    assert silicon.costs_for({**POINT, "system": "h100_sxm"}, tmp_path) is None
    path = tmp_path / "h200_sxm_trtllm.parquet"
    path.touch()
    assert silicon.costs_for(POINT, tmp_path) == {"kind": "measured", "profile": str(path)}


def test_assumptions_that_cannot_be() -> None:
    with pytest.raises(InputError, match="requests_per_client"):
        Assumptions(requests_per_client=0)
    with pytest.raises(InputError, match="stagger_s"):
        Assumptions(stagger_s=-1.0)
    with pytest.raises(InputError, match="shortest"):
        Assumptions(shortest=0.0)


def test_files_that_are_wrong(tmp_path: Path) -> None:
    path = write_points(tmp_path, {"isl": "many"})
    with pytest.raises(InputError, match=r"line 2: isl must be a number"):
        validate(tmp_path, only="silicon")
    path.write_text("id,backend\n")
    with pytest.raises(InputError, match="lacks the columns silicon_data_source"):
        validate(tmp_path, only="silicon")


def _group(group: str, costs: str, *errors: float, metric: str = "tpot_mean") -> list[Any]:
    return [compared("silicon", f"{group}/{i}", metric, 1.0, 1.0 + error, costs) for i, error in enumerate(errors)]


def test_groups_are_judged_by_their_median_the_worst_first() -> None:
    """Medians by hand: 9 %, 7 % and 11 %; the bar is 8 %, with fitted costs 12 %; four rows are not judged."""
    frame = to_frame(
        [
            *_group("s/b/missed", "measured: x", 0.01, -0.09, 0.02, -0.2, 0.3),
            *_group("s/b/met", "measured: x", 0.01, -0.07, 0.02, -0.2, 0.3),
            *_group("s/b/fitted", "fitted: x", 0.11, 0.11, 0.11, 0.11, 0.11),
            *_group("s/b/few", "measured: x", 5.0, 5.0, 5.0, 5.0),
            *_group("s/b/late", "estimate, not measured", *[-0.6] * 5, metric="ttft_mean"),
        ]
    )
    found = [
        (each.subject, each.metric, round(each.value or 0, 6), each.bar, each.word) for each in serving_verdicts(frame)
    ]
    assert found == [
        ("s/b/late", "ttft_mean", 0.6, 0.20, "fail"),
        ("s/b/missed", "tpot_mean", 0.09, 0.08, "fail"),
        ("s/b/fitted", "tpot_mean", 0.11, 0.12, "pass"),
        ("s/b/met", "tpot_mean", 0.07, 0.08, "pass"),
        ("s/b/few", "tpot_mean", 5.0, 0.08, "not judged"),
    ]
    assert {each.subject: each.costs for each in serving_verdicts(frame)}["s/b/late"] == "estimate"


@pytest.mark.shared_data
@pytest.mark.skipif(not SHARED.is_dir(), reason=f"the measured data is not at {SHARED}")
def test_every_shared_point_is_read_and_its_layout_checked() -> None:
    """As the README of the data says: 916 aggregated points, some with tp x ep in place of tp."""
    points = silicon.read_points(SHARED / silicon.FILE)
    assert len(points) == 1510
    able = [point for point in points if silicon.left_out(point) is None]
    assert sum(point["mode"] == "disagg" for point in able) == NUMBERED  # on H100 and H200
    able = [point for point in able if point["mode"] == "agg"]
    predicted = [point for point in points if silicon.left_out(point) == MTP]
    assert (len(able), len(predicted)) == (908, 8)
    assert {point["backend_version"] for point in predicted} == {"1.1.0rc2.post2"}
    names = {silicon.case_name(point) for point in points}
    assert len(names) == len(points)  # a row of the table can be told from every other
    contradicted = [
        point
        for point in able
        if "the id says tp"
        in (silicon.impossible(point, silicon.model_for(point["model_path"]), silicon._layout(point)) or "")
    ]
    assert contradicted
    assert all(point["tp_size"] in (1.0, 4.0, 16.0, 64.0) for point in contradicted)

"""Replays of measured vLLM runs: errors that are known because the 'server' was the simulator itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from simulator import InputError
from simulator.validation import kernel_tables, validate, vllm_runs
from simulator.validation.judging import run_verdicts
from simulator.validation.rows import STATISTICS, latencies_of
from simulator.validation.subjects import accelerator_for, engine_for, model_for
from tests.validation.validate_support import PROFILE, write_run

pytestmark = pytest.mark.usefixtures("no_package")

SHARED = Path(__file__).parents[3] / "shared" / "data"


def errors(frame: pd.DataFrame) -> dict[str, float]:
    return dict(zip(frame["metric"], frame["error"], strict=True))


def test_a_server_that_is_the_simulator_has_no_error(tmp_path: Path) -> None:
    write_run(tmp_path)
    frame = validate(tmp_path, only="vllm_runs")
    latency = frame[frame["metric"].str.match("ttft|tpot|e2e")]
    assert list(latency["metric"]) == [f"{name}_{which}" for name in ("ttft", "tpot", "e2e") for which in STATISTICS]
    assert latency["error"].abs().max() < 1e-9
    assert (frame["measured"] > 0).all()


def test_a_server_twice_as_slow_to_answer_is_half_predicted(tmp_path: Path) -> None:
    """Error is simulated over measured, less one: -50 % where the server takes twice as long, +25 % where 0.8 times."""
    write_run(tmp_path, ttft_factor=2.0, tpot_factor=0.8)
    found = errors(validate(tmp_path, only="vllm_runs"))
    for which in STATISTICS:
        assert found[f"ttft_{which}"] == pytest.approx(-0.5)
        assert found[f"tpot_{which}"] == pytest.approx(0.25)


def test_latencies_by_hand() -> None:
    """Queued at 1 s and 2 s; first tokens after 0.5 and 1 s; 5 tokens in 4 gaps of 0.25 s, and one token alone."""
    found = latencies_of(np.array([1.0, 2.0]), np.array([1.5, 3.0]), np.array([2.5, 3.0]), np.array([5.0, 1.0]))
    assert found["ttft"].tolist() == [0.5, 1.0]
    assert found["tpot"].tolist() == [0.25]
    assert found["e2e"].tolist() == [1.5, 1.0]


def test_errors_of_the_peer_stand_beside_ours(tmp_path: Path) -> None:
    write_run(tmp_path)
    frame = validate(tmp_path, only="vllm_runs").set_index("metric")
    assert frame.loc["ttft_mean", "peer_error"] == pytest.approx(0.02)
    assert frame.loc["tpot_p99", "peer_error"] == pytest.approx(-0.02)
    assert frame.loc["e2e_p50", "peer_error"] == 0.0
    assert frame["peer_error"].notna().sum() == 3


def test_costs_are_those_of_the_layer_profile_and_say_how_the_engine_was_set(tmp_path: Path) -> None:
    write_run(tmp_path, enable_prefix_caching=False, enforce_eager=True)
    (costs,) = set(validate(tmp_path, only="vllm_runs")["costs"])
    assert costs.startswith("measured: ")
    assert "async scheduling on (by default)" in costs
    assert "prefix caching off (given)" in costs
    assert "CUDA graphs off (enforce_eager) on the server" in costs
    assert "seed" not in costs
    assert "tensor_parallel_size" not in costs


def test_without_a_profile_of_the_machine_costs_are_the_default_and_say_so(tmp_path: Path) -> None:
    write_run(tmp_path, "h100_tiny")
    (costs,) = set(validate(tmp_path, only="vllm_runs")["costs"])
    assert costs.startswith("fitted")
    assert "no layer profile of this machine" in costs


def test_what_the_profile_lacks_falls_back_and_says_why(tmp_path: Path) -> None:
    """The profile was measured for one rank only."""
    write_run(tmp_path, tensor_parallel_size=2)
    (costs,) = set(validate(tmp_path, only="vllm_runs")["costs"])
    assert costs.startswith("fitted")
    assert "measured costs refused" in costs
    assert "tp=2" in costs


def test_unknown_engine_arguments_are_reported_not_fatal(tmp_path: Path) -> None:
    write_run(tmp_path, max_seq_len_to_capture=8192, kv_cache_dtype="turbo", decode_context_parallel_size=1)
    (costs,) = set(validate(tmp_path, only="vllm_runs")["costs"])
    assert "ignored: kv_cache_dtype=turbo, max_seq_len_to_capture=8192" in costs


def test_data_parallel_engines_are_replicas(tmp_path: Path) -> None:
    folder = write_run(tmp_path, data_parallel_size=2)
    meta = json.loads((folder / "meta.json").read_text())
    setup = vllm_runs.set_up(folder, meta, tmp_path)
    assert setup.scenario["cluster"]["pools"][0]["replicas"] == 2
    assert setup.scenario["router"] == "least-outstanding"


def test_data_parallel_engines_with_experts_step_together(tmp_path: Path) -> None:
    expert = {"model": "Qwen/Qwen3-30B-A3B", "data_parallel_size": 2, "enable_expert_parallel": True}
    folder = write_run(tmp_path)
    meta = json.loads((folder / "meta.json").read_text())
    meta["model"], meta["engine_kwargs"] = expert["model"], {**meta["engine_kwargs"], **expert}
    (pool,) = vllm_runs.set_up(folder, meta, tmp_path).scenario["cluster"]["pools"]
    assert pool["replicas"] == 1
    assert (pool["engine"]["args"]["data-parallel-size"], pool["engine"]["args"]["enable-expert-parallel"]) == (2, True)


def test_a_run_that_cannot_be_simulated_is_a_row_and_stops_no_other(tmp_path: Path) -> None:
    write_run(tmp_path, "rtxpro6000_bad", tensor_parallel_size=7)
    write_run(tmp_path, "unknowngpu_x")
    write_run(tmp_path, "rtxpro6000_good")
    broken = write_run(tmp_path, "rtxpro6000_cut")
    (broken / "requests.jsonl").write_text("{}\n")
    frame = validate(tmp_path, only="vllm_runs")
    missing = frame[frame["metric"] == "not_run"].set_index("case")["costs"]
    assert "tp=7" in missing["rtxpro6000_bad"]
    assert "no accelerator" in missing["unknowngpu_x"]
    assert "line 1" in missing["rtxpro6000_cut"]
    assert errors(frame[frame["case"] == "rtxpro6000_good"])["tpot_mean"] == pytest.approx(0.0, abs=1e-9)


def test_throughput_over_time_by_hand(tmp_path: Path) -> None:
    """A series that is the simulated one plus 3 tokens in each of its two first seconds."""
    folder = write_run(tmp_path)
    meta = json.loads((folder / "meta.json").read_text())
    result, _ = vllm_runs._run(vllm_runs.set_up(folder, meta, tmp_path / "layer_profiles"))
    rate = vllm_runs.output_rate(result, 1.0)
    assert rate.sum() == pytest.approx(result.requests["output_tokens"].sum())
    assert len(rate) >= 2
    measured = rate.copy()
    measured[:2] += 3.0
    lines = [f"{i + 1}.0,{value}" for i, value in enumerate(measured)]
    (folder / "timeseries.csv").write_text("\n".join(["t,gen_throughput", *lines]) + "\n")
    row = validate(tmp_path, only="vllm_runs").set_index("metric").loc["output_tokens_per_s_mae"]
    assert row["error"] == pytest.approx((6.0 / len(rate)) / measured.mean())


def test_collectives_and_tables_of_the_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Collectives of the server's version beside a profile of several ranks; without a profile the newest tables."""
    monkeypatch.setattr(kernel_tables, "installed_systems", lambda: ("abacus", "h200_sxm", "rtx_pro_6000_server"))
    folder = write_run(tmp_path)
    meta = json.loads((folder / "meta.json").read_text())
    profiles, profile = tmp_path / "layer_profiles", str(tmp_path / "layer_profiles" / PROFILE)
    assert vllm_runs.set_up(folder, meta, profiles).measurements == [[profile]]
    meta["engine_kwargs"]["tensor_parallel_size"] = 2
    collectives = "aiconfigurator:rtx_pro_6000_server/vllm@0.19.0:comm"
    assert vllm_runs.set_up(folder, meta, tmp_path / "layer_profiles").measurements == [
        [profile, collectives],
        [profile],
    ]
    newest = "aiconfigurator:rtx_pro_6000_server/vllm"
    assert vllm_runs.set_up(folder, meta, tmp_path / "nothing").measurements == [[newest]]
    own = tmp_path / "rtx_pro_6000_server_vllm.parquet"
    own.touch()
    assert vllm_runs.set_up(folder, meta, tmp_path / "nothing", tmp_path).measurements == [[str(own)]]


def test_the_run_that_the_host_overhead_was_calibrated_on_is_labelled_and_not_judged(tmp_path: Path) -> None:
    write_run(tmp_path, "rtxpro6000_llama-3.1-8b")
    write_run(tmp_path, "rtxpro6000_llama-3.1")
    words = {(each.subject, each.word) for each in run_verdicts(validate(tmp_path, only="vllm_runs"))}
    assert words == {("rtxpro6000_llama-3.1-8b", "not judged"), ("rtxpro6000_llama-3.1", "pass")}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rtxpro6000_llama-3.1-8b", "rtx-pro-6000"),
        ("RTX4090", "rtx-4090"),
        ("h200_sxm", "h200"),
        ("l40s_x", "l40s"),
        ("l4_x", "l4"),
        ("gb200", "gb200"),
        ("h100_qwen3-32b_tp2", "h100-sxm"),
    ],
)
def test_accelerators_by_the_beginning_of_a_name(name: str, expected: str) -> None:
    assert accelerator_for(name).name == expected


@pytest.mark.parametrize(
    ("backend", "version", "preset"),
    [
        ("vllm", "0.19.0", "vllm@0.19"),
        ("vllm", "0.11.2", "vllm@0.19"),
        ("vllm", "0.7.3", "vllm@0.6"),
        ("vllm", None, "vllm@0.19"),
        ("sglang", "0.5.9", "sglang@0.5"),
        ("trtllm", "0.8.1.post2", "trtllm@1.0"),
    ],
)
def test_engines_by_version(backend: str, version: str | None, preset: str) -> None:
    found, said = engine_for(backend, version)
    assert found == preset
    assert (f"simulated as {preset}" in said) == (version not in ("0.19.0", "0.5.9"))


def test_quantised_copies_are_the_model_they_are_of() -> None:
    assert model_for("Qwen/Qwen3-235B-A22B-FP8").name == "qwen3-235b-a22b"
    assert model_for("nvidia/DeepSeek-V3.1-NVFP4").name == "deepseek-v3"
    with pytest.raises(InputError, match="unknown model"):
        model_for("nobody/unheard-of-FP8")


@pytest.mark.shared_data
@pytest.mark.skipif(not SHARED.is_dir(), reason=f"the measured data is not at {SHARED}")
def test_the_shared_runs_are_compared_with_measured_costs_and_the_peer() -> None:
    frame = validate(SHARED, only="vllm_runs")
    assert not (frame["metric"] == "not_run").any()
    assert frame["costs"].str.startswith("measured").all()
    latency = frame[frame["metric"].str.match("ttft|tpot|e2e")]
    assert len(latency) == 2 * 15
    assert latency["peer_error"].notna().all()
    # README of the data: the peer's figures count on the same clock, so they are those measured to the digit.
    mean = latency[latency["case"] == "rtxpro6000_llama-3.1-8b"].set_index("metric")["measured"]
    assert mean["ttft_mean"] == pytest.approx(7.0972, abs=5e-5)
    assert mean["e2e_p99"] == pytest.approx(37.6388, abs=5e-5)

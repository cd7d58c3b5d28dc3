from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from simulator import InputError, Scenario, load_result, run
from simulator.build import build, load_trace, predictions
from simulator.resolve import resolve
from simulator.rng import stream
from simulator.runner import Watch
from workloads import Categorical, Ragged, Trace, TraceError


def a_trace(n: int = 60, **columns: Any) -> Trace:
    rng = np.random.default_rng(3)
    return Trace(
        arrival_s=np.cumsum(rng.exponential(0.1, n)),
        prompt_tokens=rng.integers(20, 900, n),
        output_tokens=rng.integers(1, 120, n),
        source="a test",
        **columns,
    )


def scenario_of(**pool: Any) -> Scenario:
    return Scenario.from_mapping({"cluster": {"pools": [pool]}})


def hashed(block_tokens: int, n: int = 40) -> Trace:
    """Requests that all begin with the same 2,048 tokens and go on by themselves."""
    common, own = 2048 // block_tokens, 1024 // block_tokens
    rows = [[*range(common), *range(1000 * (i + 1), 1000 * (i + 1) + own)] for i in range(n)]
    return Trace(
        arrival_s=np.arange(n) * 0.5,
        prompt_tokens=np.full(n, 3072),
        output_tokens=np.full(n, 8),
        block_hashes=Ragged.of(rows),
        block_size_tokens=block_tokens,
    )


def assert_same(one: Any, other: Any) -> None:
    assert one.summary_without_timing == other.summary_without_timing
    pd.testing.assert_frame_equal(one.requests, other.requests)
    pd.testing.assert_frame_equal(one.timeseries, other.timeseries)


def test_bytes_of_kv_are_those_of_the_whole_replica() -> None:
    """Neither the share of one rank or stage, nor of the layers without a window only, which sizes the blocks."""
    for model, pool, expected in (
        ("llama-3.1-8b", {"parallel": {"tp": 2, "pp": 2}}, 32 * 2 * 8 * 128 * 2),
        ("llama-3.1-8b", {"parallel": {"tp": 2}, "dtypes": {"kv": "fp8"}}, 32 * 2 * 8 * 128),
        ("gpt-oss-20b", {"accelerator": "h100-sxm"}, 24 * 2 * 8 * 64 * 2),
    ):
        scenario = Scenario.from_mapping({"model": model, "cluster": {"pools": [pool]}})
        assert build(resolve(scenario), a_trace()).pools[0].kv_bytes_per_token == expected


# -------------------------------------------------------------------------------------------------------- results


def test_a_run_from_a_scenario_a_mapping_or_a_file_is_the_same(tmp_path: Path) -> None:
    """Two runs in one process never meet, and what is written makes the same result again."""
    mapping = {
        "workload": {"generator": {"kind": "poisson", "params": {"requests": 50, "rate": 4.0, "prompt": 300}}},
        "cluster": {"pools": [{"replicas": 2}]},
        "router": "random",
        "predictor": {"kind": "noisy", "sigma": 0.5},
        "seed": 7,
    }
    first = run(mapping, out=tmp_path / "out")
    assert_same(first, run(Scenario.from_mapping(mapping)))
    assert_same(first, run(tmp_path / "out" / "scenario.yaml"))
    assert_same(first, run(first.scenario))
    stored = load_result(tmp_path / "out")
    assert stored.summary_without_timing == first.summary_without_timing
    assert Scenario.from_mapping(stored.scenario) == Scenario.from_mapping(first.scenario)
    assert first.summary["simulator"]["seed"] == 7


def test_another_seed_is_another_run() -> None:
    trace = a_trace()
    one, two = (run({"seed": seed, "router": "random", **_two()}, trace=trace) for seed in (1, 2))
    assert list(one.requests["replica"]) != list(two.requests["replica"])


def _two() -> dict[str, Any]:
    return {"cluster": {"pools": [{"replicas": 2}]}}


@pytest.mark.parametrize("engine", ["vllm@0.19", "vllm@0.6", "sglang"])
def test_stepwise_gives_the_same(engine: str) -> None:
    scenario = scenario_of(engine={"name": engine, "num_kv_blocks": 4000 if engine == "sglang" else 250})
    trace = a_trace()
    assert_same_requests(run(scenario, trace=trace), run(scenario, trace=trace, stepwise=True))


def assert_same_requests(one: Any, other: Any) -> None:
    pd.testing.assert_frame_equal(one.requests, other.requests)


def test_pipeline_stages_swapping_and_pools_of_two_kinds_run() -> None:
    pools = [
        {"name": "a", "parallel": {"tp": 2, "pp": 2}, "price_per_gpu_hour": 2.0},
        {
            "name": "b",
            "accelerator": "h100-sxm",
            "replicas": 2,
            "batching": {"name": "vllm", "params": {"preemption_mode": "swap"}},
            "engine": {"num_kv_blocks": 130},
            "price_per_gpu_hour": 3.0,
        },
    ]
    result = run({"cluster": {"pools": pools}}, trace=a_trace(120))
    assert result.summary["requests"]["finished"] == 120
    assert [pool["name"] for pool in result.summary["pools"]] == ["a", "b"]
    assert sorted(result.requests["replica"].unique()) == [0, 1, 2]
    assert result.scenario["cluster"]["pools"][1]["engine"]["swap_space_gib"] == 4.0
    assert result.summary["cost"]["total"] > 0


def test_importing_the_package_is_light() -> None:
    code = "import sys, simulator\nassert not {'numpy', 'pydantic', 'pandas'} & set(sys.modules)\nsimulator.run"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


def test_the_public_name_run_is_the_function_whatever_was_imported_before() -> None:
    code = "import simulator.runner, simulator.scenario\nfrom simulator import run\nassert callable(run)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


# --------------------------------------------------------------------------------------------------------- prefix


@pytest.mark.parametrize(("block_tokens", "block_size"), [(16, 16), (512, 16), (16, 32), (64, 1), (512, 512)])
def test_a_common_prefix_is_found_whatever_the_blocks(block_tokens: int, block_size: int) -> None:
    """Every request after the first finds the 2,048 common tokens."""
    result = run(scenario_of(engine={"block_size": block_size}), trace=hashed(block_tokens))
    assert list(result.requests["cached_tokens"]) == [0] + [2048] * 39
    assert any("merged" in note for note in result.summary["notes"]) == (block_size > block_tokens)


def test_blocks_that_dont_divide_one_another_are_refused_with_the_remedy() -> None:
    with pytest.raises(InputError, match=r"512 tokens and the KV blocks of 48 tokens .* engine\.block_size"):
        run(scenario_of(engine={"block_size": 48}), trace=hashed(512))
    off = scenario_of(engine={"block_size": 48, "prefix_caching": False})
    assert run(off, trace=hashed(512)).requests["cached_tokens"].sum() == 0


def test_prefix_caching_without_identities_is_noted() -> None:
    notes = run(scenario_of(), trace=a_trace()).summary["notes"]
    assert any("prefix caching is on but finds nothing" in note for note in notes)


# ------------------------------------------------------------------------------------------------------- workload


def test_a_closed_loop_keeps_its_clients_busy() -> None:
    result = run({"workload": {"loop": {"clients": 3}}}, trace=a_trace(30))
    assert result.requests["arrival_s"].iloc[:3].tolist() == [0.0, 0.0, 0.0]
    assert result.timeseries["running"].max() <= 3


def test_sessions_send_the_next_turn_after_the_last() -> None:
    trace = a_trace(4, session_id=[0, 0, 1, 1], parent_id=[-1, 0, -1, 2], think_time_s=[np.nan, 5.0, np.nan, 7.0])
    rows = run({"workload": {"loop": "sessions"}}, trace=trace).requests.set_index("request_id")
    assert rows["arrival_s"][1] == pytest.approx(rows["last_token_s"][0] + 5.0)
    assert rows["arrival_s"][3] == pytest.approx(rows["last_token_s"][2] + 7.0)
    notes = run({}, trace=trace).summary["notes"]
    assert any("the loop 'open' sends every turn" in note for note in notes)


def test_filters_and_scales_apply() -> None:
    trace = a_trace(40)
    scaled = load_trace(Scenario.from_mapping({"workload": {"limit": 10, "rate_scale": 2.0}}), trace)
    np.testing.assert_allclose(scaled.arrival_s, trace.arrival_s[:10] / 2)


def test_generators_draw_from_the_scenarios_seed() -> None:
    def arrivals(run_seed: int, **params: Any) -> list[float]:
        generator = {"kind": "poisson", "params": {"requests": 5, "rate": 1.0, **params}}
        scenario = Scenario.from_mapping({"seed": run_seed, "workload": {"generator": generator}})
        return load_trace(scenario).arrival_s.tolist()

    assert arrivals(1) == arrivals(1) != arrivals(2)
    assert arrivals(1, seed=5) == arrivals(2, seed=5)


def test_no_requests_is_an_error() -> None:
    with pytest.raises(InputError, match="no requests"):
        run({})
    with pytest.raises(TraceError, match="unknown generator 'poison'; did you mean 'poisson'"):
        run({"workload": {"generator": "poison"}})


# ------------------------------------------------------------------------------------------------------ predictor


def test_predictors() -> None:
    truth = np.full(20_000, 200)

    def predicted(spec: Any) -> Any:
        return predictions(Scenario.from_mapping({"predictor": spec}), truth)

    assert np.isnan(predicted("none")).all()
    assert (predicted("oracle") == truth).all()
    noisy = predicted({"kind": "noisy", "sigma": 0.5})
    assert np.log(noisy / truth).std() == pytest.approx(0.5, rel=0.02)
    assert np.median(noisy) == pytest.approx(200, rel=0.02)
    uniform = predicted({"kind": "noisy", "relative_error": 0.2})
    assert 160 <= uniform.min() < 162 and 238 < uniform.max() <= 240
    assert (
        predictions(Scenario.from_mapping({"predictor": {"kind": "noisy", "sigma": 5}}), np.ones(999, int)).min() == 1
    )


def test_streams_depend_on_their_name_and_seed_only() -> None:
    assert stream(1, "a").integers(1 << 40) == stream(1, "a").integers(1 << 40)
    assert len({stream(seed, name).integers(1 << 40) for seed in (1, 2) for name in ("a", "b")}) == 4


# -------------------------------------------------------------------------------------------------------- measure


def test_without_drain_the_run_stops_and_leaves_the_rest_unfinished() -> None:
    trace = a_trace()
    at_last = run({"measure": {"drain": False}}, trace=trace).summary
    assert at_last["requests"]["arrived"] == 60
    assert at_last["requests"]["unfinished"] > 0
    early = run({"measure": {"drain": False, "until_s": 2.0}}, trace=trace).summary
    assert early["simulated_s"] == 2.0
    assert early["requests"]["arrived"] == int((trace.arrival_s < 2.0).sum())
    with pytest.raises(InputError, match=r"give measure\.until_s"):
        run({"measure": {"drain": False}, "workload": {"loop": {"clients": 1}}}, trace=trace)


def test_the_window_leaves_out_and_counts_the_rest() -> None:
    window = run({"measure": {"warmup_s": 1.0, "until_s": 4.0}}, trace=a_trace()).summary["window"]
    assert (window["warmup_s"], window["until_s"]) == (1.0, 4.0)
    assert window["arrived_before"] > 0 and window["arrived_after"] > 0


def test_objectives_of_a_class_go_before_those_of_all() -> None:
    trace = a_trace(3, request_class=Categorical.of(["chat", "", "batch"]))
    spec = {"objectives": {"ttft_s": 1.0, "tpot_s": 0.1, "classes": {"batch": {"ttft_s": 60.0}}}}
    scenario = Scenario.from_mapping(spec)
    built = build(resolve(scenario), load_trace(scenario, trace))
    by_name = dict(zip(built.class_names, built.objectives, strict=True))
    assert set(by_name) == {"chat", "batch", ""}
    assert (by_name["batch"].ttft_s, by_name["batch"].tpot_s) == (60.0, 0.1)
    assert by_name["chat"].ttft_s == by_name[""].ttft_s == 1.0
    names = [built.class_names[code] for code in built.cluster.workload.class_codes]
    assert names == ["chat", "", "batch"]
    with pytest.raises(InputError, match=r"no class 'bach'; did you mean 'batch'"):
        run({"objectives": {"classes": {"bach": {"ttft_s": 1.0}}}}, trace=trace)


def test_the_sample_interval_keeps_samples_few() -> None:
    def interval(span_s: float) -> float:
        trace = Trace(arrival_s=np.array([0.0, span_s]), prompt_tokens=[9, 9], output_tokens=[1, 1])
        scenario = Scenario()
        measure: float = build(resolve(scenario), trace).scenario["measure"]["sample_interval_s"]
        return measure

    assert [interval(span) for span in (10.0, 100.0, 101.0, 3600.0, 86400.0)] == [0.1, 0.1, 0.2, 5.0, 100.0]


# ---------------------------------------------------------------------------------------------------------- ends


def test_strict_names_the_first_rejected_request() -> None:
    scenario = scenario_of(engine={"num_kv_blocks": 20})
    with pytest.raises(InputError, match=r"request \d+ was rejected: prompt of \d+ tokens .* requests were rejected"):
        run(scenario, trace=a_trace(), strict=True)
    assert run(scenario, trace=a_trace()).summary["requests"]["rejected"] > 1


def test_a_watcher_can_end_the_run_early() -> None:
    class Impatient(Watch):
        def __enter__(self) -> Impatient:
            self.interrupted = True
            self.cluster.interrupt()
            return self

    result = run({}, trace=a_trace(), progress=Impatient())
    assert result.summary["interrupted"]
    assert result.summary["requests"]["finished"] == 0


def test_nothing_is_written_when_something_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        run(scenario_of(engine={"num_kv_blocks": 20}), trace=a_trace(), strict=True, out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("policy", "params", "kind"),
    [("vllm-v1", {}, "none"), ("sjf", {}, "noisy"), ("orca", {}, "none"), ("orca", {"reserve": "pow2"}, "oracle")],
)
def test_a_predictor_left_to_auto_is_what_the_policy_prefers_and_is_noted(
    policy: str, params: dict[str, Any], kind: str
) -> None:
    batching = {"name": policy, "params": params}
    scenario = {
        "workload": {"trace": "bundled:shared-prefix", "limit": 5},
        "cluster": {"pools": [{"batching": batching}]},
    }
    result = run(Scenario.from_mapping(scenario))
    assert result.scenario["predictor"]["kind"] == kind
    assert any("predictor" in note for note in result.summary["notes"]) == (kind != "none")
    assert result.summary["requests"]["finished"] == 5


def test_pipeline_stages_are_refused_where_the_system_has_none() -> None:
    pool = {"batching": "fastgen", "parallel": {"pp": 2}}
    with pytest.raises(
        InputError, match=r"pools.0: .*'fastgen' follows has no pipeline parallelism \(pp=2\); use pp=1"
    ):
        run(Scenario.from_mapping({"workload": {"trace": "bundled:shared-prefix"}, "cluster": {"pools": [pool]}}))


def test_a_result_says_what_lay_outside_the_measurements(tmp_path: Path) -> None:
    from tests.calibration.support import write_profile

    profile = write_profile(tmp_path / "profile")  # dense layers up to 100 tokens, contexts up to 1,000
    pool = {"accelerator": "rtx-pro-6000", "cost": {"kind": "measured", "profile": str(profile)}}
    scenario = {"workload": {"trace": "bundled:shared-prefix", "limit": 5}, "cluster": {"pools": [pool]}}
    notes = run(Scenario.from_mapping(scenario)).summary["notes"]
    assert any(note.startswith("step times beyond what was measured: ") for note in notes)


@pytest.mark.parametrize(("accelerator", "kind"), [("a100-80gb", "fitted"), ("a6000", "roofline")])
def test_costs_are_fitted_where_the_accelerator_has_fits(accelerator: str, kind: str) -> None:
    scenario = {"cluster": {"pools": [{"accelerator": accelerator, "engine": {"max_model_len": 512}}]}}
    resolved = resolve(Scenario.from_mapping(scenario)).scenario.cluster.pools[0]
    assert resolved.cost.kind == kind


def test_fits_that_there_are_not_are_refused() -> None:
    scenario = Scenario.from_mapping({"cluster": {"pools": [{"accelerator": "a10g", "cost": "fitted"}]}})
    with pytest.raises(InputError, match=r"pools.0.cost: a10g has no fits \(those with: a100-80gb"):
        resolve(scenario)


def test_a_resampled_trace_differs_by_seed_and_keeps_no_sessions() -> None:
    base: dict[str, Any] = {
        "workload": {"trace": "bundled:burstgpt-style", "limit": 200, "resample": {"block_s": 5, "within_s": 20}}
    }
    first, second, again = (run({**base, "seed": seed}).summary_without_timing for seed in (1, 2, 1))
    assert first == again != second
    base["workload"]["loop"] = "sessions"
    with pytest.raises(InputError, match="draws requests one by one"):
        run(base)

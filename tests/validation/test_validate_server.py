"""The user's own server: files as ``vllm bench serve`` writes them, beside steps of a known length."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simulator import InputError
from simulator.validation import server, validate

DETAILED: dict[str, Any] = {
    "date": "20260101-000000",
    "endpoint_type": "vllm",
    "backend": "vllm",
    "model_id": "meta-llama/Llama-3.1-8B",
    "num_prompts": 2,
    "request_rate": 5.0,
    "burstiness": 1.0,
    "max_concurrency": None,
    "duration": 2.0,
    "completed": 2,
    "total_input_tokens": 30,
    "total_output_tokens": 10,
    "mean_ttft_ms": 20.0,
    "median_ttft_ms": 20.0,
    "p99_ttft_ms": 25.0,
    "mean_tpot_ms": 8.0,
    "input_lens": [10, 20],
    "output_lens": [5, 5],
    "ttfts": [0.020, 0.020],
    "itls": [[0.008] * 4, [0.008] * 4],
    "start_times": [101.0, 100.0],
    "errors": ["", ""],
}
"""Two requests a second apart, the later one first in the file; TTFT 20 ms, TPOT 8 ms, E2E 52 ms."""

SCENARIO = """\
model: llama-3.1-8b
cluster:
  pools:
    - accelerator: h200
      cost: {kind: constant, step_s: 0.01}
"""


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "scenario.yaml"
    path.write_text(SCENARIO)
    return path


def write(tmp_path: Path, **changes: Any) -> Path:
    kept = {key: value for key, value in {**DETAILED, **changes}.items() if value != "absent"}
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(kept))
    return path


def summary_only(tmp_path: Path, **changes: Any) -> Path:
    """As without --save-detailed."""
    lists = ("input_lens", "output_lens", "ttfts", "itls", "start_times", "errors")
    return write(tmp_path, **dict.fromkeys(lists, "absent"), **changes)


def test_a_detailed_file_by_hand(tmp_path: Path, scenario: Path) -> None:
    """Steps of 10 ms: TTFT 10 for 20 ms, TPOT 10 for 8, E2E 50 for 52; sent at 0 and 1 s, so all is over at 1.05 s."""
    frame = validate(measured=write(tmp_path), scenario=scenario).set_index("metric")
    assert set(frame["dataset"]) == {"measured"}
    assert set(frame["case"]) == {"bench"}
    for which in ("mean", "p50", "p90", "p95", "p99"):
        assert frame.loc[f"ttft_{which}", "error"] == pytest.approx(-0.5)
        assert frame.loc[f"tpot_{which}", "error"] == pytest.approx(0.25)
        assert frame.loc[f"e2e_{which}", "error"] == pytest.approx(50 / 52 - 1)
    assert frame.loc["duration_s", "simulated"] == pytest.approx(1.05)
    assert frame.loc["output_tokens_per_s", "measured"] == pytest.approx(5.0)
    assert "recorded start times" in frame["costs"].iloc[0]


def test_without_details_the_statistics_of_the_file_are_compared(tmp_path: Path, scenario: Path) -> None:
    frame = validate(measured=summary_only(tmp_path), scenario=scenario).set_index("metric")
    assert set(frame.index) == {"ttft_mean", "ttft_p50", "ttft_p99", "tpot_mean", "duration_s", "output_tokens_per_s"}
    assert frame.loc["ttft_p99", "measured"] == pytest.approx(0.025)
    assert frame.loc["tpot_mean", "error"] == pytest.approx(0.25)
    costs = frame["costs"].iloc[0]
    assert "arrivals drawn at 5 requests/s" in costs
    assert "2 requests of 15 prompt and 5 output tokens, the means" in costs


@pytest.mark.parametrize(
    ("changes", "loop", "said"),
    [
        ({"request_rate": "inf", "max_concurrency": 2}, {"kind": "closed", "clients": 2}, "closed loop of 2 clients"),
        ({"request_rate": "inf"}, {"kind": "open"}, "all requests sent at 0"),
        ({"max_concurrency": 2}, {"kind": "open"}, "the bound of 2 requests in flight is not applied"),
    ],
)
def test_how_requests_are_sent_without_start_times(
    tmp_path: Path, changes: dict[str, Any], loop: dict[str, Any], said: str
) -> None:
    benchmark = server.read_benchmark(summary_only(tmp_path, **changes))
    _, found, text = server.workload_of(benchmark, 0)
    assert found == loop
    assert said in text


def test_drawn_arrivals_have_the_rate_of_the_benchmark() -> None:
    """vLLM stretches the gaps so that they end at count / rate; evenly spaced where burstiness is very large."""
    times = server._arrivals(1000, 4.0, 1.0, 0)
    assert times[0] == 0
    assert (np.diff(times) >= 0).all()
    assert times[-1] == pytest.approx(250.0, rel=0.02)
    even = np.diff(server._arrivals(1000, 4.0, 1e9, 0))
    assert even == pytest.approx(np.full(999, 0.25), rel=1e-3)


def test_failed_requests_are_left_out_and_said(tmp_path: Path) -> None:
    benchmark = server.read_benchmark(write(tmp_path, errors=["", "timed out"]))
    assert benchmark.prompt_tokens.tolist() == [10]
    assert benchmark.notes == ("1 failed requests left out",)


def test_the_last_of_several_results_counts(tmp_path: Path) -> None:
    path = summary_only(tmp_path)
    first = json.loads(path.read_text())
    path.write_text(json.dumps({**first, "duration": 9.0}) + "\n" + json.dumps(first))
    benchmark = server.read_benchmark(path)
    assert benchmark.duration_s == 2.0
    assert "the last of 2 results" in benchmark.notes[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"duration": 0}, "'duration', a number above 0"),
        ({"ttfts": [0.1]}, "equal length"),
        ({"itls": [[None], []]}, "'itls' must be lists of seconds"),
        ({"input_lens": ["a", 1]}, "'input_lens' must be a list of numbers"),
        ({"errors": ["x", "y"]}, "no request succeeded"),
        ({"start_times": [1.0]}, "'start_times' must be as long"),
    ],
)
def test_files_that_are_wrong(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        server.read_benchmark(write(tmp_path, **changes))


def test_files_that_are_no_results(tmp_path: Path, scenario: Path) -> None:
    path = tmp_path / "x.json"
    with pytest.raises(InputError, match="can't be read"):
        server.read_benchmark(path)
    path.write_text("TTFT,TPOT\n")
    with pytest.raises(InputError, match="not a result of vllm bench serve"):
        server.read_benchmark(path)
    path.write_text("[]")
    with pytest.raises(InputError, match="must hold the mapping"):
        server.read_benchmark(path)
    with pytest.raises(InputError, match="--measured and --scenario go together"):
        validate(measured=write(tmp_path))
    with pytest.raises(InputError, match="--measured and --scenario go together"):
        validate(scenario=scenario)

"""Tiny measured data, made of simulated runs, so that every error is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from simulator import run
from simulator.validation import vllm_runs
from tests.calibration.support import write_profile

KWARGS: dict[str, Any] = {
    "model": "meta-llama/Llama-3.1-8B",
    "tensor_parallel_size": 1,
    "data_parallel_size": 1,
    "enable_expert_parallel": False,
    "max_num_seqs": 8,
    "max_model_len": None,
    "dtype": "bfloat16",
    "kv_cache_dtype": "auto",
    "seed": 42,
}

PEER = """Metric                           vLLM         Sim     Diff%
-----------------------------------------------------------
TTFT Mean                       100.0       102.0     +2.0%
TPOT P99                         50.0        49.0     -2.0%

Latency Median                  400.0       400.0     +0.0%
"""

PROFILE = Path("RTXPRO6000/meta-llama/Llama-3.1-8B/bf16")


def write_run(
    data: Path,
    name: str = "rtxpro6000_tiny",
    *,
    profile: bool = True,
    ttft_factor: float = 1.0,
    tpot_factor: float = 1.0,
    **kwargs: Any,
) -> Path:
    """Write a run whose server is the simulator itself, with TTFT and TPOT multiplied; return its folder."""
    folder = data / "vllm_runs" / name
    folder.mkdir(parents=True)
    if profile and not (data / "layer_profiles" / PROFILE).is_dir():
        write_profile(data / "layer_profiles" / PROFILE)
    lines = [{"arrival_s": i * 0.2, "prompt_tokens": 20 + i, "output_tokens": 5 + i % 3} for i in range(10)]
    (folder / "workload.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    meta = {"model": "meta-llama/Llama-3.1-8B", "vllm_version": "0.19.0", "engine_kwargs": {**KWARGS, **kwargs}}
    (folder / "meta.json").write_text(json.dumps(meta))
    try:
        result, _ = vllm_runs._run(vllm_runs.set_up(folder, meta, data / "layer_profiles"))
        requests = result.requests
    except ValueError:  # one that can't be simulated: its measured times don't matter
        requests = run({"workload": {"trace": str(folder / "workload.jsonl")}}).requests
    (folder / "requests.jsonl").write_text(served(requests, ttft_factor, tpot_factor))
    (folder / "peer_summary.txt").write_text(PEER)
    return folder


def served(requests: pd.DataFrame, ttft_factor: float, tpot_factor: float) -> str:
    """Return simulated requests as a server would have logged them, on a clock of its own."""
    lines = []
    for row in requests.itertuples():
        first = row.queued_s + (row.first_token_s - row.queued_s) * ttft_factor
        last = first + (row.last_token_s - row.first_token_s) * tpot_factor
        stamps = {"queued_ts": row.queued_s, "first_token_ts": first, "last_token_ts": last}
        shifted = {name: 1000.0 + value for name, value in stamps.items()}
        lines.append(json.dumps({"output_toks": int(row.output_tokens), **shifted}) + "\n")
    return "".join(lines)


POINT = {
    "id": "x_h200_sxm_trtllm_agg_100x11_c2_tp1_ep1_0",
    "silicon_data_source": "file; silicon_concurrency=2; measured=2026-01-01",
    "backend": "trtllm",
    "backend_version": "1.0.0",
    "model_path": "meta-llama/Llama-3.1-8B-Instruct",
    "system": "h200_sxm",
    "precision": "",
    "mode": "agg",
    "isl": 100,
    "osl": 11,
    "gemm_quant_mode": "",
    "moe_quant_mode": "",
    "batch_size": 1,
    "tp_size": 1.0,
    "pp_size": 1.0,
    "attention_dp_size": "",
    "moe_tp_size": 1.0,
    "moe_ep_size": 1.0,
    "silicon_ttft_ms": 8.0,
    "silicon_tpot_ms": 12.5,
}
"""A serving point; with steps of 10 ms TTFT is 10 ms (error +25 %) and TPOT 10 ms (-20 %)."""


def write_points(data: Path, *points: dict[str, Any]) -> Path:
    """Write serving points, each given by what differs from `POINT`, with ids of their own."""
    path = data / "silicon" / "serving_measurements.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{**POINT, **point} for point in points]
    pd.DataFrame(rows).to_csv(path, index=False)
    return path

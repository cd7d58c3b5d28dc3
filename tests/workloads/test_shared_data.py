"""Real traces read to the counts that their publishers and our own hand count give."""

from pathlib import Path

import numpy as np
import pytest

from workloads import infinite_cache_hit_tokens, read_trace

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"

pytestmark = [
    pytest.mark.shared_data,
    pytest.mark.skipif(not SHARED.is_dir(), reason="measured data and real traces are not at ../shared/data"),
]


@pytest.mark.parametrize(("name", "requests", "span_s"), [("code", 8819, 3435.9), ("conv", 19366, 3501.7)])
def test_azure(name, requests, span_s):
    trace = read_trace(SHARED / "traces" / f"azure_llm_2023_{name}.csv")
    assert len(trace) == requests
    assert trace.notes == ()
    assert trace.arrival_s[0] == 0
    assert trace.arrival_s[-1] == pytest.approx(span_s, abs=1)
    if name == "code":
        assert trace.prompt_tokens[:3].tolist() == [4808, 3180, 110]
        assert trace.arrival_s[1] == pytest.approx(0.052, abs=1e-9)


@pytest.mark.parametrize(("name", "requests"), [("conversation", 12031), ("synthetic", 3993)])
def test_mooncake(name, requests):
    trace = read_trace(SHARED / "traces" / f"mooncake_{name}.jsonl")
    assert len(trace) == requests
    assert trace.block_size_tokens == 512
    blocks = trace.block_hashes.lengths()
    assert (blocks == -(-trace.prompt_tokens // 512)).mean() > 0.99
    hits = infinite_cache_hit_tokens(trace)
    assert (hits < trace.prompt_tokens).all()
    assert 0.2 < hits.sum() / trace.prompt_tokens.sum() < 0.8


@pytest.mark.parametrize("run", ["rtxpro6000_llama-3.1-8b", "rtxpro6000_qwen3-32b_tp2"])
def test_vllm_workloads(run):
    trace = read_trace(SHARED / "vllm_runs" / run / "workload.jsonl")
    assert len(trace) == 300
    assert trace.arrival_s[0] == 0.046926808
    assert trace.block_size_tokens == 16
    whole = (trace.prompt_tokens + trace.output_tokens) // 16
    assert np.abs(trace.block_hashes.lengths() - whole).max() <= 1

"""Real traces, replayed whole; they lie beside the repository and these tests skip, saying so, where they don't."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simulator import RunResult, Scenario, run
from workloads import read_trace
from workloads.stats import infinite_cache_hit_tokens

TRACES = Path(__file__).parents[3] / "shared" / "data" / "traces"
AZURE = TRACES / "azure_llm_2023_conv.csv"
MOONCAKE = TRACES / "mooncake_conversation.jsonl"

pytestmark = [
    pytest.mark.shared_data,
    pytest.mark.skipif(not TRACES.is_dir(), reason=f"the real traces are not at {TRACES}"),
]


def replay(trace: Path, pool: dict[str, Any], *, workload: dict[str, Any] | None = None, **keys: Any) -> RunResult:
    """Replay a trace on one pool."""
    return run(
        Scenario.from_mapping(
            {"workload": {"trace": str(trace), **(workload or {})}, "cluster": {"pools": [pool]}, **keys}
        )
    )


def test_every_azure_request_is_accounted_for_once() -> None:
    result = replay(AZURE, {"batching": "sarathi"})
    counts = result.summary["requests"]
    assert counts["in_trace"] == counts["arrived"] == counts["finished"] == 19_366
    requests = result.requests
    assert requests["request_id"].is_unique
    trace = read_trace(AZURE)
    assert (requests["output_tokens"].to_numpy() == trace.output_tokens).all()
    assert result.summary["little"]["relative_error"] < 1e-12


def test_mooncake_hits_lie_between_nothing_and_an_infinite_cache() -> None:
    """At trace rate: what is lost is lost to blocks that were evicted, or that another replica holds."""
    bound = infinite_cache_hit_tokens(read_trace(MOONCAKE))
    result = replay(MOONCAKE, {"batching": "vllm-v1", "replicas": 8}, router="prefix-aware")
    assert result.summary["requests"]["finished"] == 12_031
    cached = result.requests["cached_tokens"].to_numpy()
    assert 0 < cached.sum() < bound.sum()
    # A single request can't beat the bound either, but for one whose prefix was computed by an earlier row that
    # *arrived* before it: the bound goes through rows in the same order.
    assert (cached <= bound).all()


def test_one_request_at_a_time_and_an_infinite_cache_give_exactly_the_bound() -> None:
    bound = infinite_cache_hit_tokens(read_trace(MOONCAKE))
    result = replay(
        MOONCAKE,
        {"batching": "vllm-v1", "engine": {"num_kv_blocks": 20_000_000}},
        workload={"loop": {"clients": 1}},
    )
    requests = result.requests
    assert (requests["outcome"] == "finished").all()
    np.testing.assert_array_equal(requests["cached_tokens"].to_numpy(), bound)
    assert bound.sum() > 0

"""Fast-forward and stepwise runs record the same, to the last bit, for every policy over random workloads.

INV-fast-forward of docs/architecture.md. The invariants of `check_invariants` are asserted on each run as well.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policies import registry
from simulator.engine.links import Link
from tests.engine.support import MS, LinearCost, Request, fingerprint, simulate

COST = LinearCost(3 * MS, token=20_011, kv=307, kv_sq=1, pair=13)


@st.composite
def workloads(draw: st.DrawFn) -> dict[str, Any]:
    """Draw requests and an engine small enough that everything happens: full KV, queues, prefix hits, follow-ups."""
    count = draw(st.integers(1, 25))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    mean_gap = draw(st.sampled_from([0, 2 * MS, 20 * MS, 300 * MS]))
    gaps = rng.exponential(mean_gap, count).astype(int) if mean_gap else np.zeros(count, dtype=int)
    arrivals = np.cumsum(gaps)
    groups = draw(st.sampled_from([0, 1, 3]))
    max_len = draw(st.sampled_from([150, 700]))
    longest = draw(st.sampled_from([20, 130, max_len + 2]))  # a prompt beyond max_len is rejected
    requests, after = [], {}
    for row in range(count):
        prompt, output = int(rng.integers(1, longest)), int(rng.integers(1, 80))
        hashes: tuple[int, ...] = ()
        if groups:
            shared = int(rng.integers(0, 6))
            own = max(0, (prompt + output) // 16 - shared)
            group = 100 * int(rng.integers(groups))
            hashes = (*range(group, group + shared), *(1000 * (row + 1) + i for i in range(own)))
        follows = row > 0 and bool(rng.random() < 0.2)
        if follows:
            after.setdefault(int(rng.integers(row)), []).append((int(rng.integers(1, 40 * MS)), row))
        requests.append(
            Request(
                None if follows else int(arrivals[row]),
                prompt,
                output,
                hashes,
                predicted=float(output + int(rng.integers(0, 10))),
                class_code=int(rng.integers(3)),
                priority=int(rng.integers(3)),
            )
        )
    return {
        "requests": requests,
        "after": after,
        "blocks": -(-max_len // 16) + draw(st.sampled_from([1, 6, 40, 1000])),
        "seqs": draw(st.sampled_from([1, 2, 7, 64])),
        "hash_block_tokens": draw(st.sampled_from([16, 32])) if groups else 0,
        "window": draw(st.sampled_from([None, None, 30])),
        "max_len": max_len,
        "sample_ns": draw(st.sampled_from([7 * MS, 10**9])),
        "until": draw(st.sampled_from([None, None, 150 * MS])),
    }


@pytest.mark.parametrize("policy", registry.names("batching"))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(options=workloads(), budget=st.sampled_from([16, 100, 512]), overlap=st.booleans())
def test_every_batching_policy(policy: str, options: dict[str, Any], budget: int, overlap: bool) -> None:
    batching = registry.resolve("batching", policy)
    queueing = registry.resolve("queueing", batching.queueing)  # type: ignore[attr-defined]
    common = {
        "policy": batching,
        "queueing": queueing,
        "cost": COST,
        "budget": budget,
        "async_scheduling": overlap,
        "link": Link("test", 1e9, 1e-5),
        **options,
    }
    assert fingerprint(simulate(**common)) == fingerprint(simulate(**common, fast_forward=False))


@settings(max_examples=25, deadline=None)
@given(options=workloads(), swap_blocks=st.sampled_from([0, 20, 1000]))
def test_swapping(options: dict[str, Any], swap_blocks: int) -> None:
    common = {
        "policy": lambda: registry.make("batching", "vllm", {"preemption_mode": "swap"}),
        "cost": COST,
        "budget": 100_000,
        "swap_blocks": swap_blocks,
        "link": Link("test", 1e7, 1e-4),
        **options,
    }
    assert fingerprint(simulate(**common)) == fingerprint(simulate(**common, fast_forward=False))


@pytest.mark.parametrize("router", registry.names("routing"))
@settings(max_examples=10, deadline=None)
@given(options=workloads(), replicas=st.sampled_from([2, 5]))
def test_every_router(router: str, options: dict[str, Any], replicas: int) -> None:
    def run(fast_forward: bool) -> dict[str, bytes]:
        policy = registry.make("routing", router, {})
        common = {"router": policy, "cost": COST, "replicas": replicas, "fast_forward": fast_forward, **options}
        return fingerprint(simulate(**common))

    assert run(True) == run(False)


@pytest.mark.parametrize("eviction", registry.names("kv_eviction"))
@settings(max_examples=10, deadline=None)
@given(options=workloads())
def test_every_eviction_policy(eviction: str, options: dict[str, Any]) -> None:
    common = {"eviction": registry.resolve("kv_eviction", eviction), "cost": COST, **options}
    assert fingerprint(simulate(**common)) == fingerprint(simulate(**common, fast_forward=False))


@pytest.mark.parametrize(
    "policy",
    [name for name in registry.names("batching") if registry.resolve("batching", name).supports_pipeline],  # type: ignore[attr-defined]
)
@settings(max_examples=15, deadline=None)
@given(options=workloads(), budget=st.sampled_from([16, 512]), stages=st.sampled_from([2, 3]))
def test_pipeline_stages_keep_the_invariants(policy: str, options: dict[str, Any], budget: int, stages: int) -> None:
    batching = registry.resolve("batching", policy)
    queueing = registry.resolve("queueing", batching.queueing)  # type: ignore[attr-defined]
    cost = LinearCost(3 * MS, token=20_011, kv=307, stages=stages)
    common = {"policy": batching, "queueing": queueing, "cost": cost, "budget": budget, "stages": stages, **options}
    assert fingerprint(simulate(**common)) == fingerprint(simulate(**common))

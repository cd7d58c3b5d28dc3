"""Conservation under faults: whatever breaks, every request ends exactly once, and all that was held is given back.

Random schedules of faults, clients that give up and try again, admission control, over all batching policies and
routers; fast-forward equals stepwise to the last bit, and one seed gives one result.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policies import registry
from simulator.engine.cluster import Cluster
from simulator.engine.links import Link
from simulator.engine.recorder import Outcome
from simulator.engine.swap import SwapConfig
from tests.engine.support import MS, LinearCost, Request, fingerprint, simulate
from tests.engine.test_lockstep import JointLinear
from tests.faults.support import features

# Multiples of the step's 10 ms as well as any times: of several things at one instant the order must not matter.
TIMES_MS = st.integers(0, 40).map(lambda i: 10 * i) | st.integers(0, 400)
SECONDS = TIMES_MS.map(lambda ms: ms / 1000)
SPANS = st.integers(1, 12).map(lambda i: i / 100) | st.integers(1, 200).map(lambda ms: ms / 1000)

REQUESTS = st.lists(
    st.builds(
        Request,
        arrival=TIMES_MS.map(lambda ms: ms * MS),
        prompt=st.integers(1, 150),
        output=st.integers(1, 30),
        hashes=st.lists(st.integers(1, 3), max_size=5).map(
            lambda steps: [sum(steps[: i + 1]) for i in range(len(steps))]
        ),
        predicted=st.just(20.0),
        priority=st.integers(0, 1),
        tenant=st.sampled_from(["a", "b"]),
    ),
    min_size=1,
    max_size=14,
)

FAULTS = st.fixed_dictionaries(
    {
        "script": st.lists(
            st.one_of(
                st.fixed_dictionaries(
                    {
                        "at_s": SECONDS,
                        "what": st.just("replica"),
                        "which": st.integers(0, 1),
                        "for_s": SPANS,
                    }
                ),
                st.fixed_dictionaries(
                    {
                        "at_s": SECONDS,
                        "what": st.sampled_from(["straggler", "slow-start"]),
                        "which": st.integers(0, 1),
                        "factor": st.sampled_from([1.5, 2.0]),
                        "for_s": SPANS,
                    }
                ),
            ),
            max_size=6,
        ),
        "random": st.sampled_from([{}, {"process": {"mtbf_h": 0.3 / 3600, "mttr_s": 0.04, "shape": 0.8}}]),
        "health": st.sampled_from(
            [
                {"kind": "immediate"},
                {"interval_s": 0.03, "timeout_s": 0.01, "failures": 2, "successes": 2},
                {"interval_s": 0.1, "timeout_s": 0.1, "failures": 1},
            ]
        ),
        "restart": st.sampled_from(
            [
                {"weights": "none", "init_s": 0.0},
                {"weights": "none", "init_s": 0.02, "slow_factor": 1.5, "slow_s": 0.05},
            ]
        ),
        "on_loss": st.sampled_from(["retry", "recompute", "fail"]),
        "max_retries": st.integers(0, 4),
    }
)

CLIENTS = st.none() | st.fixed_dictionaries(
    {
        "ttft_timeout_s": st.none() | st.sampled_from([0.02, 0.05, 0.1]),
        "timeout_s": st.none() | st.sampled_from([0.1, 0.15, 0.3]),
        "deadlines": st.booleans(),
        "retries": st.none()
        | st.fixed_dictionaries(
            {
                "max": st.integers(1, 4),
                "backoff": st.sampled_from(["fixed", "exponential"]),
                "base_s": st.sampled_from([0.0, 0.01, 0.03]),
                "jitter": st.sampled_from(["none", "full", "equal"]),
                "budget": st.none() | st.just({"size": 2, "ratio": 0.5}),
            }
        ),
    }
)

ADMISSION = st.sampled_from(
    [
        (None, {}),
        ("queue-limit", {"per_replica": 3}),
        ("token-bucket", {"rate": 30.0, "burst": 4.0, "per": "tenant"}),
        ("slo-aware", {"ttft_s": 0.05, "window_s": 0.05}),
        ("early-rejection", {"max_decoding": 2, "window_s": 0.05}),
    ]
)

ENGINES: dict[str, dict[str, Any]] = {
    "plain": {},
    "prefixes": {"hash_block_tokens": 16, "blocks": 30, "seqs": 4},
    "async": {"async_scheduling": True},
    "swapping": {
        "swap_blocks": 200,
        "link": Link("pcie", 1e6, 0.001),
        "swap": SwapConfig(call_s=5e-6, calls_per_run=4, blocks_per_call=2),
        "blocks": 30,
    },
}

EVEN = LinearCost(10 * MS)
"""Steps of 10 ms each: everything happens at once."""

UNEVEN = LinearCost(9 * MS, token=20_011, kv=307, pair=13)


def simulate_all(
    requests: list[Request], parts: dict[str, Any], *, fast_forward: bool = True, **options: Any
) -> tuple[Cluster, dict[str, Any]]:
    """Run to the end, check what holds for every run, and return the cluster and all sections."""
    cluster = simulate(requests, features=features(**parts), fast_forward=fast_forward, **options)
    control = cluster.control
    assert control is not None
    columns = cluster.recorder.columns
    ends = (Outcome.FINISHED, Outcome.REJECTED, Outcome.FAILED, Outcome.TIMED_OUT)
    assert all(outcome in ends for outcome in columns["outcome"])
    assert (columns["ended_ns"] >= columns["arrival_ns"]).all()
    assert not control.live and not control.transits
    assert not cluster.outstanding_requests.any() and not cluster.outstanding_tokens.any()
    unfinished = {row for row, outcome in enumerate(columns["outcome"]) if outcome != Outcome.FINISHED}
    assert set(cluster.recorder.reasons) == unfinished
    assert (columns["attempts"] >= 1).all()
    for replica in cluster.replicas:
        assert replica.counters.busy_ns <= cluster.env.now
    return cluster, dict(control.describe())


def whole_print(run: tuple[Cluster, dict[str, Any]]) -> dict[str, Any]:
    cluster, sections = run
    return {**fingerprint(cluster), "sections": sections}


def parts_of(
    faults: dict[str, Any], clients: dict[str, Any] | None, admission: tuple[str | None, dict[str, Any]], rows: int
) -> dict[str, Any]:
    deadlines_s = [0.05 + 0.03 * (row % 9) if row % 2 else float("nan") for row in range(rows)]
    name, params = admission
    return {
        "faults": faults,
        "clients": clients,
        "admission": name,
        "params": params,
        "deadlines_s": deadlines_s if clients is not None and clients["deadlines"] else None,
    }


BATCHING = registry.names("batching")


@pytest.mark.parametrize("policy", BATCHING)
@given(
    requests=REQUESTS,
    faults=FAULTS,
    clients=CLIENTS,
    admission=ADMISSION,
    router=st.sampled_from(registry.names("routing")),
    engine=st.sampled_from(sorted(ENGINES)),
    cost=st.sampled_from([EVEN, UNEVEN]),
)
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_request_ends_once_and_fast_forward_is_exact(
    policy: str,
    requests: list[Request],
    faults: dict[str, Any],
    clients: dict[str, Any] | None,
    admission: tuple[str | None, dict[str, Any]],
    router: str,
    engine: str,
    cost: LinearCost,
) -> None:
    parts = parts_of(faults, clients, admission, len(requests))
    batching = registry.resolve("batching", policy)

    def result(fast_forward: bool) -> dict[str, Any]:
        run = simulate_all(
            requests,
            parts,
            fast_forward=fast_forward,
            policy=batching,
            queueing=registry.resolve("queueing", batching.queueing),  # type: ignore[attr-defined]
            router=registry.make("routing", router),
            cost=cost,
            replicas=2,
            budget=64,
            max_len=256,
            **ENGINES[engine],
        )
        return whole_print(run)

    fast = result(True)
    assert fast == result(False)
    assert fast == result(True)


@given(requests=REQUESTS, faults=FAULTS, clients=CLIENTS, admission=ADMISSION)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_ranks_that_step_together(
    requests: list[Request],
    faults: dict[str, Any],
    clients: dict[str, Any] | None,
    admission: tuple[str | None, dict[str, Any]],
) -> None:
    parts = parts_of(faults, clients, admission, len(requests))
    options: dict[str, Any] = {"replicas": 2, "ranks": 2, "cost": JointLinear(10 * MS), "max_len": 256}
    fast, slow = (whole_print(simulate_all(requests, parts, fast_forward=fast, **options)) for fast in (True, False))
    assert fast == slow


@given(requests=REQUESTS, faults=FAULTS, admission=ADMISSION)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_with_pipeline_stages(
    requests: list[Request], faults: dict[str, Any], admission: tuple[str | None, dict[str, Any]]
) -> None:
    clients = {"deadlines": False, "retries": {"max": 2, "base_s": 0.01}}
    parts = parts_of(faults, clients, admission, len(requests))
    simulate_all(requests, parts, stages=2, replicas=2, max_len=256)

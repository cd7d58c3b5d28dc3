"""Replicas that start and end: cold starts by hand, draining loses nothing, fast-forward equal to stepwise."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.batching.sarathi import Sarathi
from policies.batching.vllm_v1 import VllmV1
from policies.rescheduling.llumnix import Llumnix as Migrating
from policies.routing.least_outstanding import LeastOutstanding
from policies.scaling.kv_usage import KVUsage
from policies.scaling.llumnix import Llumnix
from policies.scaling.queue import Queue
from policies.scaling.slo import Slo
from simulator.engine.recorder import Outcome
from simulator.rescheduling.feature import MovingPool, ReschedulingFeature
from simulator.scaling.feature import State
from tests.engine.support import MS, LinearCost, Request, fingerprint, times_ms
from tests.engine.test_control import ACTS, REQUESTS, Acts
from tests.scaling.support import planned, serve


def test_a_cold_start_is_provisioning_then_weights_then_initialisation() -> None:
    # Asked for at 100 ms: 20 ms, 50 MB over 1 GB/s = 50 ms, 30 ms. Two requests arrive every 10 ms for one
    # replica that runs one at a time; the other serves from 200 ms on.
    requests = [Request(10 * MS * i, 20, 4) for i in range(30)]
    cluster, feature = serve(
        requests,
        planned(lambda view: 2),
        start_up={"provisioning_s": 0.02},
        router=LeastOutstanding(),
        seqs=1,
    )
    pool = feature.describe()["pools"]["default"]
    assert pool["weight_load_s"]["max"] == pytest.approx(0.05, abs=1e-5)
    assert pool["cold_start_s"]["max"] == pytest.approx(0.1, abs=1e-5)
    assert [(size["t_s"], size["serving"], size["starting"]) for size in pool["sizes"][:3]] == [
        (0.0, 1, 0),
        (0.1, 1, 1),
        (pytest.approx(0.2, abs=1e-5), 2, 0),
    ]
    first = next(row for row in range(30) if cluster.recorder.columns["replica"][row] == 1)
    assert first == 21  # that at 200 ms came before it
    assert pool["started"] == 1


def test_a_second_start_reads_host_memory() -> None:
    # Up at 100 ms, down again at 300 ms, up at 500 ms: over PCIe 4.0 x16 (32 GB/s here) 50 MB take 1.6 ms.
    plan = planned(lambda view: 1 if 0.25 < view.now_s < 0.45 else 2)
    cluster, feature = serve([Request(0, 20, 80)], plan, replicas=2)
    pool = feature.describe()["pools"]["default"]
    assert pool["started"] == 2
    assert pool["ended"] == 1
    assert pool["weight_load_s"]["max"] == pytest.approx(0.05, abs=1e-5)
    assert sum(load / 1e9 for load in feature.pools[0].load_ns) - 0.05 == pytest.approx(0.05 / 32, rel=0.05)
    control = cluster.control
    assert control is not None
    # Paid for from 100 to 300 ms, and from 500 ms to the end.
    assert control.up_ns(1, 0, cluster.end_ns) == pytest.approx(200 * MS + cluster.end_ns - 500 * MS, abs=10)
    assert control.up_ns(0, 0, cluster.end_ns) == cluster.end_ns
    assert control.up_ns(1, 150 * MS, 350 * MS) == pytest.approx(150 * MS, abs=10)
    assert pool["replica_s"] == pytest.approx((control.up_ns(1, 0, cluster.end_ns) + cluster.end_ns) / 1e9)


def test_weights_that_start_together_share_the_storage() -> None:
    _, feature = serve([Request(0, 20, 80)], planned(lambda view: 3))
    pool = feature.describe()["pools"]["default"]
    assert pool["weight_load_s"]["max"] == pytest.approx(0.1, abs=1e-5)
    assert pool["peak_serving"] == 3


def test_draining_ends_what_runs_and_sends_what_waits_elsewhere() -> None:
    # Four requests on two replicas that run one each; replica 1 is to end at 100 ms: its second goes to replica 0.
    requests = [Request(0, 20, 20) for _ in range(4)]
    plan = planned(lambda view: 1)
    cluster, feature = serve(requests, plan, replicas=2, initial=2, seqs=1)
    columns = cluster.recorder.columns
    assert columns["replica"].tolist() == [0, 1, 0, 0]
    assert times_ms(cluster, "ended_ns") == [200, 200, 400, 600]
    told = feature.describe()
    assert told["requeued"] == 1
    assert told["pools"]["default"]["drain_s"]["max"] == pytest.approx(0.1, abs=1e-6)
    left, _ = serve(requests, planned(lambda view: 1), replicas=2, initial=2, seqs=1, requeues=False)
    assert left.recorder.columns["replica"].tolist() == [0, 1, 0, 1]


def test_a_rescheduler_empties_what_is_drained() -> None:
    mover = ReschedulingFeature(
        [MovingPool("default", range(2), Migrating(), 1000)], last_stage_max_blocks=16, max_stages=3
    )
    requests = [Request(0, 20, 50) for _ in range(4)]
    cluster, feature = serve(requests, planned(lambda view: 1), replicas=2, initial=2, others=[mover])
    assert mover.describe()["moved"] == 2
    assert set(cluster.recorder.columns["replica"].tolist()) == {0}
    assert feature.describe()["pools"]["default"]["drain_s"]["max"] < 0.08  # they have 400 ms left


def test_to_nothing_and_back() -> None:
    requests = [Request(0, 20, 2), Request(500 * MS, 20, 2)]
    plan = planned(lambda view: 1 if view.num_unrouted or view.now_s < 0.15 or view.num_starting else 0)
    cluster, feature = serve(requests, plan, replicas=1, fewest=0, start_up={"weights": "storage"})
    assert cluster.recorder.columns["outcome"].tolist() == [Outcome.FINISHED] * 2
    pool = feature.describe()["pools"]["default"]
    assert (pool["started"], pool["ended"]) == (1, 2)
    # The decision of that instant comes after it: 80 ms of a start, and its prompt.
    assert times_ms(cluster, "first_token_ns")[1] == pytest.approx(590, abs=0.01)


def test_one_that_is_drained_is_taken_back_first() -> None:
    plan = planned(lambda view: 1 if view.now_s < 0.15 else 2)
    _, feature = serve([Request(0, 20, 60) for _ in range(2)], plan, replicas=3, initial=2)
    pool = feature.describe()["pools"]["default"]
    assert (pool["started"], pool["taken_back"], pool["ended"]) == (0, 1, 0)


SCALERS = {
    "llumnix": lambda: Llumnix(low=3.0, high=9.0, interval_s=0.05),
    "queue": lambda: Queue(target=1.0, stabilization_s=0.2, interval_s=0.05),
    "kv-usage": lambda: KVUsage(target=0.4, stabilization_s=0.1, interval_s=0.03),
    "slo": lambda: Slo(ttft_s=0.03, tpot_s=0.012, window_s=0.1, patience_s=0.1, interval_s=0.04),
}


@pytest.mark.parametrize("policy", [VllmV1, Sarathi])
@pytest.mark.parametrize("scaler", list(SCALERS))
@given(
    requests=REQUESTS,
    acts=ACTS,
    requeues=st.booleans(),
    moves=st.booleans(),
    fewest=st.integers(0, 1),
    async_scheduling=st.booleans(),
)
@settings(max_examples=20, deadline=None)
def test_fast_forward_equals_stepwise(
    policy: Any,
    scaler: str,
    requests: list[Request],
    acts: list[tuple[int, str, int, int]],
    requeues: bool,
    moves: bool,
    fewest: int,
    async_scheduling: bool,
) -> None:
    prints = []
    for fast in (True, False):
        mover = ReschedulingFeature(
            [MovingPool("default", range(3), Migrating(threshold=6.0, interval_s=0.02), 100_000)],
            last_stage_max_blocks=2,
            max_stages=3,
        )
        others: list[Any] = [Acts([act for act in acts if act[1] != "move"])]
        if moves:
            others.append(mover)
        cluster, feature = serve(
            requests,
            SCALERS[scaler](),
            fewest=fewest,
            requeues=requeues,
            others=others,
            policy=policy,
            cost=LinearCost(10 * MS, token=1000, kv=100),
            budget=64,
            max_len=320,
            blocks=40,
            seqs=4,
            fast_forward=fast,
            async_scheduling=async_scheduling,
            router=LeastOutstanding(),
        )
        told = [feature.describe(), mover.describe() if moves else None]
        prints.append({**fingerprint(cluster), "told": repr(told)})
        assert all(state is not State.STARTING or index for index, state in feature._state.items())
    assert prints[0] == prints[1]

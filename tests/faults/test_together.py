"""Faults of replicas and links beside disaggregation, migration and scaling: nothing is lost, doubled or left over."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policies import registry
from policies.rescheduling.llumnix import Llumnix
from simulator.engine.cluster import Cluster
from simulator.engine.control import Feature
from simulator.engine.recorder import Outcome
from simulator.kv_tiers.feature import KVTiersFeature
from simulator.kv_tiers.levels import PoolTiers
from simulator.rescheduling.feature import MovingPool, ReschedulingFeature
from simulator.scaling.feature import ScaledPool, ScalingFeature
from simulator.scenario_scaling import StartUp
from tests.disaggregation.support import SGLANG, STREAMED, VLLM, disaggregation, network
from tests.engine.support import MS, LinearCost, Request, build, check_invariants, fingerprint
from tests.faults.support import features
from tests.faults.test_conservation import (
    ADMISSION,
    CLIENTS,
    EVEN,
    FAULTS,
    REQUESTS,
    SECONDS,
    SPANS,
    UNEVEN,
    parts_of,
    whole_print,
)
from tests.kv_tiers.support import tier
from tests.rescheduling.support import Eager
from tests.scaling.support import planned

REPLICAS, KV_BYTES, WEIGHTS = 3, 100_000, 50_000_000

LINKS = st.lists(
    st.one_of(
        st.fixed_dictionaries(
            {
                "at_s": SECONDS,
                "what": st.just("nic"),
                "which": st.sampled_from(["node0/nic0", "node1/nic0"]),
                "for_s": SPANS,
                "factor": st.sampled_from([0.0, 0.3]),
            }
        ),
        st.fixed_dictionaries(
            {
                "at_s": SECONDS,
                "what": st.just("link"),
                "which": st.sampled_from(["node1/nic0/rx", "storage/read"]),
                "for_s": SPANS,
                "on_s": st.just(0.01),
                "off_s": st.just(0.02),
            }
        ),
        st.fixed_dictionaries(
            {
                "at_s": SECONDS,
                "what": st.sampled_from(["node", "replica"]),
                "which": st.integers(0, 2),
                "for_s": SPANS,
            }
        ),
        st.fixed_dictionaries(
            {"at_s": SECONDS, "what": st.just("gpu"), "which": st.just("node2/gpu0"), "for_s": SPANS}
        ),
    ),
    max_size=5,
)


def moving(kind: str) -> list[Feature]:
    """Return what moves requests about."""
    if kind == "disaggregated":
        return [disaggregation(["prefill", "decode", "decode"], **STREAMED)]
    if kind == "vllm":
        return [disaggregation(["decode", "prefill", "prefill"], **VLLM)]
    if kind == "sglang":
        return [disaggregation(["prefill", "decode", "mixed"], **SGLANG)]
    if kind in ("moving", "llumnix"):
        mover = Eager(interval_s=0.02, goes_on=True) if kind == "moving" else Llumnix(threshold=6.0, interval_s=0.03)
        pool = MovingPool("default", range(REPLICAS), mover, KV_BYTES)
        return [ReschedulingFeature([pool], last_stage_max_blocks=2, max_stages=3)]
    if kind == "tiers":
        tiers = [tier("host", 6, write="on-second-use"), tier("remote", 30)]
        return [KVTiersFeature([PoolTiers("default", range(REPLICAS), tiers, "auto", KV_BYTES)])]
    scaler = planned(lambda view: 1 + round(view.now_s * 10) % REPLICAS, 0.03)
    scaled = ScaledPool("default", range(REPLICAS), 1, 1, scaler, WEIGHTS)
    return [ScalingFeature([scaled], StartUp(init_s=0.03), requeues=True)]


def simulate_together(
    requests: list[Request], kind: str, parts: dict[str, Any], *, fast_forward: bool, cost: LinearCost, **options: Any
) -> tuple[Cluster, dict[str, Any]]:
    """Run everything together, in the order of `simulator.features`; check what holds for every run."""
    own = features(**parts)
    if kind == "tiers":
        options |= {"hash_block_tokens": 16, "blocks": 30, "kv_tiers": True}
    cluster = build(
        requests,
        replicas=REPLICAS,
        features=[*own[:-1], *moving(kind), own[-1]],
        fast_forward=fast_forward,
        cost=cost,
        budget=64,
        max_len=256,
        make_network=partial(network, replicas=REPLICAS, gbit_per_s=8.0),
        **options,
    )
    cluster.run()
    cluster.stop()
    check_invariants(cluster, drained=True)
    control = cluster.control
    assert control is not None
    assert not control.live and not control.transits
    assert not cluster.outstanding_requests.any() and not cluster.outstanding_tokens.any()
    assert (cluster.recorder.columns["outcome"] != Outcome.UNFINISHED).all()
    if cluster.network is not None:
        assert cluster.network.network.active == ()
    return cluster, dict(control.describe())


@pytest.mark.parametrize("kind", ["disaggregated", "vllm", "sglang", "moving", "llumnix", "scaling", "tiers"])
@given(
    requests=REQUESTS,
    faults=FAULTS,
    links=LINKS,
    clients=CLIENTS,
    admission=ADMISSION,
    engine=st.sampled_from([{}, {"hash_block_tokens": 16, "blocks": 40, "seqs": 4}, {"blocks": 60}]),
    policy=st.sampled_from(["vllm-v1", "sarathi", "sglang"]),
    cost=st.sampled_from([EVEN, UNEVEN]),
)
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_faults_beside_what_moves_requests(
    kind: str,
    requests: list[Request],
    faults: dict[str, Any],
    links: list[dict[str, Any]],
    clients: dict[str, Any] | None,
    admission: tuple[str | None, dict[str, Any]],
    engine: dict[str, Any],
    policy: str,
    cost: LinearCost,
) -> None:
    faults = {**faults, "script": [*faults["script"], *links]}
    parts = parts_of(faults, clients, admission, len(requests))
    prints = [
        whole_print(
            simulate_together(
                requests,
                kind,
                parts,
                fast_forward=fast,
                cost=cost,
                policy=registry.resolve("batching", policy),
                **engine,
            )
        )
        for fast in (True, False)
    ]
    assert prints[0] == prints[1]


def test_a_first_token_is_known_when_it_comes() -> None:
    # The fourth decodes on the other replica from 9 ms on, where its first token comes at 18 ms, in a run of steps.
    requests = [*[Request(0, 1, 1)] * 3, Request(0, 2, 3)]
    parts = {"faults": {}, "clients": {"ttft_timeout_s": 0.02}}
    for fast_forward in (True, False):
        policy = registry.resolve("batching", "vllm-v1")
        cluster, _ = simulate_together(requests, "vllm", parts, fast_forward=fast_forward, cost=UNEVEN, policy=policy)
        assert (cluster.recorder.columns["outcome"] == Outcome.FINISHED).all()


def test_a_link_that_is_down_stalls_what_it_carries() -> None:
    # A prompt of 60 tokens has 6 MB of KV: 6 ms over 1 GB/s from 10 ms on. The interface is down from 13 to 45 ms.
    nic = {"at_s": 0.013, "what": "nic", "which": "node0/nic0", "for_s": 0.032}
    policy = registry.resolve("batching", "sarathi")
    run = partial(simulate_together, [Request(0, 60, 3)], "sglang", fast_forward=True, cost=EVEN, policy=policy)
    stalled, sections = run({"faults": {"script": [nic], "health": "immediate"}})
    plain, _ = run({"faults": {}})
    first = "first_token_ns"
    assert stalled.recorder.columns[first][0] == plain.recorder.columns[first][0] + 32 * MS
    assert sections["faults"]["events"][0]["factor"] == 0.0
    assert sections["faults"]["note"] is not None


def test_flapping_is_bad_and_good_by_turns() -> None:
    # Down for 20 ms and up for 10 ms from 12 ms on: the 4 MB that are left go from 32 to 36 ms.
    nic = {"at_s": 0.012, "what": "nic", "which": "node0/nic0", "off_s": 0.02, "on_s": 0.01}
    parts = {"faults": {"script": [nic], "health": "immediate"}}
    policy = registry.resolve("batching", "sarathi")
    run = partial(simulate_together, [Request(0, 60, 3)], "sglang", fast_forward=True, cost=EVEN, policy=policy)
    flapping, _ = run(parts)
    plain, _ = run({"faults": {}})
    first = "first_token_ns"
    assert flapping.recorder.columns[first][0] == plain.recorder.columns[first][0] + 20 * MS


def test_a_restart_loads_weights_over_the_links() -> None:
    script = [{"at_s": 0.005, "what": "node", "which": 0, "for_s": 0.01}]
    own = features(faults={"script": script, "health": "immediate", "restart": {"init_s": 0.02}})
    own[0]._weight_bytes = (WEIGHTS,) * 3  # type: ignore[attr-defined]
    cluster = build([Request(0, 20, 1)], features=own, make_network=partial(network, replicas=1, gbit_per_s=8.0))
    cluster.run()
    cluster.stop()
    # Repaired at 15 ms; 50 MB over 1 GB/s and the storage's latency of 1 ms, 3 links' latency; 20 ms to start; a step.
    took = cluster.recorder.columns["first_token_ns"][0]
    assert took == pytest.approx((15 + 50 + 1 + 20 + 10) * MS, abs=50_000)
    assert cluster.control is not None
    (event,) = cluster.control.describe()["faults"]["events"]
    assert (event["component"], event["replicas"]) == ("node0", [0])
    assert fingerprint(cluster)


def test_a_replica_that_broke_before_it_was_started() -> None:
    # Replica 1 breaks at 10 ms, before the scaler starts it, and is whole at 600 ms. It seems to serve from 0.1 s;
    # what is sent there is begun anew at 450 ms, when the probes of 200 and 400 ms have found out.
    script = [{"at_s": 0.01, "what": "replica", "which": 1, "for_s": 0.59}]
    health = {"interval_s": 0.2, "timeout_s": 0.05, "failures": 2}
    restart = {"weights": "none", "init_s": 0.0}
    (broken,) = features(faults={"script": script, "health": health, "restart": restart})
    scaled = ScaledPool("default", range(2), 1, 1, planned(lambda view: 2, 0.1), WEIGHTS)
    scaling = ScalingFeature([scaled], StartUp(init_s=0.02), requeues=True)
    requests = [Request(i * 10 * MS, 20, 2) for i in range(80)]
    links = partial(network, replicas=2, gbit_per_s=80.0)
    cluster = build(requests, replicas=2, features=[scaling, broken], make_network=links)
    cluster.run()
    cluster.stop()
    check_invariants(cluster, drained=True)
    columns = cluster.recorder.columns
    assert (columns["outcome"] == Outcome.FINISHED).all()
    assert (columns["replica"] == 1).any()
    assert cluster.control is not None
    section = cluster.control.describe()["faults"]
    assert (
        section["lost_requests"]["retried"] == section["requests_sent_in_vain"] == (columns["attempts"] > 1).sum() > 5
    )
    assert section["outages"] == 0


@pytest.mark.parametrize(("what", "ms"), [("replica", 50 / 25), ("node", 50 + 1)])
def test_weights_are_in_host_memory_unless_the_server_failed(what: str, ms: float) -> None:
    """An A100's PCIe takes 25 GB/s of host memory; the storage gives 1 GB/s here, 1 ms late."""
    script = [{"at_s": at, "what": what, "which": 0, "for_s": 0.01} for at in (0.005, 0.3)]
    own = features(faults={"script": script, "health": "immediate", "restart": {"init_s": 0.02}})
    own[0]._weight_bytes = (WEIGHTS,) * 3  # type: ignore[attr-defined]
    requests = [Request(0, 20, 1), Request(310 * MS, 20, 1)]
    cluster = build(requests, features=own, make_network=partial(network, replicas=1, gbit_per_s=8.0))
    cluster.run()
    cluster.stop()
    first = cluster.recorder.columns["first_token_ns"]
    assert first.tolist() == pytest.approx([(begin + ms + 20 + 10) * MS for begin in (15, 310)], abs=50_000)

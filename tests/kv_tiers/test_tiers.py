"""Tiers: loads and writes by hand, break-even, capacities, losses; fast-forward equal to stepwise."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies import registry
from policies.batching.sarathi import Sarathi
from policies.batching.vllm_v1 import VllmV1
from tests.engine.support import MS, LinearCost, Request, fingerprint
from tests.engine.test_control import ACTS, Acts
from tests.kv_tiers.support import STEP, UNIT_BYTES, check_tiers, make, serve, tier

PCIE = 1_600
"""ns of latency of a GPU's PCIe link (`simulator.cost.links.PCIE_LATENCY_S` / 2)."""


def chain(first: int, number: int) -> tuple[int, ...]:
    """Return the identities of a prefix that shares nothing with those of other ``first``."""
    return tuple(1000 * first + i for i in range(number))


# A prompt of 100 tokens has 6 units and 7 blocks; the engine has 10 blocks, so that the second prompt evicts the first.
AGAIN = [
    Request(0, 100, 1, chain(1, 6)),
    Request(200 * MS, 160, 1, chain(2, 10)),
    Request(400 * MS, 100, 1, chain(1, 6)),
]


def ttft_ns(cluster: Any, row: int) -> int:
    columns = cluster.recorder.columns
    return int(columns["first_token_ns"][row] - columns["arrival_ns"][row])


def test_what_was_evicted_is_loaded_where_that_is_sooner() -> None:
    # Computing: 10 ms + 101 x 0.2 ms = 30.2 ms. Loading 6 x 1.6 MB over 1 GB/s: 9.6 ms, then 10 ms + 5 x 0.2 ms.
    # The load begins 1 ns after the decision.
    cluster, told, _ = serve(AGAIN, [tier("host", 100)], blocks=10)
    assert ttft_ns(cluster, 0) == 30_200_000
    assert ttft_ns(cluster, 2) == 9_600_000 + PCIE + 1 + 11_000_000
    assert cluster.recorder.columns["cached_tokens"].tolist() == [0, 0, 96]
    host = told["tiers"][0]
    assert (told["loads"], told["loaded_tokens"]) == (1, 96)
    assert host["loaded_bytes"] == 6 * UNIT_BYTES
    assert host["written_bytes"] == host["held_bytes"] == 16 * UNIT_BYTES
    assert told["load_wait_s"]["max"] == pytest.approx(0.0096, abs=1e-5)


def test_over_a_slow_link_it_is_computed() -> None:
    # 38.4 ms for the load, then 11 ms: more than 30.2 ms.
    cluster, told, _ = serve(AGAIN, [tier("host", 100)], blocks=10, gb_per_s=0.25)
    assert ttft_ns(cluster, 2) == 30_200_000
    assert (told["loads"], told["recomputes"], told["recomputed_tokens"]) == (0, 1, 96)


def test_the_break_even_is_where_both_take_as_long() -> None:
    # 9.6 MB in 19.2 ms less the latency: 0.50007 GB/s.
    for gb_per_s, loads in ((0.499, 0), (0.502, 1)):
        assert serve(AGAIN, [tier("host", 100)], blocks=10, gb_per_s=gb_per_s)[1]["loads"] == loads


def test_the_choice_can_be_forced() -> None:
    told = {
        choice: serve(AGAIN, [tier("host", 100)], blocks=10, gb_per_s=gb_per_s, choice=choice)[1]
        for choice, gb_per_s in (("always-load", 0.1), ("always-recompute", 100.0))
    }
    assert told["always-load"]["loads"] == 1
    assert told["always-recompute"]["recomputes"] == 1


def test_a_load_beside_another_takes_longer_and_that_counts() -> None:
    # Two prefixes come back at once and would share 1 GB/s: 19.2 ms + 11 ms at half of it is as long as computing.
    requests = [
        Request(0, 100, 1, chain(1, 6)),
        Request(100 * MS, 100, 1, chain(2, 6)),
        Request(200 * MS, 320, 1, chain(3, 20)),
        Request(400 * MS, 100, 1, chain(1, 6)),
        Request(400 * MS + 2, 100, 1, chain(2, 6)),
    ]
    cluster, told, _ = serve(requests, [tier("host", 100)], blocks=20)
    assert (told["loads"], told["recomputes"]) == (1, 1)
    assert ttft_ns(cluster, 4) == 30_200_000


def test_others_are_served_meanwhile() -> None:
    requests = [*AGAIN, Request(400 * MS + 1, 40, 1, chain(4, 2))]
    cluster, _, _ = serve(requests, [tier("host", 100)], blocks=10)
    first = cluster.recorder.columns["first_token_ns"]
    assert first[3] < first[2]
    assert ttft_ns(cluster, 3) == 10 * MS + 41 * MS // 5


def test_only_what_the_cache_lacks_is_loaded() -> None:
    # The second prompt leaves 3 of the first one's 6 units in place: the end goes first.
    requests = [AGAIN[0], Request(200 * MS, 80, 1, chain(2, 5)), AGAIN[2]]
    _, told, _ = serve(requests, [tier("host", 100)], blocks=8)
    assert told["loaded_tokens"] == 48


def test_a_full_tier_gives_up_by_its_policy() -> None:
    # 8 units fit. Writing the second's 10 accepts 8 of them and evicts the first's.
    _, told, feature = serve(AGAIN[:2], [tier("host", 8)], blocks=10)
    host = told["tiers"][0]
    assert host["evicted_bytes"] == 6 * UNIT_BYTES
    assert host["refused_bytes"] == 2 * UNIT_BYTES
    assert sorted(feature._made[0][2][0].store._units) == list(chain(2, 10)[:8])


@pytest.mark.parametrize(("eviction", "kept"), [("lru", 1), ("fifo", 2)])
def test_order_of_eviction(eviction: str, kept: int) -> None:
    """Prefix 1 is written first and found again last: it is the oldest, or the one that was used last."""
    requests = [
        Request(0, 33, 1, chain(1, 2)),
        Request(100 * MS, 33, 1, chain(2, 2)),
        Request(200 * MS, 33, 1, chain(1, 2)),
        Request(300 * MS, 33, 1, chain(3, 2)),
    ]
    _, _, feature = serve(requests, [tier("host", 4, eviction=eviction)], blocks=100)
    held = set(feature._made[0][2][0].store._units)
    assert held == {*chain(kept, 2), *chain(3, 2)}


def test_on_second_use_only_what_was_found_again_is_written() -> None:
    requests = [Request(0, 100, 1, chain(1, 6)), Request(100 * MS, 60, 1, chain(1, 3))]
    _, told, feature = serve(requests, [tier("host", 100, "on-second-use")], blocks=100)
    assert told["tiers"][0]["written_bytes"] == 3 * UNIT_BYTES
    assert sorted(feature._made[0][2][0].store._units) == list(chain(1, 3))


def test_on_evict_only_what_was_evicted_is_written() -> None:
    _, told, feature = serve(AGAIN[:2], [tier("host", 100, "on-evict")], blocks=10)
    assert sorted(feature._made[0][2][0].store._units) == list(chain(1, 6))
    assert told["tiers"][0]["written_bytes"] == 6 * UNIT_BYTES
    _, told, _ = serve(AGAIN, [tier("host", 100, "on-evict")], blocks=10)
    assert told["loaded_tokens"] == 96


def test_tiers_are_written_one_after_the_other() -> None:
    """What host memory gives up goes to flash, and what is there to the pool; what is loaded stays in host memory."""
    tiers = [tier("host", 10), tier("flash", 100, "on-evict"), tier("remote", 100)]
    _, told, feature = serve(AGAIN, tiers, blocks=10, choice="always-load")
    host, flash, remote = told["tiers"]
    assert flash["written_bytes"] >= 6 * UNIT_BYTES
    assert remote["written_bytes"] == flash["written_bytes"]
    assert host["evicted_bytes"] == flash["written_bytes"]
    assert flash["loaded_bytes"] == 6 * UNIT_BYTES
    assert host["kept_in_passing_bytes"] == 6 * UNIT_BYTES
    assert set(chain(1, 6)) <= set(feature._made[0][2][0].store._units)


def test_units_of_several_tiers_are_loaded_together() -> None:
    """Host memory of 12 units kept the beginning of the first prefix only; the rest comes from the remote pool."""
    tiers = [tier("host", 12), tier("remote", 100)]
    _, told, _ = serve(AGAIN, tiers, blocks=10, choice="always-load")
    assert [each["loaded_tokens"] for each in told["tiers"]] == [32, 64]


def test_the_remote_pool_is_shared() -> None:
    """Round robin: the second request is another replica's, which has nothing but the pool."""
    requests = [Request(0, 100, 1, chain(1, 6)), Request(200 * MS, 100, 1, chain(1, 6))]
    cluster, told, _ = serve(requests, [tier("remote", 100)], replicas=2, storage_gb_per_s=10.0, gb_per_s=10.0)
    assert cluster.recorder.columns["replica"].tolist() == [0, 1]
    assert told["tiers"][0]["stores"] == 1
    assert told["loaded_tokens"] == 96
    _, told, _ = serve(requests, [tier("host", 100)], replicas=2)
    assert told["loaded_tokens"] == 0


def test_a_lost_replica_loses_its_tiers_but_not_the_pool() -> None:
    requests = [
        Request(0, 100, 1, chain(1, 6)),
        Request(400 * MS, 100, 1, chain(1, 6)),
    ]
    acts = Acts([(200 * MS, "lose", 0, 0)])
    _, told, _ = serve(requests, [tier("host", 100)], others=[acts])
    assert told["loaded_tokens"] == 0
    acts = Acts([(200 * MS, "lose", 0, 0)])
    tiers = [tier("host", 100), tier("remote", 100)]
    _, told, _ = serve(requests, tiers, others=[acts], gb_per_s=10.0, storage_gb_per_s=10.0)
    host, remote = told["tiers"]
    assert (host["loaded_tokens"], remote["loaded_tokens"]) == (0, 96)


def test_a_request_withdrawn_while_it_is_loaded_leaves_nothing_behind() -> None:
    acts = Acts([(404 * MS, "withdraw", 2, 0)])
    cluster, told, _ = serve(AGAIN, [tier("host", 100)], others=[acts], blocks=10)
    assert told["loads_given_up"] == 1
    assert cluster.recorder.columns["output_tokens"].tolist() == [1, 1, 0]


def test_requests_wait_for_memory_to_load_into() -> None:
    """The third needs 6 blocks of 10 while a running one holds 7; one step's tokens alone would fit."""
    requests = [
        AGAIN[0],
        Request(100 * MS, 160, 1, chain(2, 10)),
        Request(300 * MS, 100, 10, chain(3, 6)),
        Request(310 * MS, 100, 1, chain(1, 6)),
    ]
    policy = partial(VllmV1, reserve_full_input=False)
    cluster, told, _ = serve(requests, [tier("host", 100)], blocks=10, budget=32, policy=policy)
    assert told["loads"] == 1
    columns = cluster.recorder.columns
    assert columns["scheduled_ns"][3] > columns["last_token_ns"][2]
    assert told["memory_wait_s"]["max"] > 0.05


# ------------------------------------------------------------------------------------------------------- exactness


@st.composite
def workloads(draw: st.DrawFn) -> dict[str, Any]:
    """Draw requests of few prefixes on small engines, all at multiples of 10 ms or at random times."""
    at = st.integers(0, 30).map(lambda i: 10 * MS * i) if draw(st.booleans()) else st.integers(0, 300 * MS)
    request = st.builds(
        lambda arrival, group, units, output, more: Request(
            arrival,
            16 * units + more,
            output,
            (*chain(group, units), *((5_000 + arrival + group,) * (output > 16))),
            float(output),
        ),
        arrival=at,
        group=st.integers(1, 3),
        units=st.integers(0, 8),
        output=st.integers(1, 30),
        more=st.integers(1, 15),
    )
    writes = st.sampled_from(["write-through", "on-second-use", "on-evict"])
    places = draw(st.sampled_from([["host"], ["remote"], ["host", "remote"], ["host", "flash", "remote"], ["flash"]]))
    evictions = st.sampled_from(["lru", "fifo", "lfu"])
    prefetches = st.sampled_from(["none", "best-effort", "wait-complete"])
    return {
        "requests": draw(st.lists(request, min_size=1, max_size=14)),
        "tiers": [
            (
                place,
                draw(st.sampled_from([1, 5, 20, 200])),
                draw(writes),
                draw(evictions),
                draw(prefetches) if place != "host" and places[0] == "host" else "none",
            )
            for place in places
        ],
        "blocks": draw(st.sampled_from([12, 16, 30])),
        "seqs": draw(st.sampled_from([2, 64])),
        "replicas": draw(st.sampled_from([1, 2])),
        "gb_per_s": draw(st.sampled_from([0.3, 1.0, 20.0])),
        "choice": draw(st.sampled_from(["auto", "auto", "always-load"])),
        "cost": draw(st.sampled_from([STEP, LinearCost(10 * MS), LinearCost(3 * MS, token=20_011, kv=307)])),
        "budget": draw(st.sampled_from([32, 200])),
        "acts": draw(st.one_of(st.just([]), ACTS)),
    }


def prints(options: dict[str, Any], **more: Any) -> tuple[Any, ...]:
    options = dict(options)
    tiers = [tier(*each) for each in options.pop("tiers")]
    acts = options.pop("acts")
    requests = options.pop("requests")
    others = [Acts(acts)] if acts else []
    cluster, told, _ = serve(requests, tiers, others=others, max_len=190, **options, **more)
    network = cluster.network
    carried = None if network is None else [network.network.use(i).bytes for i in range(len(network.network.links))]
    return fingerprint(cluster), told, carried


@pytest.mark.parametrize("overlap", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("policy", [VllmV1, Sarathi])
@settings(max_examples=40, deadline=None)
@given(options=workloads())
def test_fast_forward_equals_stepwise(policy: Any, overlap: bool, options: dict[str, Any]) -> None:
    common = {**options, "policy": policy, "async_scheduling": overlap}
    assert prints(common) == prints(common, fast_forward=False)


_POLICIES = [
    name
    for name in registry.names("batching")
    if not registry.make("batching", name, {}).preempts_for_waiting  # type: ignore[attr-defined]
]


@pytest.mark.parametrize("policy", _POLICIES)
@settings(max_examples=8, deadline=None)
@given(options=workloads())
def test_every_batching_policy(policy: str, options: dict[str, Any]) -> None:
    batching = registry.resolve("batching", policy)
    queueing = registry.resolve("queueing", batching.queueing)  # type: ignore[attr-defined]
    common = {**options, "policy": batching, "queueing": queueing, "acts": []}
    assert prints(common) == prints(common, fast_forward=False)


@settings(max_examples=25, deadline=None)
@given(options=workloads())
def test_pipeline_stages_lose_nothing(options: dict[str, Any]) -> None:
    cost = LinearCost(3 * MS, token=20_011, stages=2)
    acts = [act for act in options["acts"] if act[1] == "lose"]
    prints({**options, "cost": cost, "stages": 2, "acts": acts})


def test_an_unfinished_run_keeps_its_books() -> None:
    cluster, feature = make(AGAIN, [tier("host", 100)], blocks=10)
    cluster.run(404 * MS)
    cluster.stop()
    assert cluster.num_ended == 2
    load, *_ = feature.describe()["pools"]["default"]["tiers"]
    assert load["loaded_bytes"] == 0
    with pytest.raises(AssertionError):
        check_tiers(feature)  # what is being read is pinned


# ------------------------------------------------------------------------------------------------------ prefetching

# The first prefix is in the pool, and host memory holds the second: 10 units. A long prompt keeps the engine busy from
# 400 ms on; the third request queues behind it, since the engine serves one at a time.
QUEUED = [
    *AGAIN[:2],
    Request(400 * MS, 100, 10, chain(3, 0)),
    Request(401 * MS, 100, 1, chain(1, 6)),
]


@pytest.mark.parametrize("prefetch", ["none", "best-effort", "wait-complete"])
def test_what_a_request_wants_is_read_while_it_queues(prefetch: str) -> None:
    tiers = [tier("host", 10), tier("remote", 100, prefetch=prefetch)]
    cluster, told, _ = serve(QUEUED, tiers, blocks=10, seqs=1, choice="always-load", storage_gb_per_s=1.0)
    host, remote = told["tiers"]
    assert told["loaded_tokens"] == 96
    if prefetch == "none":
        assert (host["loaded_tokens"], remote["loaded_tokens"]) == (0, 96)
    else:
        assert (host["loaded_tokens"], remote["loaded_tokens"]) == (96, 0)
        assert remote["prefetched_bytes"] == 6 * UNIT_BYTES
        end = int(cluster.recorder.columns["last_token_ns"][2])
        assert cluster.recorder.columns["first_token_ns"][3] == end + 9_600_000 + PCIE + 1 + 11_000_000


def test_best_effort_takes_what_has_come_and_wait_complete_waits() -> None:
    """The pool gives 0.1 GB/s: a unit in 16 ms.

    The engine looks at the request when its step ends, at 813.4 ms, and is free at 855 ms: two units have come.
    """
    requests = [*AGAIN[:2], Request(800 * MS, 16, 5), Request(801 * MS, 100, 1, chain(1, 6))]
    found = {}
    for prefetch in ("best-effort", "wait-complete"):
        tiers = [tier("host", 10), tier("remote", 100, prefetch=prefetch)]
        found[prefetch] = serve(requests, tiers, blocks=10, seqs=1, storage_gb_per_s=0.1)
    _, told, _ = found["best-effort"]
    assert told["tiers"][1]["prefetched_bytes"] == 2 * UNIT_BYTES
    assert told["loaded_tokens"] == 32
    cluster, told, _ = found["wait-complete"]
    assert told["tiers"][1]["prefetched_bytes"] == 6 * UNIT_BYTES
    assert told["loaded_tokens"] == 96
    # All of it is there 96 ms after 813.4 ms; then it is loaded from host memory.
    assert told["prefetch_wait_s"]["max"] == pytest.approx(0.9094 - 0.855, abs=1e-4)
    assert ttft_ns(cluster, 3) == pytest.approx((909.4 + 9.6 + 11 - 801) * MS, abs=0.1 * MS)

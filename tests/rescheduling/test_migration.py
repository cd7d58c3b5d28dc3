"""Live migration: stages and downtime by hand, what stops one, fast-forward equal to stepwise."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.batching.sarathi import Sarathi
from policies.batching.vllm_v1 import VllmV1
from policies.protocols import Move, PolicyError
from policies.queueing.priority import Priority
from policies.rescheduling.llumnix import Llumnix
from policies.routing.llumnix import Llumnix as Freest
from tests.engine.support import MS, LinearCost, Request, fingerprint
from tests.engine.test_control import ACTS, REQUESTS, Acts
from tests.rescheduling.support import KV_BYTES, Eager, Once, serve

COPY = 3_200  # ns before the first byte of a copy: PCIe to the interface, and from it


def test_a_long_request_is_copied_while_it_decodes() -> None:
    # Steps take 10 ms; blocks hold 16 tokens. Asked at 20 ms; memory there 2 ns later; the step ends at 30 ms with 202
    # tokens in KV: 13 blocks, of which the 12 full ones (192 tokens, 19.2 MB) are copied by 49.2 ms beside it. At 50 ms
    # it has 204 tokens: 1 block is left; 12 tokens take 1.2 ms, and a nanosecond more where it goes on elsewhere.
    cluster, feature = serve([Request(0, 200, 20)], Once(interval_s=0.02), replicas=2)
    columns = cluster.recorder.columns
    assert columns["migrations"][0] == 1
    assert columns["replica"][0] == 1
    told = feature.describe()
    assert told["copies"] == 2
    assert told["bytes"] == 204 * KV_BYTES
    down = 1_200_000 + COPY + 2
    assert told["downtime_s"]["max"] == pytest.approx(down / 1e9, abs=1e-12)
    assert columns["itl_max_ns"][0] == 10 * MS + down
    assert columns["last_token_ns"][0] == 200 * MS + down
    assert [replica.counters.decode_tokens for replica in cluster.replicas] == [4, 15]


def test_a_short_one_stops_at_once() -> None:
    # 22 tokens at 30 ms are 2 blocks: one copy of 2.2 ms.
    cluster, feature = serve([Request(0, 20, 20)], Once(interval_s=0.02))
    assert feature.describe()["copies"] == 1
    assert cluster.recorder.columns["itl_max_ns"][0] == 10 * MS + 2_200_000 + COPY + 2


def test_downtime_does_not_grow_with_the_length() -> None:
    downtimes = []
    for prompt in (400, 1600, 3200):
        _, feature = serve([Request(0, prompt, 200)], Once(), budget=4096)
        assert feature.describe()["moved"] == 1
        downtimes.append(feature.describe()["downtime_s"]["max"])
    assert max(downtimes) <= 32 * KV_BYTES / 1e9 + 1e-5


def test_a_request_that_ends_first_stays() -> None:
    cluster, feature = serve([Request(0, 200, 5)], Once(interval_s=0.02))
    assert feature.describe()["failed"] == {"ended": 1}
    assert cluster.recorder.columns["last_token_ns"][0] == 50 * MS
    assert cluster.recorder.columns["replica"][0] == 0


def test_a_full_destination_refuses() -> None:
    requests = [Request(0, 40, 20), Request(0, 100, 20)]  # 3 and 7 blocks, growing to 4 and 8
    cluster, feature = serve(requests, Once(interval_s=0.02), blocks=10)
    told = feature.describe()
    assert told["moved"] == 0
    assert told["failed"] == {"no memory": 2}
    assert cluster.recorder.columns["last_token_ns"].tolist() == [200 * MS, 200 * MS]


def test_a_link_slower_than_decoding_is_given_up() -> None:
    # 100,000 bytes take 10 ms, and a token takes as long: a copy is as long as the one before.
    cluster, feature = serve([Request(0, 200, 2000)], Once(), gbit_per_s=0.08, last_stage_max_blocks=1, max_stages=2)
    assert feature.describe()["failed"] == {"too many stages": 1}
    assert cluster.recorder.columns["itl_max_ns"][0] == 10 * MS


def test_one_after_the_other_while_the_policy_goes_on() -> None:
    requests = [Request(0, 20, 60), Request(0, 20, 60), Request(0, 20, 60)]

    class Follows(Once):
        def follow(self, move: Move, view: Any) -> Move | None:
            able = [each.request_id for each in view.replicas[move.source].running()]
            return Move(able[0], move.source, move.destination) if able and move.source == 0 else None

    _, feature = serve(requests, Follows())
    assert feature.describe()["moved"] >= 2


@pytest.mark.parametrize(
    ("move", "said"),
    [
        (Move(0, 0, 5), "moves between replica 5"),
        (Move(0, 1, 0), "isn't at replica 1"),
        (Move(0, 0, 0), "takes no requests or is the source"),
        (Move(7, 0, 1), "isn't at replica 0"),
    ],
)
def test_impossible_moves_are_refused(move: Move, said: str) -> None:
    class Wrong(Once):
        def decide(self, view: Any) -> list[Move]:
            return [move]

    with pytest.raises(PolicyError, match=said):
        serve([Request(0, 20, 20)], Wrong())


def test_llumnix_defragments_for_the_first_waiting() -> None:
    # Each replica has 20 blocks, of which two requests hold 12, growing; a prompt of 10 blocks fits nowhere until
    # one of them has moved to the other replica.
    requests = [*(Request(0, 90, 30) for _ in range(4)), Request(20 * MS, 150, 5)]
    options: dict[str, Any] = {"blocks": 20, "router": Freest()}
    alone, _ = serve(requests, Once(interval_s=1e3), **options)
    moved, feature = serve(requests, Llumnix(threshold=2.0), **options)
    assert feature.describe()["moved"] >= 1
    waits = [cluster.recorder.columns["first_token_ns"][4] for cluster in (alone, moved)]
    assert waits[1] < waits[0] / 2


@pytest.mark.parametrize("policy", [VllmV1, Sarathi])
@pytest.mark.parametrize(
    "options",
    [
        {"replicas": 2},
        {"replicas": 3, "hash_block_tokens": 16, "blocks": 30, "seqs": 4, "queueing": Priority},
        {"replicas": 2, "async_scheduling": True, "blocks": 60},
    ],
    ids=["plain", "prefixes", "async"],
)
@given(
    requests=REQUESTS,
    acts=ACTS,
    every_ms=st.sampled_from([7, 10, 33]),
    llumnix=st.booleans(),
    gbit=st.sampled_from([1.0, 8.0, 80.0]),
)
@settings(max_examples=30, deadline=None)
def test_fast_forward_equals_stepwise(
    policy: Any,
    options: dict[str, Any],
    requests: list[Request],
    acts: list[tuple[int, str, int, int]],
    every_ms: int,
    llumnix: bool,
    gbit: float,
) -> None:
    prints = []
    for fast in (True, False):
        chosen = (
            Llumnix(threshold=6.0, interval_s=every_ms / 1e3)
            if llumnix
            else Eager(interval_s=every_ms / 1e3, goes_on=True)
        )
        cluster, feature = serve(
            requests,
            chosen,
            others=[Acts([act for act in acts if act[1] != "move"])],
            gbit_per_s=gbit,
            policy=policy,
            cost=LinearCost(10 * MS, token=1000, kv=100),
            budget=64,
            max_len=320,
            fast_forward=fast,
            router=Freest(),
            **options,
        )
        prints.append({**fingerprint(cluster), "told": repr(feature.describe())})
    assert prints[0] == prints[1]

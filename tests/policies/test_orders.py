"""Queueing, routing and KV eviction: what each rule chooses, on cases worked out by hand."""

import math
from collections import Counter

import numpy as np
import pytest

from policies.kv_eviction.fifo import Fifo
from policies.kv_eviction.gdsf import Gdsf
from policies.kv_eviction.lfu import Lfu
from policies.kv_eviction.lru import Lru
from policies.protocols import PolicyError
from policies.queueing.fcfs import Fcfs
from policies.queueing.ljf import Ljf
from policies.queueing.priority import Priority
from policies.queueing.sjf import Sjf
from policies.routing.least_outstanding import LeastOutstanding
from policies.routing.least_tokens import LeastTokens
from policies.routing.power_of_two import PowerOfTwo
from policies.routing.prefix_aware import PrefixAware
from policies.routing.random import Random
from policies.routing.round_robin import RoundRobin
from policies.routing.session_affinity import SessionAffinity
from policies.testing import FakeArrival, FakeBlock, FakeCluster, FakeRequest

# ------------------------------------------------------------------------------------------------------ queueing


def order(policy, *requests):
    return [r.request_id for r in sorted(requests, key=lambda r: (policy.key(r), r.request_id))]


def requests():
    return (
        FakeRequest(0, 10, 1, arrival_s=0.0, predicted_output_tokens=50, priority=1),
        FakeRequest(1, 10, 1, arrival_s=1.0, predicted_output_tokens=20, priority=0),
        FakeRequest(2, 10, 1, arrival_s=2.0, predicted_output_tokens=90, priority=0),
        FakeRequest(3, 10, 1, arrival_s=3.0, predicted_output_tokens=20, priority=-1),
    )


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (Fcfs(), [0, 1, 2, 3]),
        (Sjf(), [1, 3, 0, 2]),
        (Ljf(), [2, 0, 1, 3]),
        (Priority(), [3, 1, 2, 0]),
        # With 20 tokens a second the keys are 50, 40, 130, 80; with 100 they are 50, 120, 290, 320.
        (Sjf(ageing_tokens_per_s=20), [1, 0, 3, 2]),
        (Sjf(ageing_tokens_per_s=100), [0, 1, 2, 3]),
    ],
)
def test_the_order_of_the_queue(policy, expected):
    assert order(policy, *requests()) == expected


def test_a_static_key_is_linear_ageing():
    """The order by fixed key is that by predicted length less what each has aged, at any time."""
    policy = Sjf(ageing_tokens_per_s=7.5)
    for now in (3.0, 10.0, 1e4):
        aged = sorted(requests(), key=lambda r: r.predicted_output_tokens - 7.5 * (now - r.arrival_s))
        assert [r.request_id for r in aged] == order(policy, *requests())


@pytest.mark.parametrize("policy", [Sjf(), Ljf()])
def test_orders_by_length_need_a_predictor(policy):
    with pytest.raises(PolicyError, match="needs predicted output lengths, but the scenario has no predictor"):
        policy.key(FakeRequest(0, 10, 1, predicted_output_tokens=math.nan))


# ------------------------------------------------------------------------------------------------------- routing


def routes(policy, *loads, **arrival):
    return [policy.route(FakeArrival(**arrival), FakeCluster.of(load, seed=i)) for i, load in enumerate(loads)]


def test_round_robin_takes_each_in_turn():
    assert routes(RoundRobin(), *[[9, 0, 0]] * 5) == [0, 1, 2, 0, 1]


def test_least_outstanding_takes_the_first_of_the_least_loaded():
    assert routes(LeastOutstanding(), [2, 1, 1], [0, 0, 0], [3, 2, 1]) == [1, 0, 2]


def test_least_tokens_counts_tokens():
    cluster = FakeCluster.of([1, 5, 5], tokens=[900, 30, 30])
    assert LeastTokens().route(FakeArrival(), cluster) == 1


def test_random_is_uniform():
    cluster = FakeCluster.of([0] * 4, seed=7)
    policy = Random()
    count = Counter(policy.route(FakeArrival(), cluster) for _ in range(4000))
    assert all(abs(count[replica] - 1000) < 5 * math.sqrt(750) for replica in range(4))


def test_random_numbers_are_those_that_numpy_gives_one_by_one():
    """Also when the cluster changes its size: what was drawn for the old one is left."""
    clusters = [FakeCluster.of([0] * 5, seed=3), FakeCluster.of([0] * 8, seed=4)]
    policy = Random()
    for cluster, seed in zip(clusters, (3, 4), strict=True):
        alone = np.random.default_rng(seed)
        for _ in range(1500):
            assert policy.route(FakeArrival(), cluster) == alone.integers(cluster.num_replicas)


def test_power_of_two_compares_the_replicas_that_numpy_gives_one_by_one():
    load = list(range(9))
    cluster, alone = FakeCluster.of(load, seed=5), np.random.default_rng(5)
    policy = PowerOfTwo()
    for _ in range(1500):
        first, second = int(alone.integers(9)), int(alone.integers(8))
        second += second >= first
        assert policy.route(FakeArrival(), cluster) == min(first, second)  # the load of a replica is its number here


def test_power_of_two_never_takes_the_most_loaded_and_favours_the_least():
    cluster = FakeCluster.of([0, 1, 2, 3], seed=7)
    policy = PowerOfTwo()
    count = Counter(policy.route(FakeArrival(), cluster) for _ in range(6000))
    # Of the 6 pairs, 3 hold replica 0, 2 more replica 1, 1 more replica 2.
    for replica, expected in enumerate((3000, 2000, 1000, 0)):
        assert abs(count[replica] - expected) <= 5 * math.sqrt(max(expected, 0))
    assert policy.route(FakeArrival(), FakeCluster.of([3])) == 0


def test_session_affinity_keeps_sessions_together_and_spreads_them():
    policy = SessionAffinity()
    cluster = FakeCluster.of([0] * 8)
    first = [policy.route(FakeArrival(session_id=s), cluster) for s in range(4000)]
    assert first == [policy.route(FakeArrival(session_id=s), FakeCluster.of([5] * 8)) for s in range(4000)]
    count = Counter(first)
    assert all(abs(count[replica] - 500) < 5 * math.sqrt(500) for replica in range(8))


def test_session_affinity_moves_few_sessions_when_a_replica_is_added():
    policy = SessionAffinity()
    eight, nine = FakeCluster.of([0] * 8), FakeCluster.of([0] * 9)
    pairs = [
        (policy.route(FakeArrival(session_id=s), eight), policy.route(FakeArrival(session_id=s), nine))
        for s in range(4500)
    ]
    moved = [after for before, after in pairs if before != after]
    assert set(moved) == {8}
    assert abs(len(moved) - 500) < 5 * math.sqrt(500)


def test_session_affinity_sends_what_has_no_session_to_the_least_loaded():
    assert routes(SessionAffinity(), [2, 1, 0], session_id=-1) == [2]


def prompt(*blocks):
    return FakeArrival(prompt_tokens=16 * len(blocks), block_hashes=blocks)


def test_prefix_aware_follows_the_longest_prefix():
    policy, idle = PrefixAware(), FakeCluster.of([0, 0, 0])
    assert policy.route(prompt(1, 2, 3, 4), idle) == 0
    assert policy.route(prompt(11, 12, 13, 14), idle) == 1  # unknown: to whom the fewest blocks belong
    assert policy.route(prompt(1, 2, 3, 4, 5, 6), idle) == 0
    assert policy.route(prompt(11, 12, 99), idle) == 1


def test_prefix_aware_ignores_matches_up_to_the_threshold():
    policy, idle = PrefixAware(cache_threshold=0.5), FakeCluster.of([0, 0, 0])
    assert policy.route(prompt(1, 2), idle) == 0
    assert policy.route(prompt(1, 2, 3, 4), idle) == 1  # half is not more than half
    assert policy.route(prompt(1, 2, 3, 4, 5), idle) == 1


def test_prefix_aware_turns_to_the_least_loaded_when_out_of_balance():
    policy = PrefixAware(balance_abs_threshold=10, balance_rel_threshold=2.0)
    assert policy.route(prompt(1, 2), FakeCluster.of([0, 0])) == 0
    assert policy.route(prompt(1, 2), FakeCluster.of([10, 0])) == 0  # a difference of 10 is not above 10
    assert policy.route(prompt(1, 2), FakeCluster.of([60, 30])) == 0  # nor twice as much above twice
    assert policy.route(prompt(1, 2), FakeCluster.of([11, 0])) == 1
    assert policy.route(prompt(1, 2), FakeCluster.of([0, 0])) == 1  # it is remembered there now


def test_prefix_aware_sends_what_has_no_identities_to_the_least_loaded():
    assert routes(PrefixAware(), [2, 1, 1]) == [1]


def test_prefix_aware_forgets_the_least_recent_blocks_and_of_a_prompt_its_end_first():
    policy, idle = PrefixAware(max_blocks=4), FakeCluster.of([0, 0])
    assert policy.route(prompt(1, 2, 3), idle) == 0
    assert policy.route(prompt(11, 12), idle) == 1
    # 3 was forgotten, not 1: of 5 blocks 1 and 2 are remembered.
    assert list(policy._replica_of.items()) == [(2, 0), (1, 0), (12, 1), (11, 1)]
    assert policy._remembered.tolist() == [2, 2]
    assert policy.route(prompt(1, 2, 3), idle) == 0


def test_prefix_aware_counts_what_it_remembers():
    policy = PrefixAware(max_blocks=50)
    rng = np.random.default_rng(1)
    for _ in range(300):
        start = int(rng.integers(20)) * 100
        load = rng.integers(0, 100, 5).tolist()
        policy.route(prompt(*range(start, start + int(rng.integers(1, 12)))), FakeCluster.of(load))
        owners = Counter(policy._replica_of.values())
        assert policy._remembered.tolist() == [owners[replica] for replica in range(5)]
        assert len(policy._replica_of) <= 50


# --------------------------------------------------------------------------------------------------- KV eviction


BLOCKS = (
    FakeBlock(hits=5, cached_order=1, released_order=9),
    FakeBlock(hits=0, cached_order=4, released_order=6),
    FakeBlock(hits=1, cached_order=2, released_order=7),
    FakeBlock(hits=1, cached_order=3, released_order=5),
)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [(Lru(), [3, 1, 2, 0]), (Fifo(), [0, 2, 3, 1]), (Lfu(), [1, 3, 2, 0]), (Gdsf(), [1, 3, 2, 0])],
)
def test_the_order_of_eviction(policy, expected):
    ranks = [(policy.rank(block), block.released_order, index) for index, block in enumerate(BLOCKS)]
    assert [index for _, _, index in sorted(ranks)] == expected


def test_gdsf_ages_what_was_popular():
    """A block found 5 times ranks 6 x 16; each eviction lifts what is released later by the rank evicted."""
    policy = Gdsf()
    popular, fresh = FakeBlock(hits=5), FakeBlock()
    old_rank = policy.rank(popular)
    assert (old_rank, policy.rank(fresh)) == (96.0, 16.0)
    for expected in (32.0, 48.0, 64.0, 80.0, 96.0, 112.0):
        policy.evicted(policy.rank(fresh))
        assert policy.rank(fresh) == expected
    assert policy.rank(fresh) > old_rank


def test_gdsf_weighs_cost_by_size():
    """Two blocks for the tokens of one are worth half."""
    assert Gdsf().rank(FakeBlock(num_blocks=2, num_tokens=16)) == 8.0
    assert Gdsf().rank(FakeBlock(num_blocks=2, num_tokens=32)) == 16.0

"""Routing by reported loads, rescheduling and scaling: what each rule decides, on cases worked out by hand."""

import math

import pytest

from policies.protocols import Move
from policies.rescheduling.llumnix import Llumnix as Rescheduling
from policies.routing.dodoor import Dodoor
from policies.routing.llumnix import Llumnix as Routing
from policies.scaling.kv_usage import KVUsage
from policies.scaling.llumnix import Llumnix as Scaling
from policies.scaling.queue import Queue
from policies.scaling.slo import Slo
from policies.testing import (
    FakeArrival,
    FakeCluster,
    FakeEnded,
    FakeLoad,
    FakeRescheduling,
    FakeRunning,
    FakeScaling,
)


def running(*contexts, first=0, priority=0):
    return tuple(FakeRunning(first + i, context, priority) for i, context in enumerate(contexts))


# --------------------------------------------------------------------------------------------------- llumnix


def test_freeness_is_memory_left_a_request():
    policy = Rescheduling(high_priority=0, high_priority_blocks=400)
    two = running(160, 160, priority=1)
    assert policy.freeness(FakeLoad(0)) == math.inf
    assert policy.freeness(FakeLoad(0, two, used_blocks=20)) == 490
    # The first waiting request counts with what it needs, and as one more; the others don't.
    waiting = FakeLoad(0, two, used_blocks=900, num_waiting=4, first_waiting_blocks=40, waiting_blocks=500)
    assert policy.freeness(waiting) == 20
    # Headroom leaves 400 of the 1,000 blocks.
    urgent = running(160, 160, priority=0)
    assert policy.freeness(FakeLoad(0, urgent, used_blocks=500)) == -50
    assert policy.freeness(FakeLoad(0, two, used_blocks=20, takes_requests=False)) == -math.inf


def test_the_lowest_is_paired_with_the_highest():
    loads = [
        FakeLoad(0, running(100, 90, 200, first=0), used_blocks=997),  # 1 block a request
        FakeLoad(1, running(100, first=10), used_blocks=500),
        FakeLoad(2, running(70, 80, first=20), used_blocks=1000),  # none
        FakeLoad(3, running(100, first=30), used_blocks=100),
        FakeLoad(4, running(100, 110, first=40), used_blocks=992),  # 4: neither
    ]
    moves = Rescheduling().decide(FakeRescheduling(loads))
    assert moves == [Move(20, 2, 3), Move(1, 0, 1)]
    # One that is on its way is the replica's only one; the pair goes on when it has ended.
    assert Rescheduling().decide(FakeRescheduling(loads, frozenset({20}))) == [Move(1, 0, 1)]
    assert Rescheduling().follow(moves[1], FakeRescheduling(loads)) == Move(1, 0, 1)
    loads[0] = FakeLoad(0, running(100, 200), used_blocks=900)
    assert Rescheduling().follow(moves[1], FakeRescheduling(loads)) is None


def test_the_least_urgent_goes_first_and_prefills_stay():
    urgent, usual = running(10, priority=0, first=0), running(70, 60, priority=1, first=10)
    prefilling = FakeRunning(20, 5, 2, is_decoding=False)
    loads = [FakeLoad(0, (*urgent, *usual, prefilling), used_blocks=1000), FakeLoad(1)]
    assert Rescheduling().decide(FakeRescheduling(loads)) == [Move(11, 0, 1)]
    assert Rescheduling(request="longest").decide(FakeRescheduling(loads)) == [Move(10, 0, 1)]
    assert Rescheduling(request="last").decide(FakeRescheduling(loads)) == [Move(11, 0, 1)]


def test_a_replica_with_preempted_requests_sends_and_takes_none():
    crowded = FakeLoad(0, running(100), used_blocks=10, num_waiting=1, num_preempted=1)
    assert Rescheduling().decide(FakeRescheduling([crowded, FakeLoad(1)])) == [Move(0, 0, 1)]
    draining = FakeLoad(1, running(100, first=5), takes_requests=False)
    assert Rescheduling().decide(FakeRescheduling([crowded, draining])) == []


def test_routing_takes_the_freest():
    loads = [
        FakeLoad(0, running(100), used_blocks=400),  # 600 a request
        FakeLoad(1, running(100, 100), used_blocks=100),  # 450
        FakeLoad(2, running(100), used_blocks=100, num_waiting=3, waiting_blocks=900, first_waiting_blocks=10),  # 0
    ]

    class Cluster:
        pass

    cluster = Cluster()
    cluster.loads = loads
    assert Routing().route(FakeArrival(0, 10), cluster) == 0
    assert Routing(queue="first")._load(loads[2]) == -445
    cluster.loads = [*loads, FakeLoad(3)]
    assert Routing().route(FakeArrival(0, 10), cluster) == 3
    # Room is left where an urgent request runs, for others than such.
    cluster.loads = [FakeLoad(0, running(100, priority=0), used_blocks=10), FakeLoad(1, running(100, priority=1), 800)]
    assert Routing(high_priority=0).route(FakeArrival(0, 10, priority=1), cluster) == 1
    assert Routing(high_priority=0).route(FakeArrival(0, 10, priority=0), cluster) == 0


# ----------------------------------------------------------------------------------------------------- dodoor


def test_loads_stay_what_they_were_for_a_batch():
    policy = Dodoor(batch=40)
    first, second = FakeCluster.of([90, 0], [900, 0]), FakeCluster.of([0, 90], [0, 900])
    request = FakeArrival(0, 100)
    before = [policy.route(request, first) for _ in range(20)]
    stale = [policy.route(request, second) for _ in range(20)]
    fresh = [policy.route(request, second) for _ in range(20)]
    assert sum(before) > 10 and sum(stale) > 10  # two equal draws in four leave it at the loaded one
    assert sum(fresh) < 10
    assert policy.figures()["refreshes"] == 2


def test_messages_by_hand():
    cluster = FakeCluster.of([1, 2, 3, 4])
    cached, probed = Dodoor(batch=50, schedulers=5, reports=10), Dodoor(loads="probed")
    for _ in range(100):
        cached.route(FakeArrival(0, 10), cluster)
        probed.route(FakeArrival(0, 10), cluster)
    # 100 placements, 10 + 10 reports, 2 pushes to 5 schedulers; 100 placements, 200 probes there and back.
    assert cached.figures()["messages"] == 100 + 20 + 10
    assert probed.figures()["messages"] == 500
    assert cached.figures()["messages_per_request"] == 1.3


# ---------------------------------------------------------------------------------------------------- scaling


def test_by_freeness():
    # 2 x 1,000 blocks, 100 requests with 1,600 blocks: 4 blocks a request; 3 replicas: 14.
    loads = [FakeLoad(i, running(*[128] * 50), used_blocks=800) for i in range(2)]
    assert Scaling().decide(FakeScaling(loads)) == 3
    assert Scaling().decide(FakeScaling(loads, num_starting=1)) == 3  # it is on its way
    assert Scaling(low=25.0).decide(FakeScaling(loads)) == 5
    assert Scaling(low=25.0).decide(FakeScaling(loads, max_replicas=4)) == 4
    calm = [FakeLoad(i, running(*[16] * 10), used_blocks=10) for i in range(2)]
    assert Scaling().decide(FakeScaling(calm)) == 2  # one alone would have 49
    assert Scaling(high=40.0).decide(FakeScaling(calm)) == 1
    assert Scaling().decide(FakeScaling([], num_unrouted=2)) == 1


def test_by_queue():
    loads = [FakeLoad(i, running(*[16] * 10), num_waiting=waiting) for i, waiting in enumerate((0, 25))]
    assert Queue(target=5.0).decide(FakeScaling(loads)) == 5  # 25 waiting over 5
    idle = [FakeLoad(i) for i in range(4)]
    policy = Queue(stabilization_s=100.0)
    assert [policy.decide(FakeScaling(idle, now_s=t)) for t in (0.0, 50.0, 100.0)] == [1, 1, 1]
    busy = [FakeLoad(i, running(*[16] * 40)) for i in range(4)]
    policy = Queue(stabilization_s=100.0)
    assert policy.decide(FakeScaling(busy, now_s=0.0)) == 4
    assert policy.decide(FakeScaling(idle, now_s=50.0)) == 4
    assert policy.decide(FakeScaling(idle, now_s=100.0)) == 1


def test_by_kv_usage():
    loads = [FakeLoad(i, used_blocks=900, waiting_blocks=300) for i in range(2)]
    assert KVUsage(target=0.6).decide(FakeScaling(loads)) == 4
    assert KVUsage(target=0.6).decide(FakeScaling([FakeLoad(i, used_blocks=620) for i in range(2)])) == 2


def test_by_objectives():
    loads = [FakeLoad(i, running(16), used_blocks=100) for i in range(3)]
    good, late = FakeEnded(99.0, 1.0, 0.05), FakeEnded(99.0, 3.0, 0.05)
    policy = Slo(ttft_s=2.0, tpot_s=0.1, patience_s=20.0, high=0.95)
    assert policy.decide(FakeScaling(loads, now_s=100.0, all_ended=[good] * 8 + [late] * 2)) == 4
    assert policy.decide(FakeScaling(loads, now_s=100.0, num_starting=1, all_ended=[late])) == 4  # one is coming
    assert policy.decide(FakeScaling(loads, now_s=100.0, all_ended=[good] * 19 + [late])) == 3
    assert policy.decide(FakeScaling(loads, now_s=110.0, all_ended=[good])) == 3
    assert policy.decide(FakeScaling(loads, now_s=120.0, all_ended=[good])) == 2
    assert policy.decide(FakeScaling(loads, now_s=120.0, longest_wait_s=5.0)) == 4
    full = [FakeLoad(i, running(16), used_blocks=500) for i in range(3)]
    policy = Slo(ttft_s=2.0, tpot_s=0.1, patience_s=0.0)
    assert policy.decide(FakeScaling(full, now_s=100.0, all_ended=[good])) == 3


@pytest.mark.parametrize("policy", [Scaling(), Queue(), KVUsage(), Slo()])
def test_the_one_with_the_fewest_requests_is_stopped(policy):
    loads = [FakeLoad(0, running(1, 2)), FakeLoad(1, running(1)), FakeLoad(2, running(1)), FakeLoad(3, num_waiting=2)]
    assert policy.stop(FakeScaling(loads)) == 2

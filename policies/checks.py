"""Conformance checks for batching, queueing, routing, eviction and budget policies: yours as well as the project's.

Run them all on a policy by its reference (a name, or ``path/to/file.py:ClassName``)::

    from policies.checks import check_policy
    check_policy("batching", "my_policy.py:MyPolicy", {"chunk": 256})

or each by itself: a check takes a *factory*, a function without arguments that returns a new instance, and
raises an ``AssertionError`` that says what the policy did. What is checked, by kind, is in `CHECKS`. The
policies are tried on the small replica of :mod:`policies.testing`, whose plan enforces the contract decision
by decision.
"""

from __future__ import annotations

import copy
import math
import pickle
import random
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from typing import Any

import numpy as np

from policies import registry
from policies.budget import KVBudget, ModelFacts
from policies.protocols import (
    AdmissionPolicy,
    BalancingPolicy,
    BatchingPolicy,
    KVBudgetPolicy,
    KVEvictionPolicy,
    ParallelismPolicy,
    Policy,
    PolicyError,
    QueueingPolicy,
    ReschedulingPolicy,
    RoutingPolicy,
    ScalingPolicy,
)
from policies.testing import (
    FakeAdmission,
    FakeArrival,
    FakeBlock,
    FakeCluster,
    FakeEnded,
    FakeLoad,
    FakeRanks,
    FakeReplica,
    FakeRequest,
    FakeRescheduling,
    FakeScaling,
    FakeTenants,
    Step,
)

Factory = Callable[[], Policy]


def check_policy(kind: str, ref: str, params: Mapping[str, Any] | None = None) -> None:
    """Run every check of the kind on the policy that a reference means.

    Raises
    ------
    PolicyError
        If the reference can't be resolved or the parameters are wrong.
    AssertionError
        If the policy fails a check; the message names the check and says what the policy did.
    """
    factory = partial(registry.make, kind, ref, dict(params or {}))
    factory()
    for check in CHECKS[kind]:
        try:
            check(factory)
        except AssertionError as error:
            raise AssertionError(f"{kind} policy {ref!r} fails {check.__name__}: {error}") from error


# ------------------------------------------------------------------------------------------------ every kind


def check_documented(factory: Factory) -> None:
    """Check that the class says what its rule is, in one line, whom it follows, and what each parameter means."""
    policy = factory()
    cls = type(policy)
    summary = (cls.__doc__ or "").strip().split("\n", 1)[0]
    assert summary and not summary.startswith(f"{cls.__name__}("), "has no docstring"
    assert summary.endswith("."), f"the docstring's first line is no sentence: {summary!r}"
    assert policy.name, "has no name"
    assert policy.source, "names no source"
    for f in fields(policy):
        assert f.metadata.get("doc"), f"parameter {f.name!r} has no description; declare it with param(...)"


def check_pickles(factory: Factory) -> None:
    """Check that the policy survives pickling with its parameters, as it must to reach a worker process."""
    policy = factory()
    again = pickle.loads(pickle.dumps(policy))
    assert type(again) is type(policy), f"came back as a {type(again).__name__}"
    assert again == policy, f"came back with other parameters: {again}"


def check_instances_are_independent(factory: Factory) -> None:
    """Check that instances share no mutable state: two replicas, or two runs in one process, never meet."""
    one, other = vars(factory()), vars(factory())
    shared = [name for name, value in one.items() if isinstance(value, list | dict | set) and other.get(name) is value]
    assert not shared, f"two instances share {', '.join(sorted(shared))}"


# -------------------------------------------------------------------------------------------------- batching


def _batching(factory: Factory) -> BatchingPolicy:
    policy = factory()
    assert isinstance(policy, BatchingPolicy), f"is a {policy.kind} policy"
    return policy


def _replica(policy: BatchingPolicy, seed: int, *, requests: int = 60, tight: bool = True) -> FakeReplica:
    """Return a replica with a mixed load that arrives in one go, KV memory tight enough to preempt."""
    queueing = registry.make("queueing", policy.queueing)
    assert isinstance(queueing, QueueingPolicy)
    replica = FakeReplica(
        total_blocks=40 if tight else 4000,
        block_size=4,
        max_num_seqs=8,
        max_num_batched_tokens=32,
        max_model_len=96,
        queueing=queueing,
    )
    for number in range(requests):
        _arrive(replica, seed, number)
    return replica


def _arrive(replica: FakeReplica, seed: int, number: int) -> None:
    rng = random.Random(seed * 100_003 + number)
    output = rng.choice((1, 2, 5, 12, 30))
    replica.add(
        rng.choice((1, 3, 8, 17, 33, 60)),
        output,
        predicted_output_tokens=max(1.0, output * rng.choice((0.5, 1.0, 1.0, 2.0))),
        priority=rng.randrange(3),
        cached_tokens=rng.choice((0, 0, 8)),
    )


def _drive(policy: BatchingPolicy, seed: int, *, tight: bool = True) -> list[Step]:
    """Run a load of which a part arrives while the rest runs; return every step."""
    replica = _replica(policy, seed, requests=12, tight=tight)
    arrivals = random.Random(seed)
    for number in range(12, 40):
        for _ in range(arrivals.randrange(6)):
            _checked_step(replica, policy)
        _arrive(replica, seed, number)
    while replica.waiting or replica.running or replica.swapped:
        step = _checked_step(replica, policy)
        idle = step.empty and not (step.preempted or step.swapped_out)
        assert not idle, f"leaves {len(replica.waiting)} waiting and {len(replica.running)} running for ever"
        assert len(replica.steps) < 20_000, "requests have not ended after 20,000 steps"
    return replica.steps


def _checked_step(replica: FakeReplica, policy: BatchingPolicy) -> Step:
    try:
        return replica.step(policy)
    except PolicyError as error:
        raise AssertionError(f"step {len(replica.steps)}: {error}") from error
    except AttributeError as error:
        raise AssertionError(f"step {len(replica.steps)}: uses what its views don't offer: {error}") from error


def check_empty_queue_gives_empty_plan(factory: Factory) -> None:
    """Check that with nobody waiting and nobody running a step is empty."""
    policy = _batching(factory)
    step = _checked_step(FakeReplica(), policy)
    assert step.empty and not step.padding, f"plans {step} for nobody"


def check_decisions_are_valid(factory: Factory) -> None:
    """Check that under a mixed load in tight memory every decision can be applied and views are left as they are.

    The replica refuses to decode without blocks, to schedule a request twice in a step or one that it doesn't
    know, to admit more than ``max_num_seqs``, and to be assigned to.
    """
    for seed in range(4):
        _drive(_batching(factory), seed)
        _drive(_batching(factory), seed, tight=False)


def check_token_budget(factory: Factory) -> None:
    """Check that a step's prompt tokens keep within ``max_num_batched_tokens``, or ``max_model_len`` if larger."""
    for seed in range(4):
        policy = _batching(factory)
        for number, step in enumerate(_drive(policy, seed, tight=False)):
            assert step.prefill_tokens <= 96, f"step {number} computes {step.prefill_tokens} prompt tokens of 96"


def check_blocks_are_returned(factory: Factory) -> None:
    """Check that all KV blocks are free when all requests have ended."""
    policy = _batching(factory)
    replica = _replica(policy, 1)
    while replica.waiting or replica.running or replica.swapped:
        _checked_step(replica, policy)
        assert len(replica.steps) < 20_000, "requests have not ended after 20,000 steps"
    free, total = replica.kv.free_blocks, replica.kv.total_blocks
    assert free == total, f"{total - free} of {total} KV blocks are still taken"


def check_serves_everybody(factory: Factory) -> None:
    """Check that under a finite load every request ends or is refused with a reason: nobody starves."""
    for seed in range(4):
        policy = _batching(factory)
        replica = _replica(policy, seed)
        for _ in range(20_000):
            if not (replica.waiting or replica.running or replica.swapped):
                break
            _checked_step(replica, policy)
        ended = {row for step in replica.steps for row in step.finished}
        missing = {r.request_id for r in replica.requests} - ended - set(replica.refused)
        assert not missing, f"requests {sorted(missing)} have not ended after {len(replica.steps)} steps"


def check_same_seed_same_decisions(factory: Factory) -> None:
    """Check that the same load gives the same steps, with a new instance and with a copy."""
    first = _drive(_batching(factory), 3)
    assert _drive(_batching(factory), 3) == first, "two instances decided differently"
    assert _drive(copy.deepcopy(_batching(factory)), 3) == first, "a copy decided differently"


def check_order_of_admission(factory: Factory) -> None:
    """Check that a policy which says so admits in order: no request starts before one that stands before it."""
    policy = _batching(factory)
    if not policy.admits_in_order:
        return
    replica = _replica(policy, 2)
    while replica.waiting or replica.running or replica.swapped:
        queue = [r.request_id for r in replica.waiting]
        step = _checked_step(replica, policy)
        if not step.preempted:  # else those preempted stand before all others
            queue = [row for row in queue if row not in replica.refused]
            started = [row for row, _ in step.prefills if row in queue]
            assert started == queue[: len(started)], f"admits {started} while {queue[: len(started)]} stand first"
        assert len(replica.steps) < 20_000, "requests have not ended after 20,000 steps"


def check_steps_are_stable(factory: Factory) -> None:
    """Check that what ``stable_steps`` promises holds: the next steps are the same until something else changes.

    That is until a request arrives, ends or completes its prefill, a chunk can't have the same size again, or
    blocks lack. A policy that ``repeats_admissions`` promises it of steps that admitted, too: the same chunks follow,
    and nobody else is admitted. The engine relies on it to take many steps at once.
    """
    for seed in range(6):
        for tight in (True, False):
            policy = _batching(factory)
            replica = _replica(policy, seed, requests=10, tight=tight)
            arrivals = random.Random(seed)
            number, promised, last = 10, 0, Step()
            while replica.waiting or replica.running or replica.swapped:
                if arrivals.random() < 0.05 and number < 30:
                    _arrive(replica, seed, number)
                    number, promised = number + 1, 0
                again = promised > 0 and _can_repeat(replica, last)
                step = _checked_step(replica, policy)
                at = len(replica.steps) - 1
                if again:
                    same = (step.decodes, step.prefills, step.padding, step.repeatable)
                    before = (last.decodes, last.prefills, last.padding, True)
                    assert same == before, f"step {at} differs from the one before, which promised to repeat"
                    promised -= 1
                else:
                    promised = step.stable_steps - 1
                if step.finished or any(not replica.requests[row].remaining_prefill for row, _ in step.prefills):
                    promised = 0
                last = step
                assert at < 20_000, "requests have not ended after 20,000 steps"


def _can_repeat(replica: FakeReplica, last: Step) -> bool:
    """Return whether the engine would take the last step once more: sizes and blocks allow it."""
    need = replica.decode_need([r for r in replica.running if r.request_id in last.decodes])
    for row, tokens in last.prefills:
        request = replica.requests[row]
        if request.remaining_prefill < tokens:
            return False
        need += max(0, replica.blocks_for(request.computed_tokens + tokens) - request._blocks)
    return last.repeatable and not last.empty and need <= replica.kv.free_blocks


# -------------------------------------------------------------------------------------------------- queueing


def check_keys_order(factory: Factory) -> None:
    """Check that keys are numbers, the same whenever asked, and leave the request as it is."""
    policy = factory()
    assert isinstance(policy, QueueingPolicy), f"is a {policy.kind} policy"
    if policy.by_tenant:
        return
    for number in range(20):
        request = FakeRequest(number, 10 + number, 5, arrival_s=number / 2, predicted_output_tokens=20.0 - number)
        key = policy.key(request)
        assert isinstance(key, int | float) and not math.isnan(key), f"the key of a request is {key!r}"
        assert policy.key(request) == key, "the key of a request changes from one call to the next"


def check_works_without_predictor(factory: Factory) -> None:
    """Check that a key without a predictor is a number or a `PolicyError` that asks for one.

    It is never NaN, which has no place in an order.
    """
    policy = factory()
    assert isinstance(policy, QueueingPolicy), f"is a {policy.kind} policy"
    if policy.by_tenant:
        return
    try:
        key = policy.key(FakeRequest(0, 10, 5))
    except PolicyError as error:
        assert "predict" in str(error), f"the error doesn't say that a predictor is missing: {error}"
    else:
        assert not math.isnan(key), "the key is NaN; raise a PolicyError that asks for a predictor"


def check_chooses_a_tenant_who_waits(factory: Factory) -> None:
    """Check that a policy by tenant chooses one who waits, the same whenever asked and as long as it promised."""
    policy = factory()
    assert isinstance(policy, QueueingPolicy), f"is a {policy.kind} policy"
    if not policy.by_tenant:
        return
    rng, tenants = random.Random(1), FakeTenants()
    for number in range(300):
        tenant = rng.choice(("a", "b", "", "d"))
        if tenant not in tenants.waiting:
            policy.came(tenant, tenants)
            tenants.requests[tenant] = []
        tenants.requests[tenant].append(FakeRequest(number, rng.randrange(1, 90), 5, tenant=tenant))
        turn = policy.choose(tenants)
        assert turn in tenants.waiting, f"chooses {turn!r} of {list(tenants.waiting)}"
        steps = policy.stable_steps(tenants)
        assert steps >= 1, f"stable_steps returned {steps}; must be at least 1"
        for step in range(min(steps, rng.randrange(1, 20))):
            assert policy.choose(tenants) == turn, f"chooses another at step {step} of {steps} that were to be the same"
            tenants.step()
        if rng.random() < 0.6:
            turn = policy.choose(tenants)
            policy.admitted(tenants.start(turn), tenants)
            if turn not in tenants.waiting:
                policy.left(turn, tenants)
        tenants.end(rng)


# --------------------------------------------------------------------------------------------------- routing


def _routes(policy: RoutingPolicy, replicas: int) -> list[int]:
    rng = random.Random(replicas)
    chosen = []
    for number in range(200):
        cluster = FakeCluster.of([rng.randrange(100) for _ in range(replicas)], seed=number)
        shared = rng.randrange(5)
        arrival = FakeArrival(
            request_id=number,
            prompt_tokens=rng.randrange(1, 200),
            session_id=rng.randrange(-1, 20),
            block_hashes=tuple(shared * 1000 + block for block in range(rng.randrange(12))),
        )
        chosen.append(policy.route(arrival, cluster))
    return chosen


def check_routes_to_replicas(factory: Factory) -> None:
    """Check that the answer is the index of a replica, be there one or a thousand; views are left as they are."""
    for replicas in (1, 2, 7, 1024):
        policy = factory()
        assert isinstance(policy, RoutingPolicy), f"is a {policy.kind} policy"
        for chosen in _routes(policy, replicas):
            assert isinstance(chosen, int), f"returns a {type(chosen).__name__}; return an int"
            assert 0 <= chosen < replicas, f"returns replica {chosen} of {replicas}"


def check_same_seed_same_routes(factory: Factory) -> None:
    """Check that the same arrivals and the same random stream give the same replicas."""
    one, other = factory(), factory()
    assert isinstance(one, RoutingPolicy) and isinstance(other, RoutingPolicy), f"is a {one.kind} policy"
    assert _routes(one, 7) == _routes(other, 7), "two instances decided differently"


def check_follows_replica_count(factory: Factory) -> None:
    """Check that a cluster which grows or shrinks between two arrivals is routed to as it is."""
    policy = factory()
    assert isinstance(policy, RoutingPolicy), f"is a {policy.kind} policy"
    for replicas in (4, 9, 2, 5):
        for chosen in _routes(policy, replicas):
            assert 0 <= chosen < replicas, f"returns replica {chosen} of {replicas}"


# -------------------------------------------------------------------------------------------------- admission


def _admissions(policy: AdmissionPolicy) -> list[str]:
    """Return what is said to 300 requests, in an idle cluster first, then in one that is more and more loaded."""
    rng = random.Random(7)
    said, started = [], 0
    for number in range(300):
        load = number * number // 100
        started += rng.randrange(2000)
        cluster = FakeAdmission(
            np.array([load, load + rng.randrange(20)], np.int64),
            np.array([100 * load, 120 * load], np.int64),
            np.random.default_rng(number),
            now_s=0.2 * number,
            waiting_requests=load,
            waiting_tokens=100 * load,
            started_tokens=started,
            first_tokens_s=[0.2 * number - 0.1 * i for i in range(load)],
            mean_decode_s=5.0 if number > 20 else math.nan,
        )
        said.append(policy.admit(FakeArrival(number, rng.randrange(1, 500), tenant=rng.choice("ab")), cluster))
    return said


def check_admits(factory: Factory) -> None:
    """Check that the answer is a text, empty for the first in an idle cluster, and the same for the same requests."""
    policy, other = factory(), factory()
    assert isinstance(policy, AdmissionPolicy) and isinstance(other, AdmissionPolicy), f"is a {policy.kind} policy"
    said = _admissions(policy)
    for answer in said:
        assert isinstance(answer, str), f"returns a {type(answer).__name__}; return the reason, or an empty text"
    assert not said[0], f"rejects the first request of an idle cluster: {said[0]}"
    assert said == _admissions(other), "two instances decided differently"


# ----------------------------------------------------------------------------------- ranks and experts


def _choices(policy: BalancingPolicy, ranks: int) -> list[int]:
    """Return where 60 requests go, while earlier ones end."""
    draws = random.Random(3)
    view = FakeRanks(ranks)
    chosen = []
    for number in range(60):
        view.now_s = 0.03 * number
        request = FakeArrival(number, draws.randrange(1, 2000), float("nan"))
        rank = policy.choose(request, view)
        chosen.append(rank)
        if isinstance(rank, int) and 0 <= rank < ranks:
            view.send(rank, request.prompt_tokens)
        if draws.random() < 0.5:
            view.end(draws.randrange(ranks))
    return chosen


def check_chooses_ranks(factory: Factory) -> None:
    """Check that the answer is the number of a rank, be there one or many, and the same for the same requests."""
    for ranks in (1, 2, 8, 64):
        policy, other = factory(), factory()
        assert isinstance(policy, BalancingPolicy) and isinstance(other, BalancingPolicy), f"is a {policy.kind} policy"
        chosen = _choices(policy, ranks)
        for rank in chosen:
            assert isinstance(rank, int), f"returns a {type(rank).__name__}; return an int"
            assert 0 <= rank < ranks, f"returns rank {rank} of {ranks}"
        assert chosen == _choices(other, ranks), "two instances decided differently"


def check_places_every_expert(factory: Factory) -> None:
    """Check that every rank holds equally many, and every expert is on some rank, with and without copies."""
    draws = random.Random(4)
    for experts, ranks, nodes, redundant in (
        (8, 1, 1, 0),
        (8, 4, 1, 0),
        (60, 4, 2, 4),
        (256, 32, 4, 32),
        (16, 16, 2, 16),
    ):
        policy = factory()
        assert isinstance(policy, ParallelismPolicy), f"is a {policy.kind} policy"
        loads = [draws.random() for _ in range(experts)]
        kept = list(loads)
        held = policy.place(loads, ranks, nodes, redundant)
        assert loads == kept, "changes the loads that it was given"
        each = (experts + redundant) // ranks
        assert [len(rank) for rank in held] == [each] * ranks, f"must give each of {ranks} ranks {each} experts"
        assert {expert for rank in held for expert in rank} == set(range(experts)), "leaves an expert out"


# ------------------------------------------------------------------------------------- rescheduling and scaling


def _pools(seed: int) -> list[list[FakeLoad]]:
    """Return pools with different loads: idle ones, even ones, crowded ones beside idle ones, one being drained."""
    draws = random.Random(seed)
    pools = []
    for number in range(40):
        loads = [draws.choice((0, 1, 5, 40, 95, 130)) for _ in range(draws.choice((1, 2, 3, 8)))]
        pools.append([FakeLoad.of(3 * i, n, takes_requests=bool(number % 3 or i)) for i, n in enumerate(loads)])
    return pools


def check_moves_are_possible(factory: Factory) -> None:
    """Check that moves name a decoding request at its replica that isn't on its way, and another that takes requests.

    And that each request is named once, and two instances decide the same.
    """
    policy, other = factory(), factory()
    assert isinstance(policy, ReschedulingPolicy) and isinstance(other, ReschedulingPolicy), (
        f"is a {policy.kind} policy"
    )
    assert policy.interval() > 0, f"wants a round every {policy.interval()} seconds"
    for number, loads in enumerate(_pools(5)):
        on_their_way = frozenset(load.requests[0].request_id for load in loads[::2] if load.requests)
        view = FakeRescheduling(loads, on_their_way, now_s=number / 2)
        moves = list(policy.decide(view))
        assert moves == list(other.decide(view)), "two instances decided differently"
        by_number = {load.replica: load for load in loads}
        for move in [*moves, *filter(None, (policy.follow(move, view) for move in moves))]:
            assert move.source in by_number, f"moves from replica {move.source}, which there is none of"
            assert move.source != move.destination, f"moves request {move.request_id} to where it is"
            there = {request.request_id: request for request in by_number[move.source].requests}
            assert move.request_id in there, f"moves request {move.request_id}, which isn't at {move.source}"
            assert there[move.request_id].is_decoding, f"moves request {move.request_id}, which doesn't decode"
            assert move.request_id not in on_their_way, f"moves request {move.request_id}, which is on its way"
            taker = by_number.get(move.destination)
            assert taker is not None and taker.takes_requests, f"moves to {move.destination}, which takes none"
        named = [move.request_id for move in moves]
        assert len(named) == len(set(named)), "moves one request twice"


def check_scales(factory: Factory) -> None:
    """Check that the answer is a whole number from 0, and the replica to stop is one that serves."""
    policy, other = factory(), factory()
    assert isinstance(policy, ScalingPolicy) and isinstance(other, ScalingPolicy), f"is a {policy.kind} policy"
    assert policy.interval() > 0, f"wants to decide every {policy.interval()} seconds"
    for number, loads in enumerate([*_pools(6), []]):
        serving = [load for load in loads if load.takes_requests]
        ended = [FakeEnded(10.0 * number - i, 0.1 * (i % 7), 0.01 * (i % 9)) for i in range(number % 5 * 10, 0, -1)]
        view = FakeScaling(
            serving, num_starting=number % 2, now_s=10.0 * number, all_ended=ended, num_unrouted=0 if serving else 3
        )
        wanted = policy.decide(view)
        assert isinstance(wanted, int) and wanted >= 0, f"wants {wanted!r} replicas"
        assert other.decide(view) == wanted, "two instances decided differently"
        if serving:
            stopped = policy.stop(view)
            assert stopped in {load.replica for load in serving}, f"stops replica {stopped}, which doesn't serve"


# ---------------------------------------------------------------------------------------------- KV eviction


def check_ranks(factory: Factory) -> None:
    """Check that ranks are numbers, and as announced, before and after evictions, also of blocks without tokens."""
    policy = factory()
    assert isinstance(policy, KVEvictionPolicy), f"is a {policy.kind} policy"
    for number in range(50):
        tokens = 0 if number % 7 == 0 else 16
        block = FakeBlock(1 + number % 3, tokens, 16 * (number % 5), number % 4, number, number + 3)
        rank = policy.rank(block)
        assert isinstance(rank, int | float) and not math.isnan(rank), f"the rank of a block is {rank!r}"
        if policy.in_release_order:
            assert rank == block.released_order, "says that it ranks in the order of release, but doesn't"
        policy.evicted(rank)


# ------------------------------------------------------------------------------------------------ KV budgets

_MODELS = (
    ModelFacts(32, 4096, 32, 8, 128, 2048, 16, 16),  # grouped queries, as Llama-3.1-8B
    ModelFacts(24, 2048, 32, 32, 64, 4096, 16, 16),  # a key-value head for every query head, as OPT-1.3B
    ModelFacts(1, 64, 2, 1, 32, 64, 8, 16),  # one layer, a cache in 8 bits
)


def check_budgets(factory: Factory) -> None:
    """Check that a budget covers the model's layers, saves memory, and is always the same.

    For models of several shapes; the policy is told nothing else.
    """
    for model in _MODELS:
        policy = factory()
        assert isinstance(policy, KVBudgetPolicy), f"is a {policy.kind} policy"
        budget = policy.budget(model)
        assert isinstance(budget, KVBudget), f"returns a {type(budget).__name__}; return a KVBudget"
        assert budget.num_layers == model.num_layers, f"covers {budget.num_layers} of {model.num_layers} layers"
        assert policy.budget(model) == budget, "two answers for one model differ"
        assert budget.token_bits <= 2 * model.token_bits, "takes more than twice the memory that it should save"
        assert pickle.loads(pickle.dumps(budget)) == budget, "the budget doesn't pickle"
        if budget.capped:
            kept = [budget.kept_tokens(prompt) for prompt in (1, 10, 1000, 100_000)]
            assert all(tokens is not None and tokens >= 1 for tokens in kept), f"keeps {kept} tokens"
            assert kept == sorted(kept, key=lambda tokens: tokens or 0), "keeps fewer tokens of a longer prompt"


_EVERY = (check_documented, check_pickles, check_instances_are_independent)

CHECKS: dict[str, tuple[Callable[[Factory], None], ...]] = {
    "batching": (
        *_EVERY,
        check_empty_queue_gives_empty_plan,
        check_decisions_are_valid,
        check_token_budget,
        check_blocks_are_returned,
        check_serves_everybody,
        check_same_seed_same_decisions,
        check_order_of_admission,
        check_steps_are_stable,
    ),
    "queueing": (*_EVERY, check_keys_order, check_works_without_predictor, check_chooses_a_tenant_who_waits),
    "routing": (*_EVERY, check_routes_to_replicas, check_same_seed_same_routes, check_follows_replica_count),
    "admission": (*_EVERY, check_admits),
    "balancing": (*_EVERY, check_chooses_ranks),
    "parallelism": (*_EVERY, check_places_every_expert),
    "rescheduling": (*_EVERY, check_moves_are_possible),
    "scaling": (*_EVERY, check_scales),
    "kv_eviction": (*_EVERY, check_ranks),
    "kv_budget": (*_EVERY, check_budgets),
}
"""The checks of each kind, in the order in which they are run."""

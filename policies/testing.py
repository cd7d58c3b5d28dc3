"""A small replica to try policies on: the views and the plan of :mod:`policies.protocols`, every rule enforced.

`FakeReplica` steps a batching policy without an engine, a clock or a cost model: one call of
`FakeReplica.step` lets the policy compose, checks each decision, applies it and returns what ran as plain
data, so that a test can compare it with a timetable worked out by hand:

>>> from policies.batching.sarathi import Sarathi
>>> replica = FakeReplica(max_num_batched_tokens=8, block_size=4)
>>> replica.add(prompt_tokens=12, output_tokens=2)
0
>>> policy = Sarathi()
>>> replica.step(policy).prefills
((0, 8),)
>>> replica.step(policy).prefills
((0, 4),)
>>> replica.step(policy).decodes
(0,)

Requests are plain: no sharing of blocks between them; a cached prefix is a number that each request is given.
Views are read-only: assigning to one is an ``AttributeError``.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import numpy.typing as npt

from policies.protocols import BatchingPolicy, PolicyError, QueueingPolicy, ReplicaView, RequestView, StepPlan


class FakeRequest:
    """A request as a policy may see it; see `policies.protocols.RequestView` for what each attribute means."""

    __slots__ = (
        "_arrival_s",
        "_block_hashes",
        "_blocks",
        "_cached_tokens",
        "_computed",
        "_context",
        "_generated",
        "_output_tokens",
        "_planned",
        "_predicted",
        "_preemptions",
        "_priority",
        "_prompt_tokens",
        "_request_id",
        "_state",
        "_target",
        "_tenant",
    )

    def __init__(
        self,
        request_id: int,
        prompt_tokens: int,
        output_tokens: int,
        *,
        arrival_s: float = 0.0,
        predicted_output_tokens: float = math.nan,
        priority: int = 0,
        tenant: str = "",
        cached_tokens: int = 0,
        block_hashes: Sequence[int] = (),
    ) -> None:
        self._block_hashes = block_hashes
        self._request_id = request_id
        self._prompt_tokens = prompt_tokens
        self._output_tokens = output_tokens
        self._arrival_s = arrival_s
        self._predicted = predicted_output_tokens
        self._priority = priority
        self._tenant = tenant
        self._cached_tokens = cached_tokens
        self._state = "waiting"
        self._target = prompt_tokens
        self._computed = 0
        self._context = 0
        self._generated = 0
        self._blocks = 0
        self._preemptions = 0
        self._planned = False

    @property
    def request_id(self) -> int:
        """Row of the request."""
        return self._request_id

    @property
    def arrival_s(self) -> float:
        """When it arrived."""
        return self._arrival_s

    @property
    def prompt_tokens(self) -> int:
        """Length of the prompt."""
        return self._prompt_tokens

    @property
    def computed_tokens(self) -> int:
        """Tokens of the current prefill that are computed or cached."""
        return self._computed

    @property
    def remaining_prefill(self) -> int:
        """Tokens to compute before the next output token."""
        return self._target - self._computed if self._state in ("waiting", "prefilling") else 0

    @property
    def context_tokens(self) -> int:
        """Tokens in KV."""
        return self._context

    @property
    def generated_tokens(self) -> int:
        """Output tokens so far."""
        return self._generated

    @property
    def predicted_output_tokens(self) -> float:
        """Predicted output length."""
        return self._predicted

    @property
    def priority(self) -> int:
        """Smaller is more urgent."""
        return self._priority

    @property
    def tenant(self) -> str:
        """Whose request it is."""
        return self._tenant

    @property
    def preemptions(self) -> int:
        """How often it was preempted."""
        return self._preemptions

    @property
    def block_hashes(self) -> Sequence[int]:
        """Identities of its prompt's blocks."""
        return self._block_hashes

    def __repr__(self) -> str:
        return f"<request {self._request_id} {self._state}>"


@dataclass(frozen=True)
class FakeLimits:
    """Engine limits; see `policies.protocols.LimitsView`."""

    max_num_seqs: int = 256
    max_num_batched_tokens: int = 2048
    max_model_len: int = 4096


class FakeKV:
    """KV memory as counts; see `policies.protocols.KVView`."""

    __slots__ = ("_block_size", "_free", "_total")

    def __init__(self, total_blocks: int, block_size: int) -> None:
        self._total = self._free = total_blocks
        self._block_size = block_size

    @property
    def block_size(self) -> int:
        """Tokens a block."""
        return self._block_size

    @property
    def total_blocks(self) -> int:
        """Blocks in all."""
        return self._total

    @property
    def free_blocks(self) -> int:
        """Blocks that an allocation can have now."""
        return self._free


class FakeWaiting:
    """The waiting queue; see `policies.protocols.WaitingView`."""

    __slots__ = ("_requests",)

    def __init__(self, requests: list[FakeRequest]) -> None:
        self._requests = requests

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[FakeRequest]:
        return iter(tuple(self._requests))

    @property
    def first(self) -> FakeRequest:
        """The request to consider next."""
        return self._requests[0]


@dataclass(frozen=True)
class Step:
    """What ran in one step, by request id."""

    decodes: tuple[int, ...] = ()
    prefills: tuple[tuple[int, int], ...] = ()
    preempted: tuple[int, ...] = ()
    swapped_out: tuple[int, ...] = ()
    swapped_in: tuple[int, ...] = ()
    padding: int = 0
    finished: tuple[int, ...] = ()
    stable_steps: int = 1

    @property
    def prefill_tokens(self) -> int:
        """Prompt tokens computed."""
        return sum(tokens for _, tokens in self.prefills)

    @property
    def tokens(self) -> int:
        """Tokens computed, padding excepted."""
        return len(self.decodes) + self.prefill_tokens

    @property
    def empty(self) -> bool:
        """Whether nothing ran."""
        return not self.decodes and not self.prefills

    @property
    def repeatable(self) -> bool:
        """Whether nothing was taken out or brought back for it."""
        return not (self.preempted or self.swapped_out or self.swapped_in)


class FakeReplica:
    """A replica for tests: give it requests, let a policy step it, look at what ran.

    Parameters
    ----------
    total_blocks, block_size
        KV memory.
    max_num_seqs, max_num_batched_tokens, max_model_len
        Engine limits.
    swap_blocks
        Blocks of host memory for swapped-out requests.
    queueing
        Order of the waiting queue; that of arrival where none is given.
    """

    def __init__(
        self,
        *,
        total_blocks: int = 1024,
        block_size: int = 16,
        max_num_seqs: int = 256,
        max_num_batched_tokens: int = 2048,
        max_model_len: int = 4096,
        swap_blocks: int = 1 << 30,
        queueing: QueueingPolicy | None = None,
    ) -> None:
        self.limits = FakeLimits(max_num_seqs, max_num_batched_tokens, max_model_len)
        self.kv = FakeKV(total_blocks, block_size)
        self.queueing = queueing
        self.requests: list[FakeRequest] = []
        self.waiting: list[FakeRequest] = []
        self.running: list[FakeRequest] = []
        self.swapped: list[FakeRequest] = []
        self.refused: dict[int, str] = {}
        self.swap_blocks = swap_blocks
        self.steps: list[Step] = []
        self.view = _View(self)

    def add(
        self,
        prompt_tokens: int,
        output_tokens: int,
        *,
        arrival_s: float | None = None,
        predicted_output_tokens: float = math.nan,
        priority: int = 0,
        tenant: str = "",
        cached_tokens: int = 0,
    ) -> int:
        """Queue a request, return its id. It arrives now (a step takes a second) unless told otherwise."""
        request = FakeRequest(
            len(self.requests),
            prompt_tokens,
            output_tokens,
            arrival_s=float(len(self.steps)) if arrival_s is None else arrival_s,
            predicted_output_tokens=predicted_output_tokens,
            priority=priority,
            tenant=tenant,
            cached_tokens=cached_tokens,
        )
        self.requests.append(request)
        self.waiting.append(request)
        self._sort()
        return request.request_id

    def _sort(self) -> None:
        if self.queueing is not None:
            if self.queueing.by_tenant:
                raise PolicyError(f"queueing policy {self.queueing.name!r} chooses by tenant, which this replica can't")
            key = self.queueing.key
            self.waiting.sort(key=lambda request: (key(request), request.request_id))

    def step(self, policy: BatchingPolicy) -> Step:
        """Let the policy compose one step, apply it and return what ran."""
        while self.waiting and (reason := policy.refuses(self.waiting[0], self.view)):
            self.refused[self.waiting.pop(0).request_id] = reason
        plan = FakePlan(self)
        policy.compose(self.view, plan)
        promised = 1
        answers = policy.repeats_admissions or not plan.num_admitted
        if answers and plan.done().repeatable and not plan.parked:
            promised = policy.stable_steps(self.view, plan)
            if promised < 1:
                raise PolicyError(f"stable_steps returned {promised}; must be at least 1")
        finished = self._apply(plan)
        step = plan.done(finished, promised)
        self.steps.append(step)
        return step

    def run(self, policy: BatchingPolicy, max_steps: int = 100_000) -> list[Step]:
        """Step until nobody waits, runs or is swapped out; `PolicyError` if a step is empty before, or at the limit."""
        first = len(self.steps)
        while self.waiting or self.running or self.swapped:
            step = self.step(policy)
            if step.empty and not (step.preempted or step.swapped_out) and (self.waiting or self.running):
                raise PolicyError(f"an empty step while {len(self.waiting)} wait and {len(self.running)} run")
            if len(self.steps) - first >= max_steps:
                raise PolicyError(f"requests have not ended after {max_steps} steps")
        return self.steps[first:]

    def blocks_for(self, tokens: int) -> int:
        """Return the blocks that hold so many tokens."""
        return -(-tokens // self.kv.block_size)

    def decode_need(self, requests: Sequence[FakeRequest]) -> int:
        """Return the new blocks that a decode of these requests takes."""
        return sum(self.blocks_for(r._context + 1) > r._blocks for r in requests)

    def ready(self) -> list[FakeRequest]:
        """Return the running requests that are ready to decode."""
        return [r for r in self.running if r._state == "decoding"]

    def take(self, request: FakeRequest, blocks: int) -> None:
        """Allocate blocks to a request; the caller has checked that they are free."""
        assert 0 <= blocks <= self.kv.free_blocks
        self.kv._free -= blocks
        request._blocks += blocks

    def release(self, request: FakeRequest) -> None:
        """Free all blocks of a request."""
        self.kv._free += request._blocks
        request._blocks = 0

    def _apply(self, plan: FakePlan) -> tuple[int, ...]:
        for request in plan.decoded:
            request._context += 1
            request._generated += 1
        for request, tokens in plan.chunks:
            request._planned = False
            request._computed += tokens
            request._context = request._computed
            if request._computed == request._target:
                request._state = "decoding"
                request._generated += 1
        finished = [r for r in self.running if r._generated >= r._output_tokens]
        for request in finished:
            self.running.remove(request)
            self.release(request)
            request._state = "ended"
        return tuple(r.request_id for r in finished)


class _View:
    """The replica as its policy may see it: read-only."""

    __slots__ = ("_replica",)

    def __init__(self, replica: FakeReplica) -> None:
        self._replica = replica

    @property
    def now_s(self) -> float:
        return float(len(self._replica.steps))

    @property
    def limits(self) -> FakeLimits:
        return self._replica.limits

    @property
    def kv(self) -> FakeKV:
        return self._replica.kv

    @property
    def waiting(self) -> FakeWaiting:
        return FakeWaiting(self._replica.waiting)

    @property
    def swapped(self) -> tuple[FakeRequest, ...]:
        return tuple(self._replica.swapped)

    @property
    def num_running(self) -> int:
        return len(self._replica.running)

    @property
    def num_steps(self) -> int:
        return len(self._replica.steps)

    @property
    def num_schedulable(self) -> int:
        return len(self._replica.running)

    @property
    def running(self) -> Iterator[FakeRequest]:
        return iter(tuple(self._replica.running))

    @property
    def youngest(self) -> FakeRequest:
        return self._replica.running[-1]

    @property
    def prefilling(self) -> tuple[FakeRequest, ...]:
        return tuple(r for r in self._replica.running if r._state == "prefilling")

    @property
    def num_decoding(self) -> int:
        return len(self._replica.ready())


class FakePlan:
    """The step under construction; see `policies.protocols.StepPlan` for what each method does.

    Attributes
    ----------
    decoded, chunks
        What the step holds so far.
    """

    def __init__(self, replica: FakeReplica) -> None:
        self._replica = replica
        self.decoded: list[FakeRequest] = []
        self.chunks: list[tuple[FakeRequest, int]] = []
        self.parked = False
        self.num_admitted = 0
        self._preempted: list[int] = []
        self._swapped_out: list[int] = []
        self._swapped_in: list[int] = []
        self._padding = 0

    @property
    def tokens(self) -> int:
        """Tokens in the step so far."""
        return self.num_decodes + self.prefill_tokens

    @property
    def prefill_tokens(self) -> int:
        """Prompt tokens in the step so far."""
        return sum(tokens for _, tokens in self.chunks)

    @property
    def num_decodes(self) -> int:
        """Decodes in the step so far."""
        return len(self.decoded)

    @property
    def num_preempted(self) -> int:
        """Requests preempted or swapped out in this plan."""
        return len(self._preempted) + len(self._swapped_out)

    def done(self, finished: tuple[int, ...] = (), stable_steps: int = 1) -> Step:
        """Return the step as data."""
        return Step(
            decodes=tuple(r.request_id for r in self.decoded),
            prefills=tuple((r.request_id, tokens) for r, tokens in self.chunks),
            preempted=tuple(self._preempted),
            swapped_out=tuple(self._swapped_out),
            swapped_in=tuple(self._swapped_in),
            padding=self._padding,
            finished=finished,
            stable_steps=stable_steps,
        )

    def decode_shortfall(self) -> int:
        """Blocks that `decode_all` lacks."""
        replica = self._replica
        return max(0, replica.decode_need(replica.ready()) - replica.kv.free_blocks)

    def decode_all(self) -> int:
        """Decode one token of every request that is ready."""
        return self._decode(self._replica.ready())

    def decode_some(self, requests: Sequence[RequestView]) -> int:
        """Decode one token of each of these requests."""
        ready = self._replica.ready()
        for request in requests:
            if request not in ready:
                raise PolicyError(f"decode_some of {request!r}, which is not ready to decode")
        chosen = [r for r in ready if r in requests]
        self.parked = len(chosen) < len(ready)
        return self._decode(chosen)

    def _decode(self, requests: list[FakeRequest]) -> int:
        replica = self._replica
        if self.decoded:
            raise PolicyError("a second decode in the same step")
        need = replica.decode_need(requests)
        if need > replica.kv.free_blocks:
            raise PolicyError(f"decode needs {need} KV blocks and {replica.kv.free_blocks} are free")
        for request in requests:
            replica.take(request, replica.decode_need([request]))
        self.decoded = requests
        return len(requests)

    def decode_blocks(self, request: RequestView) -> int:
        """Blocks that the next token of a request takes."""
        return self._replica.decode_need([self._own(request)])

    def uncached_tokens(self, request: RequestView) -> int:
        """Tokens to compute if the request were admitted now."""
        own = self._own(request)
        if own._state != "waiting":
            return own.remaining_prefill
        return own._target - min(own._cached_tokens, own._target - 1)

    def prefill(self, request: RequestView, tokens: int, *, reserve_tokens: int = 0, keep_free_blocks: int = 0) -> bool:
        """Compute the next tokens of a waiting or prefilling request."""
        replica, own = self._replica, self._own(request)
        if own._state not in ("waiting", "prefilling") or own._planned:
            raise PolicyError(f"prefill of {own!r}, which can't be scheduled in this step")
        waits = own._state == "waiting"
        left = self.uncached_tokens(own)
        if not 1 <= tokens <= left:
            raise PolicyError(f"prefill of {tokens} tokens of {own!r}, which has {left} to compute")
        if waits and len(replica.running) >= replica.limits.max_num_seqs:
            raise PolicyError(f"admits {own!r} beyond max_num_seqs = {replica.limits.max_num_seqs}")
        done = own._target - left
        need = replica.blocks_for(max(done + tokens, reserve_tokens)) - own._blocks
        if max(need, 0) + keep_free_blocks > replica.kv.free_blocks:
            return False
        replica.take(own, max(need, 0))
        if waits:
            replica.waiting.remove(own)
            replica.running.append(own)
            own._state = "prefilling"
            own._computed = own._context = done
            self.num_admitted += 1
        own._planned = True
        self.chunks.append((own, tokens))
        return True

    def preempt(self, request: RequestView, *, swap: bool = False, wait: bool = True) -> None:
        """Take a running request out; a swap is done at once."""
        replica, own = self._replica, self._own(request)
        if own not in replica.running:
            raise PolicyError(f"preempts {own!r}, which isn't running")
        if own._planned or own in self.decoded:
            raise PolicyError(f"preempts {own!r} after scheduling it in the same step")
        replica.running.remove(own)
        own._preemptions += 1
        swap = swap and replica.blocks_for(own._context) <= replica.swap_blocks
        replica.release(own)
        if swap:
            replica.swap_blocks -= replica.blocks_for(own._context)
            own._state = "swapped " + own._state
            replica.swapped.append(own)
            self._swapped_out.append(own.request_id)
            return
        own._state = "waiting"
        own._target = own._prompt_tokens + own._generated
        own._computed = own._context = 0
        replica.waiting.insert(0, own)
        replica._sort()
        self._preempted.append(own.request_id)

    def swap_in(self, request: RequestView, *, keep_free_blocks: int = 0, wait: bool = True) -> bool:
        """Bring a swapped-out request back, at once."""
        replica, own = self._replica, self._own(request)
        if own not in replica.swapped:
            raise PolicyError(f"swaps in {own!r}, which isn't swapped out")
        if self.decoded:
            raise PolicyError("swap_in after a decode in the same step")
        if len(replica.running) >= replica.limits.max_num_seqs:
            raise PolicyError(f"swaps in {own!r} beyond max_num_seqs = {replica.limits.max_num_seqs}")
        need = replica.blocks_for(own._context)
        if need + keep_free_blocks > replica.kv.free_blocks:
            return False
        replica.swapped.remove(own)
        replica.swap_blocks += need
        replica.take(own, need)
        replica.running.append(own)
        own._state = own._state.removeprefix("swapped ")
        self._swapped_in.append(own.request_id)
        return True

    def pad(self, tokens: int) -> None:
        """Add tokens that are computed for nobody."""
        if tokens < 0:
            raise PolicyError(f"padding of {tokens} tokens; must be at least 0")
        self._padding += tokens

    def _own(self, request: RequestView) -> FakeRequest:
        if not isinstance(request, FakeRequest) or request not in self._replica.requests:
            raise PolicyError(f"decides on {request!r}, which is no request of this replica")
        return request


class FakeTenants:
    """Tenants with waiting and decoding requests; see `policies.protocols.TenantsView`."""

    def __init__(self) -> None:
        self.requests: dict[str, list[FakeRequest]] = {}
        self._decoding: dict[str, int] = {}
        self._tokens: dict[str, int] = {}

    @property
    def waiting(self) -> Collection[str]:
        """Tenants who have requests waiting."""
        return self.requests.keys()

    def output_tokens(self, tenant: str) -> int:
        """Output tokens of a tenant so far."""
        return self._tokens.get(tenant, 0)

    def decoding(self, tenant: str) -> int:
        """How many requests of a tenant decode."""
        return self._decoding.get(tenant, 0)

    def step(self) -> None:
        """Decode a token of every request that decodes."""
        for tenant, number in self._decoding.items():
            self._tokens[tenant] = self._tokens.get(tenant, 0) + number

    def start(self, tenant: str) -> FakeRequest:
        """Let the first waiting request of a tenant decode."""
        request = self.requests[tenant].pop(0)
        if not self.requests[tenant]:
            del self.requests[tenant]
        self._decoding[tenant] = self._decoding.get(tenant, 0) + 1
        return request

    def end(self, rng: random.Random) -> None:
        """End some of the requests that decode."""
        for tenant, number in self._decoding.items():
            self._decoding[tenant] = rng.randint(max(0, number - 2), number)


@dataclass(frozen=True)
class FakeArrival:
    """An arriving request as a router sees it; see `policies.protocols.ArrivalView`."""

    request_id: int = 0
    prompt_tokens: int = 100
    predicted_output_tokens: float = math.nan
    session_id: int = -1
    block_hashes: Sequence[int] = ()
    block_size_tokens: int = 16
    tenant: str = ""
    priority: int = 0


@dataclass(frozen=True)
class FakeRunning:
    """A running request; see `policies.protocols.RunningRequestView`."""

    request_id: int
    context_tokens: int = 100
    priority: int = 0
    is_decoding: bool = True
    prompt_tokens: int = 50
    predicted_output_tokens: float = math.nan


@cache
def _running(replica: int, number: int) -> tuple[FakeRunning, ...]:
    """Return so many requests of a replica, not all alike; made once, as routers are asked thousands of times."""
    return tuple(FakeRunning(1000 * replica + i, 160 - i, i % 2, i % 5 != 4) for i in range(number))


@dataclass(frozen=True)
class FakeLoad:
    """A replica's load; see `policies.protocols.ReplicaLoadView`."""

    replica: int = 0
    requests: tuple[FakeRunning, ...] = ()
    used_blocks: int = 0
    total_blocks: int = 1000
    block_size: int = 16
    max_num_seqs: int = 64
    num_waiting: int = 0
    num_preempted: int = 0
    waiting_blocks: int = 0
    first_waiting_blocks: int = 0
    takes_requests: bool = True

    @property
    def free_blocks(self) -> int:
        """Blocks that nobody holds."""
        return self.total_blocks - self.used_blocks

    @property
    def num_running(self) -> int:
        """Running requests."""
        return len(self.requests)

    def running(self) -> Sequence[FakeRunning]:
        """Return them."""
        return self.requests

    @classmethod
    def of(cls, replica: int, requests: int, *, takes_requests: bool = True) -> FakeLoad:
        """Return the load of a replica with so many requests of ten blocks, of which the first 90 run."""
        running = min(requests, 90)
        waiting = requests - running
        return cls(
            replica,
            _running(replica, running),
            used_blocks=10 * running,
            num_waiting=waiting,
            waiting_blocks=10 * waiting,
            first_waiting_blocks=min(10 * waiting, 10),
            takes_requests=takes_requests,
        )


@dataclass(frozen=True)
class FakeEnded:
    """A request that ended; see `policies.protocols.EndedView`."""

    end_s: float
    ttft_s: float
    tpot_s: float


@dataclass(frozen=True)
class FakeRescheduling:
    """A pool as a rescheduling policy sees it; see `policies.protocols.ReschedulingView`."""

    replicas: Sequence[FakeLoad]
    on_their_way: frozenset[int] = frozenset()
    now_s: float = 0.0

    def moving(self, replica: int) -> int:
        """Return how many of a replica's requests are on their way."""
        mine = next(load for load in self.replicas if load.replica == replica)
        return sum(request.request_id in self.on_their_way for request in mine.requests)

    def is_moving(self, request_id: int) -> bool:
        """Tell whether a request is on its way."""
        return request_id in self.on_their_way


@dataclass(frozen=True)
class FakeScaling:
    """A pool as a scaling policy sees it; see `policies.protocols.ScalingView`."""

    replicas: Sequence[FakeLoad]
    min_replicas: int = 1
    max_replicas: int = 8
    num_starting: int = 0
    num_draining: int = 0
    num_unrouted: int = 0
    longest_wait_s: float = 0.0
    now_s: float = 0.0
    all_ended: Sequence[FakeEnded] = ()

    def ended(self, window_s: float) -> Sequence[FakeEnded]:
        """Return those of the window."""
        return [each for each in self.all_ended if each.end_s > self.now_s - window_s]


@dataclass(frozen=True)
class FakeCluster:
    """A cluster as a router sees it; see `policies.protocols.ClusterView`. The arrays are read-only."""

    outstanding_requests: npt.NDArray[np.int64]
    outstanding_tokens: npt.NDArray[np.int64]
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    now_s: float = 0.0
    ids: Sequence[int] = ()

    @property
    def num_replicas(self) -> int:
        """Number of replicas."""
        return len(self.outstanding_requests)

    @property
    def replica_ids(self) -> Sequence[int]:
        """Their numbers: ``ids``, or 0, 1, ..."""
        return self.ids or range(self.num_replicas)

    @property
    def loads(self) -> Sequence[FakeLoad]:
        """As if each outstanding request held or wanted ten of 1,000 blocks."""
        return [
            FakeLoad.of(index, int(n)) for index, n in zip(self.replica_ids, self.outstanding_requests, strict=True)
        ]

    @classmethod
    def of(cls, requests: Sequence[int], tokens: Sequence[int] | None = None, seed: int = 0) -> FakeCluster:
        """Return a cluster with these loads."""
        loads = np.array(requests, np.int64)
        token_loads = np.array(requests if tokens is None else tokens, np.int64)
        loads.flags.writeable = token_loads.flags.writeable = False
        return cls(loads, token_loads, np.random.default_rng(seed))


@dataclass(frozen=True)
class FakeAdmission(FakeCluster):
    """A cluster as an admission policy sees it; see `policies.protocols.AdmissionView`."""

    waiting_requests: int = 0
    waiting_tokens: int = 0
    started_tokens: int = 0
    first_tokens_s: Sequence[float] = ()
    mean_decode_s: float = math.nan

    def decoding(self, since_s: float) -> int:
        """Return how many of ``first_tokens_s`` are no earlier."""
        return sum(first_s >= since_s for first_s in self.first_tokens_s)


class FakeRanks:
    """A `policies.protocols.RanksView`: what was sent to each rank and has not ended; one request runs at a time."""

    def __init__(self, ranks: int) -> None:
        self.now_s = 0.0
        self._sent: list[list[int]] = [[] for _ in range(ranks)]

    def send(self, rank: int, tokens: int) -> None:
        """Count a request on a rank."""
        self._sent[rank].append(tokens)

    def end(self, rank: int) -> None:
        """Let the first request of a rank end, if it has one."""
        del self._sent[rank][:1]

    @property
    def num_ranks(self) -> int:
        """Number of ranks."""
        return len(self._sent)

    @property
    def outstanding_requests(self) -> npt.NDArray[np.int64]:
        """Requests sent to each rank that have not ended."""
        return np.array([len(sent) for sent in self._sent], dtype=np.int64)

    @property
    def outstanding_tokens(self) -> npt.NDArray[np.int64]:
        """Tokens of them."""
        return np.array([sum(sent) for sent in self._sent], dtype=np.int64)

    def waiting(self, rank: int) -> int:
        """Return the requests behind the first."""
        return max(0, len(self._sent[rank]) - 1)

    def running(self, rank: int) -> int:
        """Return 1 if a rank has a request."""
        return min(1, len(self._sent[rank]))


@dataclass(frozen=True)
class FakeBlock:
    """A cached block; see `policies.protocols.CachedBlockView`."""

    num_blocks: int = 1
    num_tokens: int = 16
    depth_tokens: int = 0
    hits: int = 0
    cached_order: int = 0
    released_order: int = 0


def _conforms(view: _View, plan: FakePlan) -> tuple[ReplicaView, StepPlan]:
    """Let the type checker hold the fakes against the protocols."""
    return view, plan

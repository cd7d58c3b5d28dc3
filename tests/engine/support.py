"""A small cluster built by hand, with step times that a reader can add up in his head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

from policies.balancing.round_robin import RoundRobin as RanksInTurn
from policies.batching.vllm_v1 import VllmV1
from policies.budget import KVBudget
from policies.kv_eviction.lru import Lru
from policies.protocols import BalancingPolicy, BatchingPolicy, KVEvictionPolicy, QueueingPolicy, RoutingPolicy
from policies.queueing.fcfs import Fcfs
from policies.routing.round_robin import RoundRobin
from simulator.cost.shape import BatchShape, CostModel
from simulator.engine.clock import Environment
from simulator.engine.cluster import Cluster, Workload
from simulator.engine.control import Feature
from simulator.engine.links import Link
from simulator.engine.recorder import Outcome
from simulator.engine.replica import EngineLimits, ReplicaConfig
from simulator.engine.swap import NO_CALLS, SwapConfig
from simulator.network.cluster_network import ClusterNetwork
from simulator.power.step_energy import StepEnergy

MS = 1_000_000


ENERGY = StepEnergy(
    busy_mw=7_001,
    limit_mw=35_000,
    step_pj=50_000_000_003,
    token_pj=2_000_000_001,
    row_pj=30_000_001,
    attended_pj=70_001,
    window_pj=9_001,
    pair_pj=2_000_002,
    window_pair_pj=1_001,
    context_pj=401,
    window_context_pj=301,
    watch_above=2,
)
"""Joules of no machine, odd so that none cancel: steps of some tens of tokens are at the limit."""


class LinearCost:
    """Step time linear in everything that a batch shape has, each coefficient in ns; exact in whole numbers."""

    sources = ("test: linear",)

    def __init__(self, base: int, token: int = 0, kv: int = 0, kv_sq: int = 0, pair: int = 0, stages: int = 1) -> None:
        self.base, self.token, self.kv, self.kv_sq, self.pair, self.stages = base, token, kv, kv_sq, pair, stages

    def _at(self, shape: BatchShape, i: int) -> int:
        pairs = sum(new * (cached + i * new) + new * (new + 1) // 2 for new, cached in shape.chunks)
        squares = shape.decode_kv_sq + 2 * i * shape.decode_kv + i * i * shape.decodes
        window = shape.decode_window_kv + i * shape.decode_window_growth
        return (
            self.base
            + self.token * (shape.tokens + shape.logit_rows)
            + self.kv * (shape.decode_kv + i * shape.decodes + window)
            + self.kv_sq * squares
            + self.pair * pairs
        )

    def step_ns(self, shape: BatchShape) -> int:
        return self._at(shape, 0)

    def run_ns(self, shape: BatchShape, k: int) -> npt.NDArray[np.int64]:
        return np.array([self._at(shape, i) for i in range(k)], dtype=np.int64)

    def few_ns(self, shape: BatchShape, k: int) -> list[int]:
        durations: list[int] = self.run_ns(shape, k).tolist()
        return durations

    def stage_ns(self, shape: BatchShape) -> list[int]:
        return [self._at(shape, 0)] * self.stages


@dataclass
class ListSource:
    """Arrivals as given, and follow-ups by the row that ends: ``{row: [(delay_ns, row), ...]}``."""

    arrivals: Sequence[tuple[int, int]]
    after: dict[int, list[tuple[int, int]]] = field(default_factory=dict)

    def first(self):  # type: ignore[no-untyped-def]
        return iter(self.arrivals)

    def ended(self, row: int, end_ns: int) -> list[tuple[int, int]]:
        return [(end_ns + delay, follower) for delay, follower in self.after.get(row, ())]


@dataclass(frozen=True)
class Request:
    """A request of a test: arrival in ns (None: it follows another), lengths, identities of its blocks."""

    arrival: int | None
    prompt: int
    output: int
    hashes: Sequence[int] = ()
    predicted: float = float("nan")
    class_code: int = 0
    priority: int = 0
    tenant: str = ""


def build(
    requests: Sequence[Request],
    *,
    policy: Callable[[], BatchingPolicy] = VllmV1,
    queueing: Callable[[], QueueingPolicy] = Fcfs,
    eviction: Callable[[], KVEvictionPolicy] = Lru,
    router: RoutingPolicy | None = None,
    cost: CostModel | None = None,
    blocks: int = 1000,
    block_size: int = 16,
    hash_block_tokens: int = 0,
    seqs: int = 256,
    budget: int = 2048,
    max_len: int = 100_000,
    stages: int = 1,
    async_scheduling: bool = False,
    replicas: int = 1,
    window: int | None = None,
    kv_budget: KVBudget | None = None,
    swap_blocks: int = 0,
    link: Link | None = None,
    swap: SwapConfig = NO_CALLS,
    shared_prefix_attention: bool = False,
    ranks: int = 1,
    balancing: Callable[[], BalancingPolicy] = RanksInTurn,
    prefill_balance: tuple[int, int] | None = None,
    energy: StepEnergy = ENERGY,
    kv_tiers: Literal["evictions"] | bool = False,
    after: dict[int, list[tuple[int, int]]] | None = None,
    sample_ns: int = 10**9,
    keep_batches: bool = False,
    fast_forward: bool = True,
    features: Sequence[Feature] = (),
    make_network: Callable[[Environment], ClusterNetwork] | None = None,
) -> Cluster:
    """Return a cluster of equal replicas that will serve these requests."""
    arrivals = sorted((r.arrival, row) for row, r in enumerate(requests) if r.arrival is not None)
    offsets = np.cumsum([0] + [len(r.hashes) for r in requests])
    workload = Workload(
        source=ListSource(arrivals, after or {}),  # type: ignore[arg-type]
        prompt_tokens=np.array([r.prompt for r in requests], dtype=np.int64),
        output_tokens=np.array([r.output for r in requests], dtype=np.int64),
        predicted_output_tokens=np.array([r.predicted for r in requests], dtype=np.float64),
        class_codes=np.array([r.class_code for r in requests], dtype=np.int64),
        num_classes=1 + max((r.class_code for r in requests), default=0),
        priorities=np.array([r.priority for r in requests], dtype=np.int64),
        session_ids=np.full(len(requests), -1, dtype=np.int64),
        tenants=[r.tenant for r in requests] if any(r.tenant for r in requests) else None,
        hash_offsets=offsets if hash_block_tokens else None,
        hash_values=np.array([h for r in requests for h in r.hashes], dtype=np.int64) if hash_block_tokens else None,
        hash_block_tokens=hash_block_tokens,
    )
    config = ReplicaConfig(
        limits=EngineLimits(seqs, budget, max_len),
        batching=policy,
        queueing=queueing,
        kv_eviction=eviction,
        cost=cost or LinearCost(10 * MS, stages=stages),
        num_kv_blocks=blocks,
        block_size=block_size,
        prefix_unit_blocks=hash_block_tokens // block_size,
        kv_tiers=kv_tiers,
        num_stages=stages,
        async_scheduling=async_scheduling,
        window=window,
        kv_budget=kv_budget,
        swap_blocks=swap_blocks,
        kv_block_bytes=1000,
        host_link=link,
        swap=swap,
        shared_prefix_attention=shared_prefix_attention,
        ranks=ranks,
        balancing=balancing,
        prefill_balance=prefill_balance,
        energy=replace(energy, window=window),
    )
    return Cluster(
        [config] * (replicas * ranks),
        router or RoundRobin(),
        workload,
        rng=np.random.default_rng(0),
        sample_interval_ns=sample_ns,
        keep_batches=keep_batches,
        fast_forward=fast_forward,
        features=features,
        make_network=make_network,
    )


def simulate(requests: Sequence[Request], until: int | None = None, **options: object) -> Cluster:
    """Build, run, close and check what holds for every run."""
    cluster = build(requests, **options)  # type: ignore[arg-type]
    cluster.run(until)
    cluster.stop()
    check_invariants(cluster, drained=until is None)
    return cluster


def check_invariants(cluster: Cluster, *, drained: bool) -> None:
    """Assert the invariants of docs/architecture.md that need no more than the cluster at its end."""
    columns = cluster.recorder.columns
    outcome = columns["outcome"]
    arrived = columns["arrival_ns"] >= 0
    ended = columns["ended_ns"] >= 0
    # Conservation: a request that arrived ended exactly once or is unfinished; nothing else ended.
    assert cluster.num_arrived == arrived.sum()
    assert cluster.num_ended == ended.sum() == (outcome != Outcome.UNFINISHED).sum()
    assert not (ended & ~arrived).any()
    if drained:
        assert (arrived == ended).all()
        for replica in cluster.replicas:
            # Blocks: all that were allocated are free again.
            assert replica.kv.free_blocks == replica.kv.total_blocks
            assert replica.num_running == 0
            assert not len(replica.waiting)
            assert replica.swap_space.used == 0
            for lane in replica.lanes:
                shape = BatchShape()
                lane.group.describe(shape)
                assert shape.decodes == shape.decode_kv == shape.decode_kv_sq == 0
                assert shape.decode_window_kv == shape.decode_window_growth == 0
                assert not any(lane.group.phases)
    # Causality: time never goes back.
    done = outcome == Outcome.FINISHED
    times = [columns[k][done] for k in ("arrival_ns", "scheduled_ns", "first_token_ns", "last_token_ns")]
    for before, after in pairwise(times):
        assert (before <= after).all()
    assert (columns["last_token_ns"][done] == columns["ended_ns"][done]).all()
    # Tokens: every finished request got what it asked for (or the room there was), and every gap was counted.
    wanted = cluster.workload.output_tokens
    if not cluster.num_truncated:
        assert (columns["output_tokens"][done] == wanted[done]).all()
    gaps = sum(h.total for h in cluster.recorder.itl)
    generated = columns["output_tokens"].astype(np.int64)
    if drained and (columns["attempts"] == 1).all():  # gaps of an attempt that was given up were counted too
        assert gaps == np.maximum(generated - 1, 0).sum()
        spans = columns["last_token_ns"] - columns["first_token_ns"]
        assert sum(h.total_ns for h in cluster.recorder.itl) == spans[generated > 0].sum()
        multi = done & (generated > 1)
        if multi.any():
            assert max(h.max_ns for h in cluster.recorder.itl) == columns["itl_max_ns"][generated > 1].max()
    # Little's law, with L integrated by the engine: requests in the system x time = sum of times in the system.
    if drained:
        assert cluster.in_system_ns == (columns["ended_ns"] - columns["arrival_ns"])[ended].sum()


def times_ms(cluster: Cluster, column: str) -> list[float]:
    """Return a column of times in ms."""
    return [float(v) / MS for v in cluster.recorder.columns[column]]


def fingerprint(cluster: Cluster) -> dict[str, bytes]:
    """Return everything that a run recorded, to compare to the last bit."""
    recorder = cluster.recorder
    prints = {name: column.tobytes() for name, column in recorder.columns.items()}
    prints |= {f"timeline.{name}": column.tobytes() for name, column in recorder.timeline.columns().items()}
    for code, histogram in enumerate(recorder.itl):
        prints[f"itl.{code}"] = histogram.counts.tobytes() + repr((histogram.total_ns, histogram.max_ns)).encode()
    for replica in cluster.replicas:
        prints[f"counters.{replica.index}"] = repr((replica.counters, replica.energy_counters)).encode()
    prints["reasons"] = repr(sorted(recorder.reasons.items())).encode()
    prints["cluster"] = repr((cluster.end_ns, cluster.in_system_ns, cluster.num_truncated)).encode()
    return prints

"""Run data made by hand: a small cluster with step times that a reader can add up, and a small model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from policies.batching.vllm_v1 import VllmV1
from policies.kv_eviction.lru import Lru
from policies.queueing.fcfs import Fcfs
from policies.routing.round_robin import RoundRobin
from simulator.cost.shape import BatchShape
from simulator.engine.cluster import Cluster, Workload
from simulator.engine.replica import EngineLimits, ReplicaConfig
from simulator.models.spec import ModelSpec
from simulator.result import RunResult
from simulator.run_data import Objectives, PoolData, RunData

MS = 1_000_000
SECOND = 1_000_000_000

TINY = ModelSpec(
    name="tiny",
    hf_id="test/tiny",
    hidden_size=8,
    num_layers=2,
    vocab_size=10,
    max_context_tokens=1000,
    num_heads=2,
    num_kv_heads=2,
    head_dim=4,
    intermediate_size=16,
)


class ConstantCost:
    """Every step takes the same time."""

    sources = ("test: constant",)

    def __init__(self, step: int = 10 * MS, stages: int = 1) -> None:
        self.step, self.stages = step, stages

    def step_ns(self, shape: BatchShape) -> int:
        return self.step

    def run_ns(self, shape: BatchShape, k: int) -> npt.NDArray[np.int64]:
        return np.full(k, self.step, dtype=np.int64)

    def few_ns(self, shape: BatchShape, k: int) -> list[int]:
        durations: list[int] = self.run_ns(shape, k).tolist()
        return durations

    def stage_ns(self, shape: BatchShape) -> list[int]:
        return [self.step] * self.stages


@dataclass
class ListSource:
    """Arrivals as given; rows that aren't listed never arrive."""

    arrivals: Sequence[tuple[int, int]]

    def first(self) -> Any:
        return iter(self.arrivals)

    def ended(self, row: int, end_ns: int) -> tuple[()]:
        return ()


@dataclass(frozen=True)
class Request:
    """A request of a test: arrival in ns (None: it never arrives), lengths, class, identities of its blocks."""

    arrival: int | None
    prompt: int
    output: int
    code: int = 0
    hashes: Sequence[int] = field(default_factory=tuple)


def pool(replicas: int = 1, **changes: Any) -> PoolData:
    """Return a pool of accelerators with 1000 FLOP/s and 10 000 bytes/s each."""
    figures: dict[str, Any] = {
        "name": "main",
        "accelerator": "toy",
        "replicas": range(replicas),
        "gpus_per_replica": 1,
        "peak_flops": 1e6,
        "memory_bandwidth": 1e6,
        "weight_bytes": 1000,
        "kv_bytes_per_token": 64,
        "memory": None,
        "price_per_gpu_hour": None,
        "cost_sources": ("test: constant",),
    }
    return PoolData(**(figures | changes))


def run_data(
    requests: Sequence[Request],
    *,
    until: int | None = None,
    stop_at: int | None = None,
    warmup: int = 0,
    class_names: Sequence[str] = ("",),
    objectives: Sequence[Objectives] | None = None,
    pools: Sequence[PoolData] | None = None,
    model: ModelSpec = TINY,
    step: int = 10 * MS,
    seqs: int = 256,
    blocks: int = 1000,
    max_len: int = 1000,
    budget: int = 2048,
    replicas: int = 1,
    stages: int = 1,
    sample_ns: int = 10 * MS,
    hash_block_tokens: int = 0,
    keep_batches: bool = False,
    fast_forward: bool = True,
    notes: Sequence[str] = (),
    interrupted: bool = False,
) -> RunData:
    """Run a cluster of equal replicas, round robin, to its end (or to ``stop_at``) and return what it hands over."""
    rows = [(r.arrival, row) for row, r in enumerate(requests) if r.arrival is not None]
    offsets = np.cumsum([0] + [len(r.hashes) for r in requests])
    hashes = [h for r in requests for h in r.hashes]
    workload = Workload(
        source=cast(Any, ListSource(sorted(rows))),
        prompt_tokens=np.array([r.prompt for r in requests], dtype=np.int64),
        output_tokens=np.array([r.output for r in requests], dtype=np.int64),
        predicted_output_tokens=np.full(len(requests), np.nan),
        class_codes=np.array([r.code for r in requests], dtype=np.int64),
        num_classes=len(class_names),
        priorities=np.zeros(len(requests), dtype=np.int64),
        session_ids=np.full(len(requests), -1, dtype=np.int64),
        hash_offsets=offsets if hash_block_tokens else None,
        hash_values=np.array(hashes, dtype=np.int64) if hash_block_tokens else None,
        hash_block_tokens=hash_block_tokens,
    )
    config = ReplicaConfig(
        limits=EngineLimits(seqs, budget, max_len),
        batching=VllmV1,
        queueing=Fcfs,
        kv_eviction=Lru,
        cost=ConstantCost(step, stages),
        num_kv_blocks=blocks,
        prefix_unit_blocks=hash_block_tokens // 16,
        num_stages=stages,
    )
    cluster = Cluster(
        [config] * replicas,
        RoundRobin(),
        workload,
        rng=np.random.default_rng(0),
        sample_interval_ns=sample_ns,
        keep_batches=keep_batches,
        fast_forward=fast_forward,
    )
    cluster.run(stop_at)
    cluster.stop()
    return RunData(
        cluster=cluster,
        trace=cast(Any, SimpleNamespace(notes=(), tenant=None)),
        model=model,
        scenario={"model": model.name, "seed": 7, "cluster": {"replicas": replicas}},
        pools=pools if pools is not None else [pool(replicas)],
        class_names=class_names,
        objectives=objectives if objectives is not None else [Objectives()] * len(class_names),
        warmup_ns=warmup,
        until_ns=until,
        notes=notes,
        interrupted=interrupted,
        load_s=0.5,
        loop_s=1.5,
    )


def result(requests: Sequence[Request], **options: Any) -> RunResult:
    """Run and return the result."""
    return RunResult(run_data(requests, **options))


TWO = (Request(0, 50, 4), Request(13 * MS, 50, 2))
"""10 ms a step. [0, 10) A prompt -> A1. 13: B arrives. [10, 20) A2. [20, 30) A3, B prompt -> B1. [30, 40) A4, B2."""

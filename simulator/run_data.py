"""What a run hands to the results: plain data beside what the cluster recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from policies.budget import KVBudget
    from simulator.engine.cluster import Cluster
    from simulator.memory import MemoryPlan
    from simulator.models.spec import ModelSpec
    from simulator.offload import OffloadPlan
    from simulator.power.model import PowerModel
    from workloads import Trace


@dataclass(frozen=True)
class Objectives:
    """Latency objectives of a request class, seconds; None where there is none.

    A request meets its objectives when each one given holds for it: ``ttft_s``, ``tpot_s`` (vacuous for
    one-token outputs), ``itl_s`` (its largest gap), ``e2e_s``.
    """

    ttft_s: float | None = None
    tpot_s: float | None = None
    itl_s: float | None = None
    e2e_s: float | None = None


@dataclass(frozen=True)
class PoolData:
    """One pool of equal replicas.

    Attributes
    ----------
    replicas
        Indices of its replicas in the cluster; each attention data parallel rank is one.
    gpus_per_replica
        Accelerators that each of them uses.
    peak_flops, memory_bandwidth
        Of one accelerator: FLOP/s at the width of the matrix products, bytes/s (for MFU and MBU).
    weight_bytes
        Of all weights of one replica, as often as context parallel ranks hold them.
    kv_bytes_per_token
        Of all layers of one replica, each key-value head once, sliding layers as if they kept every token.
    kv_budget, kv_budget_name, kv_dtype
        What is kept of each request's KV, None: everything; the policy that says so; the cache's datatype.
    price_per_gpu_hour
        In the scenario's currency; None where none was given.
    ranks_per_replica
        Attention data parallel ranks of a replica; 1: none.
    offload
        What is kept off the GPUs; None where nothing is.
    power
        What its accelerators draw; None where that isn't known.
    model
        What it serves; None: the run's model.
    """

    name: str
    accelerator: str
    replicas: Sequence[int]
    gpus_per_replica: int
    peak_flops: float
    memory_bandwidth: float
    weight_bytes: int
    kv_bytes_per_token: int
    memory: MemoryPlan | None
    price_per_gpu_hour: float | None
    cost_sources: Sequence[str]
    kv_budget: KVBudget | None = None
    kv_budget_name: str | None = None
    kv_dtype: str | None = None
    ranks_per_replica: int = 1
    offload: OffloadPlan | None = None
    power: PowerModel | None = None
    model: ModelSpec | None = None


@dataclass(frozen=True)
class RunData:
    """Everything that `simulator.result` needs.

    Attributes
    ----------
    scenario
        The scenario as resolved (every default written out); what ``scenario.yaml`` holds.
    class_names
        By class code; one empty name where the trace has no classes.
    objectives
        By class code.
    warmup_ns, until_ns
        The window that figures cover: requests that arrive in it, all of them where None and 0.
    notes
        Sentences on what was substituted, dropped, or is not modelled, for the result.
    interrupted
        Whether the user ended the run early.
    load_s, loop_s
        Wall-clock seconds for loading and building, and for the simulation itself.
    """

    cluster: Cluster
    trace: Trace
    model: ModelSpec
    scenario: Mapping[str, Any]
    pools: Sequence[PoolData]
    class_names: Sequence[str]
    objectives: Sequence[Objectives]
    warmup_ns: int
    until_ns: int | None
    notes: Sequence[str] = field(default_factory=tuple)
    interrupted: bool = False
    load_s: float = 0.0
    loop_s: float = 0.0

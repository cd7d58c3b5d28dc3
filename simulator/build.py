"""From a scenario to a cluster that is ready to run, and to what the results need to know of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from policies import registry
from policies.protocols import BalancingPolicy, Policy
from simulator.engine.clock import to_ns
from simulator.engine.cluster import Cluster, Workload
from simulator.engine.links import Link
from simulator.engine.replica import EngineLimits, ReplicaConfig
from simulator.engine.swap import SwapConfig
from simulator.engines import load_engine
from simulator.errors import InputError, did_you_mean
from simulator.expert_plan import expert_load
from simulator.features import has_several_models, make_features
from simulator.models import kv_bytes_per_token, weight_bytes, weight_formats
from simulator.power.model import PowerModel, power_model, with_watch
from simulator.resolve import Resolved, ResolvedPool, policy_maker
from simulator.rng import PREDICTOR, ROUTER, stream
from simulator.run_data import Objectives, PoolData
from workloads import ClosedLoop, OpenLoop, Sessions, Source, Trace, filter_trace, read_trace

if TYPE_CHECKING:
    from simulator.cost.expert_load import ExpertLoad
    from simulator.cost.graphs import CudaGraphs
    from simulator.cost.measured import MeasuredCost
    from simulator.cost.operator_cost import OperatorCost
    from simulator.cost.shape import CostModel
    from simulator.engine.clock import Environment
    from simulator.models import ModelSpec
    from simulator.network.cluster_network import ClusterNetwork
    from simulator.scenario import Pool, Scenario, Slos
    from simulator.scenario import Workload as WorkloadPart
    from simulator.scenario_base import PolicyRef

MAX_SAMPLES = 1000
"""Samples of each replica over an open loop's trace, at most, where the interval is ``auto``."""


@dataclass(frozen=True)
class Built:
    """A cluster that is ready to run, and what the results need besides.

    Attributes
    ----------
    scenario
        The scenario as resolved, plain data.
    stop_ns
        When the run ends although requests are left; None: when all have ended.
    policies
        Classes of the policies that take part.
    """

    cluster: Cluster
    trace: Trace
    scenario: Mapping[str, Any]
    pools: tuple[PoolData, ...]
    class_names: tuple[str, ...]
    objectives: tuple[Objectives, ...]
    warmup_ns: int
    until_ns: int | None
    stop_ns: int | None
    notes: tuple[str, ...]
    policies: tuple[type[Policy], ...]


def load_trace(scenario: Scenario, trace: Trace | None = None) -> Trace:
    """Return the requests that the scenario says, filtered and scaled.

    Parameters
    ----------
    trace
        Taken in place of the scenario's trace or generator; its filters apply all the same.

    Raises
    ------
    InputError, workloads.TraceError
        If there is none, or it can't be read.
    """
    part = scenario.workload
    loaded = trace if trace is not None else _read(part, scenario.seed)
    filtered = filter_trace(
        loaded,
        start_s=part.start_s,
        end_s=part.end_s,
        limit=part.limit,
        model=part.model,
        request_class=part.request_class,
        rate_scale=part.rate_scale,
        time_scale=part.time_scale,
        sample=part.sample,
        seed=scenario.seed,
    )
    if part.resample is None:
        return filtered
    if part.loop.kind == "sessions":
        raise InputError("workload.resample draws requests one by one, and workload.loop keeps sessions: leave one out")
    from workloads.resampling import resample_trace

    again = part.resample
    return resample_trace(filtered, block_s=again.block_s, within_s=again.within_s, seed=scenario.seed)


def _read(part: WorkloadPart, seed: int) -> Trace:
    if part.trace is not None:
        return read_trace(
            part.trace,
            format=part.format,
            on_bad_row=part.on_bad_row,
            sort=part.sort,
            spread_ties=part.ties,
            keep_failed=part.keep_failed,
        )
    if part.generator is not None:
        from workloads.generators import generate, generators

        known = generators().get(part.generator.kind)
        seeded = {"seed": seed} if known is not None and any(param.name == "seed" for param in known.params) else {}
        return generate(part.generator.kind, **{**seeded, **part.generator.params})
    raise InputError("the scenario has no requests: give a trace file, 'workload.trace' or 'workload.generator'")


def build(resolved: Resolved, trace: Trace, *, stepwise: bool = False, keep_batches: bool = False) -> Built:
    """Make the cluster of a scenario.

    Parameters
    ----------
    trace
        The requests, as `load_trace` gives them.
    stepwise
        Make every engine step an event of its own; results are the same.
    keep_batches
        Record every batch (for Perfetto traces).
    """
    scenario = resolved.scenario
    notes = [*resolved.notes]
    pools = resolved.pools
    hashes = _prefix_blocks(trace, pools, notes)
    made = [_replica_configs(each, resolved, hashes) for each in pools]
    configs = [config for pool_configs, _ in made for config in pool_configs]
    class_codes, class_names = classes_of(trace)
    source = _source(scenario, trace)
    workload = Workload(
        source=source,
        prompt_tokens=trace.prompt_tokens,
        output_tokens=trace.output_tokens,
        predicted_output_tokens=predictions(scenario, trace.output_tokens),
        class_codes=class_codes,
        num_classes=len(class_names),
        priorities=trace.priority if trace.priority is not None else np.zeros(len(trace), np.int64),
        session_ids=trace.session_id if trace.session_id is not None else np.full(len(trace), -1, np.int64),
        tenants=None if trace.tenant is None else trace.tenant.texts(),
        hash_offsets=None if hashes is None else hashes.offsets,
        hash_values=None if hashes is None else hashes.values,
        hash_block_tokens=0 if hashes is None else hashes.block_tokens,
    )
    interval_s = scenario.measure.sample_interval_s or _sample_interval_s(scenario, trace)
    router = policy_maker("routing", scenario.router.name, scenario.router.params)()
    cluster = Cluster(
        configs,
        router,  # type: ignore[arg-type]  # checked to be a routing policy when it was resolved
        workload,
        rng=stream(scenario.seed, ROUTER),
        sample_interval_ns=to_ns(interval_s),
        keep_batches=keep_batches,
        fast_forward=not stepwise,
        features=make_features(resolved, configs, trace),
        make_network=_network_maker(resolved, keep_timeline=keep_batches),
    )
    _note_unused(trace, scenario, notes, by_model=has_several_models(resolved))
    _note_unknown_tenants(trace, pools, notes)
    measure = scenario.measure
    until_ns = None if measure.until_s is None else to_ns(measure.until_s)
    stored = scenario.updated({"measure.sample_interval_s": interval_s}).to_mapping(everything=True)
    return Built(
        cluster=cluster,
        trace=trace,
        scenario=stored,
        pools=_pool_data(resolved, configs, [power for _, power in made]),
        class_names=class_names,
        objectives=objectives_by_class(scenario.objectives, class_names),
        warmup_ns=to_ns(measure.warmup_s),
        until_ns=until_ns,
        stop_ns=_stop_ns(scenario, trace, until_ns),
        notes=tuple(dict.fromkeys(notes)),
        policies=_policies(resolved),
    )


def _network_maker(resolved: Resolved, *, keep_timeline: bool) -> Callable[[Environment], ClusterNetwork]:
    """Return what makes the cluster's links, should a feature ask for them."""

    def make(env: Environment) -> ClusterNetwork:
        from simulator.network.cluster_network import build_network

        return build_network(env, resolved, keep_timeline=keep_timeline)

    return make


def _policies(resolved: Resolved) -> tuple[type[Policy], ...]:
    cluster = resolved.scenario.cluster
    refs: list[PolicyRef] = [resolved.scenario.router]
    if resolved.scenario.admission is not None:
        refs.append(resolved.scenario.admission)
    if resolved.scenario.disaggregation is not None:
        refs.append(resolved.scenario.disaggregation.decode_router)
    refs += [ref for ref in (cluster.rescheduler, cluster.scaler) if ref is not None]
    for each in resolved.pools:
        pool = each.pool
        refs += [ref for ref in (pool.batching, pool.queueing, pool.kv_eviction, pool.kv_budget) if ref is not None]
    return tuple(dict.fromkeys(registry.resolve(ref.kind, ref.name) for ref in refs))


# ------------------------------------------------------------------------------------------------------- requests


def predictions(scenario: Scenario, output_tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return what the scenario's predictor says of each request's output length, tokens; NaN without one.

    A noisy prediction is at least 1 token. Errors are drawn row by row from a stream of their own, so that they don't
    depend on the policies.
    """
    predictor = scenario.predictor
    if predictor.kind in ("none", "auto"):  # resolved by now, or no policy asked for one
        return np.full(len(output_tokens), np.nan)
    truth = output_tokens.astype(np.float64)
    if predictor.kind == "oracle":
        return truth
    rng = stream(scenario.seed, PREDICTOR)
    if predictor.sigma is not None:
        factor = np.exp(predictor.sigma * rng.standard_normal(len(truth)))
    else:
        assert predictor.relative_error is not None
        factor = 1.0 + predictor.relative_error * rng.uniform(-1.0, 1.0, len(truth))
    return np.maximum(truth * factor, 1.0)


def classes_of(trace: Trace) -> tuple[npt.NDArray[np.int64], tuple[str, ...]]:
    """Return the class of each row and the names by code: those that occur, the unnamed class last."""
    column = trace.request_class
    if column is None:
        return np.zeros(len(trace), np.int64), ("",)
    present, codes = np.unique(column.codes, return_inverse=True)
    names = ["" if code < 0 else column.names[code] for code in present.tolist()]
    if names and names[0] == "":
        names.append(names.pop(0))
        codes = (codes - 1) % len(names)
    return codes.astype(np.int64), tuple(names)


def _source(scenario: Scenario, trace: Trace) -> Source:
    loop = scenario.workload.loop
    if loop.kind == "closed":
        assert loop.clients is not None
        return ClosedLoop(trace, loop.clients, think_time_s=loop.think_time_s, stagger_s=loop.stagger_s)
    if loop.kind == "sessions":
        if trace.parent_id is None:
            raise InputError(
                "workload.loop is 'sessions', but the trace has no sessions (columns session_id, parent_id); "
                "use the loop 'open' or 'closed'"
            )
        return Sessions(trace)
    return OpenLoop(trace)


@dataclass(frozen=True)
class _Blocks:
    """Block identities for the engine, merged so that each spans whole engine blocks."""

    offsets: npt.NDArray[np.int64]
    values: npt.NDArray[np.int64]
    block_tokens: int


def _prefix_blocks(trace: Trace, pools: Sequence[ResolvedPool], notes: list[str]) -> _Blocks | None:
    """Return the trace's block identities in units that every caching pool can hold; None where it has none."""
    caching = [each.pool for each in pools if each.pool.engine.prefix_caching]
    if trace.block_hashes is None:
        if caching:
            notes.append("prefix caching is on but finds nothing: the trace has no block identities (block_hashes)")
        return None
    size = trace.block_size_tokens
    unit = max([size, *(_block_size(pool) for pool in caching)])
    for pool in caching:
        if unit % _block_size(pool) or unit % size:
            raise InputError(
                f"the trace's prefix blocks of {size} tokens and the KV blocks of {_block_size(pool)} tokens of pool "
                f"{pool.name!r} don't divide one another; choose an engine.block_size that divides {size} or is a "
                "multiple of it, or switch engine.prefix_caching off"
            )
    hashes = trace.block_hashes
    if unit == size:
        return _Blocks(hashes.offsets, hashes.values, size)
    merged = unit // size
    notes.append(f"prefix blocks of the trace ({size} tokens) were merged, {merged} into one, to fill KV blocks")
    counts = hashes.lengths() // merged
    offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
    # Identities are chained: that of the last block of a group says what the whole group holds.
    within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], counts)
    values = hashes.values[np.repeat(hashes.offsets[:-1], counts) + (within + 1) * merged - 1]
    return _Blocks(offsets, np.ascontiguousarray(values), unit)


def _block_size(pool: Pool) -> int:
    assert pool.engine.block_size is not None
    return pool.engine.block_size


def _note_unused(trace: Trace, scenario: Scenario, notes: list[str], *, by_model: bool) -> None:
    """Say what the trace has and the run leaves aside."""
    if trace.model is not None and not by_model and len(present := np.unique(trace.model.codes)) > 1:
        notes.append(
            f"the trace names {len(present)} models; all requests were served by {scenario.model} "
            "(workload.model chooses some)"
        )
    if trace.adapter is not None:
        notes.append("the trace names adapters; they are not modelled yet")
    if trace.deadline_s is not None and not (scenario.clients is not None and scenario.clients.deadlines):
        notes.append("the trace has deadlines, which nobody heeds; 'clients.deadlines: true' lets clients give up then")
    if trace.deadline_s is None and scenario.clients is not None and scenario.clients.deadlines:
        notes.append("clients.deadlines is on and changes nothing: the trace has no deadlines (deadline_s)")
    if trace.parent_id is not None and scenario.workload.loop.kind == "open":
        notes.append("the trace has sessions; the loop 'open' sends every turn at its own arrival time")


def _note_unknown_tenants(trace: Trace, pools: Sequence[ResolvedPool], notes: list[str]) -> None:
    """Say which tenants queueing policies have parameters for and the trace doesn't name."""
    refs = [each.pool.queueing for each in pools if each.pool.queueing is not None]
    policies = [registry.make("queueing", ref.name, ref.params) for ref in refs]
    named = dict.fromkeys(name for policy in policies for name in policy.named_tenants())  # type: ignore[attr-defined]
    if not named:
        return
    known = [] if trace.tenant is None else sorted({text for text in trace.tenant.texts() if text})
    for tenant in named:
        if tenant not in known:
            hint = did_you_mean(tenant, known) if known else "; it names none"
            notes.append(f"a weight without effect: the trace has no tenant {tenant!r}{hint}")


# ------------------------------------------------------------------------------------------------------- replicas


def _replica_configs(
    each: ResolvedPool, resolved: Resolved, hashes: _Blocks | None
) -> tuple[list[ReplicaConfig], PowerModel]:
    pool, memory, limits = each.pool, each.memory, each.pool.engine
    assert pool.batching is not None and pool.queueing is not None
    assert limits.max_num_seqs and limits.max_num_batched_tokens and limits.max_model_len
    block_size = _block_size(pool)
    block_bytes = memory.kv_bytes_per_token * block_size
    swap_blocks = int((limits.swap_space_gib or 0.0) * 2**30) // block_bytes
    link = Link(each.accelerator.pcie, each.accelerator.pcie_bandwidth, 0.0) if swap_blocks else None
    held = pool.parallel.prefill_balance
    cost = _pool_cost(each, resolved)
    cost, power = _power(each, resolved, cost)
    kv_tiers: Literal["evictions"] | bool = False
    if pool.kv_tiers is not None:
        from simulator.kv_tiers.making import wants_tiers

        kv_tiers = wants_tiers(pool)
    config = ReplicaConfig(
        limits=EngineLimits(limits.max_num_seqs, limits.max_num_batched_tokens, limits.max_model_len),
        batching=policy_maker("batching", pool.batching.name, pool.batching.params),  # type: ignore[arg-type]
        queueing=policy_maker("queueing", pool.queueing.name, pool.queueing.params),  # type: ignore[arg-type]
        kv_eviction=policy_maker("kv_eviction", pool.kv_eviction.name, pool.kv_eviction.params),  # type: ignore[arg-type]
        cost=cost,
        ranks=each.plan.dp,
        balancing=_balancing(pool),
        prefill_balance=None if held is None else (held.timeout_steps, held.batching_wait_steps),
        num_kv_blocks=memory.num_kv_blocks,
        block_size=block_size,
        prefix_unit_blocks=hashes.block_tokens // block_size if hashes is not None and limits.prefix_caching else 0,
        kv_tiers=kv_tiers,
        num_stages=each.plan.pp,
        async_scheduling=bool(limits.async_scheduling),
        window=each.model.sliding_window,
        kv_budget=each.kv_budget,
        swap_blocks=swap_blocks,
        kv_block_bytes=block_bytes,
        host_link=link,
        swap=_swap(each, each.model),
        shared_prefix_attention=limits.shared_prefix_attention is not None,
        energy=power.steps,
    )
    return [config] * (each.max_replicas * each.plan.dp), power


def _balancing(pool: Pool) -> Callable[[], BalancingPolicy] | None:
    """Return the maker of the policy that chooses a request's rank; None where there is one rank."""
    ref = pool.parallel.balancing
    return None if ref is None else policy_maker("balancing", ref.name, ref.params)  # type: ignore[return-value]


def _power(each: ResolvedPool, resolved: Resolved, cost: CostModel) -> tuple[CostModel, PowerModel]:
    """Return what steps cost with the pool's cap on power, and what they draw."""
    pool = each.pool
    power = power_model(
        each.accelerator,
        each.model,
        each.plan,
        pool.power,
        gpus_per_node=None if each.node is None else each.node.gpus,
        weights_dtype=pool.dtypes.weights,
        activation_dtype=pool.dtypes.activations,
        kv_dtype=pool.dtypes.kv,
        by_time=pool.cost.kind == "constant",
        where=f"pool {pool.name!r}: power",
    )
    limited = pool.power.cap_w is not None or pool.power.clock is not None
    if limited and (pool.cost.kind == "constant" or each.plan.dp > 1):
        what = (
            "constant step times" if pool.cost.kind == "constant" else f"attention data parallel ranks ({each.plan.dp})"
        )
        raise InputError(f"pool {pool.name!r}: power.cap_w and power.clock are not modelled with {what}; leave one out")
    assert pool.engine.max_num_seqs
    if not limited and each.plan.dp == 1 and each.kv_budget is None:
        power = with_watch(power, cost, pool.engine.max_num_seqs)
    if not limited:
        return cost, power
    from simulator.power.capped_cost import CappedCost

    return CappedCost(cost, power), power


def _pool_cost(each: ResolvedPool, resolved: Resolved) -> CostModel:
    """Return what steps cost, with what the scenario puts on top of the model's operators."""
    cost = _cost(each, resolved)
    for name, used in (
        ("engine.shared_prefix_attention", each.pool.engine.shared_prefix_attention is not None),
        ("kv_budget", each.kv_budget is not None),
    ):
        if used and each.plan.dp > 1:
            raise InputError(
                f"pool {each.pool.name!r}: {name} is not modelled with attention data parallel ranks "
                f"(dp={each.plan.dp}); leave one of them out"
            )
    if each.pool.engine.shared_prefix_attention is not None:
        from simulator.shared_prefix import with_shared_prefixes

        cost = with_shared_prefixes(cost, each, each.model)
    if each.offload is not None:
        return each.offload.cost(cost, each.accelerator.memory_bandwidth)
    if each.kv_budget is None:
        return cost
    from simulator.kv_budget import budget_cost

    return budget_cost(cost, each.kv_budget, each.model, each.pool, each.accelerator, each.plan.tp)


def _swap(each: ResolvedPool, model: ModelSpec) -> SwapConfig:
    """Return how a replica copies blocks: keys and values of a layer are calls of their own, a latent is one."""
    part = each.pool.swap
    layers = -(-model.num_layers // each.plan.pp)
    return SwapConfig(
        call_s=part.call_overhead_s,
        calls_per_run=layers if model.mla is not None else 2 * layers,
        blocks_per_call=part.blocks_per_call,
        keep_copies=part.keep_copies,
    )


def _cost(each: ResolvedPool, resolved: Resolved) -> CostModel:
    pool = each.pool
    load = expert_load(pool.experts, each.model, each.plan, each.node, resolved.scenario.seed)
    if pool.cost.kind == "constant":
        if each.plan.dp > 1:
            raise InputError(
                f"pool {pool.name!r}: a constant step has no parts for ranks to wait for; use dp=1, or another cost"
            )
        from simulator.cost.constant import ConstantCost

        return ConstantCost(step_s=pool.cost.step_s, stages=each.plan.pp)
    assert pool.engine.host_overhead_s is not None
    from simulator.cost.graphs import NO_GRAPHS, CudaGraphs

    graphs = CudaGraphs(tuple(pool.engine.cuda_graph_sizes or ()), pool.engine.cuda_graph_steps == "decode")
    if each.plan.dp > 1:
        from simulator.cost.exchange import Exchange
        from simulator.cost.lockstep import LockstepCost

        rank = _rank_cost(each, resolved, NO_GRAPHS, load)
        rows = None
        if pool.cost.profile is not None:
            from simulator.cost.measured_sources import measured_rows

            rows = measured_rows(pool.cost.profile)
        return LockstepCost(rank, Exchange(rank.shapes, each.node, pool.experts.exchange, rows), graphs)
    return _rank_cost(each, resolved, graphs, load)


def _rank_cost(
    each: ResolvedPool, resolved: Resolved, graphs: CudaGraphs, load: ExpertLoad
) -> MeasuredCost | OperatorCost:
    """Return the cost model of a replica, or of one of its attention data parallel ranks."""
    pool = each.pool
    assert pool.engine.host_overhead_s is not None
    beside = 0 if pool.engine.name is None else load_engine(pool.engine.name, pool.engine.version).shared_beside
    if pool.cost.profile is not None:
        from simulator.cost.measured_sources import measured_cost

        return measured_cost(
            each.model,
            each.accelerator,
            pool.cost.profile,
            each.plan,
            node=each.node,
            weights_dtype=pool.dtypes.weights,
            activation_dtype=pool.dtypes.activations,
            kv_dtype=pool.dtypes.kv,
            host_overhead_s=pool.engine.host_overhead_s,
            graphs=graphs,
            outside=pool.cost.outside or "extrapolate",
            where=f"pool {pool.name!r}",
            load=load,
            shared_beside=beside,
        )
    from simulator.cost.fitted_kernels import fitted_cost
    from simulator.cost.roofline import roofline_cost

    make: Callable[..., OperatorCost] = fitted_cost if pool.cost.kind == "fitted" else roofline_cost
    return make(
        each.model,
        each.accelerator,
        each.plan,
        node=each.node,
        weights_dtype=pool.dtypes.weights,
        activation_dtype=pool.dtypes.activations,
        kv_dtype=pool.dtypes.kv,
        host_overhead_s=pool.engine.host_overhead_s,
        graphs=graphs,
        load=load,
        shared_beside=beside,
    )


def _pool_data(
    resolved: Resolved, configs: Sequence[ReplicaConfig], powers: Sequence[PowerModel]
) -> tuple[PoolData, ...]:
    found, first = [], 0
    for each, power in zip(resolved.pools, powers, strict=True):
        pool = each.pool
        found.append(
            PoolData(
                name=pool.name,
                accelerator=each.accelerator.name,
                replicas=range(first, first + each.max_replicas * each.plan.dp),
                gpus_per_replica=each.plan.rank_gpus,
                ranks_per_replica=each.plan.dp,
                peak_flops=_peak_flops(each, resolved),
                memory_bandwidth=each.accelerator.memory_bandwidth,
                weight_bytes=weight_bytes(each.model, pool.dtypes.weights) * each.plan.cp,
                kv_bytes_per_token=kv_bytes_per_token(each.model, pool.dtypes.kv or each.model.base_dtype),
                memory=each.memory,
                kv_budget=each.kv_budget,
                kv_budget_name=None if pool.kv_budget is None else pool.kv_budget.name,
                kv_dtype=pool.dtypes.kv,
                price_per_gpu_hour=pool.price_per_gpu_hour,
                cost_sources=configs[first].cost.sources,
                offload=each.offload,
                power=power,
                model=each.model,
            )
        )
        first += each.max_replicas * each.plan.dp
    return tuple(found)


def _peak_flops(each: ResolvedPool, resolved: Resolved) -> float:
    """Return the accelerator's peak in the datatype of the feed-forward's products, the most of all."""
    from simulator.cost.kernels import math_dtype

    model, dtypes, accelerator = each.model, each.pool.dtypes, each.accelerator
    family = "experts" if model.is_moe else "gate_up"
    stored = weight_formats(model, dtypes.weights)[family]
    dtype = math_dtype(accelerator, stored, dtypes.activations or model.base_dtype)
    return accelerator.peak_flops.get(dtype) or max(accelerator.peak_flops.values())


# -------------------------------------------------------------------------------------------------------- measure


def objectives_by_class(part: Slos, class_names: Sequence[str]) -> tuple[Objectives, ...]:
    """Return the objectives of each class, in the order of their names.

    Raises
    ------
    InputError
        If they name a class that is none of those.
    """
    for name in part.classes:
        if name not in class_names:
            known = [known for known in class_names if known]
            hint = did_you_mean(name, known) if known else "; the trace has no classes"
            raise InputError(f"objectives.classes: the trace has no class {name!r}{hint}")
    keys = ("ttft_s", "tpot_s", "itl_s", "e2e_s")
    general = Objectives(**{key: getattr(part, key) for key in keys})
    own = {
        name: replace(general, **{key: value for key in keys if (value := getattr(slo, key)) is not None})
        for name, slo in part.classes.items()
    }
    return tuple(own.get(name, general) for name in class_names)


def _stop_ns(scenario: Scenario, trace: Trace, until_ns: int | None) -> int | None:
    if scenario.measure.drain:
        return None
    if until_ns is not None:
        return until_ns
    if scenario.workload.loop.kind != "open":
        raise InputError(
            "measure.drain is false, so the run needs an end: give measure.until_s (--until), as only an open loop has "
            "a last arrival"
        )
    return to_ns(float(trace.arrival_s[-1])) + 1


def _sample_interval_s(scenario: Scenario, trace: Trace) -> float:
    """Return 1, 2 or 5 times a power of ten, such that an open loop's trace has at most `MAX_SAMPLES` of them."""
    if scenario.workload.loop.kind != "open":
        return 1.0
    least = max(0.1, float(trace.arrival_s[-1]) / MAX_SAMPLES)
    exponent = -1
    while True:
        for digit in (1, 2, 5):
            interval = round(digit * 10.0**exponent, 6)
            if interval >= least:
                return interval
        exponent += 1


__all__ = ["MAX_SAMPLES", "Built", "build", "classes_of", "load_trace", "objectives_by_class", "predictions"]

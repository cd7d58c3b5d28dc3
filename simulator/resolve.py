"""A scenario with everything decided: models and profiles loaded, every default written out, memory planned."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hardware_profiles import (
    Accelerator,
    NodeType,
    list_accelerators,
    list_fits,
    load_accelerator,
    load_node,
)
from policies import registry
from policies.protocols import BatchingPolicy, Policy
from simulator.cost.efficiency import DEFAULT_HOST_OVERHEAD_S
from simulator.engines import Engine, EngineDefaults, load_engine
from simulator.errors import InputError, did_you_mean
from simulator.memory import DEFAULT_GPU_MEMORY_UTILIZATION, MemoryPlan, MemoryTooSmallError, plan_memory
from simulator.models import ModelSpec, load_model
from simulator.parallel import ParallelPlan
from simulator.scenario import Cluster, Pool, Scenario
from simulator.scenario_keys import is_model_file, is_package_name, is_policy_file, is_profile_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from policies.budget import KVBudget
    from simulator.offload import OffloadPlan

DEFAULT_ACCELERATOR = "a100-80gb"
DEFAULT_POLICY = "vllm-v1"
DEFAULT_BLOCK_SIZE = 16
_SERVER_GPUS = 8  # that NVLink joins in most servers
DEFAULT_PREDICTOR_SIGMA = 0.5
"""Standard deviation of the logarithm of predicted over true length, where a policy needs predictions and the scenario
names no predictor: a choice. With log-normal lengths of sigma 1 it makes a Kendall rank correlation of 0.70."""
DEFAULT_SWAP_SPACE_GIB = 4.0
"""Host memory for swapping of each rank where the policy swaps: vLLM's own default."""


@dataclass(frozen=True)
class ResolvedPool:
    """One pool, with what its names mean.

    Attributes
    ----------
    pool
        The scenario's, every limit set.
    model
        What it serves.
    engine
        The engine preset; None where none was named.
    memory
        Memory plan of one replica.
    kv_budget
        What is kept of each request's KV; None: everything.
    offload
        What is kept off its GPUs; None where nothing is.
    """

    pool: Pool
    model: ModelSpec
    accelerator: Accelerator
    node: NodeType | None
    engine: Engine | None
    plan: ParallelPlan
    memory: MemoryPlan
    notes: tuple[str, ...] = ()
    kv_budget: KVBudget | None = None
    offload: OffloadPlan | None = None

    @property
    def max_replicas(self) -> int:
        """Replicas that it may ever have."""
        return self.pool.max_replicas or self.pool.replicas


@dataclass(frozen=True)
class Resolved:
    """A scenario with everything decided but what depends on the trace.

    Attributes
    ----------
    model
        The scenario's: what requests without a model ask for, and what pools serve that name none.
    """

    scenario: Scenario
    model: ModelSpec
    pools: tuple[ResolvedPool, ...]
    own_notes: tuple[str, ...] = ()

    @property
    def notes(self) -> list[str]:
        """Sentences on what was substituted or isn't modelled."""
        return list(dict.fromkeys([*self.own_notes, *(note for pool in self.pools for note in pool.notes)]))


def resolve(scenario: Scenario) -> Resolved:
    """Decide everything that the scenario leaves open.

    Raises
    ------
    InputError
        If what it asks for can't be, such as a model that doesn't fit.
    """
    model = load_model(scenario.model)
    pools = tuple(
        _resolve_pool(pool, index, model if pool.model is None else load_model(pool.model))
        for index, pool in enumerate(scenario.cluster.pools)
    )
    data = scenario.to_mapping(everything=True)
    data["cluster"]["pools"] = [each.pool.model_dump(mode="json", by_alias=True, exclude_none=True) for each in pools]
    data["router"] = _full_policy("routing", data["router"])
    notes: list[str] = []
    notes += _notes_without_effect(scenario.cluster)
    if scenario.cluster.rescheduler is not None:
        data["cluster"]["rescheduler"] = _full_policy("rescheduling", data["cluster"]["rescheduler"])
    if scenario.cluster.scaler is not None:
        data["cluster"]["scaler"] = _with_objectives(
            _full_policy("scaling", data["cluster"]["scaler"]), "scaling", "cluster.scaler", scenario, notes
        )
    if scenario.admission is not None:
        data["admission"] = _with_objectives(
            _full_policy("admission", data["admission"]), "admission", "admission", scenario, notes
        )
    disaggregated = scenario.disaggregation is not None or any(each.pool.role != "mixed" for each in pools)
    if disaggregated:
        from simulator.disaggregation.deciding import decide, notes_on

        disaggregation = decide(scenario.disaggregation, pools)
        assert disaggregation is not None
        data["disaggregation"] = disaggregation.model_dump(mode="json", by_alias=True, exclude_none=True)
        data["disaggregation"]["decode_router"] = _full_policy("routing", data["disaggregation"]["decode_router"])
    if scenario.predictor.kind == "auto":
        data["predictor"], predictor_notes = _predictor(data)
        notes += predictor_notes
    if is_model_file(scenario.model):
        data["model"] = _absolute(scenario.model)
    trace = scenario.workload.trace
    if trace is not None and not trace.startswith("bundled:"):
        data["workload"]["trace"] = _absolute(trace)
    resolved = Scenario.from_mapping(data)
    if disaggregated:
        notes += notes_on(resolved.disaggregation, pools, resolved.predictor.kind)
    return Resolved(resolved, model, pools, tuple(notes))


def _notes_without_effect(cluster: Cluster) -> list[str]:
    """Return a note on each part that is set and that nothing asks for."""
    idle = {"migration": "rescheduler"} if cluster.rescheduler is None else {}
    if cluster.scaler is None:
        idle |= {"start_up": "scaler", "drain": "scaler"}
    default = Cluster()
    return [
        f"cluster.{key} has no effect without a {owner}"
        for key, owner in idle.items()
        if getattr(cluster, key) != getattr(default, key)
    ]


def policy_maker(kind: str, name: str, params: Mapping[str, Any]) -> Callable[[], Policy]:
    """Return what makes a new instance of a policy each time it is called."""
    cls = registry.resolve(kind, name)
    registry.make(kind, name, params)  # so that what is wrong is said now
    return lambda: cls(**params)


def _predictor(data: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the predictor that the policies of a resolved scenario prefer, and a note where it is one."""
    refs = [("routing", data["router"])]
    if "admission" in data:
        refs.append(("admission", data["admission"]))
    for pool in data["cluster"]["pools"]:
        refs += [("batching", pool["batching"]), ("queueing", pool["queueing"])]
    wanted = {registry.make(kind, ref["name"], ref["params"]).preferred_predictor() for kind, ref in refs}
    if "noisy" in wanted:
        spec = {"kind": "noisy", "sigma": DEFAULT_PREDICTOR_SIGMA}
        return spec, (
            f"output lengths are predicted with a log-normal error of sigma {DEFAULT_PREDICTOR_SIGMA:g}, a default; "
            "'predictor' sets it",
        )
    if "oracle" in wanted:
        return {"kind": "oracle"}, (
            "the true output lengths stand for the bounds that clients would state (an oracle, the default of this "
            "policy; 'predictor' sets it)",
        )
    return {"kind": "none"}, ()


# ---------------------------------------------------------------------------------------------------------- pools


def _resolve_pool(pool: Pool, index: int, model: ModelSpec) -> ResolvedPool:
    engine = None if pool.engine.name is None else load_engine(pool.engine.name, pool.engine.version)
    pool = _with_args(pool, index)
    node = None if pool.node is None else load_node(pool.node)
    accelerator = _accelerator(pool, node, index)
    layout = pool.parallel
    every = layout.rank_tp * layout.ranks
    plan = ParallelPlan(
        layout.rank_tp,
        layout.pp,
        every if isinstance(layout.ep, str) else layout.ep,
        cp=layout.cp,
        context=layout.context,
        striped=layout.striped,
        dp=layout.ranks,
        redundant_experts=pool.experts.redundant,
    )
    plan.check(model)
    layout_notes: list[str] = []
    if node is not None and plan.tp > node.gpus:
        raise InputError(
            f"cluster.pools.{index}: tp={plan.tp} needs more GPUs than the {node.gpus} of a {node.name}; tensor "
            "parallelism across nodes is not modelled"
        )
    if plan.cp > 1 and pool.cost.kind == "measured":
        raise InputError(
            f"cluster.pools.{index}.cost: 'measured' is not modelled with context parallelism (cp={plan.cp}); use "
            "'fitted', 'roofline' or 'auto'"
        )
    if plan.cp == 1 and plan.context != "ring":
        layout_notes.append(f"parallel.context: {plan.context!r} has no effect with one context parallel rank (cp=1)")
    if not plan.striped and (plan.cp == 1 or plan.context != "ring"):
        why = "one context parallel rank (cp=1)" if plan.cp == 1 else f"context: {plan.context}"
        layout_notes.append(f"parallel.striped: false has no effect with {why}; it is about the ring")
    defaults = _defaults(engine, accelerator, plan)
    batching = _batching(pool, engine, defaults)
    policy = registry.resolve("batching", batching["name"])
    assert issubclass(policy, BatchingPolicy)
    if plan.pp > 1 and not policy.supports_pipeline:
        raise InputError(
            f"cluster.pools.{index}: the system that policy {batching['name']!r} follows has no pipeline parallelism "
            f"(pp={plan.pp}); use pp=1 and a larger tp, or another policy"
        )
    limits = _limits(pool, engine, defaults, batching)
    if limits["async_scheduling"] and plan.pp > 1:
        raise InputError(
            f"cluster.pools.{index}.engine.async_scheduling: not modelled with pipeline stages (pp={plan.pp}); "
            "leave it out, or set it to false"
        )
    if pool.engine.shared_prefix_attention is not None:
        from simulator.shared_prefix import check_shared_prefix

        check_shared_prefix(pool, limits, model, f"cluster.pools.{index}")
    budget = None
    notes = [*defaults.notes, *layout_notes]
    if pool.kv_budget is not None:
        from simulator.kv_budget import resolve_budget, without_prefixes

        if policy.profile is not BatchingPolicy.profile:
            raise InputError(
                f"cluster.pools.{index}.kv_budget: batching policy {batching['name']!r} profiles its engine, which is "
                "not modelled with a KV budget; leave one of them out"
            )
        budget = resolve_budget(pool, index, model, plan)
        notes.append(
            f"KV budget {pool.kv_budget.name!r}: memory and time only; the accuracy of the answers isn't simulated, "
            "and energy counts decodes as if they attended to everything"
        )
        notes += without_prefixes(budget, limits, pool.kv_budget.name)
        if pool.cost.kind == "constant":
            notes.append("steps of constant duration: the KV budget changes memory, not time")
    offload = None
    if pool.offload is not None:
        from simulator.offload import plan_offload

        offload = plan_offload(pool, model, accelerator, node, plan, limits, batching, f"cluster.pools.{index}")
        memory = offload.memory
    else:
        memory = _plan_memory(pool, engine, model, accelerator, plan, limits, budget)
    limits["max_model_len"] = _max_model_len(limits["max_model_len"], model, memory, batching, index)
    data = pool.model_dump(mode="json", by_alias=True, exclude_none=True)
    if pool.model is not None and is_model_file(pool.model):
        data["model"] = _absolute(pool.model)
    data["accelerator"] = _absolute(pool.accelerator) if is_profile_file(pool.accelerator or "") else accelerator.name
    if pool.node is not None and is_profile_file(pool.node):
        data["node"] = _absolute(pool.node)
    data["cost"]["kind"] = _cost_kind(pool, accelerator, index)
    if pool.cost.profile is not None:
        data["cost"]["profile"] = [name if is_package_name(name) else _absolute(name) for name in pool.cost.profile]
    data["parallel"] = _full_parallel(pool, engine, plan, index)
    data["experts"]["placement"] = _full_policy("parallelism", data["experts"]["placement"])
    data["engine"] = {key: value for key, value in {**data["engine"], **limits}.items() if value is not None}
    data["engine"]["args"] = {}
    if engine is not None:
        data["engine"]["version"] = engine.version
    data["batching"] = _full_policy("batching", batching)
    data["queueing"] = _full_policy(
        "queueing", {**(data.get("queueing") or {}), "name": _queueing(pool, batching, index)}
    )
    data["kv_eviction"] = _full_policy("kv_eviction", data["kv_eviction"])
    if pool.kv_tiers is not None:
        for tier in data["kv_tiers"]["tiers"]:
            tier["eviction"] = _full_policy("kv_eviction", tier["eviction"])
    if pool.kv_budget is not None:
        data["kv_budget"] = _full_policy("kv_budget", data["kv_budget"])
    data["dtypes"].setdefault("kv", model.base_dtype)
    if plan.dp > 1:
        notes.append(f"attention data parallel ranks count as replicas of their own in tables: {plan.dp} to a replica")
        if node is None and plan.tp * plan.dp > _SERVER_GPUS:
            notes.append(
                f"no node is named: all {plan.gpus} GPUs of a replica are taken as joined like those of a node"
            )
    if engine is not None and batching["name"] != engine.policy:
        other = batching["name"]
        notes.append(f"engine {engine.label} with the policy {other!r} in place of its own {engine.policy!r}")
    if plan.tp > 1:
        from simulator.network.slow_links import slow_link_note

        slow = slow_link_note(pool.name, accelerator, node, plan)
        notes += [] if slow is None else [slow]
    return ResolvedPool(
        pool=Pool.model_validate(data),
        model=model,
        accelerator=accelerator,
        node=node,
        engine=engine,
        plan=plan,
        memory=memory,
        notes=tuple(notes),
        kv_budget=budget,
        offload=offload,
    )


def _defaults(engine: Engine | None, accelerator: Accelerator, plan: ParallelPlan) -> EngineDefaults:
    """Return the limits of an engine, of one attention data parallel rank where there are several."""
    if engine is None:
        return EngineDefaults({})
    if plan.dp > 1 and engine.data_parallel is not None:
        return engine.data_parallel(accelerator, plan.tp * plan.dp, plan.dp)
    return engine.defaults(accelerator, plan.tp, plan.pp)


def _full_parallel(pool: Pool, engine: Engine | None, plan: ParallelPlan, index: int) -> dict[str, Any]:
    """Return the parallel layout with everything written out, ranks counted beside ``tp``."""
    data = pool.parallel.model_dump(mode="json", exclude_none=True, exclude={"attention_dp", "balancing"})
    data |= {"tp": plan.tp, "ep": plan.ep, "dp": plan.dp}
    own = pool.parallel.balancing
    if plan.dp > 1:
        ref = {"name": "round-robin" if engine is None else engine.balancing} if own is None else own.model_dump()
        data["balancing"] = _full_policy("balancing", ref)
    elif pool.parallel.prefill_balance is not None:
        raise InputError(
            f"cluster.pools.{index}.parallel.prefill_balance: holds prompts back for other attention data parallel "
            "ranks, and there is one; leave it out, or set dp"
        )
    elif own is not None:
        raise InputError(
            f"cluster.pools.{index}.parallel.balancing: chooses between attention data parallel ranks, and there is "
            "one; leave it out, or set dp"
        )
    return data


def _cost_kind(pool: Pool, accelerator: Accelerator, index: int) -> str:
    """Return where the costs come from, ``auto`` decided."""
    if pool.cost.kind == "auto":
        return "fitted" if accelerator.name in list_fits() else "roofline"
    if pool.cost.kind == "fitted" and accelerator.name not in list_fits():
        raise InputError(
            f"cluster.pools.{index}.cost: {accelerator.name} has no fits (those with: {', '.join(list_fits())}); use "
            "'roofline', 'measured' or 'auto'"
        )
    return pool.cost.kind


def _with_args(pool: Pool, index: int) -> Pool:
    """Write an engine's own flags as the keys that they are names of."""
    if not pool.engine.args:
        return pool
    data = pool.model_dump(mode="json", by_alias=True, exclude_unset=True)
    from simulator.engine_args import expand_args

    expand_args(data, index)
    return Scenario.from_mapping({"cluster": {"pools": [data]}}).cluster.pools[0]


def _accelerator(pool: Pool, node: NodeType | None, index: int) -> Accelerator:
    if pool.accelerator is None:
        return load_accelerator(DEFAULT_ACCELERATOR if node is None else node.accelerator)
    accelerator = load_accelerator(pool.accelerator)
    if node is not None and load_accelerator(node.accelerator).name != accelerator.name:
        raise InputError(
            f"cluster.pools.{index}: node {node.name} has GPUs of the type {node.accelerator}, not "
            f"{accelerator.name}; leave 'accelerator' out, or choose another node"
        )
    return accelerator


def _batching(pool: Pool, engine: Engine | None, defaults: EngineDefaults) -> dict[str, Any]:
    """Return the batching policy's name and parameters."""
    own = DEFAULT_POLICY if engine is None else engine.policy
    name = own if pool.batching is None else pool.batching.name
    params = {} if pool.batching is None else dict(pool.batching.params)
    if (
        pool.queueing is not None
        and pool.queueing.name == "priority"
        and "priority_preemption" in {f.name for f in fields(registry.resolve("batching", name))}
    ):
        params.setdefault("priority_preemption", True)  # an engine's queue by priority means this too
    return {"name": name, "params": {**defaults.policy_params, **params} if name == own else params}


def _queueing(pool: Pool, batching: Mapping[str, Any], index: int) -> str:
    """Return the queueing policy: the scenario's, else the batching policy's, which its parameters may decide."""
    policy = registry.make("batching", batching["name"], batching["params"])
    assert isinstance(policy, BatchingPolicy)
    if pool.queueing is None:
        return policy.queueing
    if policy.queueing not in (type(policy).queueing, pool.queueing.name):
        raise InputError(
            f"cluster.pools.{index}.queueing: batching policy {policy.name!r} with these parameters needs the queueing "
            f"policy {policy.queueing!r}, got {pool.queueing.name!r}; leave 'queueing' out, or change the parameters"
        )
    return pool.queueing.name


def _limits(pool: Pool, engine: Engine | None, defaults: EngineDefaults, batching: Mapping[str, Any]) -> dict[str, Any]:
    """Return the engine limits: the scenario's, else the engine's or (without one) the policy's, else general ones."""
    policy = registry.resolve("batching", batching["name"])
    assert issubclass(policy, BatchingPolicy)
    swaps = batching["params"].get("preemption_mode") == "swap"
    general = {
        "max_num_seqs": 256,
        "max_num_batched_tokens": 2048,
        "max_model_len": None,
        "block_size": DEFAULT_BLOCK_SIZE,
        "gpu_memory_utilization": DEFAULT_GPU_MEMORY_UTILIZATION,
        "num_kv_blocks": None,
        "prefix_caching": True,
        "swap_space_gib": DEFAULT_SWAP_SPACE_GIB if swaps else 0.0,
        "async_scheduling": False,
        "cuda_graph_sizes": (),
        "cuda_graph_steps": "all",
        "host_overhead_s": DEFAULT_HOST_OVERHEAD_S,
    }
    own = defaults.limits if engine is not None else policy.defaults
    for key in own:
        if key not in general:
            whose = f"batching policy {policy.name!r}" if engine is None else f"engine {engine.label}"
            raise InputError(f"the defaults of {whose} have an unknown limit {key!r}{did_you_mean(key, general)}")
    limits = {**general, **own}
    if pool.cost.kind == "constant":
        limits["host_overhead_s"] = None  # part of the constant
    given = {key: getattr(pool.engine, key) for key in general}
    limits.update({key: value for key, value in given.items() if value is not None})
    if engine is not None and pool.engine.cuda_graph_sizes is None:
        limits["cuda_graph_sizes"] = engine.cuda_graph_sizes(limits["max_num_seqs"])
    return limits


def _plan_memory(
    pool: Pool,
    engine: Engine | None,
    model: ModelSpec,
    accelerator: Accelerator,
    plan: ParallelPlan,
    limits: Mapping[str, Any],
    budget: KVBudget | None,
) -> MemoryPlan:
    kind = "profiled" if engine is None else engine.kv_memory
    fraction: float = limits["gpu_memory_utilization"]
    profiled = kind == "profiled"
    terms: Mapping[str, Any] = {}
    if budget is not None:
        from simulator.kv_budget import memory_terms

        terms = memory_terms(budget, model, pool.dtypes.kv)
    planned = partial(
        plan_memory,
        model,
        accelerator,
        plan,
        block_size=limits["block_size"],
        weights_dtype=pool.dtypes.weights,
        kv_dtype=pool.dtypes.kv,
        gpu_memory_utilization=fraction if profiled else 1.0,
        max_num_batched_tokens=limits["max_num_batched_tokens"],
        max_num_seqs=limits["max_num_seqs"],
        sampled_seqs=None if profiled else 1,  # only vLLM's profiling run samples for every request that may run
        num_kv_blocks=limits["num_kv_blocks"],
        **terms,
    )
    try:
        memory = planned()
    except InputError:
        memory = planned(larger=[load_accelerator(name) for name in list_accelerators()])  # to say what would fit
    if profiled or memory.given_blocks:
        return memory
    if kind == "static":
        kv_bytes = math.ceil(memory.total * fraction) - memory.weights
    else:
        kv_bytes = int(memory.kv_bytes * fraction)
    blocks = (kv_bytes - memory.kv_window_bytes) // (memory.kv_bytes_per_token * memory.block_size)
    if blocks < 1:
        raise MemoryTooSmallError(
            f"{model.name} does not fit on {accelerator.name} with {memory.layout}: the weights leave no "
            f"room for KV in {fraction:.1%} of {memory.total / 1e9:.1f} GB; use more ranks or a larger share"
        )
    reserve = memory.total - memory.needed - kv_bytes
    return replace(memory, reserve=reserve, kv_bytes=kv_bytes, num_kv_blocks=blocks)


def _max_model_len(
    given: int | None, model: ModelSpec, memory: MemoryPlan, batching: Mapping[str, Any], index: int
) -> int:
    """Return the longest context, so that a request alone can always run to its end."""
    policy = registry.make("batching", batching["name"], batching["params"])
    watermark = getattr(policy, "watermark", 0.0)
    usable = memory.num_kv_blocks - int(watermark * memory.num_kv_blocks)
    holds = usable * memory.block_size
    if given is None:
        return max(1, min(model.max_context_tokens, holds))
    where = f"cluster.pools.{index}.engine.max_model_len"
    if given > model.max_context_tokens:
        raise InputError(
            f"{where} = {given} is beyond the {model.max_context_tokens} tokens of {model.name}'s context; lower it, "
            "or leave it to auto"
        )
    if given > holds:
        raise InputError(
            f"{where} = {given} needs more KV memory than the {holds} tokens that one replica holds; lower it, leave "
            "it to auto, or use more GPUs a replica"
        )
    return given


def _full_policy(kind: str, ref: Mapping[str, Any]) -> dict[str, Any]:
    """Return a policy's name and all of its parameters, defaults written out."""
    policy = registry.make(kind, ref["name"], ref.get("params") or {})
    name = ref["name"]
    if is_policy_file(name):
        path, colon, cls = name.rpartition(":")
        name = f"{_absolute(path)}{colon}{cls}"
    return {"name": name, "params": {f.name: getattr(policy, f.name) for f in fields(policy)}}


def _with_objectives(ref: dict[str, Any], kind: str, key: str, scenario: Scenario, notes: list[str]) -> dict[str, Any]:
    """Return a policy, all parameters written out, with the scenario's objectives where its own are left out.

    Raises
    ------
    InputError
        If it has parameters for objectives, and there is none for any of them.
    """
    params, taken = dict(ref["params"]), []
    parameters = fields(registry.resolve(kind, ref["name"]))
    wanted: dict[str, str] = {f.name: said for f in parameters if (said := f.metadata.get("objective"))}
    for name, objective in wanted.items():
        value = getattr(scenario.objectives, objective)
        if params[name] is None and value is not None:
            params[name] = value
            taken.append(f"{objective} = {value:g} s")
    if wanted and all(params[name] is None for name in wanted):
        own = " or ".join(f"{key}.params.{name}" for name in wanted)
        general = " or ".join(
            f"objectives.{objective} (--{objective.removesuffix('_s')})" for objective in wanted.values()
        )
        besides = "; those of classes don't count here" if scenario.objectives.classes else ""
        raise InputError(f"{key}: {ref['name']!r} needs an objective: set {general}, or {own}{besides}")
    if taken:
        besides = ", for every class" if scenario.objectives.classes else ""
        notes.append(f"{key} {ref['name']!r} goes by the scenario's objectives{besides}: {', '.join(taken)}")
    return {**ref, "params": params}


def _absolute(path: str | None) -> str:
    return str(Path(path or "").expanduser().resolve())


def limit_lines(pools: Sequence[ResolvedPool]) -> list[tuple[str, str]]:
    """Return what was decided, as short lines for people: a label and what it says."""
    lines = []
    for each in pools:
        pool, memory, limits = each.pool, each.memory, each.pool.engine
        name = f" of {pool.name}" if len(pools) > 1 else ""
        scales = each.max_replicas > pool.replicas or (pool.min_replicas or 1) < pool.replicas
        many = f"{pool.replicas} replica{'s' * (pool.replicas > 1)}"
        if pool.max_replicas is not None and scales:
            fewest = 1 if pool.min_replicas is None else pool.min_replicas
            many = f"{fewest} to {pool.max_replicas} replicas, {pool.replicas} at first"
        layout = f"{many}, tp {each.plan.tp}, pp {each.plan.pp}"
        if each.plan.cp > 1:
            layout += f", cp {each.plan.cp} ({each.plan.context})"
        if each.plan.dp > 1:
            layout += f", attention dp {each.plan.dp}, ep {each.plan.ep}"
        node = "" if each.node is None else f" in {each.node.name}"
        lines.append(
            (f"GPUs{name}", f"{each.max_replicas * each.plan.gpus} x {each.accelerator.name}{node} ({layout})")
        )
        assert pool.batching is not None and pool.queueing is not None
        engine = "" if each.engine is None else f"{each.engine.label}, "
        lines.append((f"Policy{name}", f"{engine}{_told(pool.batching)}, queue {_told(pool.queueing)}"))
        caching = f"on ({_told(pool.kv_eviction)})" if limits.prefix_caching else "off"
        lines.append(
            (
                f"Limits{name}",
                f"max_num_seqs {limits.max_num_seqs}, max_num_batched_tokens {limits.max_num_batched_tokens}, "
                f"max_model_len {limits.max_model_len}, prefix caching {caching}",
            )
        )
        if pool.kv_budget is not None:
            lines.append((f"KV budget{name}", _told(pool.kv_budget)))
        if pool.kv_tiers is not None:
            tiers = [f"{tier.tier} {tier.capacity_gib:g} GiB ({tier.write})" for tier in pool.kv_tiers.tiers]
            lines.append((f"KV tiers{name}", f"{', '.join(tiers)}; {pool.kv_tiers.load_or_recompute}"))
        lines.append((f"Memory{name}", memory_line(memory)))
    return lines


def memory_line(memory: MemoryPlan) -> str:
    """Return a memory plan in one line."""
    blocks = f"{memory.num_kv_blocks} blocks of {memory.block_size} = {memory.kv_tokens:,} tokens"
    if memory.given_blocks:
        return f"KV {blocks}, as given"
    unused = memory.budget - memory.needed - memory.kv_bytes  # where another tier than the GPU is full first
    free = f"free {unused / 1e9:.1f}, " if unused >= 0.05e9 else ""
    other = memory.needed - memory.weights
    return (
        f"{memory.total / 1e9:.1f} GB a GPU: weights {memory.weights / 1e9:.1f}, KV {memory.kv_bytes / 1e9:.1f}, "
        f"other {other / 1e9:.1f}, {free}left alone {memory.reserve / 1e9:.1f}; {blocks} of KV"
    )


def _told(ref: Any) -> str:
    policy = registry.resolve(ref.kind, ref.name)
    changed = [
        f"{f.name}={ref.params[f.name]}"
        for f in fields(policy)
        if f.name in ref.params and ref.params[f.name] != f.default
    ]
    return f"{ref.name} ({', '.join(changed)})" if changed else str(ref.name)


__all__ = ["Resolved", "ResolvedPool", "limit_lines", "policy_maker", "resolve"]

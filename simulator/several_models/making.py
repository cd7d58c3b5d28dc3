"""Which pools serve which model, and what can't be with several: from a scenario and its trace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from policies import registry
from policies.protocols import RoutingPolicy
from simulator.errors import InputError, did_you_mean
from simulator.models import load_model, weight_bytes
from simulator.network.placement import made_up_node
from simulator.rng import MODEL_ROUTER, stream
from simulator.several_models.routing import ModelRoutingFeature
from simulator.several_models.swapping import ModelSwapFeature, SwappedPool

if TYPE_CHECKING:
    from simulator.resolve import Resolved, ResolvedPool
    from simulator.scenario_model_swap import ModelSwap
    from workloads import Trace


def make_routing(resolved: Resolved, trace: Trace) -> ModelRoutingFeature:
    """Return the routing by model of a scenario whose pools serve others than its own.

    Raises
    ------
    InputError
        For what isn't modelled with several models, or names that mean nothing.
    """
    _refuse(resolved)
    scenario = resolved.scenario
    replicas, codes, asked = _served(resolved, trace)
    models = list(replicas)
    if not np.any(codes >= 0) and len(codes):
        raise InputError(_nobody(resolved, trace, models))
    default = models.index(resolved.model.name) if resolved.model.name in models else 0
    routers: list[tuple[RoutingPolicy, np.random.Generator] | None] = []
    for index, model in enumerate(models):
        router = registry.make("routing", scenario.router.name, scenario.router.params)
        assert isinstance(router, RoutingPolicy)
        own = router, stream(scenario.seed, f"{MODEL_ROUTER}.{model}")
        routers.append(None if index == default else own)
    return ModelRoutingFeature(models, list(replicas.values()), codes.tolist(), lambda row: asked[row], routers)


def make_swapping(resolved: Resolved, trace: Trace) -> ModelSwapFeature:
    """Return the swapping of models of a scenario that has it.

    Raises
    ------
    InputError
        If pools can't share their GPUs, or for what isn't modelled with it.
    """
    part = resolved.scenario.cluster.model_swap
    assert part is not None
    _check_swap(resolved, part)
    pools, first = [], 0
    for each in resolved.pools:
        pool = each.pool
        if pool.name in part.pools:
            weights = weight_bytes(each.model, pool.dtypes.weights) * each.plan.cp
            most = pool.engine.max_num_seqs
            assert most is not None
            replicas = range(first, first + each.max_replicas)
            pools.append(SwappedPool(pool.name, each.model.name, replicas, weights, most))
        first += each.max_replicas
    pools.sort(key=lambda pool: part.pools.index(pool.name))
    of_model, codes, _ = _served(resolved, trace)
    pool_of = {pool.model: index for index, pool in enumerate(pools)}
    pool_codes = np.array([*(pool_of.get(model, -1) for model in of_model), -1], dtype=np.int64)[codes]
    return ModelSwapFeature(part, pools, pool_codes.tolist())


def _check_swap(resolved: Resolved, part: ModelSwap) -> None:
    """Refuse pools that can't be the same GPUs, and what isn't modelled with models that are swapped."""
    where, by_name = "cluster.model_swap", {each.pool.name: each for each in resolved.pools}
    for name in part.pools:
        if name not in by_name:
            raise InputError(f"{where}.pools: there is no pool {name!r}{did_you_mean(name, by_name)}")
    cluster = resolved.scenario.cluster
    for key, given in (
        ("cluster.rescheduler", cluster.rescheduler is not None),
        ("faults", resolved.scenario.faults is not None),
    ):
        if given:
            raise InputError(f"{key}: not modelled with {where}; leave one of them out")
    if len({each.model for each in resolved.pools}) == 1:
        raise InputError(f"{where}.pools: all pools serve {resolved.pools[0].model.name}; give one another 'model'")
    sharing = [by_name[name] for name in part.pools]
    first = sharing[0]
    for each in sharing[1:]:
        for what, its, others in (
            ("accelerator", each.accelerator.name, first.accelerator.name),
            ("node", each.pool.node, first.pool.node),
            ("number of replicas", each.pool.replicas, first.pool.replicas),
            ("number of GPUs a replica", each.plan.gpus, first.plan.gpus),
            ("price_per_gpu_hour", each.pool.price_per_gpu_hour, first.pool.price_per_gpu_hour),
        ):
            if its != others:
                raise InputError(
                    f"{where}.pools: {first.pool.name!r} and {each.pool.name!r} are to share GPUs but differ in "
                    f"their {what}: {others} and {its}; make them equal"
                )
    models = [each.model.name for each in sharing]
    for each in sharing:
        if models.count(each.model.name) > 1:
            raise InputError(f"{where}.pools: two pools serve {each.model.name}; leave one of them out")
        if each.pool.offload is not None:
            raise InputError(
                f"{where}.pools: offloading (pool {each.pool.name!r}) is not modelled with it; leave it out"
            )
    _check_host_memory(part, sharing)


def _check_host_memory(part: ModelSwap, pools: Sequence[ResolvedPool]) -> None:
    """Refuse weights that the host memory of a node can't keep, each model's once."""
    if part.weights == "storage":
        return
    first = pools[0]
    node = first.node or made_up_node(first.accelerator, first.plan)
    nodes = -(-first.plan.gpus // node.gpus)
    needed = sum(weight_bytes(each.model, each.pool.dtypes.weights) for each in pools)
    if needed > nodes * node.host_memory_bytes:
        raise InputError(
            f"cluster.model_swap.weights: {part.weights!r} keeps the weights of {len(pools)} models in host memory, "
            f"{needed / 2**30:.0f} GiB, and {nodes} x {node.name} have {nodes * node.host_memory_bytes / 2**30:.0f} "
            "GiB; set it to 'storage'"
        )


def _served(resolved: Resolved, trace: Trace) -> tuple[dict[str, list[int]], npt.NDArray[np.int64], list[str]]:
    """Return the replicas of each model; of each row the index of its model, -1 where nobody serves it; its name."""
    replicas: dict[str, list[int]] = {}
    names: dict[str, str] = {}
    first = 0
    for each in resolved.pools:
        number = each.max_replicas * each.plan.dp
        replicas.setdefault(each.model.name, []).extend(range(first, first + number))
        names[each.pool.model or resolved.scenario.model] = names[each.model.name] = each.model.name
        first += number
    return replicas, *_codes(resolved, trace, names, list(replicas))


def _codes(
    resolved: Resolved, trace: Trace, names: dict[str, str], models: list[str]
) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Return the index of each row's model, -1 where nobody serves it, and what each row asks for."""
    scenario = resolved.scenario
    mapping = {}
    for asked, served in scenario.workload.models.items():
        found = names.get(served) or names.get(load_model(served).name)
        if found is None:
            raise InputError(
                f"workload.models.{asked}: no pool serves {served!r}{did_you_mean(served, models)}; name it in "
                "cluster.pools, key 'model'"
            )
        mapping[asked] = found
    own = models.index(resolved.model.name) if resolved.model.name in models else -1
    if trace.model is None:
        return np.full(len(trace), own, np.int64), [resolved.model.name] * len(trace)
    column = trace.model
    code_of = {model: index for index, model in enumerate(models)}
    by_name = [code_of.get(mapping.get(name, names.get(name, "")), -1) for name in column.names]
    codes = np.array([*by_name, own], dtype=np.int64)[column.codes]  # the last is that of rows without one, code -1
    return codes, [text or resolved.model.name for text in column.texts()]


def _nobody(resolved: Resolved, trace: Trace, models: list[str]) -> str:
    served = ", ".join(models)
    if trace.model is None:
        return (
            f"no pool serves {resolved.model.name}, the scenario's 'model', which the trace's requests ask for as they "
            f"name none; pools serve: {served}"
        )
    return (
        f"no pool serves any model of the trace ({', '.join(trace.model.names[:5])}); pools serve: {served}. "
        "'workload.models' says which model serves which name"
    )


def _refuse(resolved: Resolved) -> None:
    """Refuse what would be wrong with several models."""
    if len({each.model.name for each in resolved.pools}) != len({each.model for each in resolved.pools}):
        raise InputError("cluster.pools: two models have the same name; rename one's file")
    scenario = resolved.scenario
    for index, each in enumerate(resolved.pools):
        if each.plan.dp > 1:
            raise InputError(
                f"cluster.pools.{index}.parallel: attention data parallel ranks (dp={each.plan.dp}) are not modelled "
                "beside pools of other models; use dp=1"
            )
        if each.pool.kv_tiers is not None:
            raise InputError(f"cluster.pools.{index}.kv_tiers: not modelled with pools of several models; leave it out")
    for key, given in (
        ("disaggregation", scenario.disaggregation is not None),
        ("cluster.scaler", scenario.cluster.scaler is not None),
    ):
        if given:
            raise InputError(f"{key}: not modelled with pools of several models; leave it out")


__all__ = ["make_routing", "make_swapping"]

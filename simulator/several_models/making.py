"""Which pools serve which model, and what can't be with several: from a scenario and its trace."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from policies import registry
from policies.protocols import RoutingPolicy
from simulator.errors import InputError, did_you_mean
from simulator.models import load_model
from simulator.rng import MODEL_ROUTER, stream
from simulator.several_models.routing import ModelRoutingFeature

if TYPE_CHECKING:
    from simulator.resolve import Resolved
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
    replicas: dict[str, list[int]] = {}
    names: dict[str, str] = {}
    first = 0
    for each in resolved.pools:
        number = each.max_replicas * each.plan.dp
        replicas.setdefault(each.model.name, []).extend(range(first, first + number))
        names[each.pool.model or scenario.model] = names[each.model.name] = each.model.name
        first += number
    models = list(replicas)
    codes, asked = _codes(resolved, trace, names, models)
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


def _codes(
    resolved: Resolved, trace: Trace, names: dict[str, str], models: list[str]
) -> tuple[np.ndarray[tuple[int], np.dtype[np.int64]], list[str]]:
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


__all__ = ["make_routing"]

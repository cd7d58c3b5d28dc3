"""The scaling of a scenario: what can't be, and the feature made from its parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies import registry
from policies.protocols import ScalingPolicy
from simulator.errors import InputError
from simulator.models import weight_bytes
from simulator.scaling.feature import ScaledPool, ScalingFeature

if TYPE_CHECKING:
    from simulator.resolve import Resolved


def make_scaling(resolved: Resolved) -> ScalingFeature:
    """Return the feature of a resolved scenario that has a scaler.

    Raises
    ------
    InputError
        If a pool that is to scale can't.
    """
    cluster = resolved.scenario.cluster
    ref = cluster.scaler
    assert ref is not None
    if resolved.scenario.disaggregation is not None:
        raise InputError("cluster.scaler: not modelled with disaggregated pools; leave the scaler out")
    pools, first = [], 0
    for index, each in enumerate(resolved.pools):
        pool = each.pool
        replicas = range(first, first + each.max_replicas * each.plan.dp)
        first = replicas.stop
        if pool.max_replicas is None:
            continue
        if each.plan.dp > 1:
            raise InputError(
                f"cluster.pools.{index}.max_replicas: scaling is not modelled with attention data parallel ranks "
                f"(dp={each.plan.dp}); leave one of them out"
            )
        policy = registry.make("scaling", ref.name, ref.params)
        assert isinstance(policy, ScalingPolicy)
        fewest = 1 if pool.min_replicas is None else pool.min_replicas
        weights = weight_bytes(each.model, pool.dtypes.weights) * each.plan.cp
        pools.append(ScaledPool(pool.name, replicas, pool.replicas, fewest, policy, weights))
    return ScalingFeature(pools, cluster.start_up, requeues=cluster.drain == "requeue")


__all__ = ["make_scaling"]

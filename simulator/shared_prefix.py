"""Shared-prefix attention in a scenario: what it needs, its cost model, and what a result says of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from simulator.errors import InputError

if TYPE_CHECKING:
    from simulator.cost.shape import CostModel
    from simulator.engine.cluster import Cluster
    from simulator.models.spec import ModelSpec
    from simulator.resolve import ResolvedPool
    from simulator.scenario import Pool


def check_shared_prefix(pool: Pool, limits: Mapping[str, Any], model: ModelSpec, where: str) -> None:
    """Raise unless a pool can have the shared-prefix attention that it asks for.

    Raises
    ------
    InputError
        What stands against it, and what would be right.
    """
    kind = pool.engine.shared_prefix_attention
    if kind is None:
        return
    where = f"{where}.engine.shared_prefix_attention: {kind!r}"
    if not limits["prefix_caching"]:
        raise InputError(f"{where} needs prefixes that requests share; set engine.prefix_caching to true")
    if pool.cost.kind == "constant":
        raise InputError(
            f"{where} changes nothing where every step takes the same time; use another cost than constant"
        )
    if pool.parallel.cp > 1:
        raise InputError(f"{where} is not modelled with context parallelism (cp={pool.parallel.cp}); leave one out")
    if model.mla is not None:
        raise InputError(
            f"{where} is modelled for multi-head and grouped-query attention, and {model.name} has latent attention "
            "(MLA), whose heads share what they read already; leave it out"
        )


def with_shared_prefixes(base: CostModel, each: ResolvedPool, model: ModelSpec) -> CostModel:
    """Return the cost model of a pool with shared-prefix attention.

    The shared part's times come from the same kernels as the rest; where those can't be had apart (a layer profile),
    from the accelerator's fits, else its data sheet.
    """
    from simulator.cost.fitted_kernels import unmeasured
    from simulator.cost.operator_cost import OperatorCost
    from simulator.cost.roofline import kernel_shapes
    from simulator.cost.shared_prefix import shared_prefix_cost

    if isinstance(base, OperatorCost):
        return shared_prefix_cost(base, base.operators.shapes, base.operators.kernels)
    dtypes = each.pool.dtypes
    shapes = kernel_shapes(
        model,
        each.accelerator,
        each.plan,
        weights_dtype=dtypes.weights,
        activation_dtype=dtypes.activations,
        kv_dtype=dtypes.kv,
        node=each.node,
    )
    return shared_prefix_cost(base, shapes, unmeasured(shapes))


def describe_shared_prefixes(cluster: Cluster) -> dict[str, Any]:
    """Return what the decodes of a run shared, for its summary; some pool shares prefixes.

    ``attended_tokens``: tokens of KV that decodes attended to, summed over steps. ``shared_attended_tokens``: of them,
    those in prefixes that were attended to together. ``shared_read_tokens``: how many were read from memory for those.
    ``read_share``: KV reads as a share of what reads for each decode alone would have been.
    """
    from simulator.engine.shared_prefix import SharingDecodeGroup

    groups = [
        lane.group
        for replica in cluster.replicas
        for lane in replica.lanes
        if isinstance(lane.group, SharingDecodeGroup)
    ]
    attended = sum(group.attended_tokens for group in groups)
    shared = sum(group.shared_attended_tokens for group in groups)
    read = sum(group.shared_read_tokens for group in groups)
    return {
        "attended_tokens": attended,
        "shared_attended_tokens": shared,
        "shared_read_tokens": read,
        "read_share": (attended - shared + read) / attended if attended else None,
    }

"""From the scenario to the feature."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator.faults.feature import FaultsFeature
from simulator.models import weight_bytes

if TYPE_CHECKING:
    from simulator.resolve import Resolved


def make_faults(resolved: Resolved) -> FaultsFeature:
    """Return the faults of a scenario.

    A replica of the cluster loads the whole model's weights once when it starts, or its share of them where it is one
    of several attention data parallel ranks. Copies that its GPUs hold of the same weights are not loaded twice.
    """
    part = resolved.scenario.faults
    assert part is not None
    sizes = [
        -(-weight_bytes(resolved.model, each.pool.dtypes.weights) // each.plan.dp)
        for each in resolved.pools
        for _ in range(each.max_replicas * each.plan.dp)
    ]
    return FaultsFeature(part, resolved.scenario.seed, sizes)


__all__ = ["make_faults"]

"""From the scenario to the feature."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator.errors import InputError
from simulator.faults.feature import FaultsFeature
from simulator.models import weight_bytes
from simulator.scenario_faults import MTBF_H

if TYPE_CHECKING:
    from simulator.resolve import Resolved
    from simulator.scenario_faults import Faults

_MOST_RESTARTS = 10.0
"""Mean times between failures in a restart: one in e^10 = 22,000 restarts gets through, and a run would hardly end."""


def make_faults(resolved: Resolved) -> FaultsFeature:
    """Return the faults of a scenario.

    A replica of the cluster loads the whole model's weights once when it starts, or its share of them where it is one
    of several attention data parallel ranks. Copies that its GPUs hold of the same weights are not loaded twice.
    """
    part = resolved.scenario.faults
    assert part is not None
    _check_restarts(part, resolved)
    sizes = [
        -(-weight_bytes(each.model, each.pool.dtypes.weights) // each.plan.dp)
        for each in resolved.pools
        for _ in range(each.max_replicas * each.plan.dp)
    ]
    return FaultsFeature(part, resolved.scenario.seed, sizes)


def _check_restarts(part: Faults, resolved: Resolved) -> None:
    """Refuse failures that come so often that replicas fail again before they have started."""
    for name in ("gpu", "node", "process"):
        kind = getattr(part.random, name)
        if kind is None:
            continue
        mtbf_s = (MTBF_H[name] if kind.mtbf_h is None else kind.mtbf_h) * 3600
        for each in resolved.pools:
            of_replica_s = mtbf_s / (each.plan.gpus if name == "gpu" else 1)
            if part.restart.init_s > _MOST_RESTARTS * of_replica_s:
                raise InputError(
                    f"faults.random.{name}.mtbf_h: a replica of pool {each.pool.name!r} would fail every "
                    f"{of_replica_s:.3g} s on the mean, and starting it takes restart.init_s = "
                    f"{part.restart.init_s:g} s, so it would hardly be up; set 'mtbf_h' larger, or 'init_s' smaller"
                )


__all__ = ["make_faults"]

"""What a cluster does with requests beyond serving them where they were sent: made from the parts of a scenario.

Each feature is a package of its own under `simulator` and says what it did in a section of the summary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simulator.engine.control import Feature
    from simulator.engine.replica import ReplicaConfig
    from simulator.resolve import Resolved

SECTIONS = ("disaggregation", "rescheduling", "scaling", "admission", "clients", "faults", "kv_tiers")
"""Sections of the summary that features fill; null in a run without the feature."""


def make_features(resolved: Resolved, configs: Sequence[ReplicaConfig]) -> list[Feature]:
    """Return the features that a scenario asks for, in the order in which they see a request.

    Parameters
    ----------
    configs
        Of each replica, in the order of the pools.
    """
    features: list[Feature] = []
    if resolved.scenario.disaggregation is not None:
        from simulator.disaggregation.making import make_disaggregation

        features.append(make_disaggregation(resolved))
    if resolved.scenario.cluster.rescheduler is not None:
        from simulator.rescheduling.making import make_rescheduling

        features.append(make_rescheduling(resolved))
    if resolved.scenario.cluster.scaler is not None:
        from simulator.scaling.making import make_scaling

        features.append(make_scaling(resolved))
    return features

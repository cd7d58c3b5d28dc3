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
    from workloads import Trace

SECTIONS = (
    "disaggregation",
    "rescheduling",
    "scaling",
    "admission",
    "clients",
    "faults",
    "kv_tiers",
    "swap_links",
    "models",
    "model_swap",
)
"""Sections of the summary that features fill; null in a run without the feature."""


def has_several_models(resolved: Resolved) -> bool:
    """Tell whether requests ask for models by name: pools serve others than the scenario's, or names are given."""
    others = any(each.model != resolved.model for each in resolved.pools)
    return others or bool(resolved.scenario.workload.models)


def make_features(resolved: Resolved, configs: Sequence[ReplicaConfig], trace: Trace) -> list[Feature]:
    """Return the features that a scenario asks for, in the order in which they see a request.

    Parameters
    ----------
    configs
        Of each replica, in the order of the pools.
    trace
        The requests.
    """
    scenario = resolved.scenario
    features: list[Feature] = []
    if has_several_models(resolved):
        from simulator.several_models.making import make_routing

        features.append(make_routing(resolved, trace))
    if scenario.cluster.model_swap is not None:
        from simulator.several_models.making import make_swapping

        features.append(make_swapping(resolved, trace))
    if scenario.admission is not None:
        from simulator.admission.making import make_admission

        features.append(make_admission(scenario.admission, scenario.seed))
    if scenario.clients is not None:
        from simulator.clients import ClientsFeature

        deadlines_s = trace.deadline_s if scenario.clients.deadlines else None
        features.append(ClientsFeature(scenario.clients, scenario.seed, deadlines_s))
    if resolved.scenario.disaggregation is not None:
        from simulator.disaggregation.making import make_disaggregation

        features.append(make_disaggregation(resolved))
    if resolved.scenario.cluster.rescheduler is not None:
        from simulator.rescheduling.making import make_rescheduling

        features.append(make_rescheduling(resolved))
    if resolved.scenario.cluster.scaler is not None:
        from simulator.scaling.making import make_scaling

        features.append(make_scaling(resolved))
    if scenario.faults is not None:
        from simulator.faults.making import make_faults

        features.append(make_faults(resolved))
    if any(each.pool.kv_tiers is not None for each in resolved.pools):
        from simulator.kv_tiers.making import make_kv_tiers

        features.append(make_kv_tiers(resolved))
    if any(each.pool.swap.over == "links" for each in resolved.pools):
        from simulator.swap_links import make_swap_links

        swap_links = make_swap_links(resolved, configs)
        if swap_links is not None:
            features.append(swap_links)
    return features

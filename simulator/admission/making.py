"""From the scenario to the feature."""

from __future__ import annotations

from policies import registry
from policies.protocols import AdmissionPolicy
from simulator.admission.feature import AdmissionFeature
from simulator.rng import ADMISSION, stream
from simulator.scenario_admission import AdmissionRef


def make_admission(ref: AdmissionRef, seed: int) -> AdmissionFeature:
    """Return admission control by a policy."""
    policy = registry.make("admission", ref.name, ref.params)
    assert isinstance(policy, AdmissionPolicy)
    return AdmissionFeature(policy, stream(seed, ADMISSION))


__all__ = ["make_admission"]

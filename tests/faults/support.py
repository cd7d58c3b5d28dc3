"""Small clusters with faults, clients and admission control, built without a scenario."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from policies import registry
from simulator.admission import AdmissionFeature
from simulator.clients import ClientsFeature
from simulator.engine.cluster import Cluster
from simulator.engine.control import Feature
from simulator.faults import FaultsFeature
from simulator.scenario_clients import Clients
from simulator.scenario_faults import Faults
from tests.engine.support import Request, simulate

AT_ONCE = {"weights": "none", "init_s": 0.0}


def features(
    *,
    faults: Any = None,
    clients: dict[str, Any] | None = None,
    admission: str | None = None,
    params: dict[str, Any] | None = None,
    deadlines_s: Sequence[float] | None = None,
    seed: int = 0,
) -> list[Feature]:
    """Return the features of these parts, in the order of `simulator.features`."""
    found: list[Feature] = []
    if admission is not None:
        found.append(AdmissionFeature(registry.make("admission", admission, params), np.random.default_rng(0)))  # type: ignore[arg-type]
    if clients is not None:
        deadlines = None if deadlines_s is None else np.array(deadlines_s, np.float64)
        found.append(ClientsFeature(Clients.model_validate(clients), seed, deadlines))
    if faults is not None:
        found.append(FaultsFeature(Faults.model_validate(faults), seed, [0] * 1000))
    return found


def run(
    requests: Sequence[Request], parts: dict[str, Any], **options: Any
) -> tuple[Cluster, dict[str, dict[str, Any]]]:
    """Simulate with these parts; return the cluster and the sections."""
    cluster = simulate(requests, features=features(**parts), **options)
    assert cluster.control is not None
    return cluster, dict(cluster.control.describe())

"""Requests go to replicas that serve the model they ask for, and are refused where nobody does.

Each model has a routing policy of its own, of the scenario's kind, among the replicas that serve it. A request whose
model nobody serves is rejected when it arrives, as a server answers one (HTTP 404); its client does not try again.

Not modelled: a gateway's own time, falling back to another model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from policies.protocols import RoutingPolicy
from simulator.engine.control import Control, Scope
from simulator.engine.recorder import Outcome
from simulator.engine.sequence import Sequence as Request


class ByModel(Scope):
    """All replicas, of which a request gets one that serves its model."""

    def __init__(
        self,
        control: Control,
        router: RoutingPolicy,
        rng: np.random.Generator,
        scopes: Sequence[Scope],
        codes: Sequence[int],
    ) -> None:
        super().__init__(control, router, range(len(control.cluster.replicas)), rng)
        self._scopes, self._codes = scopes, codes

    def choose(self, sequence: Request) -> int | None:
        """Ask the router of the request's model."""
        return self._scopes[self._codes[sequence.request_id]].choose(sequence)


class ModelRoutingFeature:
    """See the module.

    Parameters
    ----------
    models
        Names.
    replicas
        Those that serve each model.
    codes
        Of each row of the trace: the index of its model, -1 where nobody serves it.
    asked
        What a row asks for, for the reason of its rejection.
    routers
        Makers of each model's policy and its stream of random numbers; None: the cluster's own.
    """

    name = "models"

    def __init__(
        self,
        models: Sequence[str],
        replicas: Sequence[Sequence[int]],
        codes: Sequence[int],
        asked: Callable[[int], str],
        routers: Sequence[tuple[RoutingPolicy, np.random.Generator] | None],
    ) -> None:
        self.models = tuple(models)
        self.replicas = tuple(tuple(each) for each in replicas)
        self._codes = codes
        self._asked = asked
        self._routers = routers
        self._requests = [0] * len(self.models)
        self._refused: dict[str, int] = {}
        self._scopes: list[Scope] = []
        self._control: Control

    def attach(self, control: Control) -> None:
        """Put a router of each model in place of the cluster's one."""
        self._control = control
        cluster = control.cluster
        for replicas, given in zip(self.replicas, self._routers, strict=True):
            router, rng = (cluster.router, cluster.rng) if given is None else given
            self._scopes.append(control.scope(router, replicas, rng))
        by_model = ByModel(control, cluster.router, cluster.rng, self._scopes, self._codes)
        control.scopes.append(by_model)
        control.arrivals = by_model
        control.before_routing.append(self._arrives)
        control.on_end.append(self._ended)

    def _arrives(self, sequence: Request, now: int) -> bool:
        """Refuse a request for a model that nobody serves."""
        row = sequence.request_id
        if self._codes[row] >= 0:
            return False
        asked = self._asked(row)
        self._refused[asked] = self._refused.get(asked, 0) + 1
        self._control.cluster.conclude(sequence, now, Outcome.REJECTED, f"no pool serves the model {asked!r}")
        return True

    def _ended(self, sequence: Request, _: int, __: Outcome) -> None:
        code = self._codes[sequence.request_id]
        if code >= 0:
            self._requests[code] += 1

    def describe(self) -> dict[str, Any]:
        """Return the section of the summary; see docs/models.md."""
        return {
            "requests": dict(zip(self.models, self._requests, strict=True)),
            "not_served": dict(sorted(self._refused.items())),
            "routers": {
                model: {"policy": scope.router.name, "figures": dict(scope.router.figures())}
                for model, scope in zip(self.models, self._scopes, strict=True)
            },
        }


__all__ = ["ByModel", "ModelRoutingFeature"]

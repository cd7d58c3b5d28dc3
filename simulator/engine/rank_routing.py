"""Two choices for a request where replicas have attention data parallel ranks: the router's, then the engine's.

The router sees whole replicas, as a load balancer does; which rank of the chosen one serves a request is the replica's
own balancing policy's decision. In the cluster each rank is a replica, so what comes out is a rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as SequenceOf
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from policies.protocols import (
    ArrivalView,
    BalancingPolicy,
    ClusterView,
    PolicyError,
    ReplicaLoadView,
    RoutingPolicy,
)
from simulator.engine.load import WholeLoad

if TYPE_CHECKING:
    from simulator.engine.lockstep import Lockstep
    from simulator.engine.replica import Replica, ReplicaConfig


class WholeReplicas:
    """What the router sees: a `policies.protocols.ClusterView` with the ranks of a replica added up.

    Parameters
    ----------
    cluster
        View of the ranks.
    firsts
        Where, among these, each whole replica begins.
    """

    def __init__(self, cluster: ClusterView, firsts: SequenceOf[int]) -> None:
        self._cluster = cluster
        self._firsts = np.array(firsts, dtype=np.int64)

    @property
    def now_s(self) -> float:
        return self._cluster.now_s

    @property
    def num_replicas(self) -> int:
        return len(self._firsts)

    @property
    def replica_ids(self) -> SequenceOf[int]:
        return [self._cluster.replica_ids[first] for first in self._firsts.tolist()]

    @property
    def outstanding_requests(self) -> npt.NDArray[np.int64]:
        return np.asarray(np.add.reduceat(self._cluster.outstanding_requests, self._firsts))

    @property
    def outstanding_tokens(self) -> npt.NDArray[np.int64]:
        return np.asarray(np.add.reduceat(self._cluster.outstanding_tokens, self._firsts))

    @property
    def loads(self) -> SequenceOf[ReplicaLoadView]:
        ranks = self._cluster.loads
        ends = [*self._firsts[1:].tolist(), len(ranks)]
        return [WholeLoad(ranks[first:end]) for first, end in zip(self._firsts.tolist(), ends, strict=True)]

    @property
    def rng(self) -> np.random.Generator:
        return self._cluster.rng


class Ranks:
    """What the balancing policy of a replica sees: a `policies.protocols.RanksView`.

    Parameters
    ----------
    cluster
        View of all ranks.
    places
        Where, among these, those of the replica are.
    ranks
        The replica's ranks.
    """

    def __init__(self, cluster: ClusterView, places: slice, ranks: SequenceOf[Replica]) -> None:
        self._cluster, self._places, self._ranks = cluster, places, ranks

    @property
    def now_s(self) -> float:
        return self._cluster.now_s

    @property
    def num_ranks(self) -> int:
        return len(self._ranks)

    @property
    def outstanding_requests(self) -> npt.NDArray[np.int64]:
        return self._cluster.outstanding_requests[self._places]

    @property
    def outstanding_tokens(self) -> npt.NDArray[np.int64]:
        return self._cluster.outstanding_tokens[self._places]

    def waiting(self, rank: int) -> int:
        replica = self._ranks[rank]
        return len(replica.waiting) + len(replica.arriving) + len(replica.swapped)

    def running(self, rank: int) -> int:
        return self._ranks[rank].num_running


class RankRouting(RoutingPolicy):
    """See the module. It takes the place of a router.

    Parameters
    ----------
    router
        Chooses among whole replicas.
    replicas, groups, configs
        Of the cluster: all ranks, those that step together, and what they are made of.
    """

    def __init__(
        self,
        router: RoutingPolicy,
        replicas: SequenceOf[Replica],
        groups: SequenceOf[Lockstep],
        configs: SequenceOf[ReplicaConfig],
    ) -> None:
        self._router = router
        self._replicas = replicas
        self.name = router.name  # type: ignore[misc]  # a class's name elsewhere; messages name the scenario's router
        self._first_of = {replica.index: replica.index for replica in replicas}
        self._choosers: dict[int, BalancingPolicy] = {}
        for group in groups:
            make = configs[group.first].balancing
            assert make is not None
            self._choosers[group.first] = make()
            self._first_of |= {replica.index: group.first for replica in group.ranks}
        self._known: dict[tuple[int, ...], list[list[int]]] = {}

    def figures(self) -> Mapping[str, float]:
        """Return the router's own."""
        return self._router.figures()

    def route(self, request: ArrivalView, cluster: ClusterView) -> int:
        """Return the place of a rank among those that the cluster shows."""
        units = self._units(tuple(cluster.replica_ids))
        chosen = 0
        if len(units) > 1:
            chosen = self._router.route(request, WholeReplicas(cluster, [unit[0] for unit in units]))
            if not 0 <= chosen < len(units):
                raise PolicyError(
                    f"routing policy {self._router.name!r} chose replica {chosen!r}; it must be 0 to {len(units) - 1}"
                )
        unit = units[chosen]
        ids = [cluster.replica_ids[place] for place in unit]
        policy = self._choosers.get(self._first_of[ids[0]])
        if policy is None:
            return unit[0]
        ranks = [self._replicas[index] for index in ids]
        rank = policy.choose(request, Ranks(cluster, slice(unit[0], unit[-1] + 1), ranks))
        if not 0 <= rank < len(ranks):
            raise PolicyError(f"balancing policy {policy.name!r} chose rank {rank!r}; it must be 0 to {len(ranks) - 1}")
        return unit[rank]

    def _units(self, ids: tuple[int, ...]) -> list[list[int]]:
        """Return the places of each whole replica's ranks among those shown."""
        if ids not in self._known:
            places = groupby(range(len(ids)), key=lambda place: self._first_of[ids[place]])
            self._known[ids] = [list(unit) for _, unit in places]
        return self._known[ids]

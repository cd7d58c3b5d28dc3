"""Dodoor: two choices on load scores that are cached and refreshed in batches."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from policies.protocols import ArrivalView, ClusterView, RoutingPolicy, param
from policies.routing._draws import Draws

_GRAIN = 1 << 20  # beta is drawn as a whole number below this


@dataclass
class Dodoor(RoutingPolicy):
    """The better of two random replicas by cached load scores, refreshed once every batch of decisions.

    With probability ``beta`` two replicas are drawn (they may be the same) and the one with the smaller score is
    taken; else the first. The score of a replica is the anti-affinity of the request and its load, the product of the
    two over the squared capacity, summed over two resources: KV tokens (prompt plus predicted output) and requests that
    run at a time. Between two replicas it is mixed with their work pending, ``duration_weight`` of it, each as a share
    of the two's sum. Work pending is counted in outstanding tokens, as nobody knows durations here.

    A store pushes a snapshot of all loads to all schedulers after every ``batch`` decisions; nothing is known of what
    happens between two. With ``loads: probed`` the two replicas are asked for each decision, as Sparrow and others
    do: the baseline of the paper. ``figures`` counts messages, each way one: placing a request 1; a probe 2, with its
    answer; cached: those that tell the store of placements and of ends, each ``reports`` of them in one message, and 1
    to each of the ``schedulers`` a refresh.

    Not modelled: the time that messages take; the store's pushes are taken as instant.
    """

    name: ClassVar[str] = "dodoor"
    source: ClassVar[str] = (
        "Da and Kalyvianaki, Dodoor: Efficient Randomized Decentralized Scheduling with Load Caching for Heterogeneous"
        " Tasks and Clusters, arXiv:2510.12889; AKafakA/dodoor scheduler/taskplacer/CachedTaskPlacer.java,"
        " LoadScore.java, deploy/script/end_to_end_exp/debug.sh (batch 50, beta 1, duration weight 0.5)"
    )

    loads: str = param("cached", "whether loads are cached or asked for", choices=("cached", "probed"))
    batch: int = param(50, "decisions between two refreshes", unit="requests", ge=1)
    beta: float = param(1.0, "share of the decisions with two choices", ge=0, le=1)
    duration_weight: float = param(0.5, "weight of the work pending in the score", ge=0, le=1)
    schedulers: int = param(5, "schedulers that snapshots are pushed to (an assumption: messages only)", ge=1)
    reports: int = param(
        10, "placements, and ends, that one message to the store tells of (an assumption: messages only)", ge=1
    )

    def reset(self) -> None:
        """Begin with nothing known."""
        self._draws = Draws()
        self._decisions = 0
        self._refreshes = 0
        self._probes = 0
        self._ids: tuple[int, ...] = ()
        self._requests = np.zeros(0, np.int64)
        self._tokens = np.zeros(0, np.int64)
        self._capacities: dict[int, tuple[int, int]] = {}

    def route(self, request: ArrivalView, cluster: ClusterView) -> int:
        """Return the one of two with the smaller score."""
        self._refresh(cluster)
        count = cluster.num_replicas
        first, second, chance = self._draws.next(cluster.rng, (count, count, _GRAIN))
        self._decisions += 1
        if chance >= self.beta * _GRAIN:
            return first
        self._probes += 2
        return second if self._is_less(second, first, request) else first

    def _refresh(self, cluster: ClusterView) -> None:
        ids = tuple(cluster.replica_ids)
        if ids != self._ids:  # members come and go with a message of their own
            self._capacities = {
                load.replica: (load.total_blocks * load.block_size, load.max_num_seqs) for load in cluster.loads
            }
        if self.loads == "probed" or ids != self._ids or self._decisions % self.batch == 0:
            self._requests, self._tokens = cluster.outstanding_requests.copy(), cluster.outstanding_tokens.copy()
            self._refreshes += 1
            self._ids = ids

    def _is_less(self, one: int, other: int, request: ArrivalView) -> bool:
        predicted = request.predicted_output_tokens
        wants = request.prompt_tokens + (0.0 if math.isnan(predicted) else predicted)
        scores = []
        for index in (one, other):
            tokens, sequences = self._capacities[self._ids[index]]
            scores.append(wants * float(self._tokens[index]) / tokens**2 + float(self._requests[index]) / sequences**2)
        pending = float(self._tokens[one]), float(self._tokens[other])
        mixed = [
            (1 - self.duration_weight) * _share(score, scores) + self.duration_weight * _share(work, pending)
            for score, work in zip(scores, pending, strict=True)
        ]
        return mixed[0] < mixed[1]

    def figures(self) -> Mapping[str, float]:
        """Return the messages of all decisions, and a request."""
        messages = float(self._decisions)
        if self.loads == "probed":
            messages += 2 * self._probes
        else:
            messages += 2 * self._decisions / self.reports + self.schedulers * self._refreshes
        return {
            "messages": messages,
            "messages_per_request": messages / self._decisions if self._decisions else 0.0,
            "refreshes": float(self._refreshes),
        }


def _share(value: float, both: list[float] | tuple[float, float]) -> float:
    total = both[0] + both[1]
    return value / total if total else 0.0

"""DeepSeek's expert parallelism load balancer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from policies.protocols import ParallelismPolicy, param


@dataclass
class EPLB(ParallelismPolicy):
    """Load balancer of DeepSeek: copies of the heaviest experts, then copies packed so that ranks are even.

    Where the groups of experts divide by the nodes (hierarchical): groups are packed onto nodes, experts copied within
    a node, copies packed onto its ranks; else (global) all of it as if on one node. Packing puts the heaviest next on
    the lightest rank that has room, each taking equally many; copying adds one, each time, to the expert with the most
    load per copy.

    Taken as known are the true mean loads; engines measure them over a window of steps (vLLM: 1,000) and move weights
    every so often (3,000), which costs time that is not modelled.
    """

    name: ClassVar[str] = "eplb"
    source: ClassVar[str] = "github.com/deepseek-ai/EPLB, eplb.py (rebalance_experts)"

    num_groups: int = param(1, "groups of experts that tokens choose among (DeepSeek-V3: 8)", unit="groups", ge=1)

    def place(self, loads: Sequence[float], num_ranks: int, num_nodes: int, redundant: int) -> list[list[int]]:
        """Return the experts of each rank, copies among them."""
        groups = self.num_groups
        if groups % num_nodes or len(loads) % groups or num_ranks % num_nodes or (len(loads) + redundant) % num_ranks:
            groups = num_nodes = 1
        size = len(loads) // groups
        by_group = [sum(loads[group * size : (group + 1) * size]) for group in range(groups)]
        ranks: list[list[int]] = []
        for members in _packed(by_group, num_nodes):
            experts = [group * size + i for group in members for i in range(size)]
            places = _copied(experts, loads, (len(loads) + redundant) // num_nodes)
            copies = {expert: places.count(expert) for expert in set(places)}
            each = [loads[expert] / copies[expert] for expert in places]
            ranks += [[places[i] for i in held] for held in _packed(each, num_ranks // num_nodes)]
        return ranks


def _packed(weights: Sequence[float], packs: int) -> list[list[int]]:
    """Return the items of each pack, equally many: the heaviest item next, to the lightest pack with room."""
    room = len(weights) // packs
    held: list[list[int]] = [[] for _ in range(packs)]
    totals = [0.0] * packs
    for item in sorted(range(len(weights)), key=lambda i: (-weights[i], i)):
        pack = min((p for p in range(packs) if len(held[p]) < room), key=lambda p: (totals[p], p))
        held[pack].append(item)
        totals[pack] += weights[item]
    return held


def _copied(experts: Sequence[int], loads: Sequence[float], places: int) -> list[int]:
    """Return the experts, each once, and then copies of those that have the most load for each copy."""
    filled = list(experts)
    copies = dict.fromkeys(experts, 1)
    while len(filled) < places:
        heaviest = max(experts, key=lambda expert: loads[expert] / copies[expert])
        copies[heaviest] += 1
        filled.append(heaviest)
    return filled

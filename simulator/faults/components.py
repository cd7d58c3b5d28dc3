"""What can break, by name, and what breaks with it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from simulator.engine.control import Control
from simulator.errors import InputError

if TYPE_CHECKING:
    from simulator.network.topology import Topology


@dataclass(frozen=True)
class Component:
    """Something that can break.

    Attributes
    ----------
    units
        Replicas that die with it, or that it slows down, as the scenario numbers them.
    links
        Links of the network that it is.
    """

    name: str
    units: tuple[int, ...] = ()
    links: tuple[int, ...] = ()


class Components:
    """The components of a cluster. The topology is made only if one is asked for that it knows.

    Attributes
    ----------
    units
        Numbers in the cluster of each replica of the scenario: of all its attention data parallel ranks.
    """

    def __init__(self, control: Control) -> None:
        self._control = control
        groups = {rank.index: group for group in control.cluster.lockstep for rank in group.ranks}
        units: list[tuple[int, ...]] = []
        for index in range(len(control.cluster.replicas)):
            group = groups.get(index)
            if group is None:
                units.append((index,))
            elif index == group.first:
                units.append(tuple(rank.index for rank in group.ranks))
        self.units: Sequence[tuple[int, ...]] = tuple(units)

    @cached_property
    def _topology(self) -> Topology:
        return self._control.network.topology

    @cached_property
    def _placed(self) -> dict[tuple[int, int], tuple[int, ...]]:
        """Units by node and GPU."""
        placed: dict[tuple[int, int], list[int]] = {}
        for unit, ranks in enumerate(self.units):
            for index in ranks:
                for place in self._topology.placement(index):
                    placed.setdefault(place, []).append(unit)
        return {place: tuple(dict.fromkeys(here)) for place, here in placed.items()}

    # ------------------------------------------------------------------------------------------------- by name

    def replica(self, number: int) -> Component:
        """Return a replica."""
        if number >= len(self.units):
            raise InputError(f"there is no replica {number}; they are numbered 0 to {len(self.units) - 1}")
        return Component(f"replica{number}", (number,))

    def node(self, number: int) -> Component:
        """Return a server, with all replicas that have a GPU in it."""
        nodes = len(self._topology.nodes)
        if number >= nodes:
            raise InputError(f"there is no node {number}; they are numbered 0 to {nodes - 1}")
        here = sorted({unit for (node, _), units in self._placed.items() if node == number for unit in units})
        return Component(f"node{number}", tuple(here))

    def gpu(self, name: str) -> Component:
        """Return a GPU, with the replica that uses it, if one does."""
        found = re.fullmatch(r"node(\d+)/gpu(\d+)", name)
        node, number = (int(found[1]), int(found[2])) if found else (-1, -1)
        if not found or node >= len(self._topology.nodes) or number >= self._topology.nodes[node].type.gpus:
            raise InputError(f"there is no GPU {name!r}; they are called as 'node0/gpu0'")
        return Component(name, self._placed.get((node, number), ()))

    def nic(self, name: str) -> Component:
        """Return a network interface: both its directions."""
        if not re.fullmatch(r"node\d+/nic\d+", name):
            raise InputError(f"there is no interface {name!r}; they are called as 'node0/nic0'")
        return Component(name, (), tuple(self._topology.link(f"{name}/{way}") for way in ("tx", "rx")))

    def link(self, name: str) -> Component:
        """Return a link."""
        return Component(name, (), (self._topology.link(name),))

    # ------------------------------------------------------------------------------------------------ all of a kind

    def all_of(self, kind: str) -> list[Component]:
        """Return all components of a kind that can break at random, in a fixed order."""
        if kind == "process":
            return [self.replica(number) for number in range(len(self.units))]
        if kind == "gpu":
            return [Component(f"node{node}/gpu{gpu}", units) for (node, gpu), units in sorted(self._placed.items())]
        if kind == "node":
            return [self.node(number) for number in range(len(self._topology.nodes))]
        names = [link.name for link in self._topology.links]
        if kind == "nic":
            return [self.nic(name.removesuffix("/tx")) for name in names if re.fullmatch(r"node\d+/nic\d+/tx", name)]
        return [self.link(name) for name in names if re.fullmatch(r"leaf\d+\.\d+/(up|down)", name)]


__all__ = ["Component", "Components"]

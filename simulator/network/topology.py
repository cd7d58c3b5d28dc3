"""From node types to links and routes.

Every direction of a link is a link of its own. Of a node: each GPU's port to the NVLink switches (or the bridge of a
pair, or the links of a mesh), each GPU's PCIe link, the uplinks of PCIe switches that several GPUs share, host memory
(reads and writes together), the network interfaces, local flash. Of the cluster: the bundle of links between each leaf
switch and the spine, and shared storage behind the spine.

How data goes:

- GPU to GPU in a node: through the NVLink switches, bridge or mesh; without one through PCIe, by way of the switch that
  they share or else over both uplinks and the host's root complex, peer to peer.
- GPU to another node: over the interfaces nearest to the GPU (its own, or the one that it shares with its
  neighbours), read by the interface itself (GPUDirect RDMA), or by way of host memory where it can't be.
- Host memory to another node: over all interfaces, or those on the rails of the GPU at the other end.
- Storage and flash to a GPU: by way of host memory, which is written and read.
- Between interfaces on different leaf switches: over the spine, also from one rail to another (that NCCL may change
  rails over NVLink first, PXN, is not modelled).

Taken as given: traffic spreads evenly over the parallel links of a leaf switch (ECMP, adaptive routing), switches are
non-blocking inside, an interface's own PCIe link is as fast as it is, links between sockets don't limit. That consumer
GPUs copy through host memory where the driver has no peer-to-peer is not modelled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from hardware_profiles import NodeType
from simulator.cost.links import NVLINK_LATENCY_S, PCIE_LATENCY_S
from simulator.errors import InputError
from simulator.network.flows import LinkSpec, Path
from simulator.network.placement import Node, PoolNodes, place, placement_notes
from simulator.scenario_network import OTHER_PCIE_COPY_EFFICIENCY, PCIE_COPY_EFFICIENCY, NetworkPart

GB = 10**9

NVLINK_DOMAIN_NODES = {"gb200-nvl72-tray": 18}
"""Nodes in one NVLink switch domain: NVIDIA GB200 NVL72 data sheet."""

WITHOUT_GPUDIRECT = ("ENA", "Ethernet")
"""Names of interfaces that node types give to those without RDMA: AWS ENA (RDMA is EFA's), plain Ethernet."""


class Endpoint(NamedTuple):
    """Where data is: a GPU's memory, a node's host memory or flash, or the shared storage (``node`` is then -1)."""

    kind: Literal["gpu", "host", "flash", "remote"]
    node: int = -1
    number: int = 0


def gpu(node: int, index: int) -> Endpoint:
    """Return the memory of a node's GPU."""
    return Endpoint("gpu", node, index)


def host(node: int) -> Endpoint:
    """Return a node's host memory."""
    return Endpoint("host", node)


def flash(node: int) -> Endpoint:
    """Return a node's local flash."""
    return Endpoint("flash", node)


def remote() -> Endpoint:
    """Return the shared storage."""
    return Endpoint("remote")


@dataclass(frozen=True, slots=True)
class _Interface:
    """Links of one network interface, and which leaf switch it is on."""

    sends: int
    receives: int
    leaf: tuple[int, int]


_Attached = tuple[_Interface, Path]
"""An interface, and the links between it and an endpoint."""


class Topology:
    """Links of a cluster, and the routes over them; see the module.

    Parameters
    ----------
    pools
        Replicas are numbered through them in order, as in the cluster: each attention data parallel rank is one.
    part
        The scenario's ``network``.
    """

    def __init__(self, pools: Sequence[PoolNodes], part: NetworkPart) -> None:
        self.part = part
        self.nodes, self._placements = place(pools, separate=part.placement == "separate")
        self.notes = placement_notes(pools)
        """Sentences on what was taken for granted, for the result."""
        self._specs: list[LinkSpec] = []
        self._index: dict[str, int] = {}
        self._routes: dict[tuple[Endpoint, Endpoint], tuple[Path, ...]] = {}
        self._interfaces = [self._add_node(node) for node in self.nodes]
        self._add_spine()
        part_storage = (("read", part.storage_read_gb_per_s), ("write", part.storage_write_gb_per_s))
        for way, rate in part_storage:
            self._add(f"storage/{way}", rate * GB, part.storage_latency_s)
        self.links = tuple(self._specs)

    # ------------------------------------------------------------------------------------------------- questions

    @property
    def num_replicas(self) -> int:
        """Replicas that were placed."""
        return len(self._placements)

    def placement(self, replica: int) -> tuple[tuple[int, int], ...]:
        """Return (node, GPU) of each rank of a replica, stage by stage."""
        return self._placements[replica]

    def link(self, name: str) -> int:
        """Return the index of a link, such as ``node0/nic3/tx``."""
        if name not in self._index:
            raise InputError(f"there is no link {name!r}; a node's are called as {self._specs[0].name!r}")
        return self._index[name]

    def links_of(self, node: int) -> tuple[int, ...]:
        """Return the links of a node."""
        return tuple(i for i, spec in enumerate(self.links) if spec.name.startswith(f"node{node}/"))

    def route(self, source: Endpoint, target: Endpoint) -> tuple[Path, ...]:
        """Return the paths from one endpoint to another: several where the data is striped over interfaces.

        Raises
        ------
        InputError
            If nothing joins them.
        """
        found = self._routes.get((source, target))
        if found is None:
            found = self._routes[source, target] = self._find(source, target)
        return found

    # ----------------------------------------------------------------------------------------------------- links

    def _add(
        self,
        name: str,
        bandwidth: float,
        latency_s: float = 0.0,
        per_message_s: float = 0.0,
        *,
        never_full: bool = False,
    ) -> int:
        self._index[name] = len(self._specs)
        self._specs.append(LinkSpec(name, bandwidth, latency_s, per_message_s, never_full))
        return self._index[name]

    def _add_node(self, node: Node) -> tuple[_Interface, ...]:
        """Make the links of a node; return its interfaces."""
        part, kind, accelerator, name = self.part, node.type, node.accelerator, f"node{node.index}"
        self._add_scale_up(node)
        efficiency = part.pcie_efficiency or PCIE_COPY_EFFICIENCY.get(accelerator.pcie, OTHER_PCIE_COPY_EFFICIENCY)
        pcie = accelerator.pcie_bandwidth * efficiency
        for i in range(kind.gpus):
            for way in ("up", "down"):
                self._add(f"{name}/gpu{i}/pcie-{way}", pcie, PCIE_LATENCY_S / 2)
        if kind.gpus_per_pcie_switch > 1:
            for switch in range(math.ceil(kind.gpus / kind.gpus_per_pcie_switch)):
                for way in ("up", "down"):
                    self._add(f"{name}/pcie-switch{switch}/{way}", pcie)
        self._add(f"{name}/host-memory", part.host_memory_gb_per_s * GB)
        self._add(f"{name}/flash/read", part.flash_read_gb_per_s * GB, part.flash_latency_s)
        self._add(f"{name}/flash/write", part.flash_write_gb_per_s * GB, part.flash_latency_s)
        interfaces = []
        group = node.index // part.nodes_per_leaf
        for rail, rate in enumerate(self._line_rates(kind)):
            sends, receives = (
                self._add(f"{name}/nic{rail}/{way}", rate * part.nic_efficiency, part.latency_s / 2, cost)
                for way, cost in (("tx", part.per_message_s), ("rx", 0.0))
            )
            interfaces.append(_Interface(sends, receives, (group, rail if part.fabric == "rail-optimized" else 0)))
        return tuple(interfaces)

    def _add_scale_up(self, node: Node) -> None:
        """Make the links between the GPUs of a node, unless that is PCIe."""
        kind, name = node.type, f"node{node.index}"
        rate = node.accelerator.scale_up_bandwidth * self.part.nvlink_efficiency
        if kind.fabric == "nvswitch":
            for i in range(kind.gpus):
                self._add(f"{name}/gpu{i}/nvlink-out", rate, NVLINK_LATENCY_S / 2)
                self._add(f"{name}/gpu{i}/nvlink-in", rate, NVLINK_LATENCY_S / 2)
        for i, j in self._direct_pairs(kind):
            # A mesh has an equal share of the GPU's links to each peer; a bridge has all of them.
            share = kind.gpus - 1 if kind.fabric == "mesh" else 1
            self._add(f"{name}/gpu{i}-gpu{j}", rate / share, NVLINK_LATENCY_S)

    @staticmethod
    def _direct_pairs(kind: NodeType) -> list[tuple[int, int]]:
        pairs = [(i, j) for i in range(kind.gpus) for j in range(kind.gpus) if i != j]
        if kind.fabric == "mesh":
            return pairs
        return [(i, j) for i, j in pairs if i // 2 == j // 2] if kind.fabric == "nvlink-pairs" else []

    def _line_rates(self, kind: NodeType) -> list[float]:
        """Return the line rate of each interface of a node, bytes/s."""
        given = self.part.nic_gbit_per_s
        return [nic.bandwidth if given is None else given * GB / 8 for nic in kind.nics for _ in range(nic.count)]

    def _add_spine(self) -> None:
        """Make the bundle of links between each leaf switch and the spine."""
        taken = self.part.oversubscription
        below: dict[tuple[int, int], float] = {}
        for interfaces in self._interfaces:
            for nic in interfaces:
                below[nic.leaf] = below.get(nic.leaf, 0.0) + self._specs[nic.sends].bandwidth
        for (group, rail), rate in sorted(below.items()):
            for way in ("up", "down"):
                name = f"leaf{group}.{rail}/{way}"
                # Without oversubscription the interfaces below never have more to send or to take in.
                self._add(name, rate / taken, self.part.hop_latency_s, never_full=taken == 1)

    # ---------------------------------------------------------------------------------------------------- routes

    def _find(self, source: Endpoint, target: Endpoint) -> tuple[Path, ...]:
        if source == target:
            return ((),)
        if source.node == target.node:
            return (self._within(source, target),)
        if self._share_nvlink(source, target):
            return ((self._of(source, "nvlink-out"), self._of(target, "nvlink-in")),)
        self._check_reachable(source, target)
        if source.kind == "remote":
            read = self._index["storage/read"]
            return tuple(
                (read, self._spine(nic, "down"), nic.receives, *path) for nic, path in self._arriving(target, True)
            )
        if target.kind == "remote":
            write = self._index["storage/write"]
            return tuple((*path, nic.sends, self._spine(nic, "up"), write) for nic, path in self._leaving(source, True))
        return self._between(self._leaving(source, False), self._arriving(target, False))

    def _between(self, leaving: list[_Attached], arriving: list[_Attached]) -> tuple[Path, ...]:
        """Pair the interfaces of two nodes: on the same leaf switch where one side has a choice, else in order."""
        if len(leaving) > len(arriving):
            leaving = self._on_leaves_of(leaving, arriving)
        elif len(arriving) > len(leaving):
            arriving = self._on_leaves_of(arriving, leaving)
        paths = []
        for k in range(max(len(leaving), len(arriving))):
            (sender, out), (receiver, into) = leaving[k % len(leaving)], arriving[k % len(arriving)]
            across: Path = ()
            if sender.leaf != receiver.leaf:
                across = self._spine(sender, "up"), self._spine(receiver, "down")
            paths.append((*out, sender.sends, *across, receiver.receives, *into))
        return tuple(paths)

    def _on_leaves_of(self, choice: list[_Attached], others: list[_Attached]) -> list[_Attached]:
        """Return those on a leaf switch of one of the others, in the others' order, unless that makes it slower."""
        found = list(dict.fromkeys(each for nic, _ in others for each in choice if each[0].leaf == nic.leaf))
        enough = min(self._bandwidth(choice), self._bandwidth(others))
        return found if self._bandwidth(found) >= enough else choice

    def _bandwidth(self, attached: list[_Attached]) -> float:
        return math.fsum(self._specs[nic.sends].bandwidth for nic, _ in attached)

    def _within(self, source: Endpoint, target: Endpoint) -> Path:
        """Return the path between two endpoints of a node."""
        node = source.node
        memory = self._index[f"node{node}/host-memory"]
        if source.kind == "gpu" and target.kind == "gpu":
            return self._peers(source, target)
        into = {
            "host": (memory,),
            "flash": (memory, self._index[f"node{node}/flash/write"]),
            "gpu": (memory, *self._down(target)),
        }
        out = {
            "host": (memory,),
            "flash": (self._index[f"node{node}/flash/read"], memory),
            "gpu": (*self._up(source), memory) if source.kind == "gpu" else (),
        }
        if source.kind == "host":
            return into[target.kind]
        if target.kind == "host":
            return out[source.kind]
        return out[source.kind] + into[target.kind]

    def _peers(self, source: Endpoint, target: Endpoint) -> Path:
        """Return the path between two GPUs of a node."""
        kind, name = self.nodes[source.node].type, f"node{source.node}"
        if kind.fabric == "nvswitch":
            return self._of(source, "nvlink-out"), self._of(target, "nvlink-in")
        direct = self._index.get(f"{name}/gpu{source.number}-gpu{target.number}")
        if direct is not None:
            return (direct,)
        up, down = self._up(source), self._down(target)
        per = kind.gpus_per_pcie_switch
        if source.number // per == target.number // per:
            return up[0], down[-1]
        return up + down

    def _share_nvlink(self, source: Endpoint, target: Endpoint) -> bool:
        """Tell whether two GPUs of different nodes are in one NVLink switch domain."""
        if source.kind != "gpu" or target.kind != "gpu":
            return False
        a, b = self.nodes[source.node], self.nodes[target.node]
        size = self.part.nvlink_domain_nodes or NVLINK_DOMAIN_NODES.get(a.type.name, 1)
        same = a.type == b.type and a.type.fabric == "nvswitch"
        return same and a.index // size == b.index // size

    def _of(self, at: Endpoint, port: str) -> int:
        return self._index[f"node{at.node}/gpu{at.number}/{port}"]

    def _up(self, at: Endpoint) -> Path:
        """Return the links from a GPU to the host's root complex."""
        return self._of(at, "pcie-up"), *self._uplink(at, "up")

    def _down(self, at: Endpoint) -> Path:
        return *self._uplink(at, "down"), self._of(at, "pcie-down")

    def _uplink(self, at: Endpoint, way: str) -> Path:
        per = self.nodes[at.node].type.gpus_per_pcie_switch
        return () if per == 1 else (self._index[f"node{at.node}/pcie-switch{at.number // per}/{way}"],)

    def _nearest(self, at: Endpoint) -> list[_Interface]:
        """Return the interfaces of a GPU: its own, or the one that it shares with its neighbours; of a host: all."""
        interfaces = self._interfaces[at.node]
        if at.kind != "gpu":
            return list(interfaces)
        gpus, number = self.nodes[at.node].type.gpus, len(interfaces)
        if number < gpus:
            return [interfaces[at.number * number // gpus]]
        return [nic for k, nic in enumerate(interfaces) if k * gpus // number == at.number]

    def _leaving(self, at: Endpoint, staged: bool) -> list[_Attached]:
        """Return the interfaces that data leaves an endpoint by, with the links to each."""
        memory = self._index[f"node{at.node}/host-memory"]
        if at.kind == "host":
            path: Path = (memory,)
        elif at.kind == "flash":
            path = (self._index[f"node{at.node}/flash/read"], memory, memory)
        elif staged or not self._direct(at.node):
            path = (*self._up(at), memory, memory)
        else:
            path = self._up(at)[: 1 if self._beside(at.node) else None]
        return [(nic, path) for nic in self._nearest(at)]

    def _arriving(self, at: Endpoint, staged: bool) -> list[_Attached]:
        """Return the interfaces that data reaches an endpoint by, with the links from each."""
        memory = self._index[f"node{at.node}/host-memory"]
        if at.kind == "host":
            path: Path = (memory,)
        elif at.kind == "flash":
            path = (memory, memory, self._index[f"node{at.node}/flash/write"])
        elif staged or not self._direct(at.node):
            path = (memory, memory, *self._down(at))
        else:
            path = self._down(at)[-1 if self._beside(at.node) else 0 :]
        return [(nic, path) for nic in self._nearest(at)]

    def _direct(self, node: int) -> bool:
        """Tell whether a node's interfaces read and write GPU memory themselves."""
        if self.part.gpudirect is not None:
            return self.part.gpudirect
        return all(nic.name not in WITHOUT_GPUDIRECT for nic in self.nodes[node].type.nics)

    def _beside(self, node: int) -> bool:
        """Tell whether interfaces are on the PCIe switches of their GPUs: there are enough for every switch."""
        kind = self.nodes[node].type
        return len(self._interfaces[node]) * kind.gpus_per_pcie_switch >= kind.gpus

    def _spine(self, nic: _Interface, way: str) -> int:
        group, rail = nic.leaf
        return self._index[f"leaf{group}.{rail}/{way}"]

    def _check_reachable(self, source: Endpoint, target: Endpoint) -> None:
        reason = self.unreachable({at.node for at in (source, target) if at.node >= 0})
        if reason is not None:
            raise InputError(f"nothing joins {_said(source)} and {_said(target)}: {reason}")

    def unreachable(self, nodes: set[int]) -> str | None:
        """Return why some of these nodes can't be reached over the fabric; None if all can."""
        if self.part.fabric == "none":
            return "network.fabric is none; choose rail-optimized or leaf-spine"
        for node in sorted(nodes):
            if not self._interfaces[node]:
                return f"a {self.nodes[node].type.name} has no network interface; choose another node type"
        return None


def _said(at: Endpoint) -> str:
    where = {"gpu": f"GPU {at.number}", "host": "host memory", "flash": "flash"}
    return "shared storage" if at.kind == "remote" else f"{where[at.kind]} of node {at.node}"


__all__ = ["Endpoint", "Topology", "flash", "gpu", "host", "remote"]

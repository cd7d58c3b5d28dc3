"""Which GPUs of which nodes a replica has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hardware_profiles import Nic, NodeType

if TYPE_CHECKING:
    from hardware_profiles import Accelerator
    from simulator.parallel import ParallelPlan

GPUS_PER_NODE = 8
"""GPUs of the nodes of a pool that names no node type, at least one replica's."""

NIC_OF_PCIE = {"pcie3": 100e9 / 8, "pcie4": 200e9 / 8}
LATER_NIC = 400e9 / 8
"""Interface that each GPU has in such a node, bytes/s by the PCIe generation: 200 Gbit/s as in DGX A100, half of it
a generation before, 400 Gbit/s as in DGX H100 of all later ones."""


@dataclass(frozen=True, slots=True)
class PoolNodes:
    """What the topology needs to know of a pool.

    Attributes
    ----------
    node
        None: nodes are made up, see `made_up_node`.
    replicas
        As the scenario counts them: attention data parallel ranks are parts of one.
    same_as
        Name of the pool before it whose GPUs its replicas have too, one after the other; None: they have their own.
    """

    name: str
    node: NodeType | None
    accelerator: Accelerator
    plan: ParallelPlan
    replicas: int
    same_as: str | None = None

    @property
    def num_engines(self) -> int:
        """Replicas as the engine counts them: every attention data parallel rank is one."""
        return self.replicas * self.plan.dp


@dataclass(frozen=True, slots=True)
class Node:
    """One server of the cluster, and its place in the fabric."""

    index: int
    type: NodeType
    accelerator: Accelerator


def made_up_node(accelerator: Accelerator, plan: ParallelPlan) -> NodeType:
    """Return the node of a pool that names none: large enough for a replica, joined as the accelerator is made for.

    8 GPUs, more if a replica has more, each with a root port and a network interface of its own.
    """
    scale_up = accelerator.scale_up
    if scale_up.startswith("pcie"):
        fabric = "pcie"
    elif scale_up.endswith("-bridge"):
        fabric = "nvlink-pairs"
    else:
        fabric = "nvswitch" if scale_up.startswith("nvlink") else "mesh"
    gpus = max(GPUS_PER_NODE, plan.gpus)
    nic = Nic("one a GPU", gpus, NIC_OF_PCIE.get(accelerator.pcie, LATER_NIC))
    said = "an assumption: the scenario names no node type"
    keys = ("gpus", "fabric", "gpus_per_pcie_switch", "nics", "host_memory_bytes")
    # Host memory: 256 GiB a GPU, as in DGX A100 and DGX H100 (2 TiB for 8).
    sources = dict.fromkeys(keys, said)
    return NodeType(f"{gpus} x {accelerator.name}", accelerator.name, gpus, fabric, 1, (nic,), gpus * 2**38, sources)


def place(
    pools: Sequence[PoolNodes], *, separate: bool = False
) -> tuple[tuple[Node, ...], tuple[tuple[tuple[int, int], ...], ...]]:
    """Put replicas onto nodes.

    They fill nodes of their pool's type in order. A replica that fits into a node is never split; a larger one begins
    with a new node, and its tensor parallel groups are not split if one fits into a node.

    Returns
    -------
    nodes, placements
        Of each replica of the engine, pools in order: (node, GPU) of each of its ranks, stage by stage. An attention
        data parallel rank is a replica of its own there; those of one replica are placed together.
    """
    nodes: list[Node] = []
    placements: list[tuple[tuple[int, int], ...]] = []
    used: dict[tuple[str, int], tuple[int, int]] = {}  # last node of each type, and its GPUs in use
    of_pool: dict[str, list[tuple[tuple[int, int], ...]]] = {}
    for pool in pools:
        if pool.same_as is not None:
            placements += of_pool[pool.same_as]
            continue
        before = len(placements)
        kind = pool.node or made_up_node(pool.accelerator, pool.plan)
        key = (kind.name, kind.gpus)
        if separate:
            used.pop(key, None)
        ranks, tp = pool.plan.gpus, pool.plan.tp
        # As many ranks of a larger replica as a node takes without splitting a group.
        most = kind.gpus if ranks <= kind.gpus or tp > kind.gpus else kind.gpus // tp * tp
        for _ in range(pool.replicas):
            placed: list[tuple[int, int]] = []
            while len(placed) < ranks:
                want = min(ranks - len(placed), most)
                node, taken = used.get(key, (-1, kind.gpus))
                if taken + want > kind.gpus or (ranks > kind.gpus and not placed and taken):
                    node, taken = len(nodes), 0
                    nodes.append(Node(node, kind, pool.accelerator))
                placed += [(node, taken + i) for i in range(want)]
                used[key] = node, taken + want
            each = pool.plan.rank_gpus
            placements += [tuple(placed[at : at + each]) for at in range(0, ranks, each)]
        of_pool[pool.name] = placements[before:]
    return tuple(nodes), tuple(placements)


def placement_notes(pools: Sequence[PoolNodes]) -> tuple[str, ...]:
    """Return sentences on what was taken for granted of the pools' nodes."""
    notes = []
    for pool in pools:
        if pool.node is None:
            kind = made_up_node(pool.accelerator, pool.plan)
            notes.append(
                f"pool {pool.name!r} names no node type: its links are those of nodes of {kind.gpus} GPUs "
                f"({kind.fabric}), each with a PCIe port and an interface of "
                f"{kind.nics[0].bandwidth * 8 / 1e9:g} Gbit/s"
            )
    return tuple(notes)


__all__ = ["Node", "PoolNodes", "made_up_node", "place", "placement_notes"]

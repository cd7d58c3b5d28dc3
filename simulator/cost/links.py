"""Collectives of one replica: which link they cross, and how long they take.

Figures fitted to NCCL and vLLM's all-reduce kernels as measured in aiconfigurator-core 0.12.0 (*AIC*, Apache-2.0).
Links are taken as free of other traffic; PCIe as if every GPU reached every other at its own rate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from simulator.errors import InputError

if TYPE_CHECKING:
    from hardware_profiles import Accelerator, NodeType

Floats = npt.NDArray[np.float64]

NVLINK_EFFICIENCY = 0.7
"""Fraction of one direction's data-sheet bandwidth. AIC, 2 to 8 GPUs: 0.64 to 0.74 on A100, 0.71 to 0.99 on H100
(in-switch reduction) for 0.5 GB; less for a few MB."""

NVLINK_LATENCY_S = 4.5e-6
"""One round of a one-shot or two-shot all-reduce kernel in a CUDA graph. AIC, vLLM: 4.9 to 5.7 us on A100, 4.3 to 4.7
us on H100 for 256 bytes."""

PCIE_EFFICIENCY = {2: 0.6, 4: 0.4}
"""The same of PCIe by number of GPUs (the largest key that is not above it). AIC, NCCL: 0.60 and 0.40 on RTX PRO 6000;
0.63 on L40S with two GPUs, and far less (0.16, 0.05) with four and eight."""

PCIE_LATENCY_S = 3.2e-6
"""A ring all-reduce over PCIe, for each of its GPUs. AIC, NCCL, 512 bytes: 6.3 us with 2 GPUs, 13.0 with 4, 24.6 with
8."""

NETWORK_EFFICIENCY = 0.8
"""Fraction of the NICs' bandwidth between nodes: an assumption."""

P2P_LATENCY_S = 10e-6
"""A message between two GPUs, or of one rank of a ring between nodes: ``p2p_latency`` of AIC's system files."""


@dataclass(frozen=True, slots=True)
class CollectiveLink:
    """What the GPUs of a group reach each other over.

    Attributes
    ----------
    name
        For the sources, e.g. ``"nvlink4"``.
    bandwidth
        Of one GPU, one direction, as reached: bytes/s.
    latency_s
        Of one round (``kernels``), or of a ring for each rank.
    kernels
        True where kernels read their peers' memory directly, in one round or in two; False for a ring.
    """

    name: str
    bandwidth: float
    latency_s: float
    kernels: bool

    def all_reduce_s(self, size: Floats, ranks: int) -> Floats:
        """Return the seconds of an all-reduce of ``size`` bytes held by each rank.

        One round: every rank reads all the others' data. Two: it reduces its share, then gathers theirs.
        """
        scattered = size * (2 * (ranks - 1) / ranks) / self.bandwidth
        if not self.kernels:
            return np.asarray(self.latency_s * ranks + scattered)
        one_round = self.latency_s + size * (ranks - 1) / self.bandwidth
        return np.minimum(one_round, 2 * self.latency_s + scattered)

    def all_gather_s(self, size: Floats, ranks: int) -> Floats:
        """Return the seconds of an all-gather that leaves ``size`` bytes on each rank."""
        rounds = 1 if self.kernels else ranks
        return np.asarray(self.latency_s * rounds + size * ((ranks - 1) / ranks) / self.bandwidth)


def tensor_link(accelerator: Accelerator, node: NodeType | None, tp: int) -> CollectiveLink:
    """Return the link of a tensor parallel group.

    Parameters
    ----------
    accelerator
        Its scale-up link carries the group, unless that is PCIe or joins pairs only.
    node
        Its fabric may be less than the accelerator's scale-up link; a group larger than a node crosses the network.
        None: one node that is large enough.
    tp
        Ranks.
    """
    if node is not None and tp > node.gpus:
        bandwidth = _network_bandwidth(node)
        return CollectiveLink(f"network of {node.name}", bandwidth * NETWORK_EFFICIENCY, P2P_LATENCY_S, False)
    return node_link(accelerator, node, tp)


def stage_link(accelerator: Accelerator, node: NodeType | None, gpus: int) -> CollectiveLink:
    """Return the link between pipeline stages of a replica of ``gpus``; the network where they exceed a node."""
    if node is not None and gpus > node.gpus:
        return tensor_link(accelerator, node, gpus)
    return node_link(accelerator, node, gpus)


def node_link(accelerator: Accelerator, node: NodeType | None, gpus: int) -> CollectiveLink:
    """Return the link between GPUs of one node."""
    pairs_only = accelerator.scale_up.endswith("-bridge") or (node is not None and node.fabric == "nvlink-pairs")
    pcie = accelerator.scale_up.startswith("pcie") or (node is not None and node.fabric == "pcie")
    if pcie or (pairs_only and gpus > 2):
        efficiency = max((count, value) for count, value in PCIE_EFFICIENCY.items() if count <= max(gpus, 2))[1]
        return CollectiveLink(accelerator.pcie, accelerator.pcie_bandwidth * efficiency, PCIE_LATENCY_S, False)
    bandwidth = accelerator.scale_up_bandwidth * NVLINK_EFFICIENCY
    return CollectiveLink(accelerator.scale_up, bandwidth, NVLINK_LATENCY_S, True)


def _network_bandwidth(node: NodeType) -> float:
    """Bandwidth of one GPU's share of the node's interfaces, bytes/s."""
    total = sum(nic.count * nic.bandwidth for nic in node.nics)
    if total <= 0:
        raise InputError(f"{node.name} has {node.gpus} GPUs and no network interface for more of them in one replica")
    return total / node.gpus

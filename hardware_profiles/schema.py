"""What a hardware profile says: accelerators and the nodes that hold them (data-sheet figures)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


class ProfileError(ValueError):
    """An unknown or malformed hardware profile; the message says which, where, and what is known."""


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One GPU as its data sheet describes it.

    Attributes
    ----------
    name
        Catalogue name, e.g. ``"h100-sxm"``.
    memory_bytes
        HBM/GDDR capacity in bytes: the total that ``nvidia-smi`` (``rocm-smi``) shows.
    memory_bandwidth
        Peak memory bandwidth, bytes/s.
    peak_flops
        Dense (no sparsity) peak rate by datatype: ``bf16``, ``fp16``, ``fp8``, ``int8``, ``int4``, ``fp4``,
        ``fp32`` to FLOP/s (or OP/s); a datatype that the chip lacks is absent.
    sm_count
        Number of streaming multiprocessors (compute units on AMD).
    scale_up
        Name of the GPU-to-GPU interconnect: ``"nvlink4"``, ``"xgmi"``, ``"pcie5"``, ...
    scale_up_bandwidth
        Bandwidth of one GPU to its peers over that interconnect, bytes/s, **one direction**.
    pcie_bandwidth
        Host link, bytes/s, one direction.
    tdp_w
        Board power limit, watts.
    idle_w
        Idle power in watts where a source for it is known, else None.
    sources
        Where each figure comes from, by attribute name.
    usable_memory_bytes
        Total that the driver reports to a process (``cudaMemGetInfo``), what engines take their memory
        fraction of, in bytes where known, else None; `process_memory_bytes` falls back on ``memory_bytes``.
    """

    name: str
    vendor: str
    architecture: str
    memory_bytes: int
    memory_bandwidth: float
    peak_flops: Mapping[str, float]
    sm_count: int
    scale_up: str
    scale_up_bandwidth: float
    pcie: str
    pcie_bandwidth: float
    tdp_w: float
    idle_w: float | None
    aliases: tuple[str, ...]
    sources: Mapping[str, str]
    usable_memory_bytes: int | None = None

    @property
    def process_memory_bytes(self) -> int:
        """Memory that a process sees, bytes: ``usable_memory_bytes`` where known, else ``memory_bytes``."""
        return self.memory_bytes if self.usable_memory_bytes is None else self.usable_memory_bytes


@dataclass(frozen=True, slots=True)
class Nic:
    """A network interface: ``count`` of them a node, each of ``bandwidth`` bytes/s one direction."""

    name: str
    count: int
    bandwidth: float


@dataclass(frozen=True, slots=True)
class NodeType:
    """A server: how many accelerators of which kind, how they are joined to each other and to the network.

    Attributes
    ----------
    fabric
        ``"nvswitch"`` (any pair at full rate), ``"nvlink-pairs"`` (bridged pairs, PCIe beyond), ``"mesh"``
        (point-to-point links between all), or ``"pcie"``.
    gpus_per_pcie_switch
        How many accelerators share one PCIe switch uplink (1: each has its own root port).
    """

    name: str
    accelerator: str
    gpus: int
    fabric: str
    gpus_per_pcie_switch: int
    nics: tuple[Nic, ...]
    host_memory_bytes: int
    sources: Mapping[str, str]

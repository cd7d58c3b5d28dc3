"""The part of a scenario that says what joins the nodes, and how fast links are in use."""

from typing import Annotated, Literal

from pydantic import Field

from simulator.scenario_base import Count, Factor, Part, Seconds, Share

NVLINK_COPY_EFFICIENCY = 0.87
"""Fraction of one direction's data-sheet bandwidth that a copy between two GPUs reaches. ``nvbandwidth``
(``device_to_device_memcpy_read_ce``): 395 of 450 GB/s on H100, about 825 of 900 GB/s on GB200 (public logs)."""

PCIE_COPY_EFFICIENCY = {"pcie4": 0.78, "pcie5": 0.86}
"""The same of copies between pinned host memory and a GPU, by generation. ``nvbandwidth``
(``host_to_device_memcpy_ce``): 24.8 of 32 GB/s on A100 (NVIDIA developer forum, thread 352186), 55.1 to 55.6 of 64
GB/s on H100 (NVIDIA's blog on the tool, and public logs)."""

OTHER_PCIE_COPY_EFFICIENCY = 0.8
"""Of other generations and of NVLink-C2C: an assumption."""

NIC_EFFICIENCY = 0.9
"""Fraction of an interface's line rate that large RDMA transfers reach. 46.6 of 50 GB/s (0.93) were read over one
ConnectX-7 of 400 Gbit/s into the memory of L40S (published runs of GPUDirect Storage over NFS); rounded down."""

LATENCY_S = 10e-6
"""A message between GPUs of two nodes, software included: as in `simulator.cost.links` (``p2p_latency`` of
aiconfigurator-core's system files), which is not imported because NumPy would come with it."""

HOP_LATENCY_S = 0.5e-6
"""A spine switch and two cables more: an assumption (switch chips take 0.1 to 0.4 us)."""

MESSAGE_S = 1e-6
"""Posting and completing one RDMA work request by the host: an assumption."""

NODES_PER_LEAF = 32
"""A scalable unit of NVIDIA DGX SuperPOD with DGX H100 has 32 systems (reference architecture RA-11333-001)."""

HOST_MEMORY_GB_PER_S = 300.0
"""Two sockets of eight DDR4-3200 channels have 409.6 GB/s (8 x 25.6 each, JEDEC rate x 8 bytes); about 0.75 of it is
what copies reach: an assumption."""

FLASH_READ_GB_PER_S, FLASH_WRITE_GB_PER_S = 6.5, 3.5
"""One data-centre NVMe drive on PCIe 4.0 x4: Samsung PM9A3 U.2, sequential, as announced by Samsung."""

FLASH_LATENCY_S = 1e-4
"""A read of an NVMe drive: an assumption of the right order."""

STORAGE_READ_GB_PER_S, STORAGE_WRITE_GB_PER_S = 40.0, 20.0
"""DGX SuperPOD H100 (reference architecture RA-11333-001): one system should read over 40 GB/s from shared storage,
taken for the storage as a whole; writing at half of that: an assumption."""

STORAGE_LATENCY_S = 1e-3
"""A request to a file or object store in the same building: an assumption."""


class NetworkPart(Part):
    """What joins the nodes, and how fast links are in use. Only runs that move data over links ask."""

    fabric: Literal["rail-optimized", "leaf-spine", "none"] = "rail-optimized"
    """``rail-optimized``: interface i of every node on leaf switch i of its group. ``leaf-spine``: all interfaces of a
    group of nodes on one leaf switch. ``none``: nodes don't reach each other."""
    nodes_per_leaf: Count = NODES_PER_LEAF
    """Nodes of a group, which share leaf switches."""
    oversubscription: Annotated[float, Field(ge=1, le=1000, allow_inf_nan=False)] = 1.0
    """Bandwidth below a leaf switch over its bandwidth to the spine."""
    placement: Literal["packed", "separate"] = "packed"
    """``packed``: replicas fill nodes in order, and pools of one node type share nodes. ``separate``: each pool begins
    with a new node."""
    nvlink_domain_nodes: Count | None = None
    """Nodes that share one NVLink switch domain; left out: as the node type is built (18 GB200 NVL72 trays), else 1."""
    latency_s: Seconds = LATENCY_S
    """From one interface to another on the same leaf switch, software included, seconds."""
    hop_latency_s: Seconds = HOP_LATENCY_S
    """More of it on each of the two links between leaf switches and spine, seconds."""
    per_message_s: Seconds = MESSAGE_S
    """Cost of each message that an interface sends, seconds."""
    nic_gbit_per_s: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] | None = None
    """Line rate of every interface, one direction, Gbit/s; left out: the node type's."""
    nic_efficiency: Share = NIC_EFFICIENCY
    """Share of an interface's line rate in use."""
    gpudirect: bool | None = None
    """Interfaces read and write GPU memory themselves; false: by way of host memory. Left out: all but those that the
    node type calls ENA or Ethernet do."""
    nvlink_efficiency: Share = NVLINK_COPY_EFFICIENCY
    """Share of the GPUs' data-sheet interconnect bandwidth in use."""
    pcie_efficiency: Share | None = None
    """Share of PCIe's data-sheet bandwidth in use; left out: 0.78 of PCIe 4.0, 0.86 of 5.0, 0.8 of others."""
    host_memory_gb_per_s: Factor = HOST_MEMORY_GB_PER_S
    """Bandwidth of a node's host memory, reads and writes together, GB/s."""
    flash_read_gb_per_s: Factor = FLASH_READ_GB_PER_S
    """Reading a node's local flash, all drives together, GB/s."""
    flash_write_gb_per_s: Factor = FLASH_WRITE_GB_PER_S
    """Writing it, GB/s."""
    flash_latency_s: Seconds = FLASH_LATENCY_S
    """Before the first byte, seconds."""
    storage_read_gb_per_s: Factor = STORAGE_READ_GB_PER_S
    """Reading the shared storage behind the fabric, all nodes together, GB/s."""
    storage_write_gb_per_s: Factor = STORAGE_WRITE_GB_PER_S
    """Writing it, GB/s."""
    storage_latency_s: Seconds = STORAGE_LATENCY_S
    """Before the first byte, seconds."""


__all__ = ["NetworkPart"]

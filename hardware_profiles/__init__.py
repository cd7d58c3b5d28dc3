"""Accelerators and node types: one YAML file each, every figure with its source.

The files give figures in the units of data sheets, named in the keys (MiB, GB/s, TFLOP/s or TOP/s, Gbit/s, W;
GB is 10^9 bytes, MiB 2^20). Peak rates are dense: where a data sheet prints the rate with structured
sparsity, half of it. Bandwidths of links are those of one direction: where a data sheet prints the sum of
both, half of it. A file of one's own in the same form loads by its path.
"""

from hardware_profiles.fits import FittedProfile, OperatorFit, list_fits, load_fits
from hardware_profiles.loading import (
    DATATYPES,
    FABRICS,
    list_accelerators,
    list_nodes,
    load_accelerator,
    load_node,
)
from hardware_profiles.schema import Accelerator, Nic, NodeType, ProfileError

__all__ = [
    "DATATYPES",
    "FABRICS",
    "Accelerator",
    "FittedProfile",
    "Nic",
    "NodeType",
    "OperatorFit",
    "ProfileError",
    "list_accelerators",
    "list_fits",
    "list_nodes",
    "load_accelerator",
    "load_fits",
    "load_node",
]

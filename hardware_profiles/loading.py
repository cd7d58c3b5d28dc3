"""Profiles from their YAML files: data-sheet units in the file, bytes, bytes/s and FLOP/s in the objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from hardware_profiles._validate import ProfileReader, nearest, read_yaml
from hardware_profiles.schema import Accelerator, Nic, NodeType, ProfileError

_ROOT = Path(__file__).parent
_GIGA = 10**9
_MIB = 2**20
_GIB = 2**30

DATATYPES = ("fp32", "tf32", "bf16", "fp16", "fp8", "int8", "int4", "fp4")
"""Datatypes that a profile may give a peak rate for."""

FABRICS = ("nvswitch", "nvlink-pairs", "mesh", "pcie")
"""How the accelerators of a node may be joined."""

_ACCELERATOR_KEYS = (
    "vendor",
    "architecture",
    "memory_mib",
    "memory_gb_per_s",
    "peak_tflops",
    "sm_count",
    "scale_up",
    "scale_up_gb_per_s",
    "pcie",
    "pcie_gb_per_s",
    "tdp_w",
    "sources",
)
_ACCELERATOR_OPTIONAL = ("idle_w", "usable_gib", "aliases")
_OPTIONAL_SOURCES = {"idle_w": "idle_w", "usable_gib": "usable_memory_bytes"}
_ACCELERATOR_SOURCES = {
    "memory_mib": "memory_bytes",
    "memory_gb_per_s": "memory_bandwidth",
    "peak_tflops": "peak_flops",
    "sm_count": "sm_count",
    "scale_up_gb_per_s": "scale_up_bandwidth",
    "pcie_gb_per_s": "pcie_bandwidth",
    "tdp_w": "tdp_w",
}
_NODE_KEYS = ("accelerator", "gpus", "fabric", "gpus_per_pcie_switch", "nics", "host_memory_gib", "sources")
_NODE_SOURCES = {
    "gpus": "gpus",
    "fabric": "fabric",
    "gpus_per_pcie_switch": "gpus_per_pcie_switch",
    "nics": "nics",
    "host_memory_gib": "host_memory_bytes",
}

_Profile = TypeVar("_Profile", Accelerator, NodeType)


def list_accelerators() -> list[str]:
    """Return the names of the accelerators, sorted; reads no file."""
    return _names("accelerators")


def list_nodes() -> list[str]:
    """Return the names of the node types, sorted; reads no file."""
    return _names("nodes")


def load_accelerator(name: str | Path) -> Accelerator:
    """Return the profile of an accelerator.

    Parameters
    ----------
    name
        A name that `list_accelerators` gives, or an alias, in any case; or the path of a YAML file.

    Raises
    ------
    ProfileError
        If there is none, or its file is malformed.
    """
    return _load(name, "accelerators", "accelerator", _accelerator)


def load_node(name: str | Path) -> NodeType:
    """Return the profile of a node type.

    Parameters
    ----------
    name
        A name that `list_nodes` gives, in any case; or the path of a YAML file of that form.

    Raises
    ------
    ProfileError
        If there is none, its file is malformed, or it names an accelerator that there is not.
    """
    return _load(name, "nodes", "node type", _node)


def _names(folder: str) -> list[str]:
    """Names of the profiles in a folder of this package."""
    return sorted(path.stem for path in (_ROOT / folder).glob("*.yaml"))


def _load(name: str | Path, folder: str, kind: str, build: Callable[[ProfileReader, str], _Profile]) -> _Profile:
    """Find a profile by path, name or alias, and build it."""
    text = str(name)
    lowered = text.lower()
    if isinstance(name, Path) or lowered.endswith((".yaml", ".yml")):
        path = Path(name)
        return build(read_yaml(path), path.stem)
    names = _names(folder)
    if lowered not in names:
        aliases = _aliases(folder)
        if lowered not in aliases:
            raise ProfileError(f"unknown {kind} {text!r}{nearest(lowered, names)}")
        lowered = aliases[lowered]
    return build(read_yaml(_ROOT / folder / f"{lowered}.yaml"), lowered)


@cache
def _aliases(folder: str) -> Mapping[str, str]:
    """Names by alias, from all files of a folder: read only when a name is none of theirs."""
    found: dict[str, str] = {}
    for name in _names(folder):
        reader = read_yaml(_ROOT / folder / f"{name}.yaml")
        found.update((alias.lower(), name) for alias in _alias_list(reader))
    return MappingProxyType(found)


def _alias_list(reader: ProfileReader) -> tuple[str, ...]:
    """Other names that a profile gives itself."""
    if "aliases" not in reader.mapping:
        return ()
    aliases = reader.items("aliases")
    for alias in aliases:
        if not isinstance(alias, str):
            raise reader.error("aliases", f"must be a list of names, got {alias!r}")
    return tuple(str(alias) for alias in aliases)


def _sources(reader: ProfileReader, attributes: Mapping[str, str]) -> Mapping[str, str]:
    """Source of every figure, by the attribute that the figure becomes."""
    table = reader.table("sources")
    table.check_keys(attributes)
    return MappingProxyType({attribute: table.text(key) for key, attribute in attributes.items()})


def _accelerator(reader: ProfileReader, name: str) -> Accelerator:
    """Build an accelerator from its checked file."""
    reader.check_keys(_ACCELERATOR_KEYS, _ACCELERATOR_OPTIONAL)
    peaks = reader.table("peak_tflops")
    peaks.check_keys((), DATATYPES)
    if not peaks.mapping:
        raise reader.error("peak_tflops", f"must give at least one of {', '.join(DATATYPES)}")
    given = {key: name for key, name in _OPTIONAL_SOURCES.items() if reader.mapping.get(key) is not None}
    return Accelerator(
        name=name,
        vendor=reader.text("vendor"),
        architecture=reader.text("architecture"),
        memory_bytes=reader.count("memory_mib") * _MIB,
        memory_bandwidth=reader.number("memory_gb_per_s") * _GIGA,
        peak_flops=MappingProxyType(
            {dtype: round(peaks.number(dtype) * 1000) * 1e9 for dtype in DATATYPES if dtype in peaks.mapping}
        ),
        sm_count=reader.count("sm_count"),
        scale_up=reader.text("scale_up"),
        scale_up_bandwidth=reader.number("scale_up_gb_per_s") * _GIGA,
        pcie=reader.text("pcie"),
        pcie_bandwidth=reader.number("pcie_gb_per_s") * _GIGA,
        tdp_w=reader.number("tdp_w"),
        idle_w=reader.number("idle_w") if "idle_w" in given else None,
        aliases=_alias_list(reader),
        sources=_sources(reader, {**_ACCELERATOR_SOURCES, **given}),
        usable_memory_bytes=round(reader.number("usable_gib") * _GIB) if "usable_gib" in given else None,
    )


def _node(reader: ProfileReader, name: str) -> NodeType:
    """Build a node type from its checked file."""
    reader.check_keys(_NODE_KEYS)
    accelerator = reader.text("accelerator")
    if not accelerator.endswith((".yaml", ".yml")) and accelerator not in list_accelerators():
        raise reader.error("accelerator", f"is unknown: {accelerator!r}{nearest(accelerator, list_accelerators())}")
    fabric = reader.text("fabric")
    if fabric not in FABRICS:
        raise reader.error("fabric", f"is unknown: {fabric!r}{nearest(fabric, FABRICS)}")
    gpus, shared = reader.count("gpus"), reader.count("gpus_per_pcie_switch")
    if shared > gpus:
        raise reader.error("gpus_per_pcie_switch", f"must be at most gpus ({gpus}), got {shared}")
    return NodeType(
        name=name,
        accelerator=accelerator,
        gpus=gpus,
        fabric=fabric,
        gpus_per_pcie_switch=shared,
        nics=tuple(_nic(reader, number, entry) for number, entry in enumerate(reader.items("nics"), 1)),
        host_memory_bytes=reader.count("host_memory_gib") * _GIB,
        sources=_sources(reader, _NODE_SOURCES),
    )


def _nic(reader: ProfileReader, number: int, entry: object) -> Nic:
    """Build one kind of network interface."""
    where = f"{reader.where}: nics, entry {number}"
    if not isinstance(entry, Mapping):
        raise ProfileError(f"{where}: must be a mapping, got {entry!r}")
    nic = ProfileReader(entry, where)
    nic.check_keys(("name", "count", "gbit_per_s"))
    return Nic(nic.text("name"), nic.count("count"), nic.number("gbit_per_s") * _GIGA / 8)

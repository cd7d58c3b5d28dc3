"""Where the installed package keeps its tables, and what it says of them; found by path, without importing it.

``systems/data/<system>/<family>/<backend>/<version>/<table>.parquet``, beside each a ``collection_meta.yaml``;
``systems/<system>.yaml`` describes the machine, ``systems/query_versions.yaml`` which release of an engine is current.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from simulator.errors import InputError, did_you_mean

MODULE = "aiconfigurator_core"
DISTRIBUTION = "aiconfigurator-core"
BACKENDS = ("sglang", "trtllm", "vllm")
"""Engines that tables were measured with; the package's other folders are libraries (``nccl``, ``oneccl``)."""

HARDWARE = {
    "a100_pcie": "a100-80gb-pcie",
    "a100_sxm": "a100-80gb",
    "a30": "a30",
    "b200_sxm": "b200",
    "b300_sxm": "b300",
    "gb200": "gb200",
    "h100_pcie": "h100-pcie",
    "h100_sxm": "h100-sxm",
    "h200_sxm": "h200",
    "l4": "l4",
    "l40s": "l40s",
    "rtx_pro_6000_server": "rtx-pro-6000",
}
"""Our name of the accelerator of each system (``mem_capacity`` of its file tells A100 of 80 GB from 40 GB); a system
that our catalogue lacks keeps its own."""

_DATE = re.compile(r"collected_at:\s*['\"]?(\d{4}-\d\d-\d\d)")


@dataclass(frozen=True, slots=True)
class Package:
    """The package on disk.

    Attributes
    ----------
    root
        Its directory, the one that holds ``systems``.
    version
        Of the distribution that is installed; empty where no metadata lie beside it.
    """

    root: Path
    version: str

    @property
    def label(self) -> str:
        """Name and version, for sources."""
        return f"{DISTRIBUTION} {self.version}".strip()

    @property
    def data(self) -> Path:
        """Directory of the tables, one folder a system."""
        return self.root / "systems" / "data"

    def systems(self) -> list[str]:
        """Systems that have tables, in alphabetical order."""
        return sorted(folder.name for folder in self.data.iterdir() if any(folder.glob("*/*/*/*.parquet")))

    def backends(self, system: str) -> list[str]:
        """Engines that have tables for a system, in alphabetical order."""
        self.check_system(system)
        return [each for each in BACKENDS if any((self.data / system).glob(f"*/{each}/*/*.parquet"))]

    def check_system(self, system: str) -> None:
        """Raise `InputError` unless the system has tables."""
        known = self.systems()
        if system not in known:
            raise InputError(f"{self.label}: has no tables for the system {system!r}{did_you_mean(system, known)}")

    def check_backend(self, system: str, backend: str) -> None:
        """Raise `InputError` unless the engine has tables for the system."""
        known = self.backends(system)
        if backend not in known:
            raise InputError(
                f"{self.label}: has no tables of the backend {backend!r} for {system}{did_you_mean(backend, known)}"
            )

    def current_version(self, system: str, backend: str) -> str | None:
        """Return the newest release of an engine whose tables the package calls complete; None where it says none.

        Newer directories are additions for single models (``next`` in ``systems/query_versions.yaml``).
        """
        said = _read_yaml(self.root / "systems" / "query_versions.yaml")
        for where in (said.get("overrides", {}).get(system, {}), said.get("defaults", {})):
            if backend in where:
                version = (where[backend] or {}).get("current")
                return None if version is None else str(version)
        return None

    def gpus_per_node(self, system: str) -> int | None:
        """GPUs of one node, from the system's file."""
        node = _read_yaml(self.root / "systems" / f"{system}.yaml").get("node", {})
        value = node.get("num_gpus_per_node")
        return value if isinstance(value, int) else None

    def collected(self, folder: Path, table: str) -> str | None:
        """Return the last day (YYYY-MM-DD) on which rows of a table were measured; None where it is not recorded."""
        entry = (_read_yaml(folder / "collection_meta.yaml").get("tables") or {}).get(table) or {}
        days = [entry.get("collected_at"), *(each.get("collected_at") for each in entry.get("collections") or ())]
        return max((str(day) for day in days if day), default=None)

    def newest_day(self) -> str | None:
        """Return the newest day of collection that the package names anywhere: no table in it is much younger."""
        files = self.data.glob("*/*/*/*/collection_meta.yaml")
        return max((day for file in files for day in _DATE.findall(file.read_text("utf-8"))), default=None)


def open_package(root: Path | None = None) -> Package:
    """Find the package.

    Parameters
    ----------
    root
        Its directory; None: that of the installed one, which is found without being imported.

    Raises
    ------
    InputError
        If it isn't installed, or the directory holds no tables.
    """
    if root is None:
        spec = find_spec(MODULE)
        if spec is None or not spec.submodule_search_locations:
            raise InputError(
                f'{DISTRIBUTION} is not installed; run: pip install "llm-cluster-simulator[aiconfigurator]"'
            )
        root = Path(next(iter(spec.submodule_search_locations)))
    if not (root / "systems" / "data").is_dir():
        raise InputError(f"{root}: holds no systems/data; it should be the directory of the package {MODULE}")
    found = sorted(root.parent.glob(f"{MODULE}-*.dist-info"))
    version = found[-1].name.removeprefix(f"{MODULE}-").removesuffix(".dist-info") if found else ""
    return Package(root, version)


def systems(root: Path | None = None) -> list[str]:
    """Return the systems that the package has tables for.

    Raises
    ------
    InputError
        If the package isn't there.
    """
    return open_package(root).systems()


def backends(system: str, root: Path | None = None) -> list[str]:
    """Return the engines that the package has tables of for a system.

    Raises
    ------
    InputError
        If the package isn't there, or doesn't know the system.
    """
    return open_package(root).backends(system)


def _read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping that a file holds; an empty one where there is no file."""
    try:
        said = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, yaml.YAMLError) as error:
        raise InputError(f"{path}: can't be read as YAML ({' '.join(str(error).split())})") from None
    return said if isinstance(said, dict) else {}

"""Where kernel tables of a machine and server are: a folder of the caller's, else the installed package.

What is found is a ``profile`` of the scenario's measured costs: the path of ``<system>_<backend>.parquet``, or
``aiconfigurator:<system>/<backend>`` (`simulator.calibration.load`).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from hardware_profiles import Accelerator
from simulator.calibration.load import PACKAGE_PREFIX
from simulator.errors import InputError
from simulator.validation.subjects import accelerator_for

COLLECTIVES = "comm"
"""Family of the package's tables that holds collectives."""


@cache
def installed_systems() -> tuple[str, ...]:
    """Return the systems that the installed package has tables of; none where it is not installed."""
    from simulator.calibration.aiconfigurator import systems

    try:
        return tuple(systems())
    except InputError:
        return ()


def table_of(system: str, backend: str, folder: Path | None) -> str | None:
    """Return the newest kernel tables of a system and backend; None: there are none."""
    path = None if folder is None else folder / f"{system}_{backend}.parquet"
    if path is not None and path.is_file():
        return str(path.resolve())
    return f"{PACKAGE_PREFIX}{system}/{backend}" if system in installed_systems() else None


def system_of(accelerator: Accelerator, backend: str, folder: Path | None) -> str | None:
    """Return the system, as tables name it, that has an accelerator; None: there is none."""
    ending = f"_{backend}"
    own = [] if folder is None else sorted(path.stem for path in folder.glob(f"*{ending}.parquet"))
    for name in (*(stem.removesuffix(ending) for stem in own), *installed_systems()):
        try:
            if accelerator_for(name).name == accelerator.name:
                return name
        except InputError:
            continue  # a system that the catalogue lacks
    return None


def collectives_of(system: str, backend: str, version: str | None) -> str | None:
    """Return the installed package's collectives, no newer than the server; None: it has no such system."""
    if system not in installed_systems():
        return None
    until = "" if version is None else f"@{version}"
    return f"{PACKAGE_PREFIX}{system}/{backend}{until}:{COLLECTIVES}"

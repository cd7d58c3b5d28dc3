"""Measurements by name: a Parquet file of the schema, a layer-profile directory, or tables of an installed package."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from simulator.calibration.layer_profiles import is_layer_profile, read_layer_profile
from simulator.calibration.schema import read_measurements
from simulator.errors import InputError

PACKAGE_PREFIX = "aiconfigurator:"

_PACKAGE = re.compile(r"(?P<system>[\w-]+)/(?P<backend>[\w-]+)(@(?P<version>[\w.+-]+))?(:(?P<families>[\w,]+))?")


def is_package_name(name: str) -> bool:
    """Tell whether a name means tables of an installed package, not a path."""
    return name.startswith(PACKAGE_PREFIX)


def load_measurements(name: str | Path) -> pd.DataFrame:
    """Read measurements.

    Parameters
    ----------
    name
        Path of a file or a directory; or ``aiconfigurator:SYSTEM/BACKEND``, with ``@VERSION`` for tables no newer than
        that and ``:FAMILY,FAMILY`` for some of them, as in ``aiconfigurator:h200_sxm/vllm@0.19.0:comm``.

    Raises
    ------
    InputError
        If it is none of these, or can't be read.
    """
    if is_package_name(str(name)):
        return _from_package(str(name))
    path = Path(name)
    if not path.exists():
        raise InputError(
            f"{path}: no such file or directory; give a Parquet file of measurements, a layer profile, or "
            f"{PACKAGE_PREFIX}SYSTEM/BACKEND"
        )
    if path.is_dir():
        if not is_layer_profile(path):
            inner = sorted(str(meta.parent) for meta in path.glob("*/**/meta.yaml"))
            hint = f"; did you mean {inner[0]}?" if inner else ""
            raise InputError(f"{path}: has no meta.yaml; a layer profile is .../<gpu>/<model>/<dtype>{hint}")
        return read_layer_profile(path)
    return read_measurements(path)


def _from_package(name: str) -> pd.DataFrame:
    from simulator.calibration.aiconfigurator import import_tables

    found = _PACKAGE.fullmatch(name.removeprefix(PACKAGE_PREFIX))
    if found is None:
        raise InputError(
            f"{name}: must be {PACKAGE_PREFIX}SYSTEM/BACKEND, then @VERSION and :FAMILY,FAMILY if wanted, such as "
            f"{PACKAGE_PREFIX}h200_sxm/vllm"
        )
    families = found["families"]
    return import_tables(
        found["system"],
        found["backend"],
        version=found["version"],
        families=None if families is None else families.split(","),
    )

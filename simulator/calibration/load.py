"""Measurements from a path: a Parquet file of the schema, or a layer-profile directory."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from simulator.calibration.layer_profiles import is_layer_profile, read_layer_profile
from simulator.calibration.schema import read_measurements
from simulator.errors import InputError


def load_measurements(path: str | Path) -> pd.DataFrame:
    """Read measurements from a file or a directory.

    Raises
    ------
    InputError
        If the path is neither, or can't be read.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or directory; give a Parquet file of measurements or a layer profile")
    if path.is_dir():
        if not is_layer_profile(path):
            inner = sorted(str(meta.parent) for meta in path.glob("*/**/meta.yaml"))
            hint = f"; did you mean {inner[0]}?" if inner else ""
            raise InputError(f"{path}: has no meta.yaml; a layer profile is .../<gpu>/<model>/<dtype>{hint}")
        return read_layer_profile(path)
    return read_measurements(path)

"""The file of measurements as it grows: what it holds already, rows of cases, written whole each time."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from simulator.calibration.microbenchmarks.case import Case, Key
from simulator.calibration.microbenchmarks.sampling import Sample
from simulator.calibration.schema import COLUMNS, SHAPE_COLUMNS, frame, read_measurements, write_measurements
from simulator.errors import InputError

SOFTWARE = "llm-cluster-simulator microbenchmarks"


@dataclass(frozen=True, slots=True)
class Provenance:
    """What every row of a machine says.

    Attributes
    ----------
    hardware
        Catalogue name of the accelerator, or its own where the catalogue has none.
    version
        Versions of the simulator, torch, triton, CUDA and the driver.
    date
        YYYY-MM-DD.
    """

    hardware: str
    version: str
    date: str


def row(case: Case, taken: Sample, origin: Provenance) -> dict[str, Any]:
    """Return the row of a measured case, by column."""
    return {
        "operator": case.operator,
        "kernel": case.kernel,
        **dict(case.shape),
        "dtype": case.dtype,
        "weight_dtype": case.weight_dtype,
        "kv_dtype": case.kv_dtype,
        "routing": case.routing,
        "time_s": taken.time_s,
        "spread": taken.spread,
        "power_w": taken.power_w,
        "hardware": origin.hardware,
        "software": SOFTWARE,
        "software_version": origin.version,
        "date": origin.date,
        "source": _source(taken),
    }


def _source(taken: Sample) -> str:
    """Say how it was measured: clock, throttling, steadiness, tile."""
    said = ["simulate calibrate run"]
    if taken.sm_mhz is not None:
        low, high = (round(mhz) for mhz in taken.sm_mhz)
        said.append(f"SM clock {low} MHz" if low == high else f"SM clock {low} to {high} MHz")
    if taken.throttled:
        said.append(f"clocks held down: {', '.join(taken.throttled)}")
    if not taken.steady:
        said.append("unsteady")
    if taken.variant:
        said.append(f"tile {taken.variant}")
    return "; ".join(said)


def key_of(measured: Mapping[str, Any]) -> Key:
    """Return the key of the case that a row measured, see `Case.key`.

    Parameters
    ----------
    measured
        The row by column, None (or nothing) where it is empty.
    """
    shape = tuple(sorted((name, int(measured[name])) for name in SHAPE_COLUMNS if measured.get(name) is not None))
    texts = ("dtype", "weight_dtype", "kv_dtype", "routing")
    return (measured["operator"], measured["kernel"], shape, *(measured.get(name) for name in texts))


class Store:
    """Measurements in a file.

    Parameters
    ----------
    path
        The file; need not exist.
    resume
        True: rows that it holds are kept, and their cases are not measured again. False: it must not exist.
    origin
        What rows of this run say.

    Raises
    ------
    InputError
        If the file exists and ``resume`` is False, or it holds measurements of other hardware or versions.
    """

    def __init__(self, path: Path, resume: bool, origin: Provenance) -> None:
        self._path = path
        self._origin = origin
        self._rows: list[dict[str, Any]] = []
        if not path.parent.is_dir():
            raise InputError(f"{path}: there is no directory {path.parent}; make it first")
        if not path.exists():
            return
        if not resume:
            raise InputError(f"{path}: exists; add --resume to keep its rows and measure what is missing")
        table = read_measurements(path)
        for column, mine in (("hardware", origin.hardware), ("software_version", origin.version)):
            others = sorted(set(table[column]) - {mine})
            if others:
                raise InputError(
                    f"{path}: holds measurements of {column} {others[0]!r}, this machine has {mine!r}; "
                    "choose another file"
                )
        self._rows = [
            {str(name): None if pd.isna(value) else value for name, value in each.items()}
            for each in table.to_dict("records")
        ]

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def times_s(self) -> dict[Key, float]:
        """Times of what the file holds, by key."""
        return {key_of(each): float(each["time_s"]) for each in self._rows}

    def add(self, measured: Iterable[tuple[Case, Sample]]) -> None:
        """Add measured cases and write the file, whole or not at all.

        Raises
        ------
        InputError
            If the file can't be written.
        """
        new = [row(case, taken, self._origin) for case, taken in measured]
        if not new:
            return
        rows = [*self._rows, *new]
        _write_whole(frame({name: [each.get(name) for each in rows] for name in COLUMNS}, len(rows)), self._path)
        self._rows = rows


def _write_whole(table: pd.DataFrame, path: Path) -> None:
    """Write beside the file, then take its name."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise InputError(f"{path}: can't be written ({error.strerror or error})") from None
    partial = Path(name)
    try:
        write_measurements(table, partial)
        partial.chmod(0o644)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)

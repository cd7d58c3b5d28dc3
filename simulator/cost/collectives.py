"""Collectives of a tensor parallel group: measured curves by message size, else what another source says."""

from __future__ import annotations

import numpy as np
import pandas as pd

from simulator.cost.kernels import Floats, Kernels
from simulator.cost.tables import curve

MESSAGE_OPERATORS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send_recv")

_NARROW = ("int8", "fp8")
"""Datatypes that hidden states are not reduced in."""


class Collectives:
    """Seconds of collectives over the ranks of one group.

    Where several kernels were measured for an operator, an engine's own count before NCCL's, and those captured in
    CUDA graphs before others, as engines run them so.

    Parameters
    ----------
    rows
        Measurements (`simulator.calibration.schema`), of which those over as many ranks are used; may be empty.
    ranks
        Of the group; 1: everything takes no time.
    otherwise
        Source of what was not measured: fits, or the estimate for the link.

    Attributes
    ----------
    sources
        Lines that say what is measured and what is an estimate.
    """

    def __init__(self, rows: pd.DataFrame, ranks: int, otherwise: Kernels) -> None:
        self._otherwise = otherwise
        self._curves: dict[str, tuple[Floats, Floats]] = {}
        self.sources: tuple[str, ...] = ()
        if ranks == 1:
            return
        lines = []
        for name in ("all_reduce", "all_gather"):
            here = (rows["operator"] == name) & (rows["ranks"] == ranks)
            part = preferred_kernel(rows[here])
            if part.empty:
                lines.append(self._said_otherwise(name))
                continue
            median = part.groupby("message_bytes", sort=True)["time_s"].median()
            points = median.index.to_numpy(dtype=np.float64)
            self._curves[name] = points, median.to_numpy(dtype=np.float64)
            made = part.iloc[0]
            kernel = f", {made['kernel']}" if isinstance(made["kernel"], str) else ""
            lines.append(
                f"tensor parallel {name}: measured over {ranks} ranks, {made['software']} {made['software_version']}"
                f"{kernel} ({made['source']})"
            )
        self.sources = tuple(lines)

    def all_reduce(self, size: Floats) -> Floats:
        """Return the seconds of an all-reduce of ``size`` bytes on each rank."""
        if "all_reduce" in self._curves:
            return np.where(size > 0, curve(*self._curves["all_reduce"], size, hold=False), 0.0)
        return self._otherwise.all_reduce(size)

    def all_gather(self, size: Floats) -> Floats:
        """Return the seconds of an all-gather that leaves ``size`` bytes on each rank."""
        if "all_gather" in self._curves:
            return np.where(size > 0, curve(*self._curves["all_gather"], size, hold=False), 0.0)
        return self._otherwise.all_gather(size)

    def _said_otherwise(self, name: str) -> str:
        """Return what the other source says of a collective's origin."""
        collective = getattr(self._otherwise, name)
        collective(np.array([1.0]))  # a source names what it was asked for
        said = [line for line in self._otherwise.sources if name in line]
        return f"tensor parallel {name}: not in these measurements; {said[0] if said else 'estimate'}"


def preferred_kernel(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of one kernel: an engine's before NCCL's, in a CUDA graph before others; of hidden states."""
    part = rows[~rows["dtype"].isin(_NARROW)]
    kernels = {str(name) for name in part["kernel"].dropna()}
    if not kernels:
        return part

    def rank(name: str) -> tuple[bool, bool, bool, str]:
        lowered = name.lower()
        return "nccl" in lowered, "eager" in lowered, "graph" not in lowered, name

    return part[part["kernel"] == min(kernels, key=rank)]

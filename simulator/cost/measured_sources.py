"""Which cost model a set of measurements makes: of a model's layers where they hold some, else of kernels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from simulator.calibration.load import load_measurements
from simulator.cost.expert_load import DEFAULT_LOAD, ExpertLoad
from simulator.cost.fitted_kernels import unmeasured
from simulator.cost.graphs import NO_GRAPHS, CudaGraphs
from simulator.cost.measured import MeasuredCost, check_hardware
from simulator.cost.operator_cost import OperatorCost
from simulator.cost.roofline import kernel_shapes
from simulator.cost.table_kernels import TableKernels
from simulator.errors import InputError
from simulator.models.spec import ModelSpec
from simulator.parallel import ParallelPlan

if TYPE_CHECKING:
    from hardware_profiles import Accelerator, NodeType


def measured_cost(
    model: ModelSpec,
    accelerator: Accelerator,
    profiles: Sequence[str],
    plan: ParallelPlan,
    *,
    node: NodeType | None,
    weights_dtype: str | None,
    activation_dtype: str | None,
    kv_dtype: str | None,
    host_overhead_s: float,
    graphs: CudaGraphs = NO_GRAPHS,
    outside: str,
    where: str,
    load: ExpertLoad = DEFAULT_LOAD,
    shared_beside: int = 0,
) -> MeasuredCost | OperatorCost:
    """Return the cost model that measurements make.

    Those of a model's layers (``attention`` with a model, as layer profiles have) make a `MeasuredCost`; others of the
    same files add what they lack, collectives. Kernels of their own shapes make an `OperatorCost` of `TableKernels`.

    Parameters
    ----------
    profiles
        Files and directories, whose rows are put together.

    Raises
    ------
    InputError
        If something can't be read, was measured on another accelerator, or can't make the model.
    """
    rows = measured_rows(profiles)
    where = f"{where}, {', '.join(profiles)}"
    if (rows["operator"] == "attention").any():
        return MeasuredCost(
            model,
            accelerator,
            rows,
            plan,
            node=node,
            weights_dtype=weights_dtype,
            activation_dtype=activation_dtype,
            kv_dtype=kv_dtype,
            host_overhead_s=host_overhead_s,
            graphs=graphs,
            outside=outside,
            where=where,
            load=load,
        )
    check_hardware(rows, accelerator, where)
    if outside != "extrapolate":
        raise InputError(f"{where}: outside={outside!r} needs a layer profile; kernel tables are extrapolated")
    shapes = kernel_shapes(
        model,
        accelerator,
        plan,
        weights_dtype=weights_dtype,
        activation_dtype=activation_dtype,
        kv_dtype=kv_dtype,
        node=node,
        load=load,
        shared_beside=shared_beside,
    )
    return OperatorCost(
        shapes,
        TableKernels(rows, shapes, unmeasured(shapes)),
        host_overhead_s=host_overhead_s,
        graphs=graphs,
    )


def measured_rows(profiles: Sequence[str]) -> pd.DataFrame:
    """Return the rows of several files and directories, ordered by operator; nobody writes into the table."""
    return _loaded(tuple((path, _stamp(path)) for path in profiles))


def _stamp(path: str) -> int:
    """Return when a file was last written, ns; 0 for what isn't a file."""
    file = Path(path)
    return file.stat().st_mtime_ns if file.is_file() else 0


@lru_cache(maxsize=2)
def _loaded(profiles: tuple[tuple[str, int], ...]) -> pd.DataFrame:
    """Read measurements, ordered by operator; kept, as many runs of one process mostly use the same.

    Nobody writes into the table.
    """
    rows = pd.concat([load_measurements(path) for path, _ in profiles], ignore_index=True)
    return rows.sort_values("operator", kind="stable", ignore_index=True)

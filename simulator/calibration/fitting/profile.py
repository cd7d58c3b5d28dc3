"""Fits of all families of an accelerator, with their errors at points kept out of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import pandas as pd

from hardware_profiles import Accelerator
from hardware_profiles.fits import FittedProfile, Grid, OperatorFit
from simulator.calibration.fitting.families import Family, families
from simulator.calibration.fitting.forms import FORMS, Axes, Columns, Work, latency_s, seconds
from simulator.calibration.fitting.lattice import Floats
from simulator.calibration.fitting.solving import solve
from simulator.errors import InputError

EVERY = 5
"""Of how many shapes one is kept out of the fit that its errors are taken from."""

LEAST_POINTS = 20
"""Measurements that make a family worth fitting."""

Mask = npt.NDArray[np.bool_]

_WHOLE_SHAPES = {
    "gemm": ("n", "k"),
    "experts": ("hidden_size", "intermediate_size", "num_experts", "top_k", "moe_tp", "moe_ep"),
}
"""Operators of which whole shapes are held out too, with all their token counts, by what makes the shape."""

_SPREAD = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio: Knuth's multiplicative hash


def fit_profile(
    tables: Sequence[pd.DataFrame],
    accelerator: Accelerator,
    *,
    command: str,
    progress: Callable[[str], None] = lambda name: None,
) -> FittedProfile:
    """Fit all families of measurements.

    Parameters
    ----------
    tables
        Measurements, the preferred first.
    command
        That made the profile, for the record.
    progress
        Called with each family before it is fitted.

    Raises
    ------
    InputError
        If there is nothing to fit.
    """
    fits = []
    for family in families(tables, accelerator):
        if len(family.time_s) < LEAST_POINTS:
            continue
        progress(" ".join((family.operator, *family.variant.values())))
        fits.append(fit_family(family, accelerator))
    if not fits:
        raise InputError(f"no kernels to fit for {accelerator.name}; known operators: {', '.join(FORMS)}")
    return FittedProfile(
        accelerator=accelerator.name,
        date=datetime.now(UTC).date().isoformat(),
        source="; ".join(sorted({_package(fit.source) for fit in fits})),
        software=tuple(sorted({fit.software for fit in fits})),
        command=command,
        fits=tuple(fits),
    )


def fit_family(family: Family, accelerator: Accelerator) -> OperatorFit:
    """Fit one family: once without the held-out shapes, for the errors, and once with all of its measurements."""
    form = FORMS[family.operator]
    latency = latency_s(family.operator)
    work = form.work(family.columns, family.variant, accelerator, latency)
    real = family.time_s >= work.bound_s
    out = held_out([family.columns[name] for name in form.columns])
    median, p90 = _errors(family, work, out, out & real)
    left_out = None
    if family.operator in _WHOLE_SHAPES:
        shapes = held_out([family.columns[name] for name in _WHOLE_SHAPES[family.operator]])
        if (shapes & real).any() and not shapes.all():
            left_out = _errors(family, work, shapes, shapes & real)
    ratios, padding = _solved(family, work, np.ones(len(real), dtype=bool))
    return OperatorFit(
        operator=family.operator,
        variant=family.variant,
        latency_s=latency,
        ratios=ratios,
        padding=padding,
        source=family.source,
        software=family.software,
        date=family.date,
        points=len(real),
        held_out=int((out & real).sum()),
        below_bound=int((~real).sum()),
        median_error=median,
        p90_error=p90,
        left_out=left_out,
        kernel=family.kernel,
    )


def held_out(shape: Sequence[Floats]) -> Mask:
    """Return which shapes are kept out: every `EVERY`-th by a hash of them, so that neighbours scatter."""
    total = np.zeros(len(shape[0]), dtype=np.uint64)
    for column in shape:
        # float64's own bits: sizes are whole numbers, windows may be none
        total = (total ^ np.ascontiguousarray(column).view(np.uint64)) * np.uint64(_SPREAD)
        total ^= total >> np.uint64(29)
    return np.asarray((total >> np.uint64(33)) % np.uint64(EVERY) == 0)


def _errors(family: Family, work: Work, out: Mask, judged: Mask) -> tuple[float, float]:
    if not judged.any() or out.all():
        raise InputError(f"{family.operator}: too few measurements to hold any out")
    ratios, padding = _solved(family, work, ~out)
    predicted = seconds(work, ratios, padding)[judged]
    errors = np.abs(predicted / family.time_s[judged] - 1.0)
    return float(np.quantile(errors, 0.5)), float(np.quantile(errors, 0.9))


def _solved(family: Family, work: Work, used: Mask) -> tuple[Grid, Grid | None]:
    form = FORMS[family.operator]
    # What is faster than memory was read from the cache; a model's next layer isn't there.
    target = (np.maximum(family.time_s, work.bound_s) / work.base_s)[used]
    axes = _reached(family.axes, work.axes)
    parts = [(list(axes.values()), _points(axes, work.axes, used), np.ones(len(target)))]
    padded = work.padding is not None and bool(form.padding_axes) and bool((work.padding[used] > 0).any())
    if padded:
        assert work.padding is not None
        extra = form.padding_axes
        parts.append((list(extra.values()), _points(extra, work.axes, used), work.padding[used]))
    values = solve(parts, target, form.bend)
    grid = Grid(axes, tuple(values[0].tolist()))
    return grid, Grid(form.padding_axes, tuple(values[1].tolist())) if padded else None


def _points(axes: Axes, columns: Columns, used: Mask) -> Floats:
    return np.stack([columns[name][used] for name in axes], axis=1)


def _reached(axes: Axes, columns: Columns) -> Axes:
    """Return the nodes that measurements reach: one beyond the least and the greatest of them."""
    kept = {}
    for name, nodes in axes.items():
        low, high = float(columns[name].min()), float(columns[name].max())
        inside = [
            node
            for before, node, after in zip((0.0, *nodes[:-1]), nodes, (*nodes[1:], np.inf), strict=True)
            if after > low and before < high
        ]
        kept[name] = tuple(inside)
    return kept


def _package(source: str) -> str:
    """Return what a measurement's source names before the file."""
    return source.split(" systems/")[0]

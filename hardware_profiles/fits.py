"""Fitted kernel costs of an accelerator: one YAML file each, small grids of ratios with their source and errors.

A fit says how many times longer a family of kernels takes than the data sheet alone would have it, by the logarithms of
its shape (`simulator.calibration.fitting`). The files are made by ``simulate calibrate fit``; see ``docs/fits.md``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType

from hardware_profiles._validate import ProfileReader, nearest, read_yaml
from hardware_profiles.schema import ProfileError

_FOLDER = Path(__file__).parent / "fits"
_US = 1e-6

_FILE_KEYS = ("accelerator", "date", "source", "software", "command", "fits")
_FIT_KEYS = (
    "operator",
    "source",
    "software",
    "date",
    "points",
    "held_out",
    "below_bound",
    "median_error",
    "p90_error",
    "latency_us",
    "axes",
    "ratios",
)
_FIT_OPTIONAL = ("weight_dtype", "kv_dtype", "windowed", "routing", "kernel", "left_out", "padding")
VARIANT_KEYS = ("weight_dtype", "kv_dtype", "windowed", "routing")
"""What tells two fits of one operator apart."""


@dataclass(frozen=True)
class Grid:
    """Values at the nodes of a grid.

    Attributes
    ----------
    axes
        Nodes of each axis in the units of its name, ascending; the last axis runs fastest.
    values
        Of the nodes, flat.
    """

    axes: Mapping[str, tuple[float, ...]]
    values: tuple[float, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Nodes along each axis."""
        return tuple(len(nodes) for nodes in self.axes.values())


@dataclass(frozen=True)
class OperatorFit:
    """Fitted times of one operator in one format.

    Attributes
    ----------
    operator
        As in the measurement schema.
    variant
        Format: those of `VARIANT_KEYS` that apply.
    latency_s
        Of the form's base, seconds.
    ratios
        Time over the form's base.
    padding
        What each row of padding adds to it for each row; None where the form has none.
    source, software, date
        Where the measurements come from.
    points, held_out
        Measurements that the form was fitted to, and those kept out to judge it.
    below_bound
        Measurements that are faster than the data sheet allows (kept in the cache by the benchmark); fitted as if at
        the bound, left out of the errors.
    median_error, p90_error
        Of ``|fitted / measured - 1|`` at the points held out.
    left_out
        The same two where whole shapes (all their token counts) were held out; None where not tried.
    kernel
        Which of several measured kernels; empty where one.
    """

    operator: str
    variant: Mapping[str, str]
    latency_s: float
    ratios: Grid
    padding: Grid | None
    source: str
    software: str
    date: str
    points: int
    held_out: int
    below_bound: int
    median_error: float
    p90_error: float
    left_out: tuple[float, float] | None = None
    kernel: str = ""


@dataclass(frozen=True)
class FittedProfile:
    """All fits of an accelerator.

    Attributes
    ----------
    accelerator
        Its name.
    date
        When it was fitted, YYYY-MM-DD.
    source, software
        What the measurements are, and of which versions, a line each.
    command
        That made it.
    fits
        By operator and variant.
    """

    accelerator: str
    date: str
    source: str
    software: tuple[str, ...]
    command: str
    fits: tuple[OperatorFit, ...]

    def find(self, operator: str, **variant: str) -> OperatorFit | None:
        """Return the fit of an operator with all of the variant's values; None where there is none."""
        for fit in self.fits:
            if fit.operator == operator and all(fit.variant.get(key) == value for key, value in variant.items()):
                return fit
        return None


def list_fits() -> list[str]:
    """Return the names of the accelerators that have fits, sorted; reads no file."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


@cache
def load_fits(name: str | Path) -> FittedProfile:
    """Return the fits of an accelerator.

    Parameters
    ----------
    name
        A name that `list_fits` gives, or the path of a YAML file of that form.

    Raises
    ------
    ProfileError
        If there is none, or its file is malformed.
    """
    text = str(name)
    if isinstance(name, Path) or text.endswith((".yaml", ".yml")):
        return _profile(read_yaml(Path(name)))
    if text not in list_fits():
        raise ProfileError(f"no fitted costs of {text!r}{nearest(text, list_fits())}")
    return _profile(read_yaml(_FOLDER / f"{text}.yaml"))


def _profile(reader: ProfileReader) -> FittedProfile:
    reader.check_keys(_FILE_KEYS)
    fits = []
    for number, entry in enumerate(reader.items("fits"), 1):
        where = f"{reader.where}: fits, entry {number}"
        if not isinstance(entry, Mapping):
            raise ProfileError(f"{where}: must be a mapping, got {entry!r}")
        fits.append(_fit(ProfileReader(entry, where)))
    return FittedProfile(
        accelerator=reader.text("accelerator"),
        date=reader.text("date"),
        source=reader.text("source"),
        software=tuple(str(line) for line in reader.items("software")),
        command=reader.text("command"),
        fits=tuple(fits),
    )


def _fit(reader: ProfileReader) -> OperatorFit:
    reader.check_keys(_FIT_KEYS, _FIT_OPTIONAL)
    variant = {key: reader.text(key) for key in VARIANT_KEYS if key in reader.mapping}
    left_out = _numbers(reader, "left_out", reader.items("left_out")) if "left_out" in reader.mapping else None
    if left_out is not None and len(left_out) != 2:
        raise reader.error("left_out", f"must be a median and a 90th percentile, got {list(left_out)!r}")
    padding = None
    if "padding" in reader.mapping:
        table = reader.table("padding")
        table.check_keys(("axes", "ratios"))
        padding = _grid(table)
    return OperatorFit(
        operator=reader.text("operator"),
        variant=MappingProxyType(variant),
        latency_s=reader.number("latency_us") * _US,
        ratios=_grid(reader),
        padding=padding,
        source=reader.text("source"),
        software=reader.text("software"),
        date=reader.text("date"),
        points=reader.count("points"),
        held_out=reader.count("held_out"),
        below_bound=int(_not_negative(reader, "below_bound")),
        median_error=_not_negative(reader, "median_error"),
        p90_error=_not_negative(reader, "p90_error"),
        left_out=None if left_out is None else (left_out[0], left_out[1]),
        kernel=reader.text("kernel") if "kernel" in reader.mapping else "",
    )


def _not_negative(reader: ProfileReader, key: str) -> float:
    return 0.0 if reader.mapping[key] in (0, 0.0) else reader.number(key)


def _grid(reader: ProfileReader) -> Grid:
    table = reader.table("axes")
    axes: dict[str, tuple[float, ...]] = {}
    size = 1
    for key in table.mapping:
        name = str(key)
        nodes = _numbers(table, name, table.items(name))
        if not nodes or any(not low < high for low, high in pairwise(nodes)):
            raise table.error(name, f"must be ascending nodes, got {list(nodes)!r}")
        axes[name] = nodes
        size *= len(nodes)
    try:
        values = tuple(map(float, reader.text("ratios").split()))
    except ValueError as error:
        raise reader.error("ratios", f"must be numbers, a row of the grid a line: {error}") from None
    if not all(map(math.isfinite, values)):
        raise reader.error("ratios", "must be finite numbers")
    if len(values) != size:
        raise reader.error("ratios", f"must hold {size} numbers, one a node, got {len(values)}")
    return Grid(MappingProxyType(axes), values)


def _numbers(reader: ProfileReader, key: str, values: list[object]) -> tuple[float, ...]:
    found = []
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise reader.error(key, f"must hold numbers, got {value!r}")
        found.append(float(value))
    return tuple(found)

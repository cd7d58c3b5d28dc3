"""How well tables of measurements are interpolated: errors at points that were kept out of them.

``python -m simulator.calibration.held_out PATH [--tp N] [--every K]`` prints the errors of a layer profile, or of a
Parquet file of measurements.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from simulator.calibration.load import load_measurements
from simulator.calibration.schema import relative_errors
from simulator.cost.measured import operator_tables
from simulator.cost.measured_attention import MeasuredAttention
from simulator.cost.shape import BatchShape
from simulator.cost.tables import Floats, curve, experts_curve

EVERY = 5
"""Of how many points one is kept out."""

_ATTENTION_AXES = ("new_tokens", "cached_tokens", "decodes", "decode_kv")


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Errors of one operator's table at points that it was made without.

    Attributes
    ----------
    points
        How many.
    median, p90
        Of ``|predicted / measured - 1|``.
    """

    points: int
    median: float
    p90: float


def held_out_errors(measurements: pd.DataFrame, tp: int = 1, every: int = EVERY) -> dict[str, HeldOut]:
    """Keep every ``every``-th point out of each operator's table, and compare what the rest says of it.

    Points are counted in the order of their shapes; the ends of a curve stay in. ``attention`` comes in three parts;
    ``attention_skew`` compares the ratio of unequal to equal decodes, ``attention_skew_ignored`` is the same with
    that ratio taken as 1.

    Returns
    -------
    dict
        Errors by operator.
    """
    rows = measurements[measurements["tp"] == tp]
    found: dict[str, HeldOut] = {}
    for name, (points, times) in operator_tables(rows).items():
        kept_out = _experts_kept_out(points, every) if name == "moe" else _kept_out(len(points), every)
        if kept_out.any():
            rest = points[~kept_out], times[~kept_out]
            at = points[kept_out]
            predicted = (
                experts_curve(*rest, at[:, 0], at[:, 1], hold=False) if name == "moe" else curve(*rest, at, hold=False)
            )
            found[name] = _errors(predicted, times[kept_out])
    attention = _of(rows, "attention")
    kept = np.arange(len(attention)) % every == every - 1
    if kept.any():
        table = MeasuredAttention(attention[~kept], _of(rows, "attention_skew")[:0])
        found.update(_by_part("attention", table, attention[kept]))
    return {**found, **_skew_errors(rows, every)}


def held_out_planes(measurements: pd.DataFrame, axis: str, tp: int = 1) -> dict[str, HeldOut]:
    """Keep each measured value of one axis of attention out of the table, in turn, but for the ends.

    Nothing with that value is left, so the error is that of interpolating along this axis over twice the distance
    that the table has.
    """
    rows = _of(measurements[measurements["tp"] == tp], "attention")
    parts: dict[str, list[tuple[Floats, Floats]]] = {}
    empty = rows[:0]
    for name, part in _parts(rows).items():
        values = sorted(set(part[axis].tolist()))
        for value in values[1:-1]:
            out = (part[axis] == value).to_numpy()
            rest = pd.concat([rows.drop(part.index), part[~out]])
            table = MeasuredAttention(rest, empty)
            measured = part.loc[out, "time_s"].to_numpy(dtype=np.float64)
            parts.setdefault(name, []).append((_predict(table, part[out]), measured))
    return {
        f"attention {name}": _errors(*(np.concatenate(each) for each in zip(*pairs, strict=True)))
        for name, pairs in parts.items()
    }


def _skew_errors(rows: pd.DataFrame, every: int) -> dict[str, HeldOut]:
    skew = _of(rows, "attention_skew")
    kept = np.arange(len(skew)) % every == every - 1
    if not kept.any():
        return {}
    table = MeasuredAttention(_of(rows, "attention"), skew[~kept])
    out = skew[kept]
    found = {}
    for part, where in (("decodes", out["new_tokens"] == 0), ("mixed", out["new_tokens"] > 0)):
        these = out[where]
        if len(these):
            ratio = (these["time_s"] / these["baseline_s"]).to_numpy(dtype=np.float64)
            predicted = _predict(table, these) / _predict(table, these.assign(decode_kv_cv=0.0))
            found[f"attention_skew {part}"] = _errors(predicted, ratio)
            found[f"attention_skew_ignored {part}"] = _errors(np.ones(len(ratio)), ratio)
    return found


def _of(rows: pd.DataFrame, operator: str) -> pd.DataFrame:
    """Return the rows of an operator in the order of their shapes."""
    names = [*_ATTENTION_AXES, "decode_kv_cv"]
    return rows[rows["operator"] == operator].sort_values(names, kind="stable").reset_index(drop=True)


def _parts(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    prefill, decode = rows["new_tokens"] > 0, rows["decodes"] > 0
    return {"decodes": rows[~prefill & decode], "chunk": rows[prefill & ~decode], "mixed": rows[prefill & decode]}


def _by_part(name: str, table: MeasuredAttention, rows: pd.DataFrame) -> dict[str, HeldOut]:
    return {
        f"{name} {part}": _errors(_predict(table, these), these["time_s"].to_numpy(dtype=np.float64))
        for part, these in _parts(rows).items()
        if len(these)
    }


def _predict(table: MeasuredAttention, rows: pd.DataFrame) -> Floats:
    """Return the seconds of attention that a table says of measured shapes."""
    columns = [rows[name].fillna(0).to_numpy(dtype=np.float64).tolist() for name in (*_ATTENTION_AXES, "decode_kv_cv")]
    return np.array([table.one(_shape(*row)) for row in zip(*columns, strict=True)])


def _shape(new: float, cached: float, decodes: float, kv: float, cv: float) -> BatchShape:
    shape = BatchShape()
    shape.decodes = int(decodes)
    shape.decode_kv = round(decodes * kv)
    shape.decode_kv_sq = round(decodes * kv * kv * (1.0 + cv * cv))
    if new:
        shape.chunks = [(int(new), int(cached))]
        shape.prefill_tokens = int(new)
    return shape


def _kept_out(count: int, every: int) -> npt.NDArray[np.bool_]:
    """Return which points of a curve are kept out: every so many, not the first and last."""
    order = np.arange(count)
    return np.asarray((order % every == every - 1) & (order != count - 1))


def _experts_kept_out(points: Floats, every: int) -> npt.NDArray[np.bool_]:
    """Return which points of the experts' table are kept out: every so many, not the ends of a line."""
    inner = np.zeros(len(points), dtype=bool)
    for count in set(points[:, 0].tolist()):
        line = np.flatnonzero(points[:, 0] == count)
        inner[line[1:-1]] = True
    places = np.flatnonzero(inner)
    inner[places] = np.arange(len(places)) % every == every - 1
    return inner


def _errors(predicted: Floats, measured: Floats) -> HeldOut:
    return HeldOut(len(measured), *relative_errors(predicted.tolist(), measured.tolist()))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the held-out errors of measurements."""
    parser = argparse.ArgumentParser(prog="python -m simulator.calibration.held_out", description=__doc__)
    parser.add_argument("path", help="layer profile, or Parquet file of measurements")
    parser.add_argument("--tp", type=int, default=1, help="tensor parallel size (default: 1)")
    parser.add_argument("--every", type=int, default=EVERY, help=f"one point of so many is kept out (default: {EVERY})")
    parser.add_argument("--planes", action="store_true", help="keep whole values of each axis of attention out too")
    given = parser.parse_args(arguments)
    table = load_measurements(given.path)
    results = held_out_errors(table, given.tp, given.every)
    if given.planes:
        for axis in _ATTENTION_AXES:
            planes = held_out_planes(table, axis, given.tp)
            results.update({f"{name} without a value of {axis}": found for name, found in planes.items()})
    width = max(map(len, results))
    print(f"{'operator':{width}}  points  median %   p90 %")
    for name, found in results.items():
        print(f"{name:{width}}  {found.points:6}  {found.median * 100:8.2f}  {found.p90 * 100:6.2f}")


if __name__ == "__main__":
    main()

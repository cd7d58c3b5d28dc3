"""The report of a sweep: the best point, every point with its intervals, figures against what varied."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulator import figures
from simulator.errors import InputError
from simulator.figures.labels import quantity, scaled
from simulator.reports import common, known
from simulator.reports.document import Block, Bullets, Cell, Code, Document, Plot, Section, Table, Text
from simulator.studies.design import labels_of, shown
from simulator.studies.sweep_files import POINTS, RUNS, SCHEMA_VERSION, SWEEP
from simulator.terminal import number, plural

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FIGURES = (
    "goodput_requests_per_s",
    "attainment",
    "ttft_s_p99",
    "tpot_s_mean",
    "itl_s_p99",
    "e2e_s_mean",
    "output_tokens_per_s",
    "cost_per_million_output_tokens",
    "energy_j_per_output_token",
)
"""Of the table, after the one that points are ranked by; points.csv has all."""
_DRAWN = ("goodput_requests_per_s", "ttft_s_p99", "tpot_s_mean", "output_tokens_per_s")
"""Of the plots, likewise."""
_MOST_POINTS = 40
"""In the table, the best first; points.csv has all."""
_MOST_LINES = 6
_MOST_REASONS = 20
_WIDE = 30
"""Largest over smallest value from which an axis is logarithmic: a choice."""
_MOST_ALONE = 4
"""Plots of one figure against one parameter each, in designs without lines."""

Sweep = Mapping[str, Any]
Means = Mapping[str, Mapping[str, Mapping[str, float | None]]]
"""By point and figure: ``mean``, ``low`` and ``high``."""


def document(directory: Path) -> Document:
    """Return the report of what ``simulate sweep --out`` wrote.

    Raises
    ------
    InputError
        If this version doesn't read it.
    """
    sweep = common.read_study(directory / SWEEP, "sweep", SCHEMA_VERSION, "sweep again")
    means, failures = _means(directory / POINTS), _failures(directory / RUNS)
    subjects = dict.fromkeys(each for kind in sweep["kinds"] for each in known.subjects_of(kind))
    varied = list(_varied(sweep))
    what = ", ".join(varied) if varied else plural(len(sweep["points"]), "variant")
    return Document(
        title=f"Sweep of {what}",
        answer=" ".join(_answer(sweep, means)),
        sections=[
            Section("Points", list(_tables(sweep, means, failures))),
            Section(
                "Plots", list(_plots(sweep, means)) or [Text("Nothing to draw: fewer than two points have figures.")]
            ),
            common.assumptions([*sweep["notes"], *sweep["assumptions"]]),
            common.cost_sources(sweep["sources"]),
            known.section(subjects),
            _again(sweep),
            common.made_by(
                sweep["took_s"],
                ("Runs", f"{sweep['simulated']:,} simulated, {sweep['kept']:,} kept from earlier"),
                version=sweep["version"],
            ),
        ],
    )


# ---------------------------------------------------------------------------------------------------------- files


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:  # names of points may have line breaks
            return list(csv.DictReader(file))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


def _means(path: Path) -> Means:
    found: dict[str, dict[str, dict[str, float | None]]] = {}
    for row in _rows(path):
        values = {name: float(row[name]) if row[name] else None for name in ("mean", "low", "high")}
        found.setdefault(row["point"], {})[row["figure"]] = values
    return found


def _failures(path: Path) -> dict[str, list[str]]:
    """Return the points of failed runs by reason, a point as often as it has such runs."""
    found: dict[str, list[str]] = {}
    for row in _rows(path):
        if row["reason"]:
            found.setdefault(row["reason"], []).append(row["point"])
    return found


# --------------------------------------------------------------------------------------------------------- answer


def _answer(sweep: Sweep, means: Means) -> Iterator[str]:
    if sweep["interrupted"] or sweep["lost"]:
        yield "INTERRUPTED: of the runs that were simulated until then."
    count = plural(len(sweep["points"]), "point")
    yield f"{count} with {plural(len(sweep['seeds']), 'seed')} each."
    figure = _first(sweep, means)
    told = [
        (point, each["mean"])
        for point in _order(sweep)
        if (each := means.get(point, {}).get(figure)) and each["mean"] is not None
    ]
    if not told:
        yield "No run has figures."
    elif sweep["by"] is not None:
        best = told[0][0]
        yield f"The best by {sweep['by']['target']} is {best}: {_with_half(means[best][figure])} {sweep['by']['unit']}."
    elif len(told) > 1:
        low, high = min(told, key=lambda each: each[1]), max(told, key=lambda each: each[1])
        yield f"{quantity(figure)} goes from {number(low[1])} ({low[0]}) to {number(high[1])} ({high[0]})."
    if sweep["failed"]:
        yield f"{plural(sweep['failed'], 'run')} of {sweep['runs']:,} failed."


def _first(sweep: Sweep, means: Means) -> str:
    """Return the figure that points are ranked by, or the first that they have."""
    if sweep["by"] is not None:
        return str(sweep["by"]["figure"])
    return next((name for name in _DRAWN if _has(means, name)), _DRAWN[1])


def _has(means: Means, figure: str) -> bool:
    return any(each.get(figure, {}).get("mean") is not None for each in means.values())


def _order(sweep: Sweep) -> list[str]:
    return list(sweep["ranked"] or [point["name"] for point in sweep["points"]])


def _with_half(found: Mapping[str, float | None]) -> str:
    estimate = _estimate(found, 1.0)
    return estimate if isinstance(estimate, str) else "–" if estimate is None else number(estimate)


def _estimate(found: Mapping[str, float | None], scale: float) -> str | float | None:
    """Return a mean, with half of its interval where there is one."""
    mean, high = found["mean"], found["high"]
    if mean is None or high is None or high <= mean:
        return None if mean is None else mean * scale
    return f"{number(mean * scale).replace('-', '−')} ± {number((high - mean) * scale)}"


# --------------------------------------------------------------------------------------------------------- tables


def _tables(sweep: Sweep, means: Means, failures: Mapping[str, Sequence[str]]) -> Iterator[Block]:
    ranked = sweep["by"] is not None
    columns = [name for name in dict.fromkeys([_first(sweep, means), *_FIGURES]) if _has(means, name)]
    order = _order(sweep)
    largest = {name: max(abs(each[name]["mean"] or 0.0) for each in means.values() if name in each) for name in columns}
    units = {name: scaled(name, largest[name]) for name in columns}
    rows: list[list[Cell]] = []
    for place, point in enumerate(order[:_MOST_POINTS], 1):
        found = means.get(point, {})
        cells = [_estimate(found[name], units[name][1]) if name in found else None for name in columns]
        rows.append([point, *([place] if ranked else []), *cells, "; ".join(_remarks(found))])
    part = f" ({_MOST_POINTS} of {len(order)}; points.csv has all)" if len(order) > _MOST_POINTS else ""
    sorting = f"by {sweep['by']['target']}, the best first" if ranked else "in the order of the design"
    several = len(sweep["seeds"]) > 1
    intervals = f": means over seeds ± half of their {100 * sweep['confidence']:g} % interval" if several else ""
    headings = ("point", *(["rank"] if ranked else []), *(units[name][0] for name in columns), "remark")
    yield Table(f"Points {sorting}{part}{intervals}.", headings, rows, frozenset({0}) if ranked else frozenset())
    if failures:
        yield Text("Runs without figures, by reason:")
        reasons = sorted(failures.items(), key=lambda each: -len(each[1]))
        yield Bullets(
            [f"{plural(len(points), 'run')} ({_listed(points)}): {why}" for why, points in reasons[:_MOST_REASONS]]
        )
        if len(reasons) > _MOST_REASONS:
            yield Text(f"{len(reasons) - _MOST_REASONS} more reasons are in sweep.csv.")


def _listed(points: Sequence[str]) -> str:
    names = list(dict.fromkeys(points))
    return "; ".join(names[:3]) + (f" and {len(names) - 3} more points" if len(names) > 3 else "")


def _remarks(found: Mapping[str, Mapping[str, float | None]]) -> Iterator[str]:
    if not any(each["mean"] is not None for each in found.values()):
        yield "no figures"
        return
    if found["overloaded"]["mean"]:
        yield "overloaded"
    if unserved := found["unserved"]["mean"]:
        yield f"{number(unserved)} not served"


# ---------------------------------------------------------------------------------------------------------- plots


def _varied(sweep: Sweep) -> dict[str, list[Any]]:
    """Return the values of each key that all points set and that isn't the same for all, by its short name."""
    points = [point["keys"] for point in sweep["points"]]
    names = [name for name in points[0] if all(name in keys for keys in points)]
    labels = labels_of(names)
    found = {labels[name]: [keys[name] for keys in points] for name in names}
    return {label: values for label, values in found.items() if len(set(map(shown, values))) > 1}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _plots(sweep: Sweep, means: Means) -> Iterator[Plot]:
    import pandas as pd

    varied = _varied(sweep)
    numeric = [name for name, values in varied.items() if all(map(_is_number, values))]
    frame = pd.DataFrame({"point": [point["name"] for point in sweep["points"]]})
    for name, values in varied.items():
        frame[name] = values if name in numeric else [shown(value) for value in values]
    drawn = [name for name in dict.fromkeys([_first(sweep, means), *_DRAWN]) if _has(means, name)][:4]
    for name in drawn:
        for bound, column in (("mean", name), ("low", f"{name}_low"), ("high", f"{name}_high")):
            frame[column] = [means.get(point, {}).get(name, {}).get(bound, math.nan) for point in frame["point"]]
            frame[column] = frame[column].astype(float)
    frame = frame[frame[drawn].notna().any(axis=1)] if drawn else frame.iloc[:0]
    if len(frame) < 2:
        return
    sizes = {name: frame[name].nunique() for name in varied}
    if not varied or (not numeric and len(varied) > 1):
        yield from (_line(frame, "point", name, None) for name in drawn)
        return
    x = max(numeric or varied, key=lambda name: (sizes[name], -list(varied).index(name)))
    others = [name for name in varied if name != x]
    if math.prod(sizes.values()) > 2 * len(frame) or (sizes[x] == len(frame) and others):  # not a grid: no lines
        first = drawn[0]
        yield from (_dots(frame, name, first) for name in numeric[:_MOST_ALONE])
        return
    by = " and ".join(others) or None
    if len(others) > 1:
        frame[by] = frame[others].astype(str).agg(", ".join, axis=1)
    if len(others) == 1 and sizes[others[0]] > _MOST_LINES:
        yield from (_heatmap(frame, x, others[0], name) for name in drawn)
    elif by is None or frame[by].nunique() <= _MOST_LINES:
        yield from (_line(frame, x, name, by) for name in drawn)
    else:
        yield from (_dots(frame, name, drawn[0]) for name in (numeric or [x])[:_MOST_ALONE])


def _line(frame: pd.DataFrame, x: str, y: str, by: str | None) -> Plot:
    bounded = bool(frame[f"{y}_low"].notna().any())
    low, high = (f"{y}_low", f"{y}_high") if bounded else (None, None)
    bars = "; bars are intervals" if bounded else ""
    lines = f", a line each value of {by}" if by else ""
    said = "the points" if x == "point" else quantity(x)
    if by is None and frame[x].dtype.kind not in "iuf":  # names have nothing between them
        drawn = figures.sweep_points(frame, x, y, low=low, high=high)
    else:
        drawn = figures.sweep_line(frame, x, y, by=by, low=low, high=high)
    return Plot(
        _spread(drawn, frame, x, low or y, y),
        f"{quantity(y)} against {said}{lines}{bars}.",
        _seen(frame, y),
        _data(frame, [name for name in (by, x) if name], y),
    )


def _spread(figure: Figure, frame: pd.DataFrame, x: str, low: str, high: str) -> Figure:
    """Make the axes logarithmic of what goes over orders of magnitude."""
    (axes,) = figure.axes
    if frame[x].dtype.kind in "iuf" and _is_wide(frame[x], frame[x]):
        _logarithmic(axes, "x")
    if _is_wide(frame[low], frame[high]):
        _logarithmic(axes, "y")
    return figure


def _logarithmic(axes: Axes, which: str) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))  # pages show no powers
    axis.set_minor_formatter(NullFormatter())


def _is_wide(low: pd.Series[Any], high: pd.Series[Any]) -> bool:
    return bool(low.min() > 0 and high.max() / low.min() >= _WIDE)


def _heatmap(frame: pd.DataFrame, x: str, y: str, value: str) -> Plot:
    caption = f"{quantity(value)} by {quantity(x)} and {quantity(y)}."
    return Plot(figures.sweep_heatmap(frame, x, y, value), caption, _seen(frame, value), _data(frame, [x, y], value))


def _dots(frame: pd.DataFrame, x: str, y: str) -> Plot:
    caption = f"{quantity(y)} against {quantity(x)}, a dot a point; what else varies is not the same for two dots."
    return Plot(
        _spread(figures.sweep_points(frame, x, y), frame, x, y, y), caption, _seen(frame, y), _data(frame, [x], y)
    )


def _seen(frame: pd.DataFrame, y: str) -> str:
    told = frame[frame[y].notna()]
    low, high = told.iloc[int(told[y].argmin())], told.iloc[int(told[y].argmax())]
    return (
        f"{quantity(y)} is the lowest, {number(float(low[y]))}, at {low['point']}, and the highest, "
        f"{number(float(high[y]))}, at {high['point']}."
    )


def _data(frame: pd.DataFrame, names: Sequence[str], y: str) -> Table:
    rows: list[list[Cell]] = [
        [*(_cell(row[name]) for name in names), _cell(row[y])] for _, row in frame[[*names, y]].iterrows()
    ]
    return Table("The figure's values: means over seeds.", [*map(quantity, names), quantity(y)], rows)


def _cell(value: Any) -> Cell:
    if isinstance(value, str):
        return value
    number_of = float(value)
    return None if math.isnan(number_of) else int(number_of) if number_of.is_integer() else number_of


# ---------------------------------------------------------------------------------------------------------- again


def _again(sweep: Sweep) -> Section:
    from simulator.studies.sweep_files import scenario_file

    order = _order(sweep)
    place = next((place for place, point in enumerate(sweep["points"], 1) if point["name"] == order[0]), 1)
    where = (
        f"In the directory of the result: one run of {order[0]}. Every point has such a file, and every run of "
        "sweep.csv is a point with a seed; sweep.json has the keys of each."
    )
    command = f"simulate run --scenario {scenario_file(place)} --seed {sweep['seeds'][0]}"
    section = common.again(command, None, where=where)
    base = Code("The scenario that points change", common.scenario_yaml(sweep["base"]), folded=True)
    return replace(section, blocks=[*section.blocks, base])

"""Means over replications, with confidence intervals.

The interval of a mean is Student's: mean ± t(n - 1) s / sqrt(n), which holds for independent replications of which the
figure is about normal, or many (A. M. Law, *Simulation Modeling and Analysis*, 5th ed., section 9.4.1). Of one
replication there is none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

CONFIDENCE = 0.95
"""Probability that an interval covers the mean: the usual choice."""
SEED = "seed"
"""Column that tells replications of one point apart; what stands before it in a table of runs names the point."""

NOTES = ("reason", "digest")
"""Columns of a table of runs that are no figures, also where they are empty."""


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval.

    Attributes
    ----------
    mean
        None without a value.
    low, high
        None with fewer than two values.
    n
        Number of values.
    """

    mean: float | None
    low: float | None
    high: float | None
    n: int

    @property
    def half(self) -> float | None:
        """Half of the interval's width."""
        return None if self.high is None or self.mean is None else self.high - self.mean


def interval(values: Iterable[float | None], confidence: float = CONFIDENCE) -> Interval:
    """Return the mean of values and Student's interval for it; nulls and NaN are left out.

    Raises
    ------
    InputError
        If the confidence isn't between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise InputError(f"the confidence must be above 0 and below 1, got {confidence:g}; 0.95 is usual")
    found = np.array([float(value) for value in values if value is not None and not math.isnan(value)])
    if not len(found):
        return Interval(None, None, None, 0)
    mean = float(found.mean())
    if len(found) == 1:
        return Interval(mean, None, None, 1)
    if np.all(found == found[0]):  # the mean of equal numbers may differ from them in the last bit
        return Interval(float(found[0]), float(found[0]), float(found[0]), len(found))
    half = _quantile(confidence, len(found) - 1) * float(found.std(ddof=1)) / math.sqrt(len(found))
    return Interval(mean, mean - half, mean + half, len(found))


def _quantile(confidence: float, freedom: int) -> float:
    from scipy.special import stdtrit  # what scipy.stats.t.ppf calls; scipy.stats takes ten times as long to import

    return float(stdtrit(freedom, (1 + confidence) / 2))


def intervals(
    frame: pd.DataFrame,
    *,
    by: Sequence[str] | None = None,
    figures: Sequence[str] | None = None,
    confidence: float = CONFIDENCE,
) -> pd.DataFrame:
    """Return mean and interval of each figure of each point, over its replications.

    Parameters
    ----------
    frame
        A row a run, as `sweep` returns it.
    by
        Columns that name a point; None: those before ``seed``.
    figures
        Columns of figures; None: those after ``seed`` that hold numbers or nothing, but for `NOTES`.
    confidence
        Probability that an interval covers the mean.

    Returns
    -------
    pandas.DataFrame
        A row a point and figure, points in the order of their first run: the columns of ``by``, ``figure``, ``mean``,
        ``low``, ``high``, ``n`` (runs that have the figure) and ``runs`` (all of the point). Of one run ``low`` and
        ``high`` are null; so are those of a truth value, whose mean is the share of runs in which it holds.

    Raises
    ------
    InputError
        If the table has no such column.
    """
    import pandas as pd

    columns = list(frame.columns)
    if by is None or figures is None:
        if SEED not in columns:
            raise InputError(f"which columns name a point? the table has no {SEED!r}: give 'by' and 'figures'")
        place = columns.index(SEED)
        by = columns[:place] if by is None else by
        if figures is None:
            figures = [name for name in columns[place + 1 :] if name not in NOTES and _holds_numbers(frame[name])]
    for name in (*by, *figures):
        if name not in columns:
            raise InputError(f"the table has no column {name!r}; it has: {', '.join(map(str, columns))}")
    rows: list[dict[str, Any]] = []
    for point, group in _groups(frame, by):
        for name in figures:
            values = [None if pd.isna(value) else value for value in group[name]]
            found = interval(values, confidence)
            if any(isinstance(value, bool | np.bool_) for value in values):
                found = Interval(found.mean, None, None, found.n)
            rows.append({**point, "figure": name, **vars(found), "runs": len(group)})
    names = [*by, "figure", "mean", "low", "high", "n", "runs"]
    table = pd.DataFrame(rows, columns=names)
    return table.astype(dict.fromkeys(("mean", "low", "high"), float))


def _groups(frame: pd.DataFrame, by: Sequence[str]) -> list[tuple[dict[str, Any], pd.DataFrame]]:
    """Return each point with its runs; values need not be hashable."""
    found: dict[str, list[int]] = {}
    for place, values in enumerate(frame[list(by)].itertuples(index=False, name=None)):
        found.setdefault(repr(values), []).append(place)
    return [({name: frame[name].iloc[places[0]] for name in by}, frame.iloc[places]) for places in found.values()]


def _holds_numbers(column: pd.Series[Any]) -> bool:
    """Tell whether a column holds numbers, truth values or nothing; columns with nulls are of objects."""
    return all(isinstance(value, int | float | np.number | np.bool_) for value in column.dropna())


__all__ = ["CONFIDENCE", "Interval", "interval", "intervals"]

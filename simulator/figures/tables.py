"""Tables that figures are drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from simulator.errors import InputError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd


def checked(frame: pd.DataFrame, columns: Sequence[str], known: Sequence[str]) -> pd.DataFrame:
    """Return the rows that have what is drawn.

    Parameters
    ----------
    columns
        That must be there.
    known
        In which a row must have a value.

    Raises
    ------
    InputError
        If a column is missing, or no row is left.
    """
    for column in columns:
        if column not in frame:
            raise InputError(f"no column {column!r}{did_you_mean(column, map(str, frame.columns))}")
    found = frame.dropna(subset=list(known))
    if not len(found):
        raise InputError(f"no row has {' and '.join(known)}: nothing to draw")
    return found

"""Errors that are meant for a person: what was wrong, where, and what would be right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Bad input or no feasible answer; the CLI prints its message in one line and exits with code 2.

    The message says what was wrong, where (file, line, key), and the remedy.
    """


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest known word, else the list of the known ones.

    Parameters
    ----------
    word
        What the user wrote.
    known
        What could have been written; listed in sorted order where nothing is near.
    """
    options = sorted(known)
    near = difflib.get_close_matches(word, options, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known: {', '.join(options)}"

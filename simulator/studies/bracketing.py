"""Where a share falls below a threshold as the load grows: bisection on replications that are noisy.

A load counts as sustained, or missed, only when the interval of the share over replications (`estimate`) doesn't
contain the threshold; replications are added while it does, up to a limit. A load at that limit is undecided, and
bisection goes on below and above it. The answer is therefore a bracket: the highest load that is sustained and the
lowest that is missed, with what lies between within tolerance or noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from simulator.studies.intervals import interval

Answer = Literal["sustained", "missed", "undecided"]

_Z = 1.959964
"""Standard normal quantile of a two-sided interval of 95 %, as `simulator.studies.intervals.CONFIDENCE`."""
_STEP = 2.0
"""Factor between loads while one end of the bracket is not known, a choice."""
_COARSE = 0.4
"""Tolerance between two loads that the noise leaves open, a choice: one of them may be open by bad luck."""


@dataclass(frozen=True)
class Replication:
    """The share that one run at a load came to.

    Attributes
    ----------
    share
        Of the requests, within the objectives; of a run that was given up: at most that.
    of
        Requests that the share is of.
    is_whole
        Whether the run went to its end.
    """

    share: float
    of: int
    is_whole: bool = True


@dataclass(frozen=True)
class Estimate:
    """The share at a load, over replications.

    Attributes
    ----------
    mean, low, high
        Mean and its interval. Where a run was given up, mean and ``high`` are bounds from above, and ``low`` is 0.
    answer
        Whether the interval lies above the threshold, below it, or contains it.
    """

    mean: float
    low: float
    high: float
    answer: Answer


def estimate(replications: Sequence[Replication], threshold: float) -> Estimate:
    """Return the mean share, its interval of 95 %, and on which side of the threshold that lies.

    The interval is Student's over the replications, but no narrower than Wilson's for all requests together: few
    replications that happen to agree (all at 1, say) don't show more than their requests can. A run that was given up
    stands with the most that its share can be, so that the true mean is no higher: that can show a load to be missed,
    never to be sustained.

    Raises
    ------
    ValueError
        Without a replication, or with one of no request.

    References
    ----------
    E. B. Wilson, *Probable inference, the law of succession, and statistical inference*, JASA 22 (1927) 209-212.
    """
    if not replications or not all(each.of for each in replications):
        raise ValueError("a share needs at least one replication, and each at least one request")
    shares = [each.share for each in replications]
    over = interval(shares)
    assert over.mean is not None
    total = sum(each.of for each in replications)
    low, high = wilson(math.fsum(each.share * each.of for each in replications) / total, total)
    if over.low is None or over.high is None:  # of one replication there is no interval
        low, high = 0.0, 1.0
    else:
        low, high = max(0.0, min(low, over.low)), min(1.0, max(high, over.high))
    if not all(each.is_whole for each in replications):
        low = 0.0
    answer: Answer = "sustained" if low > threshold else "missed" if high < threshold else "undecided"
    return Estimate(over.mean, low, high, answer)


def wilson(share: float, count: int) -> tuple[float, float]:
    """Return Wilson's interval of 95 % of a share of so many independent trials."""
    squared = _Z**2 / count
    middle = (share + squared / 2) / (1 + squared)
    half = _Z / (1 + squared) * math.sqrt(share * (1 - share) / count + squared / (4 * count))
    return middle - half, middle + half


def requests_needed(threshold: float) -> int:
    """Return of how many requests, all within the objectives, the interval lies above the threshold."""
    return math.floor(_Z**2 * threshold / (1 - threshold)) + 1


@dataclass(frozen=True)
class Bracket:
    """Between which loads the share falls below the threshold.

    Attributes
    ----------
    sustained
        The highest load that is sustained, of those below every load that is missed; None: none down to the least.
    missed
        The lowest that is missed; None: none up to the most.
    undecided
        Loads between the two that the noise leaves open, ascending.
    """

    sustained: float | None
    missed: float | None
    undecided: tuple[float, ...] = ()


def find_bracket(
    ask: Callable[[float], Answer],
    start: float,
    *,
    tolerance: float,
    least: float,
    most: float,
    whole: bool = False,
) -> Bracket:
    """Return the bracket of a share that falls with the load, asking about one load at a time.

    From the start the load is doubled or halved until something sustained and something missed is known; then the gap
    is bisected, its loads equally far apart as factors.

    Parameters
    ----------
    ask
        Answers for a load; asked but once of each.
    start, least, most
        Loads, above 0; none outside ``least`` to ``most`` is asked about.
    tolerance
        A gap is closed when its upper end is at most ``1 + tolerance`` times its lower one.
    whole
        Whether loads are whole numbers, as clients are; then a gap without one in it is closed too.
    """
    answers: dict[float, Answer] = {}
    coming: float | None = start
    while coming is not None:
        answers[coming] = ask(coming)
        coming = _next(answers, tolerance, least, most, whole)
    return bracket_of(answers)


def bracket_of(answers: Mapping[float, Answer]) -> Bracket:
    """Return what answers say together; those above the lowest load that is missed don't count."""
    missed = min((load for load, answer in answers.items() if answer == "missed"), default=None)
    below = {load: answer for load, answer in answers.items() if missed is None or load < missed}
    sustained = max((load for load, answer in below.items() if answer == "sustained"), default=None)
    between = (load for load, answer in below.items() if answer == "undecided")
    return Bracket(sustained, missed, tuple(sorted(load for load in between if sustained is None or load > sustained)))


def _next(answers: Mapping[float, Answer], tolerance: float, least: float, most: float, whole: bool) -> float | None:
    """Return the next load to ask about; None: nothing is left to be known."""
    found = bracket_of(answers)
    lower, upper = min(answers), max(answers)
    if found.sustained is None and lower > least:
        return max(least, math.floor(lower / _STEP) if whole else lower / _STEP)
    if found.missed is None and upper < most:
        return min(most, upper * _STEP)
    known = [load for load in (found.sustained, *found.undecided, found.missed) if load is not None]
    for low, high in pairwise(known):
        at_an_end = low == found.sustained or high == found.missed
        if not at_an_end and (found.sustained is None or found.missed is None):
            continue
        if high <= low * (1 + (tolerance if at_an_end else max(tolerance, _COARSE))):
            continue
        middle = math.sqrt(low * high)
        if not whole:
            return middle
        middle = min(max(round(middle), low + 1), high - 1)
        if low < middle < high:
            return middle
    return None


__all__ = ["Answer", "Bracket", "Estimate", "Replication", "bracket_of", "estimate", "find_bracket", "requests_needed"]

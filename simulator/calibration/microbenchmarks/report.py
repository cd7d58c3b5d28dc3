"""What a person looks at after a run: which share of the card's peak each kernel reached at its biggest shape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hardware_profiles import Accelerator
from simulator.calibration.microbenchmarks.budget import roofline_s
from simulator.calibration.microbenchmarks.case import Case, Key
from simulator.calibration.microbenchmarks.operators import copies


@dataclass(frozen=True, slots=True)
class Fraction:
    """A kernel at the shape with the most work.

    Attributes
    ----------
    case
        The case.
    time_s
        Measured seconds of a launch.
    bound
        ``"FLOP/s"``, ``"memory"`` or ``"PCIe"``: what the data sheet says bounds it.
    reached
        Share of that rate that was reached; above 1 where something is wrong (or was in the cache).
    """

    case: Case
    time_s: float
    bound: str
    reached: float


def fractions(cases: Iterable[Case], times_s: Mapping[Key, float], profile: Accelerator) -> list[Fraction]:
    """Return the fraction of each group of cases, at the measured one whose least time is the longest.

    Kernels that do no work to speak of (launches) and collectives have none.
    """
    biggest: dict[tuple[str, str, str], tuple[float, Case]] = {}
    for case in cases:
        least = roofline_s(case, profile)
        if case.key in times_s and least > biggest.get(case.group, (0.0, case))[0]:
            biggest[case.group] = least, case
    found = []
    for least, case in biggest.values():
        time_s = times_s[case.key]
        memory_s = case.bytes / profile.memory_bandwidth
        bound = "PCIe" if copies.over_pcie(case) else "memory" if least <= memory_s else "FLOP/s"
        found.append(Fraction(case, time_s, bound, least / time_s))
    return found


def lines(found: Iterable[Fraction]) -> list[str]:
    """Return the fractions as lines of a table."""
    rows = [
        (f"{100 * each.reached:.0f} % of {each.bound}", f"{each.time_s * 1e6:,.1f} us", each.case.label)
        for each in found
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(2)] if rows else []
    return [f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c}" for a, b, c in rows]

"""A run: the grid, what the file has already, each case measured, the file written after each group."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Protocol

from simulator.calibration.microbenchmarks.budget import Budget
from simulator.calibration.microbenchmarks.case import Case
from simulator.calibration.microbenchmarks.operators import (
    attention,
    collectives,
    copies,
    elementwise,
    experts,
    gemm,
    launch,
)
from simulator.calibration.microbenchmarks.operators.base import Limits
from simulator.calibration.microbenchmarks.sampling import Sample
from simulator.calibration.microbenchmarks.store import Store
from simulator.errors import InputError, did_you_mean

PREPARE = {
    "launch": launch.prepare,
    "copy": copies.prepare,
    "kv_gather": copies.prepare,
    "kv_scatter": copies.prepare,
    "norm": elementwise.prepare,
    "activation": elementwise.prepare,
    "rotary": elementwise.prepare,
    "gemm": gemm.prepare,
    "decode_attention": attention.prepare,
    "prefill_attention": attention.prepare,
    "experts": experts.prepare,
}
"""What makes the cases of an operator ready, in the order in which operators are measured: quick ones first."""

OPERATORS = (*PREPARE, *collectives.OPERATORS)
"""Operators that are measured."""


class Bench(Protocol):
    """What measures cases; raises `RuntimeError` where one can't run (no memory, no tile that fits)."""

    def measure(self, case: Case) -> Sample:
        """Measure one case on one GPU."""

    def measure_collectives(self, cases: Sequence[Case], ranks: int) -> list[Sample]:
        """Measure collectives of that many ranks, in order."""


@dataclass(slots=True)
class Outcome:
    """What a run did.

    Attributes
    ----------
    measured, kept
        Cases measured now, and those that the file had.
    left
        Cases that the budget left over.
    failed
        Cases that couldn't run, with the reason.
    unsteady
        Cases whose samples were dropped or spread too much, twice.
    skipped
        Lines that say what was left out altogether.
    """

    measured: int = 0
    kept: int = 0
    left: int = 0
    failed: list[tuple[Case, str]] = field(default_factory=list)
    unsteady: list[Case] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def check_operators(only: Iterable[str]) -> tuple[str, ...]:
    """Return the operators that were asked for; all where none was.

    Raises
    ------
    InputError
        If one isn't measured.
    """
    asked = tuple(dict.fromkeys(only))
    for name in asked:
        if name not in OPERATORS:
            raise InputError(f"--only {name}: no operator that is measured{did_you_mean(name, OPERATORS)}")
    return asked or OPERATORS


def grid(limits: Limits, gpus: int, operators: Iterable[str]) -> list[Case]:
    """Return all cases of those operators, in the order in which they are measured."""
    wanted = set(operators)
    found = [
        *launch.cases(limits),
        *copies.cases(limits),
        *elementwise.cases(limits),
        *gemm.cases(limits),
        *attention.cases(limits),
        *experts.cases(limits),
        *collectives.cases(gpus, limits.quick),
    ]
    order = {operator: place for place, operator in enumerate(OPERATORS)}
    return sorted((c for c in found if c.operator in wanted), key=lambda case: order[case.operator])


def run(
    cases: Sequence[Case],
    bench: Bench,
    store: Store,
    budget: Budget,
    progress: Callable[[Case], None] = lambda case: None,
) -> Outcome:
    """Measure what the store doesn't have, and write it after each group.

    What was measured is written also when the run is interrupted.

    Parameters
    ----------
    cases
        The grid.
    progress
        Called before each case that is measured or passed over.
    """
    outcome = Outcome()
    have = store.times_s
    missing = [case for case in cases if case.key not in have]
    outcome.kept = len(cases) - len(missing)
    alone = [case for case in missing if case.operator not in collectives.OPERATORS]
    budget.start()
    # Collectives first: once their processes start, a budget can't stop them.
    together = sorted((c for c in missing if c.operator in collectives.OPERATORS), key=lambda case: case["ranks"])
    for ranks, several in groupby(together, key=lambda case: case["ranks"]):
        _measure_collectives(list(several), ranks, bench, store, budget, outcome, progress)
    for _, group in groupby(alone, key=lambda case: case.group):
        taken: list[tuple[Case, Sample]] = []
        try:
            for case in group:
                progress(case)
                if budget.spent:
                    outcome.left += 1
                else:
                    _measure(case, bench, taken, outcome)
        finally:
            _keep(taken, store, outcome)
    return outcome


def _measure(case: Case, bench: Bench, taken: list[tuple[Case, Sample]], outcome: Outcome) -> None:
    try:
        taken.append((case, bench.measure(case)))
    except RuntimeError as error:  # torch's out of memory is one
        outcome.failed.append((case, " ".join(str(error).split())[:200] or type(error).__name__))


def _measure_collectives(
    cases: list[Case],
    ranks: int,
    bench: Bench,
    store: Store,
    budget: Budget,
    outcome: Outcome,
    progress: Callable[[Case], None],
) -> None:
    for case in cases:
        progress(case)
    if budget.spent:
        outcome.left += len(cases)
        return
    try:
        _keep(list(zip(cases, bench.measure_collectives(cases, ranks), strict=True)), store, outcome)
    except RuntimeError as error:
        outcome.failed += [(case, " ".join(str(error).split())[:200]) for case in cases]


def _keep(taken: list[tuple[Case, Sample]], store: Store, outcome: Outcome) -> None:
    store.add(taken)
    outcome.measured += len(taken)
    outcome.unsteady += [case for case, sample in taken if not sample.steady]

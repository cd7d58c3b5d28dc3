"""A case is a piece of work that makes rows: run here or in another process, and never able to stop the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, as_completed
from dataclasses import dataclass

from simulator.validation.rows import Row, not_run

BATCH = 12
"""Most cases of a group that a process takes at a time: a choice, between reading tables twice and idle processes."""


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes
    ----------
    work
        Makes its rows; can be pickled.
    size
        How long it takes compared with others, in any unit: the longest begin first.
    group
        Cases that read the same large table: those of a group run one after the other in few processes, which keep it.
        Empty: none.
    """

    dataset: str
    name: str
    work: Callable[[], list[Row]]
    size: float = 0.0
    group: str = ""


def run_case(case: Case) -> list[Row]:
    """Return a case's rows, or the one that says why there are none."""
    try:
        return case.work()
    except ValueError as error:  # InputError, PolicyError, TraceError, ProfileError
        return [not_run(case.dataset, case.name, str(error))]
    except Exception as error:  # one case must not take the others with it; the row says that it is our defect
        return [not_run(case.dataset, case.name, f"a defect of the simulator: {type(error).__name__}: {error}")]


def run_cases(
    cases: Sequence[Case], executor: Executor | None, done: Callable[[Case], None] = lambda case: None
) -> list[Row]:
    """Return the rows of all cases, in the order of the cases whatever ends first.

    Parameters
    ----------
    executor
        Where they run; None: here, one after the other.
    done
        Told of each case that ended.
    """
    found: dict[int, list[Row]] = {}
    for place, rows in _results(cases, executor):
        found[place] = rows
        done(cases[place])
    return [row for place in sorted(found) for row in found[place]]


def _results(cases: Sequence[Case], executor: Executor | None) -> Iterator[tuple[int, list[Row]]]:
    if executor is None:
        for place, case in enumerate(cases):
            yield place, run_case(case)
        return
    futures = {executor.submit(run_batch, [cases[place] for place in batch]): batch for batch in batches(cases)}
    for future in as_completed(futures):
        yield from zip(futures[future], future.result(), strict=True)


def run_batch(cases: Sequence[Case]) -> list[list[Row]]:
    """Return the rows of each case, run one after the other."""
    return [run_case(case) for case in cases]


def batches(cases: Sequence[Case]) -> list[list[int]]:
    """Return the places of cases that run together, in the order in which they begin: longest first, group by group."""
    groups: dict[str, list[int]] = {}
    for place in sorted(range(len(cases)), key=lambda place: -cases[place].size):
        groups.setdefault(cases[place].group, []).append(place)
    alone = [[place] for place in groups.pop("", [])]
    pieces = [group[i : i + BATCH] for group in groups.values() for i in range(0, len(group), BATCH)]
    return [*pieces, *alone]

"""`highest_load`: the highest load at which a scenario's requests stay within its objectives.

The load is the rate of arrivals (``workload.rate_scale``), or the number of clients of a closed loop. It is bracketed
by bisection (`simulator.studies.bracketing`) on the share of requests that meet their objectives, over replications:
the same seeds, and so the same requests, at every load. Runs that miss more than twice what the objectives allow are
given up early (`simulator.studies.verdict`): they show that a load is missed as well as whole ones do.

The share falls with the load in all but odd cases, but nothing guarantees it, and on a finite trace it says what that
trace shows: every load that was tried is in the result.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulator.build import load_trace
from simulator.errors import InputError
from simulator.resolve import resolve
from simulator.scenario import Scenario, ScenarioLike, read_scenario
from simulator.studies import load_files
from simulator.studies.bracketing import (
    Bracket,
    bracket_of,
    find_bracket,
    requests_needed,
)
from simulator.studies.load_study import FIRST_SEEDS, LoadStudy, Probe, Progress
from simulator.studies.replications import list_seeds, replications
from simulator.studies.store import StoreLike, open_store
from simulator.studies.verdict import MIN_ATTAINMENT

if TYPE_CHECKING:
    import pandas as pd

    from workloads import Trace

TOLERANCE = 0.05
"""Width of the bracket at which the search ends, as a share of the load: a choice."""
MOST_SEEDS = 9
"""Replications of a load at most, unless the caller says otherwise: a choice."""
SHORT_S = 60.0
"""Time of arrivals at the load that was found below which a note says that it is a burst: a choice, some times what an
answer takes."""


@dataclass(frozen=True)
class HighestLoad:
    """What a search for the highest load found.

    Attributes
    ----------
    key
        What the load is: ``workload.rate_scale``, or ``workload.loop.clients``.
    share
        Of the requests, that must be within the objectives.
    probes
        Loads that were tried, ascending.
    bracket
        The highest load that is sustained, the lowest that is missed, and what lies open between them.
    best_scenario
        The scenario at the highest load that is sustained, everything decided; None: none is.
    replicated
        What seeds stand for, in words.
    notes
        What to know of the answer.
    interrupted
        Whether it was ended before the answer was known.
    took_s
        Wall time, seconds.
    """

    model: str
    key: str
    share: float
    objectives: Mapping[str, Any]
    probes: tuple[Probe, ...]
    bracket: Bracket
    best_scenario: Scenario | None
    replicated: str
    notes: tuple[str, ...]
    interrupted: bool
    took_s: float

    def at(self, load: float | None) -> Probe | None:
        """Return the probe of a load; None: it was not tried."""
        return next((each for each in self.probes if each.load == load), None)

    @property
    def sustained(self) -> Probe | None:
        """The highest load that is sustained, below all that are missed."""
        return self.at(self.bracket.sustained)

    @property
    def missed(self) -> Probe | None:
        """The lowest load that is missed."""
        return self.at(self.bracket.missed)

    @property
    def answer(self) -> str:
        """The answer in a sentence."""
        within = f"{self.model}, {100 * self.share:g} % of requests within {_said(self.objectives)}"
        sustained, missed = self.sustained, self.missed
        if sustained is None:
            below = f"{missed.text} is not" if missed is not None else "none was decided"
            return f"{within}: no load that was tried is sustained; {below}."
        said = f"{within}: {sustained.text} is sustained"
        return f"{said}; every load tried was." if missed is None else f"{said}, {missed.text} is not."

    def frame(self) -> pd.DataFrame:
        """Return a row a load that was tried, ascending; columns as in ``loads.csv``."""
        import pandas as pd

        return pd.DataFrame(load_files.table(self))


def _said(objectives: Mapping[str, Any]) -> str:
    """Return objectives in words, as plain data has them."""
    said = [
        f"{name.removesuffix('_s').upper()} {f'{1e3 * limit:g} ms' if limit < 1 else f'{limit:g} s'}"
        for name, limit in objectives.items()
        if name != "classes"
    ]
    said += [f"{name}: {_said(limits)}" for name, limits in objectives.get("classes", {}).items()]
    return ", ".join(said)


def highest_load(
    scenario: ScenarioLike,
    *,
    attain: float = MIN_ATTAINMENT,
    tolerance: float = TOLERANCE,
    seeds: int | Sequence[int] = MOST_SEEDS,
    resample: bool | None = None,
    workers: int | None = None,
    executor: Executor | None = None,
    store: StoreLike = True,
    out: str | PathLike[str] | None = None,
    overwrite: bool = False,
    progress: Progress = lambda done, text: None,
    trace: Trace | None = None,
) -> HighestLoad:
    """Find the highest load of a scenario within its objectives.

    Parameters
    ----------
    scenario
        Everything, with objectives; its own rate, or number of clients, is where the search begins.
    attain
        Share of the requests that must be within the objectives: 0.99 with ``ttft_s: 2`` is a p99 of at most 2 s.
    tolerance
        The search ends when the bracket is no wider than that, as a share of the load.
    seeds
        Replications of a load at most: how many, from the scenario's seed on, or which.
    resample
        Whether a replayed trace is drawn anew for each seed; None: where it can be.
    workers, executor
        As `simulator.studies.workers.run_tasks`; the result doesn't depend on them.
    store
        Where results and verdicts are kept, as `simulator.studies.store.open_store`.
    out
        Directory for ``loads.csv``, ``load.json`` and ``best.yaml``; None: nothing is written.
    overwrite
        Replace an earlier search there.
    progress
        Told of each simulation that ended.
    trace
        Requests in place of the scenario's, filtered as it says.

    Returns
    -------
    HighestLoad
        Also after Ctrl-C, with what was done until then.

    Raises
    ------
    InputError
        For bad input, or if the objectives can't be met with one request at a time: which, by how much, and what
        would do.
    """
    begun = time.perf_counter()
    base = read_scenario(scenario)
    numbers = list_seeds(seeds, base.seed)
    _check_given(base, attain, tolerance, numbers)
    place = None if out is None else load_files.check_dir(Path(out), overwrite=overwrite)
    resolved = resolve(base)
    base, fixed = _with_free_generator(base)
    requests = load_trace(base, trace)
    _check_requests(base, requests)
    again = replications(base, requests, wanted=resample)
    study = LoadStudy(
        base, requests, trace, again.resample, numbers, attain, open_store(store), workers, executor, progress
    )
    interrupted = False
    try:
        bracket = find_bracket(
            study.ask,
            study.start,
            tolerance=tolerance,
            least=study.least,
            most=study.most,
            whole=study.is_closed,
        )
    except KeyboardInterrupt:
        interrupted = True
        bracket = bracket_of({load: probe.answer for load, probe in study.probes.items()})
    probes = tuple(study.probes[load] for load in sorted(study.probes))
    best = None
    if bracket.sustained is not None:
        best = resolve(study.scenario(bracket.sustained, base.seed, again=base.workload.resample)).scenario
    found = HighestLoad(
        model=resolved.model.name,
        key=study.key,
        share=attain,
        objectives=base.objectives.model_dump(mode="json", exclude_none=True),
        probes=probes,
        bracket=bracket,
        best_scenario=best,
        replicated=again.text,
        notes=(),
        interrupted=interrupted,
        took_s=time.perf_counter() - begun,
    )
    found = replace(found, notes=(*fixed, *_notes(found, study, len(requests))))
    if place is not None:
        load_files.write(found, place)
    return found


def _with_free_generator(base: Scenario) -> tuple[Scenario, tuple[str, ...]]:
    """Take away a generator's own seed, which would give all replications the same requests; say so."""
    generator = base.workload.generator
    if generator is None or "seed" not in generator.params:
        return base, ()
    params = {name: value for name, value in generator.params.items() if name != "seed"}
    note = f"the generator's own seed, {generator.params['seed']}, was not used: replications have seeds of their own"
    return base.updated({"workload.generator": {"kind": generator.kind, "params": params}}), (note,)


def _check_given(base: Scenario, attain: float, tolerance: float, seeds: Sequence[int]) -> None:
    slos = base.objectives
    if not slos.classes and not any((slos.ttft_s, slos.tpot_s, slos.itl_s, slos.e2e_s)):
        raise InputError(
            "the highest load within which objectives? give one of --ttft, --tpot, --itl, --e2e (objectives.ttft_s ...)"
        )
    if not 0 < attain < 1:
        raise InputError(
            f"the share of requests within the objectives must be above 0 and below 1, got {attain:g}: that every one "
            "is can't be shown by replications; 0.9 and 0.99 are usual"
        )
    if not 0 < tolerance <= 1:
        raise InputError(f"the tolerance must be above 0 and at most 1, got {tolerance:g}; 0.05 is 5 % of the load")
    if len(seeds) < FIRST_SEEDS:
        raise InputError(
            f"the highest load takes at least {FIRST_SEEDS} replications (seeds) of a load, got {len(seeds)}"
        )


def _check_requests(base: Scenario, requests: Trace) -> None:
    """Refuse requests whose load can't be changed."""
    if base.workload.loop.kind != "closed" and len(requests) and requests.arrival_s[-1] == requests.arrival_s[0]:
        raise InputError(
            f"no load to find: {'the only request arrives' if len(requests) == 1 else 'all requests arrive'} at one "
            "time, at any rate; give a trace that takes a while, or a closed loop (--clients 1)"
        )


def _notes(found: HighestLoad, study: LoadStudy, requests: int) -> Iterator[str]:
    """Yield what to know of an answer."""
    sustained, missed = found.sustained, found.missed
    if found.interrupted:
        return
    if missed is None and sustained is not None:
        yield (
            f"no load up to {found.key}={study.most:g} was missed: these {requests:,} requests are too few to fill the "
            "cluster; give it more requests, or stricter objectives"
        )
    if sustained is not None and sustained.overloaded:
        yield (
            "at the highest load sustained the queue still grew when the arrivals ended: more requests at that rate "
            "would miss; try a longer trace"
        )
    span = None if sustained is None else study.span_s(sustained.load)
    if span is not None and span < SHORT_S:
        yield (
            f"at the highest load sustained the {requests:,} requests arrive within {span:.3g} s: a burst more than a "
            "load; try a longer trace"
        )
    if found.bracket.undecided:
        told = ", ".join(f"{load:.4g}" for load in found.bracket.undecided)
        probes = [study.probes[load] for load in found.bracket.undecided]
        text = f"with {len(study.seeds)} replications the noise leaves open whether {found.key} {told} is sustained"
        needed = requests_needed(found.share)
        if any(each.runs * requests < needed for each in probes):
            text += f"; to show a share of {found.share:g} takes {needed:,} requests over all replications at least"
        yield text + "; more seeds (--seeds) or a longer trace narrow that"
    yield from _not_monotone(found.probes)


def _not_monotone(probes: Sequence[Probe]) -> Iterator[str]:
    """Yield a sentence for a load whose share is above that of a lower one by more than noise."""
    for place, lower in enumerate(probes):
        for higher in probes[place + 1 :]:
            if higher.estimate.low > lower.estimate.high:
                yield (
                    f"the share doesn't fall with the load everywhere: {higher.load:.4g} meets the objectives more "
                    f"often than {lower.load:.4g}; the bracket is the lowest such edge"
                )
                return


__all__ = ["TOLERANCE", "HighestLoad", "Probe", "highest_load"]

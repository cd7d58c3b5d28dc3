"""`sweep`: the same scenario with other keys, many times over, with seeds as replications.

A point is a set of keys (`simulator.studies.design`), a run is a point with a seed. Runs go to processes, or to a Dask
cluster, and their results are kept (`simulator.studies.store`), so that a sweep that was killed goes on where it was.
The table doesn't depend on where runs took place, nor on the order in which they ended.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulator.engine_args import expand_args
from simulator.errors import InputError
from simulator.resolve import resolve
from simulator.scenario import Scenario, ScenarioLike, read_scenario
from simulator.scenario_keys import anchor_paths
from simulator.studies import sweep_files
from simulator.studies.design import MOST_POINTS, Axis, Point, make_design, scenario_at
from simulator.studies.design_files import read_sweep
from simulator.studies.intervals import intervals
from simulator.studies.points import Outcome, Task
from simulator.studies.replications import list_seeds
from simulator.studies.store import Done, Store, StoreLike, open_store, run_kept
from simulator.studies.targets import Target, order, target
from simulator.studies.workers import ExecutorLostError
from simulator.write import plain

if TYPE_CHECKING:
    import pandas as pd

    from workloads import Trace

Progress = Callable[[int, int, str], None]
"""Told how many runs have ended, of how many, and the last one's point."""
NOT_RUN = "the sweep ended before it was simulated"
"""Reason of a run that was left out."""


@dataclass(frozen=True)
class Run:
    """A point with a seed.

    Attributes
    ----------
    done
        What came of it; None: the sweep ended before.
    """

    point: Point
    seed: int
    done: Done | None = None

    @property
    def failure(self) -> str:
        """Why it has no figures; empty where it has."""
        return NOT_RUN if self.done is None else self.done.outcome.failure

    @property
    def figures(self) -> Mapping[str, Any]:
        """`figures_of` its summary; empty where it failed."""
        return {} if self.done is None else self.done.outcome.figures


@dataclass(frozen=True)
class SweepResult:
    """What a sweep found.

    Attributes
    ----------
    base
        The scenario that points change.
    points, scenarios
        Points in the order of the design, and the scenario of each.
    seeds
        Replications of every point.
    runs
        Points by seeds: the first point with every seed, then the next.
    by
        What points are ranked by; None: they are not.
    notes
        What to know of the figures.
    interrupted, lost
        Whether runs are missing because the sweep was interrupted, or because the executor or cluster ended before it.
    took_s
        Wall time, seconds.
    """

    base: Scenario
    points: tuple[Point, ...]
    scenarios: tuple[Scenario, ...]
    seeds: tuple[int, ...]
    runs: tuple[Run, ...]
    by: Target | None
    notes: tuple[str, ...]
    interrupted: bool
    lost: bool
    took_s: float

    @property
    def failed(self) -> list[Run]:
        """Runs that ended without figures."""
        return [run for run in self.runs if run.done is not None and run.failure]

    @property
    def kept(self) -> int:
        """Runs whose result was there already."""
        return sum(run.done is not None and run.done.was_kept for run in self.runs)

    @property
    def simulated(self) -> int:
        """Runs that took place and came to an end."""
        return sum(run.done is not None and not run.done.was_kept and not run.failure for run in self.runs)

    def frame(self) -> pd.DataFrame:
        """Return a row a run: ``point``, a column a key, ``seed``, the figures, ``reason`` and ``digest``.

        A key that a point doesn't set is null there, and so are the figures of a run that failed; ``reason`` says why.
        """
        import pandas as pd

        rows = sweep_files.table(self)
        return pd.DataFrame(rows, columns=list(rows[0]))

    def means(self) -> pd.DataFrame:
        """Return a row a point and figure, with mean and confidence interval; see `intervals`."""
        return intervals(self.frame())

    def ranked(self) -> list[Point]:
        """Return points, best first by the mean of what they are ranked by; without that, in the design's order.

        As in a search: points whose runs failed come last, before them those that leave requests unserved or don't
        sustain the load, where the figure flatters them.
        """
        by = self.by
        if by is None:
            return list(self.points)
        means = {point.name: self.mean_figures(point) for point in self.points}
        return sorted(self.points, key=lambda point: order(means[point.name], by))

    def runs_of(self, point: Point) -> tuple[Run, ...]:
        """Return the runs of a point, a seed each."""
        return self._by_point[point.name]

    @cached_property
    def _by_point(self) -> dict[str, tuple[Run, ...]]:
        count = len(self.seeds)
        return {each.name: self.runs[place * count : (place + 1) * count] for place, each in enumerate(self.points)}

    def mean_figures(self, point: Point) -> dict[str, float | None]:
        """Return the mean of each figure over the runs of a point that have it."""
        runs = [run.figures for run in self.runs_of(point) if run.figures]
        return {name: _mean([each[name] for each in runs]) for name in (runs[0] if runs else ())}


def _mean(values: Sequence[Any]) -> float | None:
    found = [float(value) for value in values if value is not None]
    return math.fsum(found) / len(found) if found else None


# ---------------------------------------------------------------------------------------------------------- sweep


def sweep(
    scenario: ScenarioLike,
    over: Mapping[str, Axis] | None = None,
    *,
    variants: Mapping[str, Mapping[str, Any]] | None = None,
    points: Sequence[Mapping[str, Any]] | None = None,
    lhs: int | None = None,
    seeds: int | Sequence[int] | None = None,
    workers: int | None = None,
    executor: Executor | None = None,
    cluster: str | None = None,
    store: StoreLike = True,
    out: str | PathLike[str] | None = None,
    overwrite: bool = False,
    progress: Progress = lambda done, total, name: None,
    trace: Trace | None = None,
) -> pd.DataFrame:
    """Run a scenario with other keys, and return a row a run.

    What to know of the figures is warned of; `run_sweep` returns it instead, with more.

    Parameters
    ----------
    scenario
        What points change; a scenario, its keys, its file, or a sweep's file, which says what varies too.
    over
        Values to try by key, all combinations: ``{"tp": [1, 2], "rate_scale": "0.5..2:4"}``. Keys are dotted ones of
        the scenario or names of flags; ranges as `simulator.studies.design.values_of`.
    variants
        Keys that are set together, by name.
    points
        Keys of each point.
    lhs
        Points of a Latin hypercube over the ranges of ``over`` without a step (``"0.5..2"``, ``"16..256:log:int"``).
    seeds
        Replications of every point: how many, from the scenario's seed on, or which; None: one.
    workers, executor
        As `simulator.studies.workers.run_tasks`.
    cluster
        Address of a Dask scheduler, in place of those.
    store
        Where results are kept, as `simulator.studies.store.open_store`.
    out
        Directory for ``sweep.csv``, ``points.csv``, ``sweep.json`` and a scenario a point; None: nothing is written.
    overwrite
        Replace an earlier sweep there.
    progress
        Told of each run that ended.
    trace
        Requests in place of the scenario's, filtered as it says.

    Returns
    -------
    pandas.DataFrame
        As `SweepResult.frame`; runs that failed or were left out by Ctrl-C are there with the reason.

    Raises
    ------
    InputError
        For a design or a point that is none, before anything is simulated; or if every run failed.
    """
    result = run_sweep(
        scenario,
        over,
        variants=variants,
        points=points,
        lhs=lhs,
        seeds=seeds,
        workers=workers,
        executor=executor,
        cluster=cluster,
        store=store,
        out=out,
        overwrite=overwrite,
        progress=progress,
        trace=trace,
    )
    for note in result.notes:
        warnings.warn(note, stacklevel=2)
    return result.frame()


def run_sweep(
    scenario: ScenarioLike,
    over: Mapping[str, Axis] | None = None,
    *,
    variants: Mapping[str, Mapping[str, Any]] | None = None,
    points: Sequence[Mapping[str, Any]] | None = None,
    lhs: int | None = None,
    seeds: int | Sequence[int] | None = None,
    by: str | None = None,
    workers: int | None = None,
    executor: Executor | None = None,
    cluster: str | None = None,
    store: StoreLike = True,
    out: str | PathLike[str] | None = None,
    overwrite: bool = False,
    progress: Progress = lambda done, total, name: None,
    trace: Trace | None = None,
) -> SweepResult:
    """Run a sweep; parameters and errors as `sweep`.

    Parameters
    ----------
    by
        What points are ranked by: `simulator.studies.targets.TARGETS`.

    Returns
    -------
    SweepResult
        Also after Ctrl-C, with what was done until then.
    """
    begun = time.perf_counter()
    design: Mapping[str, Any] = {"over": over, "variants": variants, "points": points, "lhs": lhs}
    if isinstance(scenario, str | PathLike) and sweep_files.is_sweep(Path(scenario)):
        scenario, design, seeds, by = _of_file(Path(scenario), design, seeds, by)
    base = _base(scenario)
    wanted = None if by is None else target(by)
    numbers = list_seeds(1 if seeds is None else seeds, base.seed)
    drawn = make_design(**design, seed=base.seed)
    if len(drawn) * len(numbers) > MOST_POINTS:
        raise InputError(
            f"{len(drawn):,} points with {len(numbers):,} seeds are {len(drawn) * len(numbers):,} runs, more than a "
            f"sweep takes ({MOST_POINTS:,}): try fewer values or seeds"
        )
    scenarios = [scenario_at(base, point) for point in drawn]
    _check_given(drawn, scenarios, trace)
    if wanted is not None:
        _check_by(wanted, scenarios)
    place = None if out is None else sweep_files.check_dir(Path(out), overwrite=overwrite)
    keeper = open_store(store)
    if cluster is not None and (workers is not None or executor is not None):
        raise InputError("give the address of a cluster, or workers of this machine, not both")
    runs = [Run(point, seed) for point in drawn for seed in numbers]
    tasks = [Task(_mapping(each, seed), trace) for each in scenarios for seed in numbers]
    with _executor(cluster, executor) as chosen:
        done, ended = _simulated(tasks, runs, keeper, workers, chosen, progress)
    runs = [replace(run, done=done.get(place)) for place, run in enumerate(runs)]
    result = SweepResult(
        base=base,
        points=tuple(drawn),
        scenarios=tuple(scenarios),
        seeds=tuple(numbers),
        runs=tuple(runs),
        by=wanted,
        notes=tuple(_notes(runs, numbers, trace)),
        interrupted=ended == "interrupted",
        lost=ended == "lost",
        took_s=time.perf_counter() - begun,
    )
    outcomes = [run.done.outcome for run in runs if run.done is not None]
    if outcomes and not ended and not any(each.is_defect or not each.failure for each in outcomes):
        count = "the only run failed" if len(runs) == 1 else f"all {len(runs):,} runs failed"
        raise InputError(f"{count}; point {runs[0].point.name}: {outcomes[0].failure}")
    if place is not None:
        sweep_files.write(result, place)
    return result


def _of_file(
    path: Path, design: Mapping[str, Any], seeds: int | Sequence[int] | None, by: str | None
) -> tuple[Mapping[str, Any] | Path, Mapping[str, Any], int | Sequence[int] | None, str | None]:
    """Return what a sweep's file says; seeds and ranking may be given beside it."""
    if any(each is not None for each in design.values()):
        raise InputError(f"{path} says what varies; give no 'over', 'variants', 'points' or 'lhs' beside it")
    found = read_sweep(path)
    if found.scenario is None:
        raise InputError(f"{path}: has no 'scenario'; write its keys there, or the path of its file")
    return (
        found.scenario,
        found.design,
        found.others.get("seeds") if seeds is None else seeds,
        found.others.get("by") if by is None else by,
    )


def _base(given: ScenarioLike) -> Scenario:
    """Return the scenario, with the engine's own flags written as the keys that points may set."""
    data = read_scenario(given).to_mapping()
    for index, pool in enumerate(data.get("cluster", {}).get("pools", [])):
        expand_args(pool, index)
    return Scenario.from_mapping(data)


def _check_given(points: Sequence[Point], scenarios: Sequence[Scenario], trace: Trace | None) -> None:
    """Refuse points without requests, and a sweep none of whose points can be built."""
    refused = ""
    for point, scenario in zip(points, scenarios, strict=True):
        part = scenario.workload
        if trace is None and part.trace is None and part.generator is None:
            raise InputError(
                f"point {point.name}: which requests? name a trace, as in: simulate sweep trace.csv (or bundled:NAME)"
            )
    for point, scenario in zip(points, scenarios, strict=True):
        try:
            resolve(scenario)
        except ValueError as error:  # a model that doesn't fit, a layout that doesn't split: a row, if others can run
            refused = refused or f"point {point.name}: {' '.join(str(error).split())}"
        else:
            return
    raise InputError(f"no point can run; {refused}")


def _check_by(by: Target, scenarios: Sequence[Scenario]) -> None:
    """Refuse a ranking by a figure that no point would have."""
    if by.name.startswith("goodput") and not any(
        each.objectives.classes or any(each.objectives.model_dump().values()) for each in scenarios
    ):
        raise InputError(
            f"{by.name} needs objectives: give one of --ttft, --tpot, --itl, --e2e (objectives.ttft_s ...), or rank by "
            "another figure (--by)"
        )
    if by.name in ("cost", "goodput_per_price") and all(
        any(pool.price_per_gpu_hour is None for pool in each.cluster.pools) for each in scenarios
    ):
        raise InputError(
            f"{by.name} needs a price: give --price (cluster.pools.0.price_per_gpu_hour), or rank by another figure "
            "(--by)"
        )


def _mapping(scenario: Scenario, seed: int) -> dict[str, Any]:
    """Return what one run is given; its paths hold wherever it takes place."""
    data = {**scenario.to_mapping(), "seed": seed}
    anchor_paths(data, Path.cwd())
    return data


@contextmanager
def _executor(cluster: str | None, executor: Executor | None) -> Iterator[Executor | None]:
    if cluster is None:
        yield executor
        return
    from simulator.studies.dask_cluster import dask_executor

    with dask_executor(cluster) as found:
        yield found


def _simulated(
    tasks: Sequence[Task],
    runs: Sequence[Run],
    store: Store | None,
    workers: int | None,
    executor: Executor | None,
    progress: Progress,
) -> tuple[dict[int, Done], str]:
    """Return what came of each task, and what ended the sweep too early: ``interrupted``, ``lost`` or nothing."""
    done: dict[int, Done] = {}
    try:
        for place, each in run_kept(tasks, store, workers=workers, executor=executor):
            done[place] = each
            progress(len(done), len(tasks), runs[place].point.name)
    except KeyboardInterrupt:
        return done, "interrupted"
    except ExecutorLostError:
        return done, "lost"
    return done, ""


def _notes(runs: Sequence[Run], seeds: Sequence[int], trace: Trace | None) -> Iterator[str]:
    """Yield what to know of the figures."""
    if len(seeds) > 1 and (same := _points_without_chance(runs)):
        if len(same) == len({run.point.name for run in runs}):
            told = "the seeds made no difference: nothing in the scenario is drawn at random"
        else:
            told = f"the seeds made no difference to {len(same)} points (the first: {same[0]})"
        yield (
            f"{told}, so that one run is as good as many and the intervals have no width; workload.resample draws "
            "other days like a trace (--set workload.resample={})"
        )
    if trace is not None:
        yield "the requests were given in Python: the files of scenarios don't name them"


def _points_without_chance(runs: Sequence[Run]) -> list[str]:
    """Return the points of which all seeds gave the same figures."""
    found: dict[str, list[Outcome]] = {}
    for run in runs:
        if run.done is not None and not run.failure:
            found.setdefault(run.point.name, []).append(run.done.outcome)
    return [
        name
        for name, outcomes in found.items()
        if len(outcomes) > 1 and all(plain(each.figures) == plain(outcomes[0].figures) for each in outcomes)
    ]


__all__ = ["Run", "SweepResult", "run_sweep", "sweep"]

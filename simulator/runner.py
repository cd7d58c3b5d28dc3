"""One run: from a scenario to a result."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self

from simulator.blame import policy_error
from simulator.build import Built, build, load_trace
from simulator.capacity import check_capacity
from simulator.engine.recorder import Outcome
from simulator.errors import InputError
from simulator.resolve import Resolved, resolve
from simulator.result import RunResult
from simulator.run_data import RunData
from simulator.scenario import ScenarioLike, read_scenario
from simulator.write import FORMATS, Format, check_out_dir, write_result

if TYPE_CHECKING:
    from simulator.engine.cluster import Cluster
    from workloads import Trace


class Watch:
    """What somebody who waits may do around the simulation: show progress, end it early.

    `run` enters it when the cluster is about to start and leaves it when the simulation is over. Subclasses read the
    cluster's counters (``cluster.num_ended``, ``cluster.now_s``) from a thread of their own, and may call
    ``cluster.interrupt()``, after setting ``interrupted``.
    """

    interrupted: bool = False
    cluster: Cluster

    def resolved(self, resolved: Resolved, trace: Trace) -> None:
        """Hear what was decided, before the simulation begins."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop watching."""


def run(
    scenario: ScenarioLike,
    *,
    out: str | os.PathLike[str] | None = None,
    format: Format = "parquet",  # noqa: A002  # the option's name in the CLI
    perfetto: bool = False,
    stepwise: bool = False,
    strict: bool = False,
    progress: Watch | None = None,
    trace: Trace | None = None,
    overwrite: bool = False,
) -> RunResult:
    """Run a scenario.

    Parameters
    ----------
    scenario
        A scenario, a mapping of its keys, or the path of its file.
    out
        Directory to write the result to; None: nothing is written.
    format
        Of the tables there, ``"parquet"`` or ``"csv"``.
    perfetto
        Record every batch, and write ``trace.perfetto.json.gz`` too.
    stepwise
        Make every engine step an event of its own: the same result, more slowly.
    strict
        A request that a replica refuses is an error.
    progress
        Watches the run.
    trace
        Requests in place of the scenario's trace or generator; its filters apply to them.
    overwrite
        Replace an earlier result in ``out``.

    Returns
    -------
    RunResult

    Raises
    ------
    InputError, policies.PolicyError, workloads.TraceError, hardware_profiles.ProfileError
        For what the caller can mend; all are `ValueError`, and nothing is written.
    """
    begun = time.perf_counter()
    scenario = read_scenario(scenario)
    if format not in FORMATS:
        raise InputError(f"unknown format {format!r}; known: {', '.join(FORMATS)}")
    if out is not None:
        check_out_dir(out, overwrite=overwrite)
    watch = progress or Watch()
    resolved = resolve(scenario)
    requests = load_trace(resolved.scenario, trace)
    check_capacity(resolved, requests)
    built = build(resolved, requests, stepwise=stepwise, keep_batches=perfetto)
    watch.resolved(resolved, requests)
    notes = built.notes
    if trace is not None:
        notes = (*notes, f"the requests were given to run() ({trace.source or 'no source'}), not by the scenario")
    loaded = time.perf_counter()
    simulate(built, watch)
    looped = time.perf_counter()
    if strict:
        _refuse_rejections(built)
    result = RunResult(
        RunData(
            cluster=built.cluster,
            trace=built.trace,
            model=resolved.model,
            scenario=built.scenario,
            pools=built.pools,
            class_names=built.class_names,
            objectives=built.objectives,
            warmup_ns=built.warmup_ns,
            until_ns=built.until_ns,
            notes=(*notes, *_outside_measurements(built), *_links(built)),
            interrupted=watch.interrupted,
            load_s=loaded - begun,
            loop_s=looped - loaded,
        )
    )
    if out is not None:
        write_result(result, out, format=format, perfetto=perfetto, overwrite=overwrite)
    return result


def simulate(built: Built, watch: Watch) -> None:
    """Run a built cluster to its end and close its books."""
    cluster = built.cluster
    watch.cluster = cluster
    with watch, _policies_blamed(built):
        cluster.run(built.stop_ns)
        cluster.stop()


def _links(built: Built) -> tuple[str, ...]:
    """Return what was taken for granted of links that the run used."""
    network = built.cluster.network
    return () if network is None else network.notes


def _outside_measurements(built: Built) -> list[str]:
    """Return a sentence for each way in which step times were asked for beyond what was measured."""
    costs = {id(replica.cost): replica.cost for replica in built.cluster.replicas}
    kinds = {kind for cost in costs.values() for kind in getattr(cost, "substitutions", ())}
    return [f"step times beyond what was measured: {kind}" for kind in sorted(kinds)]


@contextmanager
def _policies_blamed(built: Built) -> Iterator[None]:
    """Turn an exception from a policy into a `PolicyError` that names its file and line."""
    try:
        yield
    except Exception as error:
        blamed = policy_error(error, built.policies)
        if blamed is None:
            raise
        if blamed is error:
            raise
        raise blamed from error


def _refuse_rejections(built: Built) -> None:
    recorder = built.cluster.recorder
    outcomes = recorder.columns["outcome"]
    rows = (outcomes == Outcome.REJECTED).nonzero()[0]
    if len(rows):
        row = int(rows[0])
        more = f" ({len(rows)} requests were rejected)" if len(rows) > 1 else ""
        raise InputError(f"request {row} was rejected: {recorder.reasons.get(row, 'no reason given')}{more}")


__all__ = ["RunResult", "Watch", "run", "simulate"]

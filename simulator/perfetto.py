"""A run as a trace for the Perfetto UI (https://ui.perfetto.dev): Chrome's JSON trace events, gzipped.

A process for each replica: a thread for each lane (pipeline batch) with a slice for each run of equal steps, counters
of requests running, waiting, KV blocks and, where it is known, power, and a nestable asynchronous track for each
request, on the replica that it was sent to last, that holds its phases (queued, prefill, decode; preempted, transfer).
Arrows lead from the batch before a transfer to the one after it. Where data moved over links, they are a process of
their own (`simulator.perfetto_links`). Times are in microseconds, as the format wants.

Huge runs are cut: the trace ends with the last of `MAX_BATCHES` slices, and at most `MAX_REQUESTS` requests, evenly
spaced in order of arrival, are drawn. What was left out is in the file under ``otherData.notes``.

References
----------
"Trace Event Format", Google, 2016: event phases M (metadata), X (complete), C (counter), b/e (nestable asynchronous),
s/f (flow). What Perfetto makes of them: its sources, src/trace_processor/importers/json.
"""

from __future__ import annotations

import gzip
import io
import json
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from simulator.engine.recorder import Outcome
from simulator.metrics import OUTCOMES, Rows
from simulator.perfetto_format import Event, Threads, microseconds, process_names
from simulator.perfetto_links import link_events
from simulator.power.accounting import idle_watts, power_watts

if TYPE_CHECKING:
    from simulator.result import RunResult

MAX_BATCHES = 200_000
MAX_REQUESTS = 20_000
MAX_SAMPLES = 100_000

_COUNTERS = (("running", "requests"), ("waiting", "requests"), ("kv_blocks", "blocks"), ("power", "W"))

Batch = tuple[int, int, int, int, int, int, int]
Phase = tuple[int, int, str]
"""From, until (ns), and what it is."""


class Pause(NamedTuple):
    """When a request was not among those running, why, where it was before, and where after (-1: nowhere)."""

    since: int
    until: int
    why: str
    source: int
    target: int = -1


def write_perfetto(result: RunResult, path: Path) -> list[str]:
    """Write the trace of a run; return notes on what was left out.

    The bytes depend on the run alone (no time of writing in the file).
    """
    events, notes = trace_events(result)
    tail = {"displayTimeUnit": "ms", "otherData": {"generator": "llm-cluster-simulator", "notes": notes}}
    with (
        path.open("wb") as raw,
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=5, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="utf-8", write_through=False) as out,
    ):
        out.write('{"traceEvents":[')
        separator = "\n"
        for event in events:
            out.write(separator)
            out.write(json.dumps(event, separators=(",", ":"), allow_nan=False))
            separator = ",\n"
        out.write("\n]," + json.dumps(tail)[1:] + "\n")
    return notes


def trace_events(
    result: RunResult,
    *,
    max_batches: int = MAX_BATCHES,
    max_requests: int = MAX_REQUESTS,
    max_samples: int = MAX_SAMPLES,
) -> tuple[Iterator[Event], list[str]]:
    """Return the trace events of a run, and notes on what was left out.

    Parameters
    ----------
    max_batches, max_requests, max_samples
        Most slices, requests and counter samples to draw.
    """
    cluster = result.data.cluster
    notes: list[str] = []
    batches = cluster.recorder.batches
    horizon_ns = cluster.end_ns
    if batches is None:
        batches = []
        notes.append("batches were not kept in this run, so no slices of steps are shown")
    if len(batches) > max_batches:
        notes.append(f"cut after {max_batches:,} of {len(batches):,} runs of steps")
        batches = batches[:max_batches]
        horizon_ns = max(batch[3] for batch in batches)
        notes[-1] += f", at {horizon_ns / 1e9:.3f} s of {cluster.end_ns / 1e9:.3f} s"
    rows = result.rows
    shown = np.flatnonzero(rows.arrival <= horizon_ns)
    if len(shown) > max_requests:
        every = -(-len(shown) // max_requests)
        notes.append(f"requests: one in {every} of {len(shown):,} is shown")
        shown = shown[np.argsort(rows.arrival[shown], kind="stable")][::every]
    samples = cluster.recorder.timeline.columns()
    kept = np.flatnonzero(samples["t_ns"] <= horizon_ns)
    if len(kept) > max_samples:
        rounds = -(-len(kept) // max_samples)
        instants = np.unique(samples["t_ns"][kept])[::rounds]
        kept = kept[np.isin(samples["t_ns"][kept], instants)]
        notes.append(f"counters: one sample in {rounds} is shown")

    watts = power_watts(
        samples,
        cluster.recorder.sample_interval_ns,
        idle_watts(result.data.pools, len(cluster.replicas)),
        cluster.control,
    )
    counted: dict[str, list[float]] = {name: values[kept].tolist() for name, values in samples.items()}
    counted["power"] = watts[kept].round(1).tolist()
    pauses = _pauses(cluster.recorder.pauses or (), horizon_ns)
    threads = Threads()
    links: Iterator[Event] = iter(())
    if cluster.network is not None:
        links = link_events(cluster.network.network, len(cluster.replicas) + 1, horizon_ns, threads, notes)

    def events() -> Iterator[Event]:
        for replica in cluster.replicas:
            yield from process_names(_pid(replica.index), _label(replica.index, result))
            for lane in replica.lanes:
                threads.number(_pid(replica.index), lane.index, f"lane {lane.index}", lane.index)
        yield from threads.names
        yield from (_slice(batch, threads) for batch in batches)
        yield from _counters(counted)
        yield from _requests(rows.take(shown), result.data.class_names, horizon_ns, pauses)
        drawn = set(rows.row[shown].tolist())
        yield from _arrows({row: each for row, each in pauses.items() if row in drawn}, batches, threads)
        yield from links

    return events(), notes


def _label(replica: int, result: RunResult) -> str:
    pool = next((pool for pool in result.data.pools if replica in pool.replicas), None)
    return f"replica {replica}" + (f" ({pool.name}, {pool.accelerator})" if pool else "")


def _pid(replica: int) -> int:
    return replica + 1  # the UI takes process 0 for the idle one


def _thread(replica: int, lane: int, threads: Threads) -> dict[str, int]:
    return {"pid": _pid(replica), "tid": threads.number(_pid(replica), lane, f"lane {lane}", lane)}


def _slice(batch: Batch, threads: Threads) -> Event:
    replica, lane, start_ns, end_ns, steps, decodes, prompt_tokens = batch
    kinds = [kind for kind, there in (("prefill", prompt_tokens), ("decode", decodes)) if there]
    return {
        "ph": "X",
        **_thread(replica, lane, threads),
        "name": " + ".join(kinds) or "swap",
        "cat": "batch",
        "ts": microseconds(start_ns),
        "dur": microseconds(end_ns - start_ns),
        "args": {"steps": steps, "decodes": decodes, "prompt_tokens_per_step": prompt_tokens},
    }


def _counters(samples: Mapping[str, Sequence[float]]) -> Iterator[Event]:
    for name, unit in _COUNTERS:
        for t_ns, replica, value in zip(samples["t_ns"], samples["replica"], samples[name], strict=True):
            if value == value:  # power may not be known
                pid = _pid(int(replica))
                yield {"ph": "C", "pid": pid, "name": name, "ts": microseconds(int(t_ns)), "args": {unit: value}}


def _pauses(noted: Sequence[tuple[int, int, int, str]], horizon_ns: int) -> dict[int, list[Pause]]:
    """Return when each request was not among those running, by row; one that wasn't back: until the horizon."""
    found: dict[int, list[Pause]] = defaultdict(list)
    since: dict[int, tuple[int, int, str]] = {}
    for row, replica, t_ns, why in noted:
        if why:
            since.setdefault(row, (replica, t_ns, why))
        elif row in since:
            source, begin, reason = since.pop(row)
            found[row].append(Pause(begin, t_ns, reason, source, replica))
    for row, (replica, begin, why) in since.items():
        found[row].append(Pause(begin, max(begin, horizon_ns), why, replica))
    return found


def _phases(phases: Sequence[Phase], pauses: Sequence[Pause]) -> Iterator[Phase]:
    """Return phases, one after the other, with the pauses cut out of them and put in their place."""
    for begin, end, name in phases:
        at = begin
        for since, until, what, *_ in pauses:
            if since < end and until > at:
                since, until = max(since, at), min(until, end)
                yield at, since, name
                yield since, until, what
                at = until
        yield at, end, name


def _requests(rows: Rows, class_names: Any, horizon_ns: int, pauses: Mapping[int, Sequence[Pause]]) -> Iterator[Event]:
    """Draw each request as one span that holds its phases; a phase that had not ended is drawn to the horizon."""
    columns = (rows.row, rows.arrival, rows.scheduled, rows.first, rows.last, rows.ended)
    others = (rows.replica, rows.outcome, rows.code, rows.prompt, rows.output, rows.cached, rows.preemptions)
    for row, arrival, scheduled, first, last, ended, replica, outcome, code, prompt, output, cached, preempted in zip(
        *(column.tolist() for column in (*columns, *others)), strict=True
    ):
        over = ended if ended >= 0 else max(horizon_ns, last)
        args = {
            "request_id": row,
            "class": class_names[code],
            "outcome": OUTCOMES[Outcome(outcome)],
            "prompt_tokens": prompt,
            "output_tokens": output,
            "cached_tokens": cached,
            "preemptions": preempted,
        }
        phases = [("queued", arrival, scheduled), ("prefill", scheduled, first), ("decode", first, over)]
        spans = [(begin, end if end >= 0 else over, name) for name, begin, end in phases if begin >= 0]
        event = {"cat": "request", "id": row, "pid": _pid(max(replica, 0))}
        yield {**event, "ph": "b", "name": "request", "ts": microseconds(arrival), "args": args}
        for begin, end, name in _phases(spans, pauses.get(row, ())):
            if end > begin:
                yield {**event, "ph": "b", "name": name, "ts": microseconds(begin)}
                yield {**event, "ph": "e", "name": name, "ts": microseconds(end)}
        yield {**event, "ph": "e", "name": "request", "ts": microseconds(over)}


def _arrows(pauses: Mapping[int, Sequence[Pause]], batches: Sequence[Batch], threads: Threads) -> Iterator[Event]:
    """Draw an arrow for each transfer: from the last batch before it, where it was, to the first after it."""
    by_end: dict[int, list[Batch]] = defaultdict(list)
    for batch in batches:
        by_end[batch[0]].append(batch)
    by_start = {replica: sorted(each, key=itemgetter(2)) for replica, each in by_end.items()}
    ends = {replica: [batch[3] for batch in each] for replica, each in by_end.items()}
    starts = {replica: [batch[2] for batch in each] for replica, each in by_start.items()}
    number = 0
    for row, each in pauses.items():
        for since, until, why, source, target in each:
            if why != "transfer" or source == target:
                continue
            before = bisect_right(ends.get(source, []), since) - 1
            after = bisect_left(starts.get(target, []), until)
            if before < 0 or after >= len(starts.get(target, [])):
                continue
            number += 1
            event = {"cat": "transfer", "name": f"request {row}", "id": number}
            for end, batch in (
                ({"ph": "s"}, by_end[source][before]),
                ({"ph": "f", "bp": "e"}, by_start[target][after]),
            ):
                yield {**end, **event, "ts": microseconds(batch[2]), **_thread(batch[0], batch[1], threads)}

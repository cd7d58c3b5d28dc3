"""A run as a trace for the Perfetto UI (https://ui.perfetto.dev): Chrome's JSON trace events, gzipped.

A process for each replica: a thread for each lane (pipeline batch) with a slice for each run of equal steps, counters
of requests running, waiting and KV blocks, and a nestable asynchronous track for each request that holds its phases
(queued, prefill, decode). Times are in microseconds, as the format wants.

Huge runs are cut: the trace ends with the last of `MAX_BATCHES` slices, and at most `MAX_REQUESTS` requests, evenly
spaced in order of arrival, are drawn. What was left out is in the file under ``otherData.notes``.

References
----------
"Trace Event Format", Google, 2016: event phases M (metadata), X (complete), C (counter), b/e (nestable asynchronous).
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.engine.recorder import Outcome
from simulator.metrics import OUTCOMES, Rows

if TYPE_CHECKING:
    from simulator.engine.cluster import Cluster
    from simulator.result import RunResult

MAX_BATCHES = 200_000
MAX_REQUESTS = 20_000
MAX_SAMPLES = 100_000

_US = 1000  # ns
_COUNTERS = (("running", "requests"), ("waiting", "requests"), ("kv_blocks", "blocks"))


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
) -> tuple[Iterator[dict[str, Any]], list[str]]:
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

    def events() -> Iterator[dict[str, Any]]:
        yield from _names(cluster, result)
        yield from (_slice(batch) for batch in batches)
        yield from _counters({name: values[kept] for name, values in samples.items()})
        yield from _requests(rows.take(shown), result.data.class_names, horizon_ns)

    return events(), notes


def _names(cluster: Cluster, result: RunResult) -> Iterator[dict[str, Any]]:
    """Name processes and threads: replicas and lanes."""
    pool_of = {index: pool for pool in result.data.pools for index in pool.replicas}
    for replica in cluster.replicas:
        pid = _pid(replica.index)
        pool = pool_of.get(replica.index)
        label = f"replica {replica.index}" + (f" ({pool.name}, {pool.accelerator})" if pool else "")
        yield {"ph": "M", "pid": pid, "tid": 0, "name": "process_name", "args": {"name": label}}
        yield {"ph": "M", "pid": pid, "tid": 0, "name": "process_sort_index", "args": {"sort_index": pid}}
        for lane in replica.lanes:
            thread = {"ph": "M", "pid": pid, "tid": lane.index + 1}
            yield {**thread, "name": "thread_name", "args": {"name": f"lane {lane.index}"}}
            yield {**thread, "name": "thread_sort_index", "args": {"sort_index": lane.index}}


def _pid(replica: int) -> int:
    return replica + 1  # the UI takes process 0 for the idle one


def _slice(batch: tuple[int, int, int, int, int, int, int]) -> dict[str, Any]:
    replica, lane, start_ns, end_ns, steps, decodes, prompt_tokens = batch
    kinds = [kind for kind, there in (("prefill", prompt_tokens), ("decode", decodes)) if there]
    return {
        "ph": "X",
        "pid": _pid(replica),
        "tid": lane + 1,
        "name": " + ".join(kinds) or "swap",
        "cat": "batch",
        "ts": start_ns / _US,
        "dur": (end_ns - start_ns) / _US,
        "args": {"steps": steps, "decodes": decodes, "prompt_tokens_per_step": prompt_tokens},
    }


def _counters(samples: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name, unit in _COUNTERS:
        for t_ns, replica, value in zip(
            samples["t_ns"].tolist(), samples["replica"].tolist(), samples[name].tolist(), strict=True
        ):
            yield {"ph": "C", "pid": _pid(replica), "name": name, "ts": t_ns / _US, "args": {unit: value}}


def _requests(rows: Rows, class_names: Any, horizon_ns: int) -> Iterator[dict[str, Any]]:
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
        spans = [(name, begin, end if end >= 0 else over) for name, begin, end in phases if begin >= 0]
        event = {"cat": "request", "id": row, "pid": _pid(max(replica, 0)), "tid": 0}
        yield {**event, "ph": "b", "name": "request", "ts": arrival / _US, "args": args}
        for name, begin, end in spans:
            if end > begin:
                yield {**event, "ph": "b", "name": name, "ts": begin / _US}
                yield {**event, "ph": "e", "name": name, "ts": end / _US}
        yield {**event, "ph": "e", "name": "request", "ts": over / _US}

"""The figures of a run as one plain dictionary, schema version 1: computed with NumPy alone.

Figures cover the requests that arrive in the window [warm-up, until), by default all. Rates are over the window's time,
from the warm-up (without one: the first arrival) to ``until`` (without one: the end of the run), and count what was
finished in that time. Little's law, MFU, MBU, the inter-token gaps and the figures by replica are of the whole run.
Only ``simulator`` differs between two runs of one scenario.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

import simulator
from simulator import summary_sections as sections
from simulator.engine.clock import NS_PER_S, to_s
from simulator.engine.recorder import Outcome
from simulator.features import SECTIONS
from simulator.metrics import (
    OUTCOMES,
    Mask,
    Rows,
    class_labels,
    count_outcomes,
    describe_latencies,
    exact_sum,
    given_objectives,
    meets,
    meets_all,
    merged,
    per_second,
    split_by_class,
)
from simulator.model_work import decode_kv_tokens, model_flops, sum_by_replica
from simulator.overload import judge_overload
from simulator.power.accounting import energy_section

if TYPE_CHECKING:
    from simulator.models.spec import ModelSpec
    from simulator.run_data import Objectives, PoolData, RunData

SCHEMA_VERSION = 1

DEFINITIONS = {
    "ttft_s": "first token minus arrival, of every request that got a first token",
    "tpot_s": "(last - first token) / (output tokens - 1), of finished requests with at least two output tokens",
    "itl_s": "every gap between output tokens, over the whole run; percentiles to within a histogram bin (0.5 %)",
    "e2e_s": "last token minus arrival, of finished requests",
    "queue_s": "first scheduling minus arrival, of every request that was scheduled",
    "percentiles": "linear interpolation between order statistics",
    "goodput": "requests of the window that finished and met every objective of their class, over the window's time",
    "throughput": "what was finished in the window's time, over that time",
    "mfu": "FLOPs that the requests' tokens need once (no recompute, no padding), over peak x whole run",
    "mbu": "steps x weights + KV read by decodes, over bandwidth x whole run",
}


def summarize(data: RunData, rows: Rows) -> dict[str, Any]:
    """Return the summary of a run.

    Parameters
    ----------
    rows
        `metrics.arrived_rows` of its cluster.
    """
    cluster = data.cluster
    window = _Window(data, rows)
    inside = rows if window.covers_all else rows.take(window.arrived)
    finished_inside = _finished_between(rows, window.start_ns, window.end_ns)
    by_class = split_by_class(inside, len(data.class_names))
    met = [meets_all(part, objectives) for part, objectives in zip(by_class, data.objectives, strict=True)]
    histograms = cluster.recorder.itl
    num_trace = len(cluster.recorder.columns["arrival_ns"])
    notes = _notes(data, window)
    load = _load(rows, inside)
    return {
        "schema_version": SCHEMA_VERSION,
        "interrupted": data.interrupted,
        "requests": {
            "in_trace": num_trace,
            "not_sent": num_trace - len(rows),
            "arrived": len(rows),
            **count_outcomes(rows),
            "truncated": cluster.num_truncated,
        },
        "reasons": group_reasons(rows, cluster.recorder.reasons),
        "window": window.describe(inside),
        "simulated_s": to_s(cluster.end_ns),
        **describe_latencies(inside, merged(histograms)),
        "one_token_outputs": int((inside.finished & (inside.output == 1)).sum()),
        "classes": _classes(data, by_class, histograms, met, window.duration_ns),
        "tenants": sections.tenants(data, inside, window.start_ns, window.end_ns),
        "objectives": _objectives(data.objectives, by_class, met, window.duration_ns),
        "throughput": _throughput(rows, finished_inside, window.duration_ns),
        "overloaded": load["overloaded"],
        "load": load,
        "little": little(rows, cluster.in_system_ns, cluster.end_ns),
        "prefix_cache": _prefix_cache(inside, [r.kv.caches_prefixes for r in cluster.replicas]),
        "shared_prefix_attention": sections.shared_prefix_attention(cluster),
        "attention_data_parallel": sections.attention_data_parallel(data),
        "router": {"policy": data.cluster.router.name, "figures": dict(data.cluster.router.figures())},
        **_features(data),
        "links": sections.links(cluster),
        "memory": _memory(data),
        "kv_budget": sections.kv_budget(data),
        "offload": sections.offload(data),
        "efficiency": _efficiency(data, rows),
        "cost": cost(
            data.pools, window.duration_ns, rows, finished_inside, up_ns=_up_ns(data, window.start_ns, window.end_ns)
        ),
        "energy": energy_section(data, rows, up_ns=_up_ns(data, 0, cluster.end_ns)),
        "replicas": _replicas(data, rows),
        "pools": [_pool(pool, pool.model or data.model) for pool in data.pools],
        "costs": {"sources": _unique(source for pool in data.pools for source in pool.cost_sources)},
        "notes": notes,
        "definitions": dict(DEFINITIONS),
        "simulator": _simulator(data),
    }


# --------------------------------------------------------------------------------------------------------- window


class _Window:
    """The requests that figures cover, and the time that rates are over."""

    def __init__(self, data: RunData, rows: Rows) -> None:
        end_ns = data.cluster.end_ns
        self.warmup_ns = data.warmup_ns
        self.until_ns = data.until_ns
        self.before: Mask = rows.arrival < data.warmup_ns
        self.after: Mask = np.zeros(len(rows), dtype=bool) if data.until_ns is None else rows.arrival >= data.until_ns
        self.arrived: Mask = ~(self.before | self.after)
        self.covers_all = bool(self.arrived.all())
        self.end_ns = end_ns if data.until_ns is None else min(data.until_ns, end_ns)
        self.start_ns = data.warmup_ns or (int(rows.arrival.min()) if len(rows) else 0)
        self.duration_ns = max(0, self.end_ns - self.start_ns)

    def describe(self, inside: Rows) -> dict[str, Any]:
        return {
            "start_s": to_s(self.start_ns),
            "end_s": to_s(self.end_ns),
            "duration_s": to_s(self.duration_ns),
            "warmup_s": to_s(self.warmup_ns),
            "until_s": None if self.until_ns is None else to_s(self.until_ns),
            "arrived_before": int(self.before.sum()),
            "arrived_after": int(self.after.sum()),
            "requests": {"arrived": len(inside), **count_outcomes(inside)},
        }


def _finished_between(rows: Rows, start_ns: int, end_ns: int) -> Mask:
    return rows.finished & (rows.ended >= start_ns) & (rows.ended <= end_ns)


# -------------------------------------------------------------------------------------------------------- figures


def _classes(
    data: RunData, by_class: Sequence[Rows], histograms: Sequence[Any], met: Sequence[Mask], duration_ns: int
) -> dict[str, Any]:
    """Return the figures of each class by name; empty where the trace has no classes."""
    if list(data.class_names) == [""]:
        return {}
    return {
        name: {
            "requests": {"arrived": len(part), **count_outcomes(part)},
            **describe_latencies(part, merged([histogram])),
            "one_token_outputs": int((part.finished & (part.output == 1)).sum()),
            "objectives": _objectives([objectives], [part], [good], duration_ns),
        }
        for name, part, histogram, objectives, good in zip(
            class_labels(data.class_names), by_class, histograms, data.objectives, met, strict=True
        )
    }


def _objectives(
    objectives: Sequence[Objectives], by_class: Sequence[Rows], met: Sequence[Mask], duration_ns: int
) -> dict[str, Any]:
    """Return goodput and attainment over the classes that have objectives."""
    having = [i for i, given in enumerate(objectives) if given_objectives(given)]
    if not having:
        return {
            "given": {},
            "met": None,
            "of": None,
            "attainment": None,
            "goodput_requests_per_s": None,
            "reason": "no objectives were given",
        }
    num_met = sum(int(met[i].sum()) for i in having)
    of = sum(len(by_class[i]) for i in having)
    given: dict[str, Any] = {}
    for name in dict.fromkeys(name for i in having for name in given_objectives(objectives[i])):
        limits = {i: given_objectives(objectives[i])[name] for i in having if name in given_objectives(objectives[i])}
        num = sum(int(meets(by_class[i], name, limit).sum()) for i, limit in limits.items())
        total = sum(len(by_class[i]) for i in limits)
        distinct = sorted(set(limits.values()))
        given[name] = {
            "limit": distinct[0] if len(distinct) == 1 else distinct,
            "attainment": num / total if total else None,
        }
    return {
        "given": given,
        "met": num_met,
        "of": of,
        "attainment": num_met / of if of else None,
        "goodput_requests_per_s": per_second(num_met, duration_ns),
        "reason": None if of else "no request of a class with objectives arrived in the window",
    }


def _throughput(rows: Rows, finished: Mask, duration_ns: int) -> dict[str, Any]:
    prompt = int(rows.prompt[finished].sum())
    output = int(rows.output[finished].sum(dtype=np.int64))
    return {
        "finished": int(finished.sum()),
        "prompt_tokens": prompt,
        "output_tokens": output,
        "requests_per_s": per_second(int(finished.sum()), duration_ns),
        "prompt_tokens_per_s": per_second(prompt, duration_ns),
        "output_tokens_per_s": per_second(output, duration_ns),
    }


def _load(rows: Rows, inside: Rows) -> dict[str, Any]:
    """Return offered and completed rates over the span of the window's arrivals, and the verdict on overload."""
    offered = completed = None
    if len(inside):
        first, last = int(inside.arrival.min()), int(inside.arrival.max())
        offered = per_second(len(inside) - 1, last - first)
        completed = per_second(int(_finished_between(rows, first, last).sum()), last - first)
        verdict = judge_overload(rows.arrival, rows.scheduled, rows.ended, between=(first, last))
    else:
        verdict = judge_overload(inside.arrival, inside.scheduled, inside.ended)
    return {
        "offered_requests_per_s": offered,
        "completed_requests_per_s": completed,
        "overloaded": verdict.overloaded,
        "overload": verdict.words,
        "second_half_arrivals": verdict.arrivals,
        "second_half_growth": verdict.growth,
        "second_half_waiting_growth": verdict.waiting_growth,
    }


def little(rows: Rows, in_system_ns: int, end_ns: int) -> dict[str, Any]:
    """Check Little's law: L integrated by the engine against arrival rate x mean time in the system from the rows.

    Parameters
    ----------
    in_system_ns
        Requests in the system, integrated over time: count x ns.
    end_ns
        Length of the run.
    """
    unchecked: dict[str, Any] = {"L": None, "lambda": None, "W": None, "relative_error": None}
    if not len(rows) or not end_ns:
        return {**unchecked, "reason": "no time passed or no request arrived"}
    integrated = in_system_ns / end_ns
    rate = len(rows) * NS_PER_S / end_ns
    open_ends = int((rows.ended < 0).sum())
    if open_ends:
        reason = f"not checked: {open_ends} requests had not ended, so their time in the system isn't known"
        return {**unchecked, "L": integrated, "lambda": rate, "reason": reason}
    total = exact_sum(rows.ended - rows.arrival)
    error = abs(in_system_ns - total) / in_system_ns if in_system_ns else float(total != 0)
    return {
        "L": integrated,
        "lambda": rate,
        "W": total / len(rows) / NS_PER_S,
        "relative_error": error,
        "reason": None,
    }


def _prefix_cache(inside: Rows, enabled: Sequence[bool]) -> dict[str, Any]:
    started = inside.scheduled >= 0
    hits = int(inside.cached[started].sum(dtype=np.int64))
    prompt = int(inside.prompt[started].sum())
    return {
        "enabled": any(enabled),
        "hit_tokens": hits,
        "prompt_tokens": prompt,
        "hit_share": hits / prompt if prompt and any(enabled) else None,
    }


def group_reasons(rows: Rows, reasons: Mapping[int, str]) -> list[dict[str, Any]]:
    """Return why requests were rejected or failed, texts that differ in numbers only taken together.

    Returns
    -------
    list of dict
        ``outcome``, ``reason`` (a number that varies is shown as ``low..high``), ``requests`` (how many) and
        ``example`` (the first request_id), most frequent first.
    """
    at = np.searchsorted(rows.row, np.fromiter(reasons.keys(), dtype=np.int64, count=len(reasons)))
    given = list(zip(rows.outcome[at].tolist(), reasons.values(), strict=True))
    counts = Counter(given)
    first: dict[tuple[int, str], int] = {}
    for said, row in zip(given, reasons, strict=True):
        if row < first.setdefault(said, row):
            first[said] = row
    groups: dict[tuple[int, str], list[str]] = {}
    for outcome, text in counts:  # each text once, however many requests it was said of
        groups.setdefault((outcome, _NUMBER.sub("#", text)), []).append(text)
    found = [
        {
            "outcome": OUTCOMES[Outcome(outcome)],
            "reason": _with_ranges(template, [_NUMBER.findall(text) for text in texts]),
            "requests": sum(counts[outcome, text] for text in texts),
            "example": min(first[outcome, text] for text in texts),
        }
        for (outcome, template), texts in groups.items()
    ]
    return sorted(found, key=lambda group: (-group["requests"], group["example"]))


_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def _with_ranges(template: str, numbers: Sequence[Sequence[str]]) -> str:
    """Fill a template's ``#`` with the numbers of all its texts: the value, or ``low..high`` where it varies."""
    pieces = template.split("#")
    columns = list(zip(*numbers, strict=True))
    if len(pieces) != len(columns) + 1:  # the text itself has a "#"
        return template
    filled = pieces[0]
    for values, piece in zip(columns, pieces[1:], strict=True):
        low, high = min(values, key=float), max(values, key=float)
        filled += (low if low == high else f"{low}..{high}") + piece
    return filled


# ------------------------------------------------------------------------------------------------------- replicas


def _memory(data: RunData) -> dict[str, Any]:
    """Return KV use, preemptions and swaps over all replicas."""
    replicas = data.cluster.replicas
    counters = [replica.counters for replica in replicas]
    peaks = [c.peak_kv_blocks / max(1, r.kv.total_blocks) for c, r in zip(counters, replicas, strict=True)]
    return {
        "kv_blocks": sum(replica.kv.total_blocks for replica in replicas),
        "peak_kv_utilization": max(peaks, default=None),
        "preemptions": sum(c.preemptions for c in counters),
        "swaps_out": sum(c.swaps_out for c in counters),
        "swaps_in": sum(c.swaps_in for c in counters),
        "swaps_refused": sum(c.swaps_refused for c in counters),
        "swapped_bytes": sum(c.swapped_bytes for c in counters),
        "swap_stall_s": to_s(sum(c.swap_stall_ns for c in counters)),
    }


def _replicas(data: RunData, rows: Rows) -> list[dict[str, Any]]:
    """Return what each replica did over the whole run; its utilization is of the time that it was paid for."""
    cluster = data.cluster
    up_ns = _up_ns(data, 0, cluster.end_ns)
    number = len(cluster.replicas)
    sent = np.bincount(rows.replica[rows.replica >= 0], minlength=number)
    finished = np.bincount(rows.replica[rows.finished], minlength=number)
    pool_of = {index: pool for pool in data.pools for index in pool.replicas}
    described = []
    for replica in cluster.replicas:
        counters, blocks = replica.counters, replica.kv.total_blocks
        pool = pool_of.get(replica.index)
        time_ns = cluster.end_ns if up_ns is None else up_ns[replica.index]
        described.append(
            {
                "replica": replica.index,
                "pool": pool.name if pool else None,
                "requests": int(sent[replica.index]),
                "finished": int(finished[replica.index]),
                "steps": counters.steps,
                "utilization": counters.busy_ns / time_ns if time_ns else None,
                "prefill_tokens": counters.prefill_tokens,
                "decode_tokens": counters.decode_tokens,
                "padding_tokens": counters.padding_tokens,
                "kv_blocks": blocks,
                "peak_kv_blocks": counters.peak_kv_blocks,
                "peak_kv_utilization": counters.peak_kv_blocks / blocks if blocks else None,
                "preemptions": counters.preemptions,
                "swaps_out": counters.swaps_out,
                "swaps_in": counters.swaps_in,
            }
        )
    return described


def _pool(pool: PoolData, model: ModelSpec) -> dict[str, Any]:
    return {
        "name": pool.name,
        "model": model.name,
        "accelerator": pool.accelerator,
        "replicas": len(pool.replicas),
        "gpus_per_replica": pool.gpus_per_replica,
        "gpus": len(pool.replicas) * pool.gpus_per_replica,
        "cost_sources": list(pool.cost_sources),
    }


def _efficiency(data: RunData, rows: Rows) -> dict[str, Any]:
    """Return model FLOPs and bytes over what the accelerators could have done in the whole run."""
    cluster, model = data.cluster, data.model
    number = len(cluster.replicas)
    seconds = to_s(cluster.end_ns)
    flops = sum_by_replica(model_flops(rows, model), rows, number)
    reads = sum_by_replica(decode_kv_tokens(rows, model), rows, number)
    up_ns = _up_ns(data, 0, cluster.end_ns)
    peak = bandwidth = moved = 0.0
    for pool in data.pools:
        members = list(pool.replicas)
        if pool.model is not None and pool.model != model:
            flops[members] = sum_by_replica(model_flops(rows, pool.model), rows, number)[members]
            reads[members] = sum_by_replica(decode_kv_tokens(rows, pool.model), rows, number)[members]
        accelerators: float = len(members) * pool.gpus_per_replica
        if up_ns is not None and cluster.end_ns:
            accelerators *= sum(up_ns[i] for i in members) / (len(members) * cluster.end_ns)
        peak += accelerators * pool.peak_flops
        bandwidth += accelerators * pool.memory_bandwidth
        steps = sum(cluster.replicas[i].counters.steps for i in members)
        moved += steps * pool.weight_bytes + float(reads[members].sum()) * pool.kv_bytes_per_token
    reasons: dict[str, str | None] = {"mfu": None, "mbu": None}
    if not seconds or not data.pools:
        reasons = dict.fromkeys(reasons, "no time passed or no pool is known")
    if not _is_positive(peak) and reasons["mfu"] is None:
        reasons["mfu"] = "the accelerator's peak FLOP/s is not known"
    models = [pool.model or model for pool in data.pools] or [model]
    if any(each.is_moe for each in models) and reasons["mbu"] is None:
        reasons["mbu"] = "a mixture of experts: which experts' weights a step reads is not recorded"
    elif any(pool.kv_budget is not None for pool in data.pools) and reasons["mbu"] is None:
        reasons["mbu"] = "a KV budget: what its decodes read is not recorded"
    elif any(pool.offload is not None for pool in data.pools) and reasons["mbu"] is None:
        reasons["mbu"] = "offloading: what is read from the GPU's own memory is not recorded"
    elif any(replica.shared_prefix_attention for replica in cluster.replicas) and reasons["mbu"] is None:
        reasons["mbu"] = "shared prefixes are read together: shared_prefix_attention says how much of the KV is read"
    elif not _is_positive(bandwidth) and reasons["mbu"] is None:
        reasons["mbu"] = "the accelerator's memory bandwidth is not known"
    total = float(flops.sum())
    return {
        "model_flops": total,
        "mfu": None if reasons["mfu"] else total / (peak * seconds),
        "mfu_reason": reasons["mfu"],
        "mbu": None if reasons["mbu"] else moved / (bandwidth * seconds),
        "mbu_reason": reasons["mbu"],
    }


def _is_positive(value: float) -> bool:
    return value > 0 and value != float("inf")


def _up_ns(data: RunData, start_ns: int, end_ns: int) -> dict[int, int] | None:
    """Return for how long each replica was paid for between two times; None where all were, all the time."""
    control = data.cluster.control
    if control is None or not control.any_down:
        return None
    return {i: control.up_ns(i, start_ns, max(start_ns, end_ns)) for i in range(len(data.cluster.replicas))}


def cost(
    pools: Sequence[PoolData],
    duration_ns: int,
    rows: Rows,
    finished: Mask,
    *,
    up_ns: Mapping[int, int] | None = None,
) -> dict[str, Any]:
    """Return what the accelerators cost over the window's time, and so a million of the tokens finished in it.

    Parameters
    ----------
    up_ns
        For how long of that time each replica was paid for; None: all of it.
    """
    hours = duration_ns / NS_PER_S / 3600
    up_hours = [
        len(pool.replicas) * hours if up_ns is None else sum(up_ns[i] for i in pool.replicas) / NS_PER_S / 3600
        for pool in pools
    ]
    gpu_hours = sum(each * pool.gpus_per_replica for each, pool in zip(up_hours, pools, strict=True))
    unpriced = [pool.name for pool in pools if pool.price_per_gpu_hour is None]
    result: dict[str, Any] = {
        "gpu_hours": gpu_hours,
        "total": None,
        "per_million_output_tokens": None,
        "per_million_tokens": None,
        "reason": None,
    }
    if not pools or unpriced:
        result["reason"] = "no price_per_gpu_hour" + (f" for pool {', '.join(unpriced)}" if unpriced else "")
        return result
    total = sum(
        each * pool.gpus_per_replica * (pool.price_per_gpu_hour or 0.0)
        for each, pool in zip(up_hours, pools, strict=True)
    )
    output = int(rows.output[finished].sum(dtype=np.int64))
    tokens = output + int(rows.prompt[finished].sum())
    result["total"] = total
    if output:
        result["per_million_output_tokens"] = total / output * 1e6
        result["per_million_tokens"] = total / tokens * 1e6
    else:
        result["reason"] = "no request finished in the window"
    return result


# ------------------------------------------------------------------------------------------------ notes, simulator


def _features(data: RunData) -> dict[str, Any]:
    """Return the section of each feature; None for those that the run doesn't have."""
    control = data.cluster.control
    described = control.describe() if control is not None else {}
    return {name: described.get(name) for name in SECTIONS}


def _notes(data: RunData, window: _Window) -> list[str]:
    notes = [*data.notes, *getattr(data.trace, "notes", ())]
    if not window.covers_all:
        notes.append("inter-token gaps (itl_s) are of the whole run, not of the window's requests only")
    refused = sum(replica.counters.swaps_refused for replica in data.cluster.replicas)
    if refused:
        notes.append(f"host memory for swapping was full {refused} times: those requests were recomputed instead")
    if data.interrupted:
        notes.append("the run was interrupted: figures are of what was done until then")
    return _unique(notes)


def _unique(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def _simulator(data: RunData) -> dict[str, Any]:
    """Return what the run itself took: all that differs between two runs of one scenario."""
    replicas = data.cluster.replicas
    return {
        "version": simulator.__version__,
        "load_s": data.load_s,
        "loop_s": data.loop_s,
        "write_s": None,
        "iterations": sum(replica.counters.steps for replica in replicas),
        "events": int(getattr(data.cluster, "events", 0)),
        "peak_memory_bytes": peak_memory_bytes(),
        "seed": data.scenario.get("seed"),
        "stepwise": not any(replica.fast_forward for replica in replicas),
    }


def peak_memory_bytes() -> int | None:
    """Return the largest resident memory of this process so far; None where the system doesn't say."""
    import sys

    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

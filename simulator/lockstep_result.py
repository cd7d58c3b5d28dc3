"""The summary's section on attention data parallel ranks: what they did together, and what they waited for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simulator.engine.clock import to_s

if TYPE_CHECKING:
    from simulator.engine.lockstep import Lockstep
    from simulator.run_data import RunData


def describe_lockstep(data: RunData) -> dict[str, Any]:
    """Return the section ``attention_data_parallel``: totals, and one entry for each replica of several ranks.

    Times are seconds that ranks spent: of all ranks together, each counted. ``idle_share``: of the time that ranks
    stepped, what they computed dummies in or waited for a slower one; exchange and experts are everybody's work.
    """
    described = [_group(group, data) for group in data.cluster.lockstep]
    stepped = sum(each["stepped_rank_s"] for each in described)
    parts = ("dummy_rank_s", "waiting_rank_s", "exchange_rank_s", "experts_rank_s")
    totals = {part: sum(each[part] for each in described) for part in parts}
    idle = totals["dummy_rank_s"] + totals["waiting_rank_s"]
    return {
        "reason": None,
        "stepped_rank_s": stepped,
        **totals,
        "idle_share": idle / stepped if stepped else None,
        "replicas": described,
    }


def _group(group: Lockstep, data: RunData) -> dict[str, Any]:
    counters, number = group.counters, len(group.ranks)
    pool = next(pool for pool in data.pools if group.first in pool.replicas)
    stepped = counters.busy_ns * number
    dummy, waiting = sum(counters.dummy_ns), sum(counters.waiting_ns)
    return {
        "pool": pool.name,
        "ranks": [replica.index for replica in group.ranks],
        "steps": counters.steps,
        "held_steps": counters.held_steps,
        "stepped_rank_s": to_s(stepped),
        "dummy_rank_s": to_s(dummy),
        "waiting_rank_s": to_s(waiting),
        "exchange_rank_s": to_s(counters.exchange_ns * number),
        "experts_rank_s": to_s(counters.experts_ns * number),
        "idle_share": (dummy + waiting) / stepped if stepped else None,
        "dummy_steps": list(counters.dummy_steps),
        "waiting_s": [to_s(waited) for waited in counters.waiting_ns],
    }


def lockstep_line(section: dict[str, Any]) -> str | None:
    """Return a line for the terminal; None without such ranks."""
    stepped = section.get("stepped_rank_s")
    if not stepped:
        return None
    shares = {name: section[f"{name}_rank_s"] / stepped for name in ("dummy", "waiting", "exchange", "experts")}
    return (
        f"of the ranks' time {shares['experts']:.0%} experts, {shares['exchange']:.0%} exchange, "
        f"{shares['waiting']:.0%} waiting for slower ranks, {shares['dummy']:.0%} without work"
    )

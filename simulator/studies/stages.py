"""The simulations of a search: all plans on all requests, or all on a prefix and the best of them on all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from simulator.resolve import Resolved
from simulator.studies.plan_space import Plan
from simulator.studies.points import Outcome, Task, evaluate
from simulator.studies.search_result import Row, per_gpu, rank
from simulator.studies.store import Store, run_kept
from simulator.studies.targets import Target

if TYPE_CHECKING:
    from workloads import Trace

SCREEN_ABOVE = 10_000
"""Requests above which plans are first screened on a prefix, unless the caller says otherwise: a choice."""
SCREEN_REQUESTS = 2_500
"""Requests of that prefix: a choice."""
Progress = Callable[[int, int, str], None]
"""Told how many simulations have ended, of how many, and the last one's plan."""


@dataclass
class Evaluation:
    """Simulates plans, and remembers how many."""

    feasible: Mapping[Plan, Resolved]
    trace: Trace | None
    store: Store | None
    workers: int | None
    executor: Executor | None
    progress: Progress
    done: int = 0
    total: int = 0

    def rows(self, plans: Sequence[Plan], limit: int | None) -> tuple[list[Row], bool]:
        """Simulate plans on the first requests, or on all; return rows in the plans' order, and whether Ctrl-C came."""
        tasks = [Task(_mapping(self.feasible[plan], limit), self.trace) for plan in plans]
        outcomes: dict[int, Outcome] = {}
        interrupted = False
        try:
            for place, done in run_kept(tasks, self.store, work=evaluate, workers=self.workers, executor=self.executor):
                outcomes[place] = done.outcome
                self.done += 1
                self.progress(self.done, self.total, plans[place].text)
        except KeyboardInterrupt:
            interrupted = True
        rows = []
        for place, outcome in sorted(outcomes.items()):
            plan = plans[place]
            pool = self.feasible[plan].pools[0]
            figures = outcome.figures
            if figures:
                figures = {**figures, **per_gpu(figures, plan.gpus, pool.pool.price_per_gpu_hour)}
            rows.append(
                Row(
                    plan,
                    figures,
                    pool.memory.kv_tokens,
                    outcome.failure,
                    outcome.is_defect,
                    screened_only=limit is not None,
                )
            )
        return rows, interrupted


def _mapping(resolved: Resolved, limit: int | None) -> dict[str, Any]:
    data = resolved.scenario.to_mapping(everything=True)
    if limit is not None:
        data["workload"]["limit"] = limit
    return data


def in_stages(
    evaluation: Evaluation, guide: Plan | None, by: Target, requests: int, screen: int | None, finalists: int
) -> tuple[list[Row], list[str], bool]:
    """Simulate all plans on all requests, or on a prefix and the best of them on all."""
    plans = list(evaluation.feasible)
    prefix = (SCREEN_REQUESTS if requests > SCREEN_ABOVE else 0) if screen is None else screen
    kept = finalists + (guide is not None)
    if not prefix or prefix >= requests or len(plans) <= kept:
        evaluation.total = len(plans)
        rows, interrupted = evaluation.rows(plans, None)
        return rows, [f"{len(rows)} of {len(plans)} plans on all {requests:,} requests"], interrupted
    evaluation.total = len(plans) + kept
    screened, interrupted = evaluation.rows(plans, prefix)
    stages = [f"screening: {len(screened)} of {len(plans)} plans on the first {prefix:,} of {requests:,} requests"]
    if interrupted:
        return screened, stages, True
    best = [row.plan for row in rank(screened, by) if not row.failure][:finalists]
    finals = [plan for plan in plans if plan in best or plan == guide]
    evaluation.total = len(plans) + len(finals)
    final, interrupted = evaluation.rows(finals, None)
    stages.append(f"final: {len(final)} of {len(finals)} plans on all {requests:,} requests")
    done = {row.plan for row in final}
    return [*final, *(row for row in screened if row.plan not in done)], stages, interrupted


__all__ = ["SCREEN_ABOVE", "SCREEN_REQUESTS", "Evaluation", "Progress", "in_stages"]

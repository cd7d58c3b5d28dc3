"""Configurations: ways in which one replica of a model may run on GPUs of one type, and what of them can't."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.capacity import longest_prompt
from simulator.planning.choices import Choice
from simulator.planning.objectives import Objective
from simulator.scenario import Scenario
from simulator.studies.plan_space import POOL, Budget, Infeasible, Plan, enumerate_plans, prune

if TYPE_CHECKING:
    from simulator.models import ModelSpec
    from simulator.resolve import Resolved
    from workloads import Trace

MOST_GPUS = 8
"""GPUs of a replica at most, unless the caller says otherwise: a server of today."""


_SAID = {"engine.max_num_batched_tokens": "max_num_batched_tokens ", "batching": "", "role": ""}
"""How what is changed of a pool is said before its value."""


@dataclass(frozen=True)
class Configuration:
    """One replica: GPUs, layout, and what is varied of its engine.

    Attributes
    ----------
    choice
        GPU and price.
    layout
        Sizes by dimension, of one replica.
    changes
        Keys of its pool that differ from the scenario's: ``engine.max_num_batched_tokens``, ``batching``.
    """

    choice: Choice
    layout: Plan
    changes: tuple[tuple[str, Any], ...] = ()

    @property
    def gpus(self) -> int:
        """GPUs of a replica."""
        return self.layout.gpus_per_replica

    @property
    def price(self) -> float:
        """Of a replica for an hour."""
        return self.gpus * self.choice.price

    @property
    def sizes(self) -> str:
        """The layout as people write it: ``tp 2, pp 2``."""
        return self.layout.text.split("(", 1)[1].rstrip(")")

    @property
    def text(self) -> str:
        """As people write it: ``h100-sxm x2 (tp 2, max_num_batched_tokens 8192)``."""
        more = "".join(f", {_SAID.get(key, key)}{value}" for key, value in self.changes)
        return f"{self.choice.gpu} x{self.gpus} ({self.sizes}{more})"

    @property
    def name(self) -> str:
        """Of its pool in a scenario: ``h100-sxm-tp2``."""
        stem = self.choice.gpu.rsplit("/", 1)[-1].removesuffix(".yaml")
        sizes = "".join(f"-{name}{size}" for name, size in self.layout.sizes if size > 1 or name == "tp")
        return stem + sizes + "".join(f"-{value}" for _, value in self.changes)

    def pool(self, base: Scenario, replicas: int) -> dict[str, Any]:
        """Return the pool of so many replicas, as plain data."""
        named = base.updated(
            {
                f"{POOL}.name": self.name,
                f"{POOL}.accelerator": self.choice.gpu,
                f"{POOL}.node": self.choice.node,
                f"{POOL}.price_per_gpu_hour": self.choice.price,
                **replace(self.layout, replicas=replicas).changes(),
                **{f"{POOL}.{key}": value for key, value in self.changes},
            }
        )
        pool: dict[str, Any] = named.to_mapping()["cluster"]["pools"][0]
        return pool


def configurations(
    base: Scenario,
    model: ModelSpec,
    choices: Sequence[Choice],
    objectives: Sequence[Objective],
    trace: Trace,
    most_gpus: int = MOST_GPUS,
) -> tuple[list[Configuration], list[tuple[Choice, Infeasible]]]:
    """Return the layouts that can run on each GPU, and those that can't, with the reason.

    Left out, with proof: what the memory plan refuses, and what takes prompts that are too short for more requests than
    an objective allows to be missed.
    """
    found: list[Configuration] = []
    refused: list[tuple[Choice, Infeasible]] = []
    for choice in choices:
        on_gpu = base.updated({f"{POOL}.accelerator": choice.gpu, f"{POOL}.node": choice.node})
        budget = Budget(1, most_gpus, f"server of {most_gpus} {choice.gpu}")
        plans = enumerate_plans(model, budget, only={"replicas": [1], "cp": [1]})
        feasible, infeasible = prune(on_gpu, model, budget, plans, trace)
        refused += [(choice, each) for each in infeasible]
        for plan, resolved in feasible:
            reason = _too_short(resolved, objectives, trace)
            if choice.at_most is not None and plan.gpus > choice.at_most:
                refused.append(
                    (choice, Infeasible(plan, "limit", f"at most {choice.at_most} {choice.gpu} are allowed"))
                )
            elif reason:
                refused.append((choice, Infeasible(plan, "memory", reason)))
            else:
                found.append(Configuration(choice, plan))
    return found, refused


def _too_short(resolved: Resolved, objectives: Sequence[Objective], trace: Trace) -> str:
    """Say that too many prompts are longer than a replica takes; empty: they aren't."""
    longest = longest_prompt(resolved.pools[0])
    refused = int(np.count_nonzero(trace.prompt_tokens > longest))
    of_all = [each for each in objectives if not each.request_class]
    if not of_all:
        return ""
    strictest = max(of_all, key=lambda each: each.percentile)
    if refused / len(trace) <= 1 - strictest.percentile / 100 + 1e-12:
        return ""
    return (
        f"takes prompts of {longest:,} tokens at most, and {refused:,} of {len(trace):,} are longer: more than "
        f"{strictest.text} lets be missed"
    )


__all__ = ["MOST_GPUS", "Configuration", "configurations"]

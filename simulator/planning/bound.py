"""The lower bound over time: the fewest GPUs that a perfect autoscaler could use, minute by minute.

Such a scaler knows the future, starts and ends replicas at once, splits them at will (a third of a replica is a third
of its GPUs), and its replicas never wait: every step is full, prompts and decodes in the proportion in which the
requests have them, at the batch that serves most requests a second. Latency objectives are left aside. What a plan uses
above that is what its objectives, whole replicas and the course of the load cost together.

It is a bound as far as step times are: no batch with another proportion serves more requests for the time that it
takes, which holds where step times are linear in prompts, decodes and KV read, and nearly holds for the models here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from simulator.build import build
from simulator.cost.shape import BatchShape, CostModel
from simulator.planning.configurations import Configuration
from simulator.resolve import resolve
from simulator.scenario import Scenario

if TYPE_CHECKING:
    from workloads import Trace

WINDOW_S = 60.0
"""Length of a window, about, seconds: a choice; above what most requests take, so that their work falls in theirs."""
_BATCHES = 12
"""Batches tried for the best one, from one decode to as many as there is room for: a choice."""
_NS_PER_S = 1e9


@dataclass(frozen=True)
class Bound:
    """The lower bound.

    Attributes
    ----------
    window_s
        Length of a window, seconds.
    gpus
        Fewest GPUs, by window.
    price
        Least price an hour, by window; of the configuration that is cheapest there.
    fewest, cheapest
        Configurations that it is reached with, over all windows.
    rates
        Requests/s of one replica with every step full, by configuration.
    """

    window_s: float
    gpus: npt.NDArray[np.float64]
    price: npt.NDArray[np.float64]
    fewest: Configuration
    cheapest: Configuration
    rates: tuple[tuple[Configuration, float], ...]

    @property
    def mean_gpus(self) -> float:
        """Mean over time."""
        return float(self.gpus.mean())

    @property
    def mean_price(self) -> float:
        """Mean over time."""
        return float(self.price.mean())


def lower_bound(base: Scenario, configurations: Sequence[Configuration], trace: Trace) -> Bound:
    """Return the lower bound over time of a trace, over the given configurations."""
    span_s = max(float(trace.arrival_s[-1]), 1e-3)
    windows = max(1, round(span_s / WINDOW_S))
    edges, length_s = np.linspace(0.0, span_s, windows + 1), span_s / windows
    number = np.histogram(trace.arrival_s, edges)[0]
    prompts = np.histogram(trace.arrival_s, edges, weights=trace.prompt_tokens)[0]
    outputs = np.histogram(trace.arrival_s, edges, weights=trace.output_tokens)[0]
    by_gpu, by_price, rates = [], [], []
    for each in configurations:
        engine = engine_of(base, each, trace)
        seconds = np.zeros(len(number))
        for place, count in enumerate(number):
            if count:
                mean_prompt, mean_output = prompts[place] / count, outputs[place] / count
                seconds[place] = count / best_rate(engine, mean_prompt, mean_output)
        by_gpu.append(seconds / length_s * each.gpus)
        by_price.append(seconds / length_s * each.price)
        rates.append((each, float(number.sum() / seconds.sum())))
    gpus, price = np.array(by_gpu), np.array(by_price)
    return Bound(
        length_s,
        gpus.min(axis=0),
        price.min(axis=0),
        configurations[int(gpus.sum(axis=1).argmin())],
        configurations[int(price.sum(axis=1).argmin())],
        tuple(rates),
    )


@dataclass(frozen=True)
class Engine:
    """What one replica's steps take, and its limits.

    Attributes
    ----------
    tokens
        Of a step at most.
    seqs
        Requests that run at a time at most, over all stages.
    kv_tokens
        Tokens of KV that it holds.
    """

    cost: CostModel
    tokens: int
    seqs: int
    kv_tokens: int


def engine_of(base: Scenario, configuration: Configuration, trace: Trace) -> Engine:
    """Return the engine of one replica of a configuration."""
    data: dict[str, Any] = base.to_mapping()
    data["workload"] = {}
    data.setdefault("cluster", {})["pools"] = [configuration.pool(base, 1)]
    resolved = resolve(Scenario.from_mapping(data))
    pool = resolved.pools[0]
    limits = pool.pool.engine
    replica = build(resolved, trace).cluster.replicas[0]
    assert limits.max_num_seqs is not None
    tokens = limits.max_num_batched_tokens or limits.max_model_len or 0
    return Engine(replica.cost, tokens, limits.max_num_seqs * pool.pool.parallel.pp, pool.memory.kv_tokens)


def best_rate(engine: Engine, prompt: float, output: float) -> float:
    """Return the most requests/s of a replica whose steps are all alike and full.

    A step with d decodes has d x prompt / output prompt tokens, so that as many requests begin as end. It takes what
    its slowest stage takes.

    Parameters
    ----------
    prompt, output
        Mean lengths, tokens.
    """
    context = prompt + output / 2
    room = min(engine.seqs, max(1.0, engine.kv_tokens / context), engine.tokens / (1 + prompt / output))
    best = 0.0
    for decodes in {max(1, round(room ** (k / (_BATCHES - 1)))) for k in range(_BATCHES)}:
        shape = BatchShape()
        new = max(1, round(decodes * prompt / output))
        shape.decodes = decodes
        shape.decode_kv = shape.decode_window_kv = round(decodes * context)
        shape.decode_kv_sq = round(decodes * context * context)
        whole, rest = divmod(new, max(1, round(prompt)))
        shape.chunks = [(round(prompt), 0)] * whole + ([(rest, 0)] if rest else [])
        shape.prefill_tokens = new
        shape.logit_rows = decodes + len(shape.chunks)
        best = max(best, decodes / output / (max(engine.cost.stage_ns(shape)) / _NS_PER_S))
    return best


__all__ = ["WINDOW_S", "Bound", "Engine", "best_rate", "engine_of", "lower_bound"]

"""Fleets whose prompts are computed on some replicas and whose tokens are generated on others.

One configuration for either role, of any GPUs: a GPU that generates too slowly may compute prompts, one with little
compute may generate. Fleets that can't do the work even with every step full are left out; all others that are cheaper
than the plan are simulated, KV transfer and all, and one that does becomes the plan.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hardware_profiles import list_nodes, load_accelerator, load_node
from simulator.cost.shape import BatchShape
from simulator.planning.bound import Engine, engine_of
from simulator.planning.configurations import Configuration
from simulator.planning.fleets import PRICE_GRAIN, Fleet
from simulator.planning.objectives import Objective
from simulator.scenario import Scenario
from workloads import Trace

MOST_FLEETS = 24
"""Fleets that are simulated at most, those with the most room: a choice; the others are counted."""
SPARE = 0.95
"""Share of the busiest stretch's work that a role's full steps must be able to do: below 1, as latencies leave time
after the stretch, and objectives let some requests be missed. A choice."""
_NS_PER_S = 1e9


@dataclass(frozen=True)
class Part:
    """A configuration in a role.

    Attributes
    ----------
    rate
        Requests/s with every step full.
    latency_s
        What a step takes that has one prompt of mean length, or one decode, and nothing else.
    """

    configuration: Configuration
    rate: float
    latency_s: float


@dataclass(frozen=True)
class Candidates:
    """Fleets to simulate.

    Attributes
    ----------
    fleets
        Cheaper than the plan, and able to do the work; cheapest first.
    rates
        Requests/s of one replica with every step full, by configuration.
    left
        How many more there are.
    """

    fleets: tuple[Fleet, ...]
    rates: dict[Configuration, float]
    left: int = 0


def candidates(
    base: Scenario,
    able: Sequence[Configuration],
    objectives: Sequence[Objective],
    trace: Trace,
    needed: float,
    below: float,
) -> Candidates:
    """Return the fleets of a pool that prefills and one that decodes which are cheaper than a price.

    Parameters
    ----------
    able
        Layouts that can run.
    trace
        Requests, for their mean lengths.
    needed
        Requests/s of the busiest stretch.
    below
        The price.
    """
    prompt, output = float(np.mean(trace.prompt_tokens)), float(np.mean(trace.output_tokens))
    limits = [each.limit_s for each in objectives if each.metric in ("tpot", "itl") and not each.request_class]
    prefill, decode = [], []
    for each in able:
        placed = _on_node(each)
        if placed is None:
            continue
        engine = engine_of(base, each, trace)
        one_prompt, one_decode = _latencies_s(engine, prompt, output)
        prefill.append(Part(_as(placed, "prefill"), prefill_rate(engine, prompt), one_prompt))
        rate = decode_rate(engine, prompt, output, min(limits, default=math.inf))
        decode.append(Part(_as(placed, "decode"), rate, one_decode))
    prefill, decode = _kept(prefill), _kept(decode)
    fleets = [
        Fleet(((one.configuration, n), (other.configuration, m)))
        for one in prefill
        for other in decode
        for n in range(_least(one, needed), _most(one, below) + 1)
        for m in range(_least(other, needed), _most(other, below - n * one.configuration.price) + 1)
    ]
    fleets = [each for each in fleets if each.price < below - PRICE_GRAIN and _within(each)]
    rates = {part.configuration: part.rate for part in (*prefill, *decode)}
    fleets.sort(key=lambda each: (-min(n * rates[part] for part, n in each.parts), each.price, each.text))
    chosen = sorted(fleets[:MOST_FLEETS], key=lambda each: (each.price, each.text))
    return Candidates(tuple(chosen), rates, max(0, len(fleets) - MOST_FLEETS))


def _as(configuration: Configuration, role: str) -> Configuration:
    return replace(configuration, changes=(*configuration.changes, ("role", role)))


def _on_node(configuration: Configuration) -> Configuration | None:
    """Return a configuration in servers that are known, whose links KV goes over; None: the catalogue has none."""
    choice = configuration.choice
    if choice.node is not None:
        return configuration
    name = load_accelerator(choice.gpu).name
    nodes = [node for node in map(load_node, list_nodes()) if node.accelerator == name and node.gpus >= 8]
    if not nodes or configuration.gpus > nodes[0].gpus:
        return None
    return replace(configuration, choice=replace(choice, node=nodes[0].name))


def _least(part: Part, needed: float) -> int:
    return max(1, int(np.ceil(SPARE * needed / part.rate - 1e-9)))


def _most(part: Part, below: float) -> int:
    return int(below / part.configuration.price)


def _within(fleet: Fleet) -> bool:
    used: dict[str, int] = {}
    limits: dict[str, int | None] = {}
    for each, number in fleet.parts:
        used[each.choice.gpu] = used.get(each.choice.gpu, 0) + number * each.gpus
        limits[each.choice.gpu] = each.choice.at_most
    return all(limit is None or used[gpu] <= limit for gpu, limit in limits.items())


def _kept(parts: Sequence[Part]) -> list[Part]:
    """Return the parts that do anything, but those that some number of another beats: no dearer, slower or smaller."""
    found: list[Part] = []
    for part in sorted(parts, key=lambda each: (each.configuration.price, -each.rate, each.configuration.text)):
        if part.rate > 0 and not any(
            int(part.configuration.price / other.configuration.price + 1e-9) * other.rate >= part.rate
            and other.latency_s <= part.latency_s
            for other in found
            if other.configuration.choice.at_most is None
        ):
            found.append(part)
    return found


def _latencies_s(engine: Engine, prompt: float, output: float) -> tuple[float, float]:
    alone, one = BatchShape(), BatchShape()
    alone.prefill_tokens = max(1, min(round(prompt), engine.tokens))
    alone.chunks = [(alone.prefill_tokens, 0)]
    one.decode_kv = one.decode_window_kv = round(prompt + output / 2)
    one.decode_kv_sq = one.decode_kv**2
    one.decodes = one.logit_rows = alone.logit_rows = 1
    return engine.cost.step_ns(alone) / _NS_PER_S, engine.cost.step_ns(one) / _NS_PER_S


def prefill_rate(engine: Engine, prompt: float) -> float:
    """Return the most prompts/s of a replica whose every step is full of prompts and nothing else."""
    best = 0.0
    length = max(1, round(prompt))
    for tokens in np.geomspace(min(64, engine.tokens), engine.tokens, 12).round().astype(int).tolist():
        whole, rest = divmod(tokens, length)
        shape = BatchShape()
        shape.chunks = [(length, 0)] * whole + ([(rest, 0)] if rest else [])
        shape.prefill_tokens = tokens
        shape.logit_rows = len(shape.chunks)
        best = max(best, tokens / prompt / (max(engine.cost.stage_ns(shape)) / _NS_PER_S))
    return best


def decode_rate(engine: Engine, prompt: float, output: float, step_s: float) -> float:
    """Return the most requests/s of a replica whose steps are all decodes; 0 if even one decode takes above ``step_s``.

    The steps of a sequence follow one another through all stages, so that their whole time is a gap between tokens.
    """
    context = prompt + output / 2
    room = max(1.0, min(engine.seqs, engine.kv_tokens / context, engine.tokens))
    best = 0.0
    for decodes in {max(1, round(room ** (k / 11))) for k in range(12)}:
        shape = BatchShape()
        shape.decodes = shape.logit_rows = decodes
        shape.decode_kv = shape.decode_window_kv = round(decodes * context)
        shape.decode_kv_sq = round(decodes * context * context)
        if engine.cost.step_ns(shape) / _NS_PER_S <= step_s:
            best = max(best, decodes / output / (max(engine.cost.stage_ns(shape)) / _NS_PER_S))
    return best


__all__ = ["Candidates", "candidates", "decode_rate", "prefill_rate"]

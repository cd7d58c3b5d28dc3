"""BurstGPT-style traffic: API calls and growing conversations with two models, bursts, days, weeks and failures.

After Y. Wang et al., arXiv:2401.17644; every default with its source is in :mod:`workloads.generators.parameters`.

The model
    * API calls arrive with Gamma gaps; conversations start with Gamma gaps. Both follow one rate: hours of the day,
      weekdays, and a random factor for each window of 20 minutes, scaled so that the trace has the asked mean rate.
    * A conversation has a lognormal number of turns. The prompt of a turn is the previous prompt, its answer and a new
      message; where prompt and answer would exceed the context, the history is dropped and the message stands alone.
    * Conversations that began before the trace go on in it: their first turn in it has no parent, but a history.
    * A failed request is drawn like any other and then dropped, as the reader of BurstGPT files does by default.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import NormalDist
from typing import Any

import numpy as np

from workloads.generators import parameters
from workloads.generators._registry import (
    DURATION,
    FIT,
    REQUESTS,
    SEED,
    Generator,
    Param,
    extent,
    rate_param,
)
from workloads.generators.arrivals import RateCurve, modulated, renewal, weekly_curve, weekly_factors
from workloads.generators.lengths import lengths
from workloads.readers._base import previous_turn
from workloads.streams import stream
from workloads.trace import Categorical, Floats, Ints, Ragged, Trace, TraceError

_LEAD_S = 2 * 86400.0
_LEAD_TURNS = 5e6
MODELS = ("ChatGPT", "GPT-4")
CLASSES = ("Conversation log", "API log")


def _default(name: str) -> float:
    return parameters.BURSTGPT[name].value


_API_PROMPT = lengths(
    {"kind": "lognormal", "median": _default("api_prompt_median"), "sigma": _default("api_prompt_sigma"), "max": 8192}
)
_API_OUTPUT = lengths(
    {"kind": "lognormal", "median": _default("api_output_median"), "sigma": _default("api_output_sigma"), "max": 4096}
)
_MESSAGE = lengths(
    {"kind": "lognormal", "median": _default("message_median"), "sigma": _default("message_sigma"), "max": 6144}
)
_ANSWER = lengths(
    {
        "kind": "gamma",
        "mean": _default("conversation_output_mean"),
        "shape": _default("conversation_output_shape"),
        "max": _default("conversation_output_max"),
    }
)

PARAMS = (
    REQUESTS,
    DURATION,
    rate_param(_default("rate")),
    Param("burstiness", "float", _default("burstiness"), "Gamma shape of the gaps", gt=0, le=1e6),
    Param("diurnal", "bool", True, "follow hours and weekdays"),
    Param("weekend", "float", _default("weekend"), "rate of Saturday and Sunday", "of a weekday", ge=0),
    Param("start_hour", "float", 0.0, "hour of the day at time 0", "h", ge=0, le=24),
    Param("start_day", "int", 0, "day of the week at time 0, Monday is 0", ge=0, le=6),
    Param("modulation_window_s", "float", _default("modulation_window_s"), "window of one random rate", "s", gt=0),
    Param("modulation_sigma", "float", _default("modulation_sigma"), "its spread, of the logarithm", ge=0, le=3),
    Param(
        "conversation_share",
        "float",
        _default("conversation_share"),
        "requests that are turns of a conversation",
        ge=0,
        le=1,
    ),
    Param("gpt4_share", "float", _default("gpt4_share"), "calls and conversations with GPT-4", ge=0, le=1),
    Param("failure_rate", "float", _default("failure_rate"), "requests that fail", ge=0, le=0.99),
    Param("api_prompt", "lengths", _API_PROMPT, "prompt of an API call", "tokens"),
    Param("api_output", "lengths", _API_OUTPUT, "output of an API call", "tokens"),
    Param("message", "lengths", _MESSAGE, "a user's new message", "tokens"),
    Param("answer", "lengths", _ANSWER, "output of a turn", "tokens"),
    Param(
        "max_context",
        "int",
        int(_default("max_context")),
        "prompt and answer above which a turn drops its history",
        "tokens",
        ge=1,
    ),
    Param("turns_median", "float", _default("turns_median"), "turns of a conversation (lognormal)", ge=1),
    Param("turns_sigma", "float", _default("turns_sigma"), "its spread, of the logarithm", ge=0, le=4),
    Param("turns_max", "int", int(_default("turns_max")), "most turns", ge=1, le=10000),
    Param(
        "think_median_s", "float", _default("think_median_s"), "time from answer to next turn (lognormal)", "s", gt=0
    ),
    Param("think_sigma", "float", _default("think_sigma"), "its spread, of the logarithm", ge=0, le=4),
    Param("think_max_s", "float", _default("think_max_s"), "longest think time", "s", gt=0),
    Param(
        "nominal_s_per_token",
        "float",
        _default("nominal_s_per_token"),
        "time an output token takes in the recorded arrivals",
        "s",
        ge=0,
    ),
    Param("block_size", "int", 0, "tokens a block of block_hashes; 0: none are made", "tokens", ge=0, le=65536),
    FIT,
    SEED,
)


@dataclass(frozen=True)
class _Rows:
    """Requests in the making, in any order. ``chain`` names the text that a request continues; ``last`` its length."""

    arrival: Floats
    prompt: Ints
    output: Ints
    model: Ints
    session: Ints
    think: Floats
    chain: Ints

    def take(self, index: Any) -> _Rows:
        return _Rows(*(getattr(self, name)[index] for name in self.__dataclass_fields__))


def _make(values: Mapping[str, Any]) -> Trace:
    requests, until = extent(values)
    span = until
    if math.isinf(span) and requests is not None:
        wanted = requests / (1 - values["failure_rate"])
        span = (wanted + 8 * math.sqrt(wanted / min(1.0, values["burstiness"])) + 20) / values["rate"]
    for _ in range(40):
        rows = _drawn(values, span)
        failed = stream(values["seed"], "failures").random(len(rows.arrival)) < values["failure_rate"]
        kept = rows.take(~failed)
        if requests is None or len(kept.arrival) >= requests or math.isfinite(until):
            break
        span *= 1.5
    if requests is not None:
        kept = kept.take(slice(requests))
    if not len(kept.arrival):
        raise TraceError("no request falls into the trace; raise 'rate' or 'duration_s'")
    trace = Trace(
        arrival_s=kept.arrival,
        prompt_tokens=kept.prompt,
        output_tokens=kept.output,
        session_id=kept.session,
        parent_id=previous_turn(kept.session),
        model=Categorical(kept.model.astype(np.int32), MODELS),
        request_class=Categorical((kept.session < 0).astype(np.int32), CLASSES),
    )
    if trace.parent_id is not None:
        trace = replace(trace, think_time_s=np.where(trace.parent_id >= 0, kept.think, np.nan))
    if values["block_size"]:
        blocks = _blocks(kept, values["block_size"])
        trace = replace(trace, block_hashes=blocks, block_size_tokens=values["block_size"])
    lost = int(np.count_nonzero(failed & (rows.arrival <= (kept.arrival[-1] if requests is not None else span))))
    if lost:
        trace = trace.with_notes(f"dropped {lost} failed requests", failed=lost)
    return trace


def _drawn(values: Mapping[str, Any], span: float) -> _Rows:
    """Draw all requests between 0 and ``span``, in the order of arrival."""
    seed, rate = values["seed"], values["rate"]
    curve = _curve(values, span)
    share = values["conversation_share"]
    expected = curve.expected()
    zero = float(np.interp(0.0, curve.edges_s, expected))
    end = float(np.interp(span, curve.edges_s, expected))
    api = _calls(values, curve, zero, end, rate * (1 - share))
    starts: Floats = np.empty(0)
    if share > 0:
        per_session = rate * share / _mean_turns(values)
        rng = stream(seed, "conversations")
        starts = curve.times(renewal(rng, "gamma", values["burstiness"], per_session, requests=None, until_s=end))
    turns = _conversations(values, starts)
    turns = turns.take((turns.arrival >= 0) & (turns.arrival < span))
    first_free = int(turns.chain.max(initial=-1)) + 1
    api = replace(api, chain=first_free + np.arange(len(api.arrival)))
    both = _Rows(*(np.concatenate((getattr(api, name), getattr(turns, name))) for name in api.__dataclass_fields__))
    rows = both.take(np.argsort(both.arrival, kind="stable"))
    return replace(rows, session=_renumbered(rows.session))


def _curve(values: Mapping[str, Any], span: float) -> RateCurve:
    # Conversations are followed from two days before the trace; at rates above some hundred a second from less.
    lead = min(_LEAD_S, _LEAD_TURNS / (values["rate"] * max(values["conversation_share"], 1e-9)))
    curve = RateCurve(np.array([-lead, span]), np.ones(1))
    if values["diurnal"]:
        week = weekly_factors(parameters.HOURLY, values["weekend"])
        curve = weekly_curve(week, 24 * values["start_day"] + values["start_hour"], -lead, span)
    rng = stream(values["seed"], "rate of windows")
    if values["modulation_sigma"] > 0:
        curve = modulated(curve, rng, values["modulation_window_s"], values["modulation_sigma"])
    return curve.normalised(0.0, span)


def _calls(values: Mapping[str, Any], curve: RateCurve, zero: float, end: float, rate: float) -> _Rows:
    seed = values["seed"]
    arrival: Floats = np.empty(0)
    if rate > 0:
        rng = stream(seed, "API calls")
        operational = renewal(rng, "gamma", values["burstiness"], rate, requests=None, until_s=end - zero)
        arrival = curve.times(zero + operational)
    n = len(arrival)
    return _Rows(
        arrival=arrival,
        prompt=values["api_prompt"].sample(stream(seed, "API prompts"), n),
        output=values["api_output"].sample(stream(seed, "API outputs"), n),
        model=(stream(seed, "API models").random(n) < values["gpt4_share"]).astype(np.int64),
        session=np.full(n, -1, np.int64),
        think=np.full(n, np.nan),
        chain=np.arange(n),
    )


def _turns(values: Mapping[str, Any], normal: Floats) -> Ints:
    drawn: Floats = values["turns_median"] * np.exp(values["turns_sigma"] * normal)
    return np.clip(np.rint(drawn), 1, values["turns_max"]).astype(np.int64)


def _mean_turns(values: Mapping[str, Any]) -> float:
    """Return the mean of the turns as they are drawn (rounded and cut), by even steps of probability."""
    normal = NormalDist()
    return float(_turns(values, np.array([normal.inv_cdf((i + 0.5) / 8192) for i in range(8192)])).mean())


def _conversations(values: Mapping[str, Any], starts: Floats) -> _Rows:
    """Draw the turns of conversations that start at these times, session by session."""
    seed = values["seed"]
    sessions = len(starts)
    turns = _turns(values, stream(seed, "turns").standard_normal(sessions))
    session = np.repeat(np.arange(sessions), turns)
    n = len(session)
    turn = np.arange(n) - np.repeat(np.cumsum(turns) - turns, turns)
    message = values["message"].sample(stream(seed, "messages"), n)
    output = values["answer"].sample(stream(seed, "answers"), n)
    think = values["think_median_s"] * np.exp(values["think_sigma"] * stream(seed, "thinking").standard_normal(n))
    think = np.where(turn > 0, np.minimum(think, values["think_max_s"]), 0.0)
    # Time since the start: what each earlier answer took, and the think times so far.
    passed = np.cumsum(think + np.where(turn > 0, np.roll(output, 1) * values["nominal_s_per_token"], 0.0))
    arrival = starts[session] + passed - np.repeat(passed[turn == 0], turns)
    prompt, chain = _contexts(session, turn, message, output, values["max_context"])
    return _Rows(
        arrival=arrival,
        prompt=prompt,
        output=output,
        model=(stream(seed, "models").random(sessions) < values["gpt4_share"]).astype(np.int64)[session],
        session=session,
        think=think,
        chain=chain,
    )


def _contexts(session: Ints, turn: Ints, message: Ints, output: Ints, context: int) -> tuple[Ints, Ints]:
    """Return the prompt of every turn and the chain of text that it continues (a new one where history is dropped)."""
    prompt = np.empty_like(message)
    dropped = np.zeros_like(message)
    by_turn = np.argsort(turn, kind="stable")
    edges = np.searchsorted(turn[by_turn], np.arange(int(turn.max(initial=-1)) + 2))
    history = np.zeros(int(session.max(initial=-1)) + 1, np.int64)
    for start, stop in pairwise(edges.tolist()):
        rows = by_turn[start:stop]
        who = session[rows]
        over = history[who] + message[rows] + output[rows] > context
        dropped[rows] = over & (turn[rows] > 0)
        prompt[rows] = np.where(over, 0, history[who]) + message[rows]
        history[who] = prompt[rows] + output[rows]
    chain = np.cumsum(dropped | (turn == 0)) - 1
    return prompt, chain


def _renumbered(session: Ints) -> Ints:
    """Return sessions numbered in the order in which they first appear, -1 staying."""
    known, first = np.unique(session, return_index=True)
    inside = known >= 0
    order = known[inside][np.argsort(first[inside])]
    new = np.full(int(known[-1]) + 2 if len(known) else 1, -1, np.int64)
    new[order] = np.arange(len(order))
    return new[session]


def _blocks(rows: _Rows, block_size: int) -> Ragged:
    """Return identities of the full blocks of prompt and output: a range of numbers for each chain of text."""
    count = (rows.prompt + rows.output) // block_size
    chains, place = np.unique(rows.chain, return_inverse=True)
    longest = np.zeros(len(chains), np.int64)
    np.maximum.at(longest, place, count)
    base = np.cumsum(longest) - longest
    offsets = np.concatenate(([0], np.cumsum(count)))
    within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], count)
    return Ragged(offsets, np.repeat(base[place], count) + within)


GENERATORS = (Generator("burstgpt", "API calls and conversations after BurstGPT (arXiv:2401.17644)", PARAMS, _make),)

"""The sides of a comparison: scenarios by name, what they are said to differ in, and what else they differ in."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simulator.errors import InputError
from simulator.scenario import Scenario, ScenarioError

BASE = "base"
"""Name of the scenario as it is given, where it is a side itself."""

QUESTION = ("workload", "objectives", "measure")
"""Parts of a scenario that say which requests there are and what is asked of them: the same for all sides."""

POLICY, GPU, ROUTER = "cluster.pools.*.batching", "cluster.pools.*.accelerator", "router"


@dataclass(frozen=True)
class Side:
    """One side.

    Attributes
    ----------
    named
        Keys in which it is meant to differ; empty for a scenario of its own.
    """

    name: str
    scenario: Scenario
    named: tuple[str, ...] = ()


def sides_of_keys(
    base: Scenario,
    *,
    policies: Sequence[str] = (),
    gpus: Sequence[str] = (),
    routers: Sequence[str] = (),
    variants: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Side]:
    """Return the scenario with each of some policies, GPUs or routers, and with each variant's keys.

    Raises
    ------
    InputError
        If one is none, or sets what all sides have to have in common.
    """
    found = []
    for key, names in ((POLICY, policies), (GPU, gpus), (ROUTER, routers)):
        found += [_changed(base, name, {key: name}) for name in names]
    found += [_changed(base, name, changes) for name, changes in (variants or {}).items()]
    return found


def _changed(base: Scenario, name: str, changes: Mapping[str, Any]) -> Side:
    for key in changes:
        if key.split(".")[0] in (*QUESTION, "seed"):
            raise InputError(
                f"{name}: {key} can't differ between sides, which are compared on the same requests, seeds and "
                "objectives; set it for all of them, or vary it with 'simulate sweep'"
            )
    try:
        return Side(name, base.updated(changes), tuple(changes))
    except ScenarioError as error:
        raise InputError(f"{name}: {error}") from None


def check_sides(sides: Sequence[Side]) -> None:
    """Refuse sides that can't be compared.

    Raises
    ------
    InputError
        If there are fewer than two, two of one name, or they differ in what is asked.
    """
    if len(sides) < 2:
        raise InputError(
            "compare what with what? give two or more policies, GPUs, routers, scenario files or variants, as in: "
            "simulate compare trace.csv --policies vllm-v1,sarathi"
        )
    names = [side.name for side in sides]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"two sides are called {twice!r}; each is compared once, under a name of its own")
    first, *others = sides
    asked = _asked(first)
    for side in others:
        theirs = _asked(side)
        keys = sorted(key for key in {*asked, *theirs} if asked.get(key) != theirs.get(key))
        if keys:
            shown = ", ".join(f"{key} ({_said(asked.get(key))} and {_said(theirs.get(key))})" for key in keys[:4])
            more = f" and {len(keys) - 4} more" if len(keys) > 4 else ""
            raise InputError(
                f"{first.name} and {side.name} don't ask the same: {shown}{more}; give both the same requests, "
                "objectives and measured window"
            )


def _asked(side: Side) -> dict[str, Any]:
    data = side.scenario.to_mapping(everything=True)
    return dict(flatten({part: data.get(part) for part in QUESTION}))


def flatten(data: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of plain data by dotted key; lists of numbers or texts count as values."""
    if isinstance(data, Mapping):
        for key, value in data.items():
            yield from flatten(value, f"{path}.{key}" if path else str(key))
    elif isinstance(data, list | tuple) and any(isinstance(each, Mapping) for each in data):
        for place, value in enumerate(data):
            yield from flatten(value, f"{path}.{place}")
    elif data is not None:
        yield path, data


@dataclass(frozen=True)
class Difference:
    """A key that two scenarios have different values of; None: it has none there."""

    key: str
    baseline: Any
    other: Any

    def __str__(self) -> str:
        return f"{self.key}: {_said(self.baseline)} -> {_said(self.other)}"


def differences(
    baseline: Mapping[str, Any], other: Mapping[str, Any], named: Sequence[str] = ()
) -> tuple[Difference, ...]:
    """Return the keys that two scenarios differ in, with everything decided, but those that were named.

    A policy, GPU or engine brings defaults of its own (a token budget, a number of sequences), so sides that are said
    to differ in one key may differ in others.
    """
    here, there = dict(flatten(baseline)), dict(flatten(other))
    patterns = [re.compile(rf"{re.escape(key).replace(re.escape('*'), '[0-9]+')}(\..*)?") for key in named]
    keys = [*here, *(key for key in there if key not in here)]
    return tuple(
        Difference(key, here.get(key), there.get(key))
        for key in keys
        if here.get(key) != there.get(key) and key != "seed" and not any(each.fullmatch(key) for each in patterns)
    )


def _said(value: Any) -> str:
    text = "not set" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


__all__ = [
    "BASE",
    "Difference",
    "Side",
    "check_sides",
    "differences",
    "flatten",
    "sides_of_keys",
]

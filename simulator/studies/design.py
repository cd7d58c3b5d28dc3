"""Designs of sweeps: which points there are, each a name and the keys of the scenario that it sets.

Points are named variants, rows of a list, samples of a Latin hypercube, values along axes, or all combinations of
these. Keys are those of the scenario, dotted, or the names of flags (``tp``, ``max_num_seqs``, ``clients``).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations, product
from typing import Any

from simulator.errors import InputError, did_you_mean
from simulator.flags import EVERY_POOL, FLAGS, KeyFlag
from simulator.rng import stream
from simulator.scenario import Scenario, ScenarioError

MOST_POINTS = 10_000
"""Of one design: a choice. A point takes some 20 ms at least, and every one is a file."""
_STREAM = "design.latin-hypercube"
_DIGITS = 6
"""Significant digits of sampled numbers: a choice, fine enough for any key and short enough to read."""

_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"\s*({_NUMBER})\.\.({_NUMBER})(?::(.*))?\s*")

Axis = Sequence[Any] | str
"""Values, or a range as text (`values_of`, `Range`)."""


@dataclass(frozen=True)
class Point:
    """One point of a design.

    Attributes
    ----------
    name
        Unlike any other's.
    keys
        What it sets, by the names that the user gave.
    """

    name: str
    keys: Mapping[str, Any]

    @property
    def changes(self) -> dict[str, Any]:
        """What it sets, by dotted key; later ones go before earlier ones."""
        return {key: value for name, given in self.keys.items() for key, value in changes_of(name, given).items()}


@dataclass(frozen=True)
class Range:
    """Numbers to sample: ``low..high``, ``low..high:log``, ``low..high:int`` or ``low..high:log:int``.

    Attributes
    ----------
    is_log
        Evenly in the logarithm.
    is_whole
        Whole numbers, both ends included.
    """

    low: float
    high: float
    is_log: bool = False
    is_whole: bool = False

    def at(self, share: float) -> float | int:
        """Return the number at a share of the range, from 0 to below 1."""
        high = self.high + 1 if self.is_whole else self.high
        value = self.low * (high / self.low) ** share if self.is_log else self.low + share * (high - self.low)
        if self.is_whole:
            return min(max(math.floor(value), int(self.low)), int(self.high))
        return float(f"{value:.{_DIGITS}g}")


def make_design(
    over: Mapping[str, Axis] | None = None,
    *,
    variants: Mapping[str, Mapping[str, Any]] | None = None,
    points: Sequence[Mapping[str, Any]] | None = None,
    lhs: int | None = None,
    seed: int = 0,
) -> list[Point]:
    """Return the points of a design: every combination of variants, listed points, samples, and values along axes.

    Parameters
    ----------
    over
        Values to try, by key; or a range (see `values_of`), which with ``lhs`` has no step.
    variants
        Keys that are set together, by the variant's name.
    points
        Keys of each point; a key ``name`` names it.
    lhs
        Points of a Latin hypercube over the ranges of ``over``.
    seed
        Of the hypercube.

    Raises
    ------
    InputError
        If nothing varies, something varies twice, a range or list is empty, a name comes twice, there are too many.
    """
    axes = {name: _axis(name, given) for name, given in (over or {}).items()}
    ranges = {name: axis for name, axis in axes.items() if isinstance(axis, Range)}
    if lhs is None and ranges:
        name = next(iter(ranges))
        raise InputError(
            f"{name}: how many values? write {over and over[name]}:5 for five evenly, or a step (:+2, :*2); or sample "
            "it with a Latin hypercube (--lhs 16)"
        )
    if lhs is not None and not ranges:
        raise InputError("a Latin hypercube needs a range of at least one key: KEY=low..high, :log and :int at will")
    if lhs is not None and lhs < 1:
        raise InputError(f"a Latin hypercube has at least 1 point, got {lhs}")
    sets: list[list[tuple[str, dict[str, Any]]]] = []
    for what, given in (("variants", variants), ("points", points)):
        if given is not None and not given:
            raise InputError(f"{what}: there are none; name at least one, or leave it out")
    if variants:
        sets.append([(str(name), dict(keys)) for name, keys in variants.items()])
    if points:
        sets.append(_listed(points))
    if lhs is not None:
        _check_size(lhs)
        sets.append([("", keys) for keys in _sampled(ranges, lhs, seed)])
    sets += [[("", {name: value}) for value in axis] for name, axis in axes.items() if not isinstance(axis, Range)]
    if not sets:
        raise InputError("nothing varies: give --vary KEY=a,b,c, --variant, --list or a --design (over, variants ...)")
    _check_size(math.prod(len(each) for each in sets))
    _check_overlaps(sets)
    return _combined(sets)


def scenario_at(base: Scenario, point: Point) -> Scenario:
    """Return the scenario of a point.

    Raises
    ------
    InputError
        If there is none: the point, the key, and what would be right.
    """
    changes = point.changes
    preset = changes.pop("preset", None)
    try:
        if preset is not None:
            from simulator.presets import with_preset

            base = Scenario.from_mapping(with_preset(base.to_mapping(), preset))
        return base.updated(changes)
    except ScenarioError as error:
        first, *others = error.problems
        more = f" (and {len(others)} more)" if others else ""
        raise InputError(f"point {point.name}: {first}{more}") from None


# ----------------------------------------------------------------------------------------------------------- keys


def changes_of(name: str, value: Any) -> dict[str, Any]:
    """Return the dotted keys that a name means: the key itself, or those of a flag.

    Raises
    ------
    InputError
        If there is no such key or flag.
    """
    flag = _FLAGS.get(name.lstrip("-").replace("_", "-"))
    if flag is None or name == flag.key:
        if name == "engine" and isinstance(value, str):
            return _engine(value)
        if "." not in name and name not in (known := _own_keys()):
            if name.replace("-", "_") == "policy_param":
                raise InputError("a policy's parameter is a key of its pool: cluster.pools.0.batching.params.NAME")
            near = did_you_mean(name, {*known, *(each.replace("-", "_") for each in _FLAGS)})
            hint = near if near.startswith("; did") else "; write a dotted key of the scenario, or a flag's name"
            raise InputError(f"unknown key {name!r}{hint}")
        return {name: value}
    if flag.name == "--loop":
        return {flag.key: value if value is None or isinstance(value, Mapping) else {"kind": value}}
    if flag.name == "--clients":
        return {"workload.loop.kind": "closed", flag.key: value}
    if not flag.when_on and isinstance(value, bool):
        return {flag.key: not value}
    return {flag.key: value}


_FLAGS: Mapping[str, KeyFlag] = {flag.name.lstrip("-"): flag for flag in FLAGS}


def _own_keys() -> set[str]:
    return {"preset", "engine", *(field.alias or name for name, field in Scenario.model_fields.items())}


def _engine(text: str) -> dict[str, Any]:
    """Return the keys of an engine's name; its limits stay as they are."""
    from simulator.engines import load_engine

    found = load_engine(text)
    return {f"{EVERY_POOL}engine.name": found.name, f"{EVERY_POOL}engine.version": found.version}


def _overlap(one: str, other: str) -> bool:
    """Tell whether two dotted keys set the same, or one a part of the other."""
    pairs = zip(one.split("."), other.split("."), strict=False)
    return all(a == b or "*" in (a, b) for a, b in pairs)


def _check_overlaps(sets: Sequence[Sequence[tuple[str, Mapping[str, Any]]]]) -> None:
    keys = [{name: given for _, each in members for name, given in each.items()} for members in sets]
    for first, second in combinations(keys, 2):
        for one, other in product(first, second):
            changed = product(changes_of(one, first[one]), changes_of(other, second[other]))
            if any(_overlap(*pair) for pair in changed):
                both = f"{one!r} is" if one == other else f"{one!r} and {other!r} are"
                raise InputError(
                    f"{both} set by two parts of the sweep; leave one of them out, or set them together (--variant)"
                )
    for each in keys:
        for name, value in each.items():
            if "seed" in changes_of(name, value):
                raise InputError("seeds are replications of every point: give them with --seeds, not as a key")


# ----------------------------------------------------------------------------------------------------------- axes


def _axis(name: str, given: Axis) -> list[Any] | Range:
    if isinstance(given, str):
        found = values_of(given)
        if found is None:
            raise InputError(f"{name}: give a list of values, or a range such as 1..16:*2, got {given!r}")
        return found if isinstance(found, Range) else _distinct(name, found)
    if isinstance(given, Mapping) or not isinstance(given, Sequence):
        raise InputError(f"{name}: give a list of values, or a range such as 1..16:*2, got {given!r}")
    return _distinct(name, list(given))


def _distinct(name: str, values: list[Any]) -> list[Any]:
    if not values:
        raise InputError(f"{name}: no value to try; name at least one")
    texts = [shown(value) for value in values]
    twice = next((text for text in texts if texts.count(text) > 1), None)
    if twice is not None:
        raise InputError(f"{name}: {twice} is there twice")
    return values


def values_of(text: str) -> list[Any] | Range | None:
    """Return what a range stands for; None: the text is no range.

    ``1..5:+2`` is 1, 3, 5; ``1..16:*2`` is 1, 2, 4, 8, 16; ``0..1:5`` is five numbers evenly, both ends included.
    ``low..high`` alone, and with ``:log`` or ``:int``, is a `Range` to sample. Whole numbers are integers.

    Raises
    ------
    InputError
        If it is an empty range, or a step that never gets there.
    """
    found = _RANGE.fullmatch(text)
    if found is None:
        return None
    low, high, step = Fraction(found[1]), Fraction(found[2]), (found[3] or "").strip()
    if low > high or (low == high and not step[:1].isdigit()):
        raise InputError(f"{text}: the range is empty; its lower end goes first, as in {found[2]}..{found[1]}")
    words = step.split(":") if step else []
    if not set(words) - {"log", "int"}:
        return _range(text, low, high, words)
    if step[0] in "*+" and re.fullmatch(_NUMBER, step[1:]):
        return [_number(value) for value in _steps(text, low, high, step[0], Fraction(step[1:]))]
    if step.isdecimal() and int(step) > (low != high):
        count = int(step)
        _check_size(count)
        return [_number(low + (high - low) * i / max(1, count - 1)) for i in range(count)]
    raise InputError(f"{text}: after the colon goes a step (+2, *2), a number of values (2 or more), log or int")


def _range(text: str, low: Fraction, high: Fraction, words: Sequence[str]) -> Range:
    is_log, is_whole = "log" in words, "int" in words
    if is_log and low <= 0:
        raise InputError(f"{text}: a logarithmic range begins above 0")
    if is_whole and not (low.denominator == high.denominator == 1):
        raise InputError(f"{text}: a range of whole numbers begins and ends with one")
    return Range(float(low), float(high), is_log, is_whole)


def _steps(text: str, low: Fraction, high: Fraction, sign: str, step: Fraction) -> Iterator[Fraction]:
    if (sign == "+" and step <= 0) or (sign == "*" and (step <= 1 or low <= 0)):
        raise InputError(f"{text}: +STEP goes up by more than 0, *FACTOR by more than 1 from a number above 0")
    value, count = low, 0
    while value <= high:
        count += 1
        _check_size(count)
        yield value
        value = value + step if sign == "+" else value * step


def _number(value: Fraction) -> int | float:
    return int(value) if value.denominator == 1 else float(value)


def _sampled(ranges: Mapping[str, Range], count: int, seed: int) -> list[dict[str, Any]]:
    """Return points of a Latin hypercube: of each range, one point in each of ``count`` equal parts."""
    from scipy.stats import qmc

    sampler = qmc.LatinHypercube(d=len(ranges), seed=stream(seed, _STREAM))
    return [
        {name: each.at(float(share)) for (name, each), share in zip(ranges.items(), row, strict=True)}
        for row in sampler.random(count)
    ]


# --------------------------------------------------------------------------------------------------------- points


def _listed(points: Sequence[Mapping[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for place, point in enumerate(points, 1):
        if not isinstance(point, Mapping):
            raise InputError(f"points: each is a mapping of keys, got {point!r}")
        keys = {key: value for key, value in point.items() if key != "name"}
        if not keys and "name" not in point:
            raise InputError(f"points: number {place} sets no key")
        found.append((str(point.get("name", "")), keys))
    return found


def _combined(sets: Sequence[Sequence[tuple[str, Mapping[str, Any]]]]) -> list[Point]:
    labels = labels_of({name for members in sets for _, keys in members for name in keys})
    points: dict[str, Point] = {}
    for members in product(*sets):
        keys = {name: value for _, each in members for name, value in each.items()}
        name = ", ".join(name or name_of(each, labels) for name, each in members)
        if name in points:
            raise InputError(f"two points are called {name!r}; a point is of use once (seeds are its replications)")
        points[name] = Point(name, keys)
    return list(points.values())


def name_of(keys: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    """Return the name of a point that has none of its own; ``labels`` of `labels_of`."""
    return ", ".join(f"{labels[key]}={shown(value)}" for key, value in keys.items())


def labels_of(names: Iterable[str]) -> dict[str, str]:
    """Return the last word of each key, or the whole of it where two end alike."""
    short = {name: name.rsplit(".", 1)[-1] for name in names}
    return {name: label if list(short.values()).count(label) == 1 else name for name, label in short.items()}


def shown(value: Any) -> str:
    """Return a value as names of points have it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _check_size(count: int) -> None:
    if count > MOST_POINTS:
        raise InputError(f"{count:,} points are more than a sweep takes ({MOST_POINTS:,}): try fewer values, or --lhs")


__all__ = [
    "MOST_POINTS",
    "Axis",
    "Point",
    "Range",
    "changes_of",
    "labels_of",
    "make_design",
    "name_of",
    "scenario_at",
    "shown",
    "values_of",
]

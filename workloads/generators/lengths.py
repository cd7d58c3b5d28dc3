"""Distributions of prompt and output lengths, written as ``kind:key=value,...``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np

from workloads.trace import MAX_TOKENS, Floats, Ints, TraceError, did_you_mean


@dataclass(frozen=True)
class Lengths:
    """A distribution of lengths in whole tokens, clipped to ``low`` and ``high``.

    Attributes
    ----------
    kind
        ``constant``, ``uniform``, ``lognormal``, ``normal``, ``gamma``, ``weibull``, ``zipf`` or ``empirical``.
    values
        Its parameters: see :data:`KINDS`.
    quantiles, probabilities
        For ``empirical``: lengths, and the probabilities of being at most so long, from 0 to 1.
    """

    kind: str
    values: Mapping[str, float]
    low: int = 1
    high: int = MAX_TOKENS
    quantiles: tuple[float, ...] = ()
    probabilities: tuple[float, ...] = ()

    def sample(self, rng: np.random.Generator, n: int) -> Ints:
        """Draw n lengths."""
        drawn: Floats | Ints
        if self.kind == "empirical":
            drawn = np.interp(rng.random(n), self.probabilities, self.quantiles)
        else:
            drawn = KINDS[self.kind].draw(rng, n, self.values)
        return np.clip(np.rint(drawn), self.low, self.high).astype(np.int64)

    def text(self) -> str:
        """Return the distribution as users write it, exactly; quantiles have no such form and are left out."""
        values = dict(self.values) | ({"min": self.low} if self.low != 1 else {})
        values |= {"max": self.high} if self.high != MAX_TOKENS else {}
        return f"{self.kind}:{','.join(f'{name}={_shortest(value)}' for name, value in values.items())}"


@dataclass(frozen=True)
class Kind:
    """One family: its parameters, which must be above 0, and how to draw from it."""

    parameters: tuple[str, ...]
    draw: Callable[[np.random.Generator, int, Mapping[str, float]], Floats | Ints]
    about: str


def _zipf(rng: np.random.Generator, n: int, p: Mapping[str, float]) -> Ints:
    # Lengths 1 to ``most`` with probability proportional to length ** -exponent, by inversion.
    cumulative = np.cumsum(np.arange(1, int(p["most"]) + 1, dtype=np.float64) ** -p["exponent"])
    drawn: Ints = np.searchsorted(cumulative, rng.random(n) * cumulative[-1]).astype(np.int64) + 1
    return drawn


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "constant": Kind(("value",), lambda rng, n, p: np.full(n, p["value"]), "always the same"),
        "uniform": Kind(
            ("low", "high"),
            lambda rng, n, p: rng.integers(int(p["low"]), int(p["high"]) + 1, n),
            "whole numbers from low to high, both included",
        ),
        "lognormal": Kind(
            ("median", "sigma"),
            lambda rng, n, p: p["median"] * np.exp(p["sigma"] * rng.standard_normal(n)),
            "median, and sigma of the logarithm (mean = median exp(sigma² / 2))",
        ),
        "normal": Kind(
            ("mean", "sd"),
            lambda rng, n, p: p["mean"] + p["sd"] * rng.standard_normal(n),
            "mean and standard deviation; what is below 1 becomes 1",
        ),
        "gamma": Kind(
            ("mean", "shape"),
            lambda rng, n, p: rng.gamma(p["shape"], p["mean"] / p["shape"], n),
            "mean and shape (CV = 1 / sqrt(shape))",
        ),
        "weibull": Kind(
            ("scale", "shape"), lambda rng, n, p: p["scale"] * rng.weibull(p["shape"], n), "scale and shape"
        ),
        "zipf": Kind(
            ("exponent", "most"),
            _zipf,
            "power law: length L up to most, with probability proportional to L ** -exponent",
        ),
    }
)
"""Families of lengths by name; every one also takes ``min`` and ``max``, to which lengths are clipped."""

_WHOLE = {"uniform": ("low", "high"), "zipf": ("most",)}


def lengths(spec: Any) -> Lengths:
    """Make a distribution from a number, a text, a mapping, or a distribution.

    Parameters
    ----------
    spec
        ``512``; ``"lognormal:median=547,sigma=0.8,max=8192"``; or a mapping with ``kind`` and those keys (and
        ``quantiles``, with ``probabilities`` if these aren't even steps, for ``empirical``).

    Raises
    ------
    TraceError
        If the kind or a key is unknown, a key is missing, or a value is out of range.
    """
    if isinstance(spec, Lengths):
        return spec
    if isinstance(spec, int | float) and not isinstance(spec, bool):
        spec = {"kind": "constant", "value": spec}
    if isinstance(spec, str):
        spec = _parsed(spec)
    if not isinstance(spec, Mapping) or "kind" not in spec:
        raise TraceError(f"a length distribution is written as kind:key=value,... or as a number, got {spec!r}")
    rest = dict(spec)
    kind = str(rest.pop("kind"))
    low, high = _number(kind, "min", rest.pop("min", 1)), _number(kind, "max", rest.pop("max", MAX_TOKENS))
    if not 1 <= low <= high:
        raise TraceError(f"length distribution {kind!r}: min {low:g} and max {high:g} must satisfy 1 <= min <= max")
    if kind == "empirical":
        _check_keys(kind, rest, ("quantiles", "probabilities"))
        quantiles = _rising("quantiles", rest.get("quantiles"))
        even = [i / (len(quantiles) - 1) for i in range(len(quantiles))]
        probabilities = _rising("probabilities", rest.get("probabilities", even))
        if len(probabilities) != len(quantiles) or probabilities[0] != 0 or probabilities[-1] != 1:
            raise TraceError(
                "length distribution 'empirical': 'probabilities' must run from 0 to 1, one for each of 'quantiles'"
            )
        return Lengths(kind, MappingProxyType({}), int(low), int(high), quantiles, probabilities)
    if kind not in KINDS:
        raise TraceError(f"unknown length distribution {kind!r}{did_you_mean(kind, [*KINDS, 'empirical'])}")
    known = KINDS[kind].parameters
    _check_keys(kind, rest, known)
    for name in known:
        if name not in rest:
            raise TraceError(
                f"length distribution {kind!r} needs {name!r}; write {kind}:{','.join(f'{k}=…' for k in known)}"
            )
    values = {name: _number(kind, name, rest[name]) for name in known}
    for name, value in values.items():
        if value <= 0:
            raise TraceError(f"length distribution {kind!r}: {name} must be above 0, got {value:g}")
    for name in _WHOLE.get(kind, ()):
        if not values[name].is_integer():
            raise TraceError(f"length distribution {kind!r}: {name} must be a whole number, got {values[name]:g}")
    if kind == "uniform" and values["high"] < values["low"]:
        raise TraceError(f"length distribution 'uniform': high {values['high']:g} is below low {values['low']:g}")
    if kind == "zipf" and values["most"] > 1e7:
        raise TraceError(f"length distribution 'zipf': most must be at most 1e7, got {values['most']:g}")
    return Lengths(kind, MappingProxyType(values), int(low), int(high))


def _check_keys(kind: str, given: Iterable[str], known: Sequence[str]) -> None:
    for name in given:
        if name not in known:
            raise TraceError(
                f"length distribution {kind!r} has no key {name!r}{did_you_mean(name, (*known, 'min', 'max'))}"
            )


def _shortest(value: float) -> str:
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def _parsed(text: str) -> dict[str, Any]:
    kind, _, rest = text.partition(":")
    try:
        return {"kind": "constant", "value": float(text)}
    except ValueError:
        pass
    result: dict[str, Any] = {"kind": kind.strip()}
    for part in filter(None, (piece.strip() for piece in rest.split(","))):
        name, equals, value = part.partition("=")
        if not equals:
            raise TraceError(f"length distribution {text!r}: {part!r} is not key=value")
        result[name.strip()] = value.strip()
    return result


def _number(kind: str, name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number) or isinstance(value, bool):
        raise TraceError(f"length distribution {kind!r}: {name} must be a number, got {value!r}")
    return number


def _rising(name: str, values: Any) -> tuple[float, ...]:
    if not isinstance(values, list | tuple) or len(values) < 2:
        raise TraceError(f"length distribution 'empirical' needs {name!r}, a list of at least two numbers")
    numbers = tuple(_number("empirical", name, value) for value in values)
    if numbers[0] < 0 or any(b < a for a, b in pairwise(numbers)):
        raise TraceError(f"length distribution 'empirical': {name!r} must not be negative, and must not fall")
    return numbers

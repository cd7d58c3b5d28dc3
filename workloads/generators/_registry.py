"""What a generator is: a name, declared parameters, and a function from them to a trace."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from workloads.generators.lengths import Lengths, lengths
from workloads.trace import Trace, TraceError

Type = Literal["int", "float", "text", "bool", "lengths", "floats"]


@dataclass(frozen=True)
class Param:
    """One parameter of a generator: default, what it means, unit and bounds. A default of None means unset."""

    name: str
    type: Type
    default: Any
    about: str
    unit: str = ""
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    choices: tuple[str, ...] = ()

    def checked(self, generator: str, value: Any) -> Any:
        """Return a value as this parameter's type, or raise a `TraceError` that says what is allowed."""
        if value is None:
            return self.default
        where = f"parameter {self.name!r} of generator {generator!r}"
        if self.type == "lengths":
            try:
                return lengths(value)
            except TraceError as e:
                raise TraceError(f"{where}: {e}") from None
        if self.type == "bool":
            if not isinstance(value, bool):
                raise TraceError(f"{where} must be true or false, got {value!r}")
            return value
        if self.type == "text":
            if self.choices and value not in self.choices:
                raise TraceError(f"{where} must be one of {', '.join(self.choices)}, got {value!r}")
            return str(value)
        if self.type == "floats":
            if not isinstance(value, list | tuple):
                raise TraceError(f"{where} must be a list of numbers, got {value!r}")
            return tuple(self._number(where, item) for item in value)
        return self._number(where, value)

    def _number(self, where: str, value: Any) -> float | int:
        unit = f" {self.unit}" if self.unit else ""
        if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
            raise TraceError(f"{where} must be a number, got {value!r}")
        if not math.isfinite(value):
            raise TraceError(f"{where} must be finite, got {value!r}")
        if self.type == "int" and value != int(value):
            raise TraceError(f"{where} must be a whole number, got {value!r}")
        if self.ge is not None and value < self.ge:
            raise TraceError(f"{where} must be at least {self.ge:g}{unit}, got {value!r}")
        if self.gt is not None and value <= self.gt:
            raise TraceError(f"{where} must be above {self.gt:g}{unit}, got {value!r}")
        if self.le is not None and value > self.le:
            raise TraceError(f"{where} must be at most {self.le:g}{unit}, got {value!r}")
        return int(value) if self.type == "int" else float(value)

    def default_text(self) -> str:
        """Return the default as users would write it."""
        if self.default is None:
            return ""
        if isinstance(self.default, Lengths):
            return self.default.text()
        if isinstance(self.default, float):
            return f"{self.default:.6g}"
        return str(self.default)


@dataclass(frozen=True)
class Generator:
    """One kind of workload: what it is, its parameters, and how a trace is made of their values."""

    name: str
    about: str
    params: tuple[Param, ...]
    make: Callable[[Mapping[str, Any]], Trace]

    def param(self, name: str) -> Param | None:
        """Return a parameter by name, None if there is no such one."""
        return next((param for param in self.params if param.name == name), None)


MOST_REQUESTS = 1e8
"""Most requests that a generator makes; more wouldn't fit into memory."""

SEED = Param("seed", "int", 0, "seed of all random streams", ge=0)
REQUESTS = Param("requests", "int", None, "number of requests; 1000 if no duration is given", ge=1, le=MOST_REQUESTS)
DURATION = Param("duration_s", "float", None, "length of the trace; requests may end it sooner", "s", gt=0)
FIT = Param("fit", "text", None, "file made by 'simulate trace fit': lengths, rate and burstiness where not given")
BURSTINESS = Param(
    "burstiness", "float", 1.0, "shape of the gaps' distribution: 1 is Poisson, less is burstier", gt=0, le=1e6
)


def rate_param(default: float) -> Param:
    """Return the parameter of the mean rate."""
    return Param("rate", "float", default, "mean rate of arrivals", "requests/s", gt=0, le=1e9)


def length_params(prompt: str, output: str) -> tuple[Param, Param]:
    """Return the parameters of the two length distributions, with these defaults."""
    return (
        Param("prompt", "lengths", lengths(prompt), "prompt lengths", "tokens"),
        Param("output", "lengths", lengths(output), "output lengths", "tokens"),
    )


def extent(values: Mapping[str, Any]) -> tuple[int | None, float]:
    """Return the number of requests (None: no limit) and the end of the trace (infinite: no limit)."""
    requests, duration = values["requests"], values["duration_s"]
    if requests is None and duration is None:
        return 1000, math.inf
    if requests is None and duration * values["rate"] > MOST_REQUESTS:
        raise TraceError(
            f"'rate' and 'duration_s' make about {duration * values['rate']:.3g} requests; at most {MOST_REQUESTS:.0e}"
        )
    return requests, math.inf if duration is None else float(duration)

"""Generators of traces: found by being here, called by name.

A module of this folder that defines ``GENERATORS``, a tuple of :class:`~workloads.generators._registry.Generator`, adds
kinds. A trace is a function of its parameters and seed alone: every random draw comes from a stream named by its
purpose (:mod:`workloads.streams`).
"""

from __future__ import annotations

import hashlib
import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from workloads.generators._registry import Generator, Param
from workloads.generators.lengths import Lengths, lengths
from workloads.trace import Trace, TraceError, did_you_mean

__all__ = ["Generator", "Lengths", "Param", "generate", "generators", "lengths"]


@cache
def generators() -> Mapping[str, Generator]:
    """Return the generators by name, in the order of their names."""
    found: dict[str, Generator] = {}
    for module in sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")):
        for generator in getattr(importlib.import_module(f"{__name__}.{module}"), "GENERATORS", ()):
            if generator.name in found:
                raise TraceError(f"two generators are called {generator.name!r}; the second is in {module}.py")
            found[generator.name] = generator
    return dict(sorted(found.items()))


def generate(kind: str, **params: Any) -> Trace:
    """Make a trace of a kind.

    Parameters
    ----------
    kind
        Name of the generator: see :func:`generators`.
    **params
        Its parameters by name; those left out have their default. Lengths are written as
        ``"lognormal:median=547,sigma=0.8,max=8192"`` or as a number, see :func:`workloads.generators.lengths.lengths`.

    Raises
    ------
    TraceError
        If the kind or a parameter is unknown (with the nearest known name) or a value is out of range.

    Examples
    --------
    >>> trace = generate("poisson", requests=3, rate=2.0, prompt=100, output=10)
    >>> trace.prompt_tokens.tolist()
    [100, 100, 100]
    """
    if kind not in generators():
        raise TraceError(f"unknown generator {kind!r}{did_you_mean(kind, generators())}")
    generator = generators()[kind]
    names = [param.name for param in generator.params]
    for name in params:
        if name not in names:
            raise TraceError(f"generator {kind!r} has no parameter {name!r}{did_you_mean(name, names)}")
    if params.get("fit") is not None:
        params = _from_fit(generator, str(params["fit"])) | {k: v for k, v in params.items() if v is not None}
    values = {param.name: param.checked(kind, params.get(param.name)) for param in generator.params}
    trace = generator.make(values)
    given = ", ".join(f"{name}={_shown(values[name])}" for name in names if params.get(name) is not None)
    source = f"generate({kind!r}{', ' + given if given else ''})"
    everything = ", ".join(f"{name}={values[name]!r}" for name in names)
    return replace(trace, source=source, sha256=hashlib.sha256(f"{kind}({everything})".encode()).hexdigest())


def _shown(value: Any) -> str:
    return repr(value.text()) if isinstance(value, Lengths) else repr(value)


def _from_fit(generator: Generator, path: str) -> dict[str, Any]:
    """Return what a fitted file says of this generator's parameters."""
    from workloads.fit import read_fit

    fit = read_fit(path)
    values = {"rate": fit["rate"], "prompt": fit["prompt"], "output": fit["output"], "burstiness": fit["burstiness"]}
    values |= {"api_prompt": fit["prompt"], "api_output": fit["output"]}
    if generator.name == "weibull":
        values["burstiness"] = fit["weibull_shape"]
    return {name: value for name, value in values.items() if value is not None and generator.param(name)}

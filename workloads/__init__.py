"""Workloads: trace readers, generators, sources and statistics; knows nothing of the simulator.

Importing this package needs NumPy only; pyarrow, SciPy and matplotlib are loaded when a call first needs them, and
generators, statistics and the writer when somebody first asks for their names here.
"""

import importlib
from typing import TYPE_CHECKING, Any

from workloads.filters import filter_trace
from workloads.readers import read_trace, readers
from workloads.sources import ClosedLoop, OpenLoop, Sessions, Source
from workloads.trace import Categorical, Ragged, Trace, TraceError

if TYPE_CHECKING:
    from workloads.generators import generate
    from workloads.resampling import resample_trace
    from workloads.stats import describe, infinite_cache_hit_tokens
    from workloads.writers import write_trace

_LATER = {
    "describe": "workloads.stats",
    "generate": "workloads.generators",
    "infinite_cache_hit_tokens": "workloads.stats",
    "resample_trace": "workloads.resampling",
    "write_trace": "workloads.writers",
}
"""Modules of names that a simulation doesn't need."""


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LATER[name]), name)


__all__ = [
    "Categorical",
    "ClosedLoop",
    "OpenLoop",
    "Ragged",
    "Sessions",
    "Source",
    "Trace",
    "TraceError",
    "describe",
    "filter_trace",
    "generate",
    "infinite_cache_hit_tokens",
    "read_trace",
    "readers",
    "resample_trace",
    "write_trace",
]

"""Workloads: trace readers, generators, sources and statistics; knows nothing of the simulator.

Importing this package needs NumPy only; pyarrow, SciPy and matplotlib are loaded when a call first needs them.
"""

from workloads.filters import filter_trace
from workloads.generators import generate
from workloads.readers import read_trace, readers
from workloads.sources import ClosedLoop, OpenLoop, Sessions, Source
from workloads.stats import describe, infinite_cache_hit_tokens
from workloads.trace import Categorical, Ragged, Trace, TraceError
from workloads.writers import write_trace

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
    "write_trace",
]

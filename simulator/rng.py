"""Named random streams of a run: one seed, one independent stream a component.

A stream depends on the seed and on its name (hashed by SHA-256, never by Python's own ``hash``), so that a new
component can't shift another's draws, and two runs of one seed draw the same on every machine.
"""

from workloads.streams import stream

ROUTER = "router"
"""Draws of routing policies."""

DECODE_ROUTER = "router.decode"
"""Draws of the routing policy that chooses where requests decode."""

MODEL_ROUTER = "router.model"
"""Draws of the routing policy among the replicas of one model, one stream a model: this and its name."""

PREDICTOR = "predictor"
"""Errors of the output length predictor, one number a row of the trace."""

EXPERTS = "experts.routing"
"""Popularity of routed experts."""

ADMISSION = "admission"
"""Draws of admission policies."""

CLIENTS = "clients.backoff"
"""Jitter before retries, one stream a client: this and the row."""

FAULTS = "faults"
"""Times of failures and repairs, one stream a component: this, its kind and its name."""

__all__ = [
    "ADMISSION",
    "CLIENTS",
    "DECODE_ROUTER",
    "EXPERTS",
    "FAULTS",
    "MODEL_ROUTER",
    "PREDICTOR",
    "ROUTER",
    "stream",
]

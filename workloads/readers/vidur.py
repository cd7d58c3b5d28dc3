"""Vidur: CSV of arrivals and lengths.

Format: ``data/processed_traces/*.csv`` of https://github.com/microsoft/vidur: ``arrived_at`` in seconds,
``num_prefill_tokens``, ``num_decode_tokens``. Files without ``arrived_at`` hold lengths only and are no traces.
"""

from __future__ import annotations

from dataclasses import replace

from workloads.readers._base import Head, Options, Reader, Roles, assemble
from workloads.readers._csv import Column, read_csv
from workloads.trace import Trace

_NEEDED = ("arrived_at", "num_prefill_tokens", "num_decode_tokens")
_ROLES = Roles(time="arrived_at", prompt="num_prefill_tokens", output="num_decode_tokens")


def _matches(head: Head) -> bool:
    return set(_NEEDED) <= set(head.columns)


def _parse(head: Head, options: Options) -> Trace:
    table, sha = read_csv(head, [Column(name) for name in _NEEDED])
    return replace(assemble(table, _ROLES, options), sha256=sha)


READER = Reader(
    "vidur",
    "Vidur CSV: arrived_at, num_prefill_tokens, num_decode_tokens (https://github.com/microsoft/vidur)",
    _matches,
    _parse,
    _NEEDED,
)

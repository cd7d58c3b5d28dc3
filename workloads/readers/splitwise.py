"""Splitwise simulator: CSV of requests to applications.

Format: ``traces/test_trace.csv`` of https://github.com/Mutinifni/splitwise-sim: ``request_id, request_type,
application_id, arrival_timestamp, batch_size, prompt_size, token_size``, the time in seconds. The application becomes
the tenant (``application-0``); the request type and a batch size of 1 are not used.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from workloads.readers._base import Head, Options, Reader, Roles, assemble
from workloads.readers._csv import Column, read_csv
from workloads.trace import Categorical, Trace

_NEEDED = ("arrival_timestamp", "prompt_size", "token_size")
_COLUMNS = (
    Column("request_id", "text", required=False),
    Column("request_type", "text", required=False),
    Column("application_id", "text", required=False),
    Column("arrival_timestamp"),
    Column("batch_size", required=False),
    Column("prompt_size"),
    Column("token_size"),
)
_ROLES = Roles(time="arrival_timestamp", prompt="prompt_size", output="token_size", tenant="application_id")


def _matches(head: Head) -> bool:
    return set(_NEEDED) <= set(head.columns)


def _parse(head: Head, options: Options) -> Trace:
    table, sha = read_csv(head, _COLUMNS)
    if (tenants := table.texts.get("application_id")) is not None:
        table.texts["application_id"] = Categorical(tenants.codes, tuple(f"application-{t}" for t in tenants.names))
    batch = table.numbers.pop("batch_size", None)
    if batch is not None and (large := int(np.count_nonzero(batch > 1))):
        table.notes.append(f"{large} rows have a batch_size above 1; each is read as one request")
        table.counts["batched_rows"] = large
    return replace(assemble(table, _ROLES, options), sha256=sha)


READER = Reader(
    "splitwise",
    "splitwise-sim CSV: arrival_timestamp, prompt_size, token_size, ... (https://github.com/Mutinifni/splitwise-sim)",
    _matches,
    _parse,
    _NEEDED,
)

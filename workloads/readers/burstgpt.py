"""BurstGPT: CSV of 6 columns, or of 8 in its third release.

Format: README of https://github.com/HPMLL/BurstGPT (arXiv:2401.17644). ``Timestamp`` counts whole seconds from 0:00 of
the first day; zero ``Response tokens`` mark a failed request. The third release adds ``Session ID`` (empty for API
calls) and ``Elapsed time`` in seconds, from which parents and think times follow.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from workloads.readers._base import DURATION, Head, Options, Reader, Roles, assemble
from workloads.readers._csv import Column, read_csv
from workloads.trace import Trace

_NEEDED = ("Timestamp", "Model", "Request tokens", "Response tokens", "Log Type")
_COLUMNS = (
    Column("Timestamp"),
    Column("Session ID", "text", required=False),
    Column("Elapsed time", required=False),
    Column("Model", "text"),
    Column("Request tokens"),
    Column("Response tokens"),
    Column("Total tokens", required=False),
    Column("Log Type", "text"),
)


def _matches(head: Head) -> bool:
    return {"Timestamp", "Request tokens", "Response tokens"} <= set(head.columns)


def _parse(head: Head, options: Options) -> Trace:
    table, sha = read_csv(head, _COLUMNS)
    sessions = "Session ID" in table.texts
    roles = Roles(
        time="Timestamp",
        prompt="Request tokens",
        output="Response tokens",
        session="Session ID" if sessions else None,
        elapsed="Elapsed time" if sessions else None,
        model="Model",
        request_class="Log Type",
        spread_ties="uniform",
    )
    total = table.numbers.pop("Total tokens", None)
    if total is not None:
        with np.errstate(invalid="ignore"):
            gap = total - (table.numbers["Request tokens"] + table.numbers["Response tokens"])
        differ = int(np.count_nonzero(np.abs(gap) > 0))
        if differ:
            table.notes.append(f"{differ} rows have a 'Total tokens' that isn't the sum of the two; it isn't used")
            table.counts["total_tokens_differ"] = differ
    extra = {"Elapsed time": DURATION} if "Elapsed time" in table.numbers else {}
    return replace(assemble(table, roles, options, extra), sha256=sha)


READER = Reader(
    "burstgpt",
    "BurstGPT CSV, 6 or 8 columns (https://github.com/HPMLL/BurstGPT)",
    _matches,
    _parse,
    _NEEDED,
)

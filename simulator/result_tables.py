"""The two tables of a result, requests and time series: Arrow inside and on disk, pandas where somebody asks.

Both formats of file and both ways to a DataFrame go through the schemas here, so that a table read back has the
types of the one written. Null stands for what never happened or isn't known; a DataFrame has NaN there in seconds,
``<NA>`` in counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from simulator.engine.clock import NS_PER_S
from simulator.engine.recorder import Outcome
from simulator.metrics import OUTCOMES, Ints, Rows
from workloads.arrow import from_numpy, from_texts

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

REQUEST_COLUMNS: dict[str, str] = {
    "request_id": "int64",
    "arrival_s": "float64",
    "queued_s": "float64?",
    "scheduled_s": "float64?",
    "first_token_s": "float64?",
    "last_token_s": "float64?",
    "prompt_tokens": "int64",
    "output_tokens": "int64",
    "cached_tokens": "int64?",
    "preemptions": "int64",
    "itl_max_s": "float64?",
    "replica": "int32?",
    "class": "category",
    "outcome": "category",
    "reason": "string?",
    "attempts": "int64",
    "migrations": "int64",
    "prefill_replica": "int32?",
}
"""Columns of ``requests`` and their types (``?``: may be null), one row a request that arrived, in trace order.

- ``request_id`` is the row in the trace, from 0; times are seconds since the run began.
- ``queued_s`` is when the engine took the request into its queue: at the end of the step in flight, as engines look at
  their input between steps (vLLM's ``queued_ts``); at the arrival with pipeline stages; never for a rejected one.
- ``scheduled_s`` is when a batch first took it, ``cached_tokens`` what it found in the prefix cache then.
- ``output_tokens`` are those generated, also where the request didn't finish.
- ``itl_max_s`` is the largest gap between two of its output tokens, null where there is none.
- ``reason`` says why a request didn't finish.
- ``attempts`` is how often it was begun with nothing (by its client, or by the server after a loss): times, tokens and
  ``cached_tokens`` are those of the last attempt; ``migrations`` is how often it moved with its KV.
- ``replica`` is where it was last; ``prefill_replica``, with prefill and decode apart, the one that computed its prompt
  and handed it over, null for a request that stayed.
"""

TIMESERIES_COLUMNS: dict[str, str] = {
    "t_s": "float64",
    "replica": "int32",
    "running": "int64",
    "waiting": "int64",
    "kv_blocks_used": "int64",
    "kv_utilization": "float64",
    "prefill_tokens_per_s": "float64",
    "decode_tokens_per_s": "float64",
    "utilization": "float64",
    "steps": "int64",
    "power_w": "float64?",
}
"""Columns of ``timeseries``, one row a sample and replica, by time and replica.

``running`` (batch), ``waiting`` (queue) and ``kv_blocks_used`` are as the replica stood just before ``t_s``; rates,
``utilization`` (share of the interval with a batch in flight) and ``steps`` are over the interval that ends there.
``power_w`` is the mean power of the replica's accelerators over that interval, idle included; null where not known.
"""

_UNFINISHED_REASONS = ("waiting when the run ended", "in its prefill when the run ended", "decoding when the run ended")


@cache
def schema(which: str) -> pa.Schema:
    """Return the Arrow schema of ``"requests"`` or ``"timeseries"``."""
    import pyarrow as pa

    types = {
        "int64": pa.int64(),
        "int32": pa.int32(),
        "float64": pa.float64(),
        "string": pa.string(),
        "category": pa.dictionary(pa.int32(), pa.string()),
    }
    columns = REQUEST_COLUMNS if which == "requests" else TIMESERIES_COLUMNS
    return pa.schema(
        [pa.field(name, types[kind.rstrip("?")], nullable=kind.endswith("?")) for name, kind in columns.items()]
    )


def requests_table(rows: Rows, class_names: Sequence[str], reasons: Mapping[int, str]) -> pa.Table:
    """Return the table of requests.

    Parameters
    ----------
    class_names
        By class code.
    reasons
        Why a request was rejected or failed, by its row in the trace.
    """
    import pyarrow as pa

    names = list(dict.fromkeys(class_names))
    code_of_name = np.array([names.index(name) for name in class_names], dtype=np.int32)
    columns = {
        "request_id": from_numpy(rows.row),
        "arrival_s": from_numpy(rows.arrival / NS_PER_S),
        "queued_s": _seconds(rows.queued),
        "scheduled_s": _seconds(rows.scheduled),
        "first_token_s": _seconds(rows.first),
        "last_token_s": _seconds(rows.last),
        "prompt_tokens": from_numpy(rows.prompt),
        "output_tokens": from_numpy(rows.output.astype(np.int64)),
        "cached_tokens": from_numpy(rows.cached.astype(np.int64), rows.scheduled >= 0),
        "preemptions": from_numpy(rows.preemptions.astype(np.int64)),
        "itl_max_s": _seconds(rows.itl_max),
        "replica": from_numpy(rows.replica, rows.replica >= 0),
        "class": _categories(code_of_name[rows.code], names),
        "outcome": _categories(rows.outcome.astype(np.int32), list(OUTCOMES.values())),
        "reason": _reason_column(rows, reasons),
        "attempts": from_numpy(rows.attempts.astype(np.int64)),
        "migrations": from_numpy(rows.migrations.astype(np.int64)),
        "prefill_replica": from_numpy(rows.prefill_replica, rows.prefill_replica >= 0),
    }
    return pa.table(columns, schema=schema("requests"))


def _seconds(times_ns: Ints) -> pa.Array:
    return from_numpy(times_ns / NS_PER_S, times_ns >= 0)


def _categories(codes: npt.NDArray[np.int32], names: Sequence[str]) -> pa.DictionaryArray:
    import pyarrow as pa

    return pa.DictionaryArray.from_arrays(from_numpy(codes, codes >= 0), from_texts(names))


def _reason_column(rows: Rows, reasons: Mapping[int, str]) -> pa.Array:
    """Return why each request didn't finish: what the engine said, or where it stood when the run ended."""
    import pyarrow as pa

    texts = list(_UNFINISHED_REASONS)
    codes = np.full(len(rows), -1, dtype=np.int32)
    stage = np.where(rows.scheduled < 0, 0, np.where(rows.first < 0, 1, 2))
    unfinished = rows.outcome == Outcome.UNFINISHED
    codes[unfinished] = stage[unfinished]
    if reasons:
        code_of_text: dict[str, int] = {}
        given = [code_of_text.setdefault(text, len(code_of_text)) for text in reasons.values()]
        at = np.searchsorted(rows.row, np.fromiter(reasons.keys(), dtype=np.int64, count=len(reasons)))
        codes[at] = np.array(given, dtype=np.int32) + len(texts)
        texts += code_of_text
    if (codes < 0).all():
        return pa.nulls(len(codes), pa.string())  # as the cast, which imports all of Arrow's functions
    return _categories(codes, texts).cast(pa.string())


def timeseries_columns(
    samples: Mapping[str, Ints], interval_ns: int, total_blocks: Ints
) -> dict[str, npt.NDArray[Any]]:
    """Return the time series by column, ``power_w`` left out.

    Parameters
    ----------
    samples
        `Timeline.columns`: counters cumulative, ordered by time and replica.
    interval_ns
        Between samples.
    total_blocks
        KV blocks of each replica.
    """
    replica = samples["replica"]
    order = np.argsort(replica, kind="stable")
    first_of_replica = np.ones(len(replica), dtype=bool)
    first_of_replica[1:] = np.diff(replica[order]) != 0

    def gained(name: str) -> Ints:
        values = samples[name][order]
        change = values.copy()
        change[1:] -= np.where(first_of_replica[1:], 0, values[:-1])
        back = np.empty_like(change)
        back[order] = change
        return back

    seconds = interval_ns / NS_PER_S
    used = samples["kv_blocks"]
    return {
        "t_s": samples["t_ns"] / NS_PER_S,
        "replica": replica.astype(np.int32),
        "running": samples["running"],
        "waiting": samples["waiting"],
        "kv_blocks_used": used,
        "kv_utilization": used / np.maximum(total_blocks[replica], 1),
        "prefill_tokens_per_s": gained("prefill_tokens") / seconds,
        "decode_tokens_per_s": gained("decode_tokens") / seconds,
        "utilization": gained("busy_ns") / interval_ns,
        "steps": gained("steps"),
    }


def timeseries_table(
    samples: Mapping[str, Ints], interval_ns: int, total_blocks: Ints, power_w: npt.NDArray[np.float64]
) -> pa.Table:
    """Return the table of the time series; parameters as of `timeseries_columns`, and power, NaN where not known."""
    import pyarrow as pa

    found = timeseries_columns(samples, interval_ns, total_blocks)
    columns = {name: from_numpy(values) for name, values in found.items()}
    columns["power_w"] = from_numpy(power_w, ~np.isnan(power_w))
    return pa.table(columns, schema=schema("timeseries"))


def to_frame(table: pa.Table) -> pd.DataFrame:
    """Return a table of one of the schemas here as a DataFrame: nullable counts as ``Int64``, classes as categories."""
    import pandas as pd
    import pyarrow as pa

    columns: dict[str, Any] = {}
    for field in table.schema:
        column = table.column(field.name)
        if pa.types.is_integer(field.type) and field.nullable:
            dtype: Any = pd.Int32Dtype() if field.type == pa.int32() else pd.Int64Dtype()
            columns[field.name] = dtype.__from_arrow__(column)
        elif pa.types.is_dictionary(field.type):
            columns[field.name] = column.to_pandas()
        elif pa.types.is_string(field.type):
            columns[field.name] = pd.array(column.to_numpy(), dtype=pd.StringDtype("python"))
        else:
            columns[field.name] = column.to_numpy()
    return pd.DataFrame(columns, copy=False)

"""The one schema of kernel measurements: a table with a row a measurement, kept as Parquet.

Every source of kernel times (our microbenchmarks, imported tables, layer profiles) is turned into it, and every model
made of measurements reads it. See ``docs/measurements.md`` for the columns in prose.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from simulator.errors import InputError, did_you_mean

SCHEMA_VERSION = 2

_VERSION_KEY = b"measurements_schema_version"

OPERATORS: dict[str, tuple[str, ...]] = {
    "embedding": ("tokens",),
    "norm": ("tokens",),
    "qk_norm": ("tokens",),
    "final_norm": ("tokens",),
    "qkv": ("tokens",),
    "rotary": ("tokens",),
    "o_proj": ("tokens",),
    "gate_up": ("tokens",),
    "activation": ("tokens",),
    "down": ("tokens",),
    "router": ("tokens",),
    "shared_expert": ("tokens",),
    "moe": ("tokens", "activated_experts"),
    "gemm": ("tokens", "n", "k"),
    "quantize": ("tokens", "k"),
    "experts": ("tokens", "hidden_size", "intermediate_size", "num_experts", "top_k", "moe_tp", "moe_ep"),
    "moe_dispatch": ("tokens", "hidden_size", "num_experts", "top_k", "ranks"),
    "moe_combine": ("tokens", "hidden_size", "num_experts", "top_k", "ranks"),
    "prefill_attention": ("sequences", "new_tokens", "cached_tokens", "heads", "kv_heads", "head_dim"),
    "decode_attention": ("decodes", "decode_kv", "heads", "kv_heads", "head_dim"),
    "mla_prefill": ("sequences", "new_tokens", "cached_tokens", "heads"),
    "mla_decode": ("decodes", "decode_kv", "heads"),
    "mla_prefill_module": ("sequences", "new_tokens", "cached_tokens", "heads"),
    "mla_decode_module": ("decodes", "decode_kv", "heads"),
    "mla_absorb": ("tokens", "heads"),
    "mla_expand": ("tokens", "heads"),
    "kv_gather": ("message_bytes",),
    "kv_scatter": ("message_bytes",),
    "attention": ("new_tokens", "cached_tokens", "decodes", "decode_kv"),
    "attention_skew": ("new_tokens", "cached_tokens", "decodes", "decode_kv", "decode_kv_cv", "baseline_s"),
    "lm_head": ("sequences",),
    "sampler": ("sequences",),
    "all_reduce": ("message_bytes", "ranks"),
    "all_gather": ("message_bytes", "ranks"),
    "reduce_scatter": ("message_bytes", "ranks"),
    "all_to_all": ("message_bytes", "ranks"),
    "send_recv": ("message_bytes",),
    "copy": ("message_bytes",),
    "launch": (),
}
"""Operators, and the columns that a row of each must have; the others may be null.

Those down to ``moe``, ``attention`` and ``lm_head`` are operators of a model's layer, whose ``model`` and ``tp`` say
the rest of their shape; ``norm``, ``rotary`` and ``activation`` without a model have their width in ``n``."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table.

    Attributes
    ----------
    kind
        ``"text"``, ``"count"`` (whole number, at least 0) or ``"number"`` (finite, at least 0).
    required
        True where no row may leave it empty.
    doc
        What it says, with its unit.
    """

    kind: str
    required: bool
    doc: str


COLUMNS: dict[str, Column] = {
    "operator": Column("text", True, "one of the operators that the schema knows"),
    "time_s": Column("number", True, "seconds of one call on one rank"),
    "hardware": Column("text", True, "accelerator it ran on"),
    "model": Column("text", False, "model whose layer it is; empty for a kernel of its own shape (n, k)"),
    "tp": Column("count", False, "tensor parallel ranks that the layer's shapes are divided over"),
    "tokens": Column("count", False, "rows of a dense operator"),
    "new_tokens": Column("count", False, "tokens of the prefill chunk; 0: none"),
    "cached_tokens": Column("count", False, "tokens in the cache before the chunk"),
    "decodes": Column("count", False, "sequences that decode one token"),
    "decode_kv": Column("number", False, "tokens that each of them attends to, the mean where they differ"),
    "decode_kv_cv": Column("number", False, "standard deviation of the same over its mean"),
    "sequences": Column("count", False, "rows of logits; chunks of prefill attention that run side by side"),
    "heads": Column("count", False, "query heads on one rank"),
    "kv_heads": Column("count", False, "key-value heads on one rank"),
    "head_dim": Column("count", False, "elements of a head"),
    "window": Column("count", False, "tokens that a token attends to at most; empty: all before it"),
    "activated_experts": Column("count", False, "routed experts that at least one token visits"),
    "hidden_size": Column("count", False, "elements of a hidden state"),
    "intermediate_size": Column("count", False, "inner elements of one expert, before it is divided over ranks"),
    "num_experts": Column("count", False, "routed experts of the layer, over all ranks"),
    "top_k": Column("count", False, "experts that a token visits"),
    "moe_tp": Column("count", False, "ranks that each expert is divided over"),
    "moe_ep": Column("count", False, "ranks that the experts are spread over"),
    "routing": Column("text", False, "how tokens were routed: balanced, uniform, power_law_1.2 ..."),
    "n": Column("count", False, "outputs of a GEMM on one rank; width of an elementwise kernel without a model"),
    "k": Column("count", False, "inputs of a GEMM on one rank"),
    "message_bytes": Column("count", False, "bytes of a collective or copy, as each rank holds them"),
    "ranks": Column("count", False, "ranks of a collective"),
    "nodes": Column("count", False, "nodes that the ranks are spread over; empty: one"),
    "kernel": Column("text", False, "kernel or variant, as its source calls it"),
    "baseline_s": Column("number", False, "attention_skew: seconds, measured alike, with all decodes at the mean"),
    "dtype": Column("text", False, "of activations and arithmetic"),
    "weight_dtype": Column("text", False, "of the weights"),
    "kv_dtype": Column("text", False, "of the KV cache"),
    "power_w": Column("number", False, "mean power of the accelerator, watts"),
    "spread": Column("number", False, "standard deviation of repeated runs over their mean"),
    "software": Column("text", True, "what was measured: an engine, a library"),
    "software_version": Column("text", True, "its version"),
    "date": Column("text", True, "day of the measurement, YYYY-MM-DD"),
    "source": Column("text", True, "who measured it, or the file it was read from"),
}
"""Columns in their order."""

SHAPE_COLUMNS = (
    "tokens",
    "new_tokens",
    "cached_tokens",
    "decodes",
    "decode_kv",
    "decode_kv_cv",
    "sequences",
    "activated_experts",
    "heads",
    "kv_heads",
    "head_dim",
    "window",
    "hidden_size",
    "intermediate_size",
    "num_experts",
    "top_k",
    "moe_tp",
    "moe_ep",
    "n",
    "k",
    "message_bytes",
    "ranks",
    "nodes",
)
"""Columns that say which shape was measured."""

_ARROW = {"text": pa.string(), "count": pa.int64(), "number": pa.float64()}
_PANDAS = {"text": "object", "count": "Int64", "number": "float64"}


def frame(columns: Mapping[str, Any], rows: int) -> pd.DataFrame:
    """Return a table of the schema from those columns that are known; the others are null.

    Parameters
    ----------
    columns
        Arrays, or single values that hold for all rows.
    rows
        Number of rows.
    """
    table: dict[str, Any] = {}
    index = pd.RangeIndex(rows)
    for name, column in COLUMNS.items():
        value = columns.get(name)
        if value is None:
            table[name] = _nothing(column, rows)
        elif column.kind == "text":
            table[name] = pd.Series(value, index=index, dtype="object")
        elif column.kind == "count":
            table[name] = pd.array(_spread(value, rows), dtype="Int64")
        else:
            table[name] = np.asarray(_spread(value, rows), dtype=np.float64)
    return pd.DataFrame(table, index=index)


def _nothing(column: Column, rows: int) -> Any:
    """Return an empty column, made at once: most columns of a table are."""
    if column.kind == "text":
        return pd.Series(np.full(rows, None), dtype="object")
    if column.kind == "count":
        return pd.arrays.IntegerArray(np.ones(rows, np.int64), np.ones(rows, np.bool_))
    return np.full(rows, np.nan)


def _spread(value: Any, rows: int) -> Any:
    return np.full(rows, value) if np.isscalar(value) else value


def validate(table: pd.DataFrame, where: str) -> pd.DataFrame:
    """Return the table with the schema's columns, in their order and types.

    Parameters
    ----------
    where
        What it was read from, for messages.

    Raises
    ------
    InputError
        With the first problem: an unknown, missing or mistyped column, or the first bad row, counted from 1.
    """
    for name in table.columns:
        if name not in COLUMNS:
            raise InputError(f"{where}: unknown column {name!r}{did_you_mean(str(name), COLUMNS)}")
    for name, column in COLUMNS.items():
        if column.required and name not in table.columns:
            raise InputError(f"{where}: has no column {name!r} ({column.doc})")
    if table.empty:
        raise InputError(f"{where}: has no rows")
    columns = {
        name: _typed(table[name].reset_index(drop=True), name, column, where)
        if name in table.columns
        else _nothing(column, len(table))
        for name, column in COLUMNS.items()
    }
    checked = pd.DataFrame(columns, index=pd.RangeIndex(len(table)))
    _check_operators(checked, where)
    return checked


def _typed(values: pd.Series[Any], name: str, column: Column, where: str) -> pd.Series[Any]:
    missing = values.isna()
    if column.required and missing.any():
        raise InputError(f"{where}, row {_first(missing)}: {name} is empty; it is needed: {column.doc}")
    if column.kind == "text":
        return _texts(values, name, where)
    if values.dtype.kind in "iuf":
        numbers = pd.Series(values.to_numpy(dtype=np.float64, na_value=np.nan))
    else:
        plain = values.astype("object")
        numbers = pd.to_numeric(plain.where(~missing, np.nan), errors="coerce").astype("float64")
    bad = ~missing & ~(np.isfinite(numbers) & (numbers >= 0))
    what = "a number of at least 0"
    if column.kind == "count":
        bad |= ~missing & (numbers != np.floor(numbers))
        what = "a whole number of at least 0"
    if name == "time_s":
        bad |= ~missing & ~(numbers > 0)
        what = "a number above 0 (seconds)"
    if bad.any():
        given = values.astype("object")[bad].iloc[0]
        raise InputError(f"{where}, row {_first(bad)}: {name} must be {what}, got {given!r}")
    return numbers.astype("Int64") if column.kind == "count" else numbers


def _texts(values: pd.Series[Any], name: str, where: str) -> pd.Series[Any]:
    """Return a column of texts, None where there is none. Each distinct text is looked at once, and kept once."""
    try:
        codes, found = pd.factorize(values)
    except TypeError:  # something without a hash, a list, which the loop comes upon
        codes, found = np.arange(len(values)), pd.Index(values.where(values.notna(), "none"))
    for code, text in enumerate(found):
        if not isinstance(text, str) or text == "":
            bad = values[codes == code].astype("object")
            raise InputError(f"{where}, row {bad.index[0] + 1}: {name} must be a text, got {bad.iloc[0]!r}")
    return pd.Series(np.array([*found, None], dtype="object")[codes], dtype="object")


def _check_operators(table: pd.DataFrame, where: str) -> None:
    codes, operators = pd.factorize(table["operator"], sort=True)
    for code, operator in enumerate(operators):
        rows = np.flatnonzero(codes == code)
        if operator not in OPERATORS:
            raise InputError(
                f"{where}, row {rows[0] + 1}: unknown operator {operator!r}{did_you_mean(str(operator), OPERATORS)}"
            )
        for name in OPERATORS[str(operator)]:
            missing = table[name].isna().to_numpy()[rows]
            if missing.any():
                row = rows[missing.argmax()] + 1
                raise InputError(f"{where}, row {row}: {operator!s} needs {name} ({COLUMNS[name].doc})")


def _first(bad: pd.Series[bool]) -> int:
    return int(np.flatnonzero(bad.to_numpy())[0]) + 1


def write_measurements(table: pd.DataFrame, path: str | Path) -> None:
    """Write measurements as Parquet, with the version of the schema.

    Raises
    ------
    InputError
        If the table is not one of measurements, or the file can't be written.
    """
    checked = validate(table, "measurements")
    fields = [pa.field(name, _ARROW[column.kind], nullable=not column.required) for name, column in COLUMNS.items()]
    schema = pa.schema(fields, metadata={_VERSION_KEY: str(SCHEMA_VERSION).encode()})
    try:
        pq.write_table(pa.Table.from_pandas(checked, schema=schema, preserve_index=False), path)
    except OSError as error:
        raise InputError(f"{path}: can't be written ({error.strerror or error})") from None


def read_measurements(path: str | Path) -> pd.DataFrame:
    """Read measurements from a Parquet file of the schema.

    Raises
    ------
    InputError
        If the file can't be read, is of another version, or holds something else.
    """
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, pa.ArrowException) as error:
        said = " ".join(str(error).split())
        raise InputError(f"{path}: can't be read as a Parquet file of measurements ({said})") from None
    version = (table.schema.metadata or {}).get(_VERSION_KEY)
    if version is None:
        raise InputError(f"{path}: is Parquet, but says no version of the measurement schema")
    if version != str(SCHEMA_VERSION).encode():
        raise InputError(
            f"{path}: has version {version.decode(errors='replace')} of the measurement schema; "
            f"this simulator reads version {SCHEMA_VERSION}"
        )
    return validate(table.to_pandas(), str(path))


def one_value(table: pd.DataFrame, column: str, where: str) -> str | None:
    """Return the single value of a text column over all rows; None where it is empty throughout.

    Raises
    ------
    InputError
        If there are several: rows of several models or machines don't make one cost model.
    """
    found = sorted(table[column].dropna().unique())
    if len(found) > 1:
        raise InputError(f"{where}: rows have several values of {column} ({', '.join(found)}); choose one")
    return found[0] if found else None


def tp_degrees(table: pd.DataFrame) -> list[int]:
    """Return the tensor parallel sizes that were measured, ascending."""
    return sorted(int(value) for value in table["tp"].dropna().unique())


def relative_errors(predicted: Iterable[float], measured: Iterable[float]) -> tuple[float, float]:
    """Return median and 90th percentile of ``|predicted / measured - 1|``."""
    errors = np.sort([abs(p / m - 1.0) for p, m in zip(predicted, measured, strict=True)])
    if not len(errors):
        return math.nan, math.nan
    return float(np.quantile(errors, 0.5)), float(np.quantile(errors, 0.9))

"""Writing the native format, whole or not at all."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from workloads.readers.native import COLUMNS
from workloads.trace import Categorical, Trace, TraceError

SUFFIXES = (".csv", ".csv.gz", ".parquet")


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Give a temporary name beside ``path`` to write to; it becomes ``path`` if all goes well, else it is removed."""
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part{target.suffix}")
    try:
        if target.is_dir():
            raise TraceError(f"{target}: is a directory; name a file")
        yield temporary
        temporary.replace(target)
    except FileNotFoundError:
        raise TraceError(f"{target}: can't be written, there is no folder {str(target.parent)!r}") from None
    except OSError as e:
        raise TraceError(f"{target}: can't be written ({e.strerror or e})") from None
    finally:
        temporary.unlink(missing_ok=True)


def write_trace(trace: Trace, path: str | Path) -> None:
    """Write a trace in the native format, by the suffix: ``.csv``, ``.csv.gz`` or ``.parquet``.

    Notes and counts are not written. The same trace gives the same bytes.

    Raises
    ------
    TraceError
        If the suffix is another one, or the file can't be written (nothing is left then).
    """
    name = Path(path).name.lower()
    if not name.endswith(SUFFIXES):
        raise TraceError(f"{path}: unknown suffix for a trace; write to {', '.join(SUFFIXES)}")
    import pyarrow as pa
    import pyarrow.csv as pacsv
    import pyarrow.parquet as pq

    table = pa.table(_arrow_columns(trace, pa, as_text=not name.endswith(".parquet")))
    with whole_file(path) as temporary:
        if name.endswith(".parquet"):
            pq.write_table(table, temporary, compression="zstd")
        elif name.endswith(".gz"):
            with temporary.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as file:
                pacsv.write_csv(table, file)
        else:
            pacsv.write_csv(table, temporary)


def _arrow_columns(trace: Trace, pa: Any, *, as_text: bool) -> dict[str, Any]:
    """Return the trace's columns under their native names, in the schema's order."""
    columns: dict[str, Any] = {}
    for column in COLUMNS:
        name = column.name
        value = getattr(trace, "request_class" if name == "class" else name)
        if value is None or (name == "block_size_tokens" and not value):
            continue
        if isinstance(value, Categorical):
            indices = pa.array(value.codes, mask=value.codes < 0)
            encoded = pa.DictionaryArray.from_arrays(indices, pa.array(value.names, pa.string()))
            columns[name] = encoded.cast(pa.string()) if as_text else encoded
        elif name == "block_size_tokens":
            columns[name] = pa.array(np.full(len(trace), value, np.int64))
        elif name == "block_hashes":
            if as_text:
                columns[name] = pa.array([" ".join(map(str, value[row].tolist())) for row in range(len(trace))])
            else:
                columns[name] = pa.ListArray.from_arrays(
                    pa.array(value.offsets.astype(np.int32)), pa.array(value.values)
                )
        elif name in ("session_id", "parent_id"):
            columns[name] = pa.array(value, mask=value < 0)
        else:
            columns[name] = pa.array(value, from_pandas=True)
    return columns

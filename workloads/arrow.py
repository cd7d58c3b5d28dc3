"""NumPy arrays as Arrow arrays and back, sharing their memory.

pyarrow's own ``array`` and ``to_numpy`` import pandas first, to see whether it has a part in it: 0.2 s, the most that
a short run spends on anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pyarrow as pa


def to_numpy(values: pa.Array, dtype: type[np.generic], null: float) -> npt.NDArray[Any]:
    """Return an Arrow array of numbers as one of NumPy, read-only where nothing is null.

    Parameters
    ----------
    values
        Numbers, or times, which are whole numbers too.
    dtype
        What its memory holds.
    null
        What stands for null.
    """
    start, end = values.offset, values.offset + len(values)
    if start == end:
        return np.empty(0, dtype)
    validity, data = values.buffers()
    found: npt.NDArray[Any] = np.frombuffer(data, dtype)[start:end]
    if not values.null_count:
        return found
    valid = np.unpackbits(np.frombuffer(validity, np.uint8), count=end, bitorder="little")[start:]
    return np.where(valid, found, np.asarray(null, dtype))


def from_numpy(values: npt.NDArray[Any], valid: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    """Return a NumPy array of numbers as one of Arrow, null where it isn't valid."""
    import pyarrow as pa

    values = np.ascontiguousarray(values)
    validity = None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [validity, pa.py_buffer(values)])


def from_texts(texts: Sequence[str]) -> pa.StringArray:
    """Return a few texts as an Arrow array."""
    import pyarrow as pa

    encoded = [text.encode() for text in texts]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    return pa.StringArray.from_buffers(len(encoded), pa.py_buffer(ends), pa.py_buffer(b"".join(encoded)))

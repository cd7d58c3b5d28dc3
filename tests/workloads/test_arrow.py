"""Arrow arrays from NumPy's and back: the same as pyarrow's own ways, nulls and slices included."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from workloads.arrow import from_numpy, from_texts, to_numpy

VALUES = np.arange(1, 20, dtype=np.int64) * 7
VALID = VALUES % 3 > 0


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.float64])
def test_from_numpy_is_what_pyarrow_makes(dtype: type) -> None:
    values: npt.NDArray[Any] = VALUES.astype(dtype)
    assert from_numpy(values).equals(pa.array(values))
    assert from_numpy(values[::2], VALID[::2]).equals(pa.array(values[::2], mask=~VALID[::2]))
    assert from_numpy(values, VALID).null_count == 6
    assert from_numpy(values[:0]).equals(pa.array(values[:0]))


@pytest.mark.parametrize("start", [0, 1, 8, 13])
def test_to_numpy_reads_slices_and_nulls(start: int) -> None:
    whole = pa.array(VALUES.astype(np.float64), mask=~VALID)
    found = to_numpy(whole.slice(start, 5), np.float64, np.nan)
    np.testing.assert_array_equal(found, whole.slice(start, 5).to_numpy(zero_copy_only=False))
    found = to_numpy(pa.array(VALUES, mask=~VALID).slice(start), np.int64, -1)
    np.testing.assert_array_equal(found, np.where(VALID, VALUES, -1)[start:])
    assert found.dtype == np.int64
    np.testing.assert_array_equal(to_numpy(pa.array(VALUES).slice(start), np.int64, -1), VALUES[start:])


def test_to_numpy_reads_times_as_whole_numbers_and_nothing_as_nothing() -> None:
    times = pa.array(VALUES, pa.timestamp("ns"))
    np.testing.assert_array_equal(to_numpy(times, np.int64, 0), VALUES)
    assert len(to_numpy(times.slice(3, 0), np.int64, 0)) == 0


def test_from_texts_is_what_pyarrow_makes() -> None:
    for texts in (["", "one", "zwölf", "日本"], [""], []):
        assert from_texts(texts).equals(pa.array(texts, pa.string()))

"""What figures read of results: latencies of the requests that figures cover, names of quantities with units."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from simulator.errors import InputError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

Floats = npt.NDArray[np.float64]


class Result(Protocol):
    """What `simulator.run` and `simulator.load_result` return, as far as figures read it."""

    @property
    def requests(self) -> pd.DataFrame:
        """One row a request."""

    @property
    def timeseries(self) -> pd.DataFrame:
        """One row a sample and replica."""

    @property
    def summary(self) -> Mapping[str, Any]:
        """The figures."""


LATENCIES = {
    "ttft_s": "TTFT",
    "tpot_s": "TPOT",
    "itl_s": "largest ITL of a request",
    "e2e_s": "E2E latency",
    "queue_s": "time in the queue",
}
"""Latencies of a request by the key that objectives and summaries have. An ITL objective is one on the largest gap of
each request, which is also all that a stored result has of single requests; the gaps of all are in the summary."""


def latencies(result: Result, name: str) -> Floats:
    """Return one latency of each request that has it, seconds: of those that arrived in the result's window.

    Parameters
    ----------
    name
        One of `LATENCIES`, which are defined as in the summary (``summary["definitions"]``).
    """
    return latencies_of(covered(result), name)


def covered(result: Result) -> pd.DataFrame:
    """Return the requests that the summary's figures cover: those that arrived in its window."""
    requests, window = result.requests, result.summary["window"]
    inside = requests["arrival_s"] >= window["warmup_s"]
    if window["until_s"] is not None:
        inside &= requests["arrival_s"] < window["until_s"]
    found: pd.DataFrame = requests[inside]
    return found


def latencies_of(requests: pd.DataFrame, name: str) -> Floats:
    """Return one latency of each of the requests that has it, seconds."""
    if name not in LATENCIES:
        raise InputError(f"unknown latency {name!r}{did_you_mean(name, LATENCIES)}")
    done = requests["outcome"] == "finished"
    since, until = requests["arrival_s"], requests["first_token_s"]
    if name == "itl_s":
        values = requests["itl_max_s"]
    elif name == "tpot_s":
        several = requests[done & (requests["output_tokens"] > 1)]
        values = (several["last_token_s"] - several["first_token_s"]) / (several["output_tokens"] - 1)
    elif name == "e2e_s":
        values = requests["last_token_s"][done] - since[done]
    elif name == "queue_s":
        values = requests["scheduled_s"] - since
    else:
        values = until - since
    found: Floats = values.dropna().to_numpy(dtype="float64")
    return found


def objectives(result: Result, name: str) -> list[float]:
    """Return the objectives on a latency, seconds, the least first; several where classes differ."""
    given = result.summary["objectives"]["given"].get(name)
    if given is None:
        return []
    limit = given["limit"]
    return [float(each) for each in limit] if isinstance(limit, list) else [float(limit)]


def by_name(results: Result | Mapping[str, Result]) -> dict[str, Result]:
    """Return results by name; a single one has none."""
    return dict(results) if isinstance(results, Mapping) else {"": results}

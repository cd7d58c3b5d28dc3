"""What a run returns, and what is read back from disk: the same attributes on both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.metrics import Rows, arrived_rows, check_conservation
from simulator.power.accounting import idle_watts, power_watts
from simulator.result_tables import requests_table, timeseries_table, to_frame
from simulator.summary import summarize

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from simulator.run_data import RunData


class RunResult:
    """The result of a run. Everything is worked out when it is first asked for, and kept.

    Parameters
    ----------
    data
        What the run hands over; its cluster has been stopped.

    Raises
    ------
    simulator.metrics.ConservationError
        If a request was lost or counted twice.
    """

    def __init__(self, data: RunData) -> None:
        self.data = data
        check_conservation(self.rows, data.cluster.num_arrived, data.cluster.num_ended)

    @property
    def scenario(self) -> Mapping[str, Any]:
        """The scenario that made it, every default written out."""
        return self.data.scenario

    @cached_property
    def rows(self) -> Rows:
        """The requests that arrived, as NumPy columns in ns."""
        return arrived_rows(self.data.cluster)

    @cached_property
    def requests_table(self) -> pa.Table:
        """The table of requests in Arrow (`result_tables.REQUEST_COLUMNS`)."""
        return requests_table(self.rows, self.data.class_names, self.data.cluster.recorder.reasons)

    @cached_property
    def timeseries_table(self) -> pa.Table:
        """The time series in Arrow (`result_tables.TIMESERIES_COLUMNS`)."""
        recorder = self.data.cluster.recorder
        blocks = np.array([replica.kv.total_blocks for replica in self.data.cluster.replicas], dtype=np.int64)
        samples, interval_ns = recorder.timeline.columns(), recorder.sample_interval_ns
        idle = idle_watts(self.data.pools, len(blocks))
        power_w = power_watts(samples, interval_ns, idle, self.data.cluster.control)
        return timeseries_table(samples, interval_ns, blocks, power_w)

    @cached_property
    def requests(self) -> pd.DataFrame:
        """One row a request that arrived (`result_tables.REQUEST_COLUMNS`)."""
        return to_frame(self.requests_table)

    @cached_property
    def timeseries(self) -> pd.DataFrame:
        """One row a sample and replica (`result_tables.TIMESERIES_COLUMNS`)."""
        return to_frame(self.timeseries_table)

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The figures (`simulator.summary`); plain values that JSON can hold."""
        return summarize(self.data, self.rows)

    @property
    def summary_without_timing(self) -> dict[str, Any]:
        """The summary without ``simulator``, the part that differs between two runs of one scenario."""
        return without_timing(self.summary)


@dataclass(frozen=True)
class StoredResult:
    """A result read back from disk by `simulator.write.load_result`."""

    path: Path
    requests: pd.DataFrame
    timeseries: pd.DataFrame
    summary: dict[str, Any]
    scenario: dict[str, Any]

    @property
    def summary_without_timing(self) -> dict[str, Any]:
        """As of `RunResult`."""
        return without_timing(self.summary)


def without_timing(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return a summary without what the run itself took."""
    return {key: value for key, value in summary.items() if key != "simulator"}

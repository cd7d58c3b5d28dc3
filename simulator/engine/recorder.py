"""What a run leaves behind. The recorder listens; nothing in the engine reads it."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from simulator.engine.clock import NS_PER_S
from simulator.engine.histogram import DurationHistogram
from simulator.errors import InputError

if TYPE_CHECKING:
    from simulator.engine.sequence import Sequence


class Outcome(IntEnum):
    """How a request ended; UNFINISHED until it does."""

    UNFINISHED = 0
    FINISHED = 1
    REJECTED = 2
    FAILED = 3
    TIMED_OUT = 4


FINISHED = Outcome.FINISHED  # see `simulator.engine.sequence.WAITING`


class Recorder:
    """Columns with one row a request of the trace, inter-token gaps by class, and samples of each replica over time.

    Times are ns; -1 means that it never happened. ``cached`` counts the prompt tokens found in the prefix cache at
    the first admission. The attributes are memoryviews over NumPy arrays: writing an element of one costs a third of
    writing to the array.
    """

    def __init__(
        self, num_requests: int, num_classes: int, sample_interval_ns: int, *, keep_batches: bool = False
    ) -> None:
        def column(dtype: type[np.generic], fill: int) -> npt.NDArray[np.generic]:
            return np.full(num_requests, fill, dtype=dtype)

        self.columns: dict[str, npt.NDArray[np.generic]] = {
            "arrival_ns": column(np.int64, -1),
            "queued_ns": column(np.int64, -1),
            "scheduled_ns": column(np.int64, -1),
            "first_token_ns": column(np.int64, -1),
            "last_token_ns": column(np.int64, -1),
            "ended_ns": column(np.int64, -1),
            "output_tokens": column(np.int32, 0),
            "cached_tokens": column(np.int32, 0),
            "preemptions": column(np.int32, 0),
            "attempts": column(np.int16, 1),
            "migrations": column(np.int16, 0),
            "itl_max_ns": column(np.int64, -1),
            "replica": column(np.int32, -1),
            "prefill_replica": column(np.int32, -1),
            "outcome": column(np.int8, Outcome.UNFINISHED),
        }
        self.arrival = self.columns["arrival_ns"].data
        self.queued = self.columns["queued_ns"].data
        self.scheduled = self.columns["scheduled_ns"].data
        self.first_token = self.columns["first_token_ns"].data
        self.last_token = self.columns["last_token_ns"].data
        self.ended = self.columns["ended_ns"].data
        self.output_tokens = self.columns["output_tokens"].data
        self.cached_tokens = self.columns["cached_tokens"].data
        self.preemptions = self.columns["preemptions"].data
        self.attempts = self.columns["attempts"].data
        self.migrations = self.columns["migrations"].data
        self.itl_max = self.columns["itl_max_ns"].data
        self.replica = self.columns["replica"].data
        self.prefill_replica = self.columns["prefill_replica"].data
        self.outcome = self.columns["outcome"].data
        self.reasons: dict[int, str] = {}
        self.itl = [DurationHistogram() for _ in range(num_classes)]
        self.sample_interval_ns = sample_interval_ns
        self.timeline = Timeline()
        self.batches: list[tuple[int, int, int, int, int, int, int]] | None = [] if keep_batches else None
        """Runs of steps as (replica, lane, start ns, end ns, steps, decodes, prompt tokens a step), if asked for."""
        self.pauses: list[tuple[int, int, int, str]] | None = [] if keep_batches else None
        """When requests left those running, as (row, replica, ns, why), or were back (why: ""), if asked for."""

    def end(self, sequence: Sequence, end_ns: int, outcome: Outcome, reason: str) -> None:
        """Write down how a request ended, for the reason given if any."""
        row = sequence.request_id
        self.ended[row] = end_ns
        self.outcome[row] = outcome
        self.write_progress(sequence)
        if reason:
            self.reasons[row] = reason

    def write_progress(self, sequence: Sequence) -> None:
        """Write down what a request that is in no decode group got so far."""
        row = sequence.request_id
        generated = sequence.base_generated
        self.output_tokens[row] = generated
        if generated:
            self.last_token[row] = sequence.last_token_ns
        if sequence.preemptions:
            self.preemptions[row] = sequence.preemptions
        if sequence.itl_max_ns:  # of gaps that were its own; the gap log has the others
            self.itl_max[row] = sequence.itl_max_ns

    def pause(self, row: int, replica: int, now_ns: int, why: str) -> None:
        """Note that a request runs no longer on a replica, and why; "": that it runs there."""
        if self.pauses is not None:
            self.pauses.append((row, replica, now_ns, why))

    def forget(self, row: int) -> None:
        """Forget what an attempt at a request got done, but for its gaps: another one begins, with nothing."""
        self.queued[row] = self.scheduled[row] = self.first_token[row] = self.last_token[row] = -1
        self.output_tokens[row] = self.cached_tokens[row] = 0


MOST_SAMPLES = 20_000_000
"""Rows of the time series at most: some 5 GB of memory by the time that they are tables."""


class Timeline:
    """Samples of the replicas, taken just before whatever happens at the sample's instant; counters are cumulative."""

    FIELDS = (
        "t_ns",
        "replica",
        "running",
        "waiting",
        "kv_blocks",
        "prefill_tokens",
        "decode_tokens",
        "busy_ns",
        "steps",
        "energy_nj",
    )

    def __init__(self) -> None:
        self._rows = array("q")
        self.append = self._rows.extend
        """Append one sample: a tuple in the order of ``FIELDS``."""

    def expect(self, count: int, now_ns: int, interval_ns: int) -> None:
        """Refuse ``count`` more samples where there would be too many: memory ends before the run does.

        Raises
        ------
        InputError
            Naming the key that makes them fewer.
        """
        if len(self._rows) // len(self.FIELDS) + count > MOST_SAMPLES:
            raise InputError(
                f"after {now_ns / NS_PER_S:,.0f} s of simulated time there are more than {MOST_SAMPLES:,} samples of "
                f"the replicas; set measure.sample_interval_s above the {interval_ns / NS_PER_S:g} s that it is, or "
                "look for what makes the run so long (a slow link or disk, long steps)"
            )

    def append_many(self, samples: npt.NDArray[np.int64]) -> None:
        """Append samples, shape (n, fields)."""
        self._rows.frombytes(samples.tobytes())

    def columns(self) -> dict[str, npt.NDArray[np.int64]]:
        """Return the samples by field, ordered by time and replica."""
        table = np.frombuffer(self._rows, dtype=np.int64).reshape(-1, len(self.FIELDS))
        table = table[np.lexsort((table[:, 1], table[:, 0]))]
        return {name: table[:, i].copy() for i, name in enumerate(self.FIELDS)}


@dataclass
class ReplicaCounters:
    """Totals of one replica over a run."""

    steps: int = 0
    busy_ns: int = 0
    prefill_tokens: int = 0
    decode_tokens: int = 0
    padding_tokens: int = 0
    preemptions: int = 0
    swaps_out: int = 0
    swaps_in: int = 0
    swaps_refused: int = 0
    swapped_bytes: int = 0
    swap_stall_ns: int = 0
    swap_blocks_kept: int = 0
    least_free_kv_blocks: int = 0
    peak_kv_blocks: int = 0

"""Gaps between the tokens of each request, of a run that kept its steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from simulator.result import RunResult


def token_gaps_s(result: RunResult) -> list[npt.NDArray[np.float64]]:
    """Return the gaps between successive output tokens of each request, seconds, by row of ``result.requests``.

    Parameters
    ----------
    result
        Of one replica whose running requests all get a token from each step that decodes, and where nobody was
        preempted: tokens after the first then come at the ends of such steps.

    Raises
    ------
    ValueError
        If steps were not kept one by one, or a request has not as many gaps as tokens after its first.
    """
    batches = result.data.cluster.recorder.batches
    if batches is None or any(steps != 1 for _, _, _, _, steps, _, _ in batches):
        raise ValueError("the gaps of single requests need a run that kept each step: Run.simulate(keep_steps=True)")
    ends = np.array([end for _, _, _, end, _, decodes, _ in batches if decodes], np.int64)
    rows, found = result.rows, []
    for first, last, tokens in zip(rows.first, rows.last, rows.output, strict=True):
        begin, end = np.searchsorted(ends, (first, last), side="right")
        gaps = np.diff(np.concatenate(([first], ends[begin:end]))) / 1e9
        if len(gaps) != tokens - 1:
            raise ValueError(f"a request has {tokens} tokens and {len(gaps)} steps after its first one")
        found.append(gaps)
    return found

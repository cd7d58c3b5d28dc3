"""The studies of Hydragen, FlexGen and context parallelism: they run, and point where their papers do."""

from __future__ import annotations

from itertools import pairwise

import pytest

from simulator.reproduce import reproduce


def figures(name: str) -> dict[str, float]:
    return {row["what"]: row["simulated"] for row in reproduce(name, quick=True).table()}


def test_hydragen_gains_with_the_prefix() -> None:
    found = figures("hydragen")
    gains = [found[f"prompt of {prefix} tokens: hydragen over paged attention"] for prefix in (1024, 4096, 16256)]
    assert 1 < gains[0] < gains[1] < gains[2]
    lost = "throughput lost from 1K to 16K tokens, "
    assert found[f"{lost}hydragen"] < found[f"{lost}paged attention"] / 2


def test_flexgen_serves_many_times_what_streaming_weights_for_few_does() -> None:
    assert figures("flexgen")["opt-30b: FlexGen over ZeRO-Inference"] == pytest.approx(12.2, rel=0.5)


def test_context_parallelism_divides_prefill() -> None:
    found = figures("context-parallelism")
    seconds = [found[f"128K tokens, cp={ranks}, ring"] for ranks in (1, 2, 4, 8, 16)]
    assert all(0.45 < half / whole < 0.7 for whole, half in pairwise(seconds))
    assert 77 / 2 < found["1M tokens, cp=16, ring"] < 77 * 2
    assert 1 < found["1M tokens, cp=16, unstriped ring over balanced"] < 2

"""Many samples taken at once equal those taken one by one, step by step; a few by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.engine import recorder as recorder_module
from simulator.engine import replica as replica_module
from simulator.engine.cluster import Cluster
from simulator.engine.replica import Replica
from simulator.errors import InputError
from tests.engine.support import MS, LinearCost, Request, fingerprint, simulate

GROWING = LinearCost(10 * MS, kv=1000)


@pytest.fixture
def taken_at_once(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Return what is filled with (samples taken with arrays, steps of the run in flight)."""
    calls: list[tuple[int, int]] = []
    original = Replica._sample_decodes

    def counted(self: Replica, at_ns: Any) -> None:
        calls.append((len(at_ns), self.lanes[0].steps))
        original(self, at_ns)

    monkeypatch.setattr(Replica, "_sample_decodes", counted)
    return calls


def timeline(cluster: Cluster) -> dict[str, list[int]]:
    return {name: column.tolist() for name, column in cluster.recorder.timeline.columns().items()}


def test_samples_of_a_long_run_by_hand(taken_at_once: list[tuple[int, int]]) -> None:
    # Blocks of 4 tokens, a prompt of 6 in two of them. Step i, from 10 x i ms on, writes token 6 + i: a third block in
    # the third (9 tokens, from 30 ms on), another every four steps from there. Sampled every 10 ms, as step i ends.
    found = timeline(simulate([Request(0, 6, 61)], blocks=100, block_size=4, sample_ns=10 * MS))
    assert (32, 32) in taken_at_once  # or this tests nothing
    assert found["t_ns"] == [10 * MS * (i + 1) for i in range(61)]
    assert found["steps"] == list(range(61))
    assert found["decode_tokens"] == [0, *range(60)]
    assert found["prefill_tokens"] == [0] + [6] * 60
    assert found["busy_ns"] == found["t_ns"]
    assert found["kv_blocks"] == [-(-(6 + i) // 4) for i in range(61)]
    assert found["running"] == [1] * 61
    assert found["waiting"] == [0] * 61


def test_more_samples_than_memory_holds_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # A request a second from 1 s on, each one step of 10 ms; a sample every 10 ms: 100 until 1 s, 100 more a second.
    requests = [Request(second * 1000 * MS, 4, 1) for second in range(1, 4)]
    monkeypatch.setattr(recorder_module, "MOST_SAMPLES", 301)
    assert len(timeline(simulate(requests, sample_ns=10 * MS))["t_ns"]) == 301
    monkeypatch.setattr(recorder_module, "MOST_SAMPLES", 300)
    for fast_forward in (True, False):
        with pytest.raises(InputError, match=r"after 3 s of simulated time .* above the 0\.01 s that it is"):
            simulate(requests, sample_ns=10 * MS, fast_forward=fast_forward)


def test_samples_of_a_long_run_of_chunks_by_hand() -> None:
    # A prompt of 200 tokens, 2 a step: steps 0 to 99, 10 ms each, in runs of 16, 32 ... Blocks of 4 tokens.
    found = timeline(simulate([Request(0, 200, 1)], blocks=100, block_size=4, budget=2, sample_ns=10 * MS))
    assert found["prefill_tokens"] == [2 * i for i in range(100)]
    assert found["kv_blocks"] == [-(-2 * (i + 1) // 4) for i in range(100)]
    assert found["steps"] == list(range(100))


def test_samples_of_an_idle_replica_stay_as_it_was_left(taken_at_once: list[tuple[int, int]]) -> None:
    # Three requests of two steps each; the next comes a second after the one before, 49 samples later.
    requests = [Request(second * 1000 * MS, 20, 2) for second in range(3)]
    found = timeline(simulate(requests, sample_ns=20 * MS))
    assert (49, 0) in taken_at_once
    idle = slice(1, 50)  # from 40 ms to 1,000 ms, just before the second request comes
    assert set(found["steps"][idle]) == {2}
    assert set(found["busy_ns"][idle]) == {20 * MS}
    assert set(found["kv_blocks"][idle]) == set(found["running"][idle]) == {0}
    assert found["steps"][50:53] == [3, 4, 4]


@pytest.mark.parametrize("interval_ms", [1, 3, 10, 7.3])
@pytest.mark.parametrize("overlap", [False, True])
def test_with_and_without_arrays_the_timeline_is_stepwise_ones(
    interval_ms: float, overlap: bool, taken_at_once: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Several decode at once while one waits for a place; runs are cut, end, and leave the replica idle.
    requests = [Request(0, 6, 90), Request(0, 9, 200), Request(5 * MS, 13, 140), Request(40 * MS, 5, 60)]
    requests += [Request(9000 * MS, 30, 70)]
    common: dict[str, Any] = {
        "requests": requests,
        "seqs": 3,
        "block_size": 4,
        "cost": GROWING,
        "sample_ns": round(interval_ms * MS),
        "async_scheduling": overlap,
    }
    fast = simulate(**common)
    assert any(steps > 1 for _, steps in taken_at_once)
    assert any(steps == 0 for _, steps in taken_at_once)
    stepwise = simulate(**common, fast_forward=False)
    assert fingerprint(fast) == fingerprint(stepwise)
    monkeypatch.setattr(replica_module, "_FEW_SAMPLES", 1 << 60)
    taken_at_once.clear()
    assert fingerprint(simulate(**common)) == fingerprint(fast)
    assert not taken_at_once


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 60), st.integers(1, 150)), min_size=1, max_size=6),
    interval_us=st.integers(300, 30_000),
    until_ms=st.sampled_from([None, 433, 900]),
    blocks=st.sampled_from([60, 90, 1000]),
    few=st.sampled_from([0, 16]),
    budget=st.sampled_from([4, 2048]),
)
def test_any_timeline_is_stepwise_ones(
    rows: list[tuple[int, int, int]], interval_us: int, until_ms: int | None, blocks: int, few: int, budget: int
) -> None:
    common: dict[str, Any] = {
        "requests": [Request(at * MS, prompt, output) for at, prompt, output in sorted(rows)],
        "cost": GROWING,
        "blocks": blocks,
        "block_size": 4,
        "budget": budget,
        "sample_ns": interval_us * 1000,
        "until": None if until_ms is None else until_ms * MS,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replica_module, "_FEW_SAMPLES", few)
        fast = simulate(**common)
    stepwise = simulate(**common, fast_forward=False)
    assert fingerprint(fast) == fingerprint(stepwise)
    assert np.array_equal(fast.recorder.columns["itl_max_ns"], stepwise.recorder.columns["itl_max_ns"])

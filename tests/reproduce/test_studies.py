"""Studies in their quick form: direction and mechanism."""

from __future__ import annotations

from simulator.reproduce import Row, reproduce


def row(rows: tuple[Row, ...], beginning: str) -> Row:
    return next(each for each in rows if beginning in each.what)


def test_apex_finds_replicas_faster_than_one_wide_replica_for_a_small_model_under_load() -> None:
    done = reproduce("apex", quick=True)
    latency, time = row(done.rows, "mean end-to-end latency"), row(done.rows, "time until all have ended")
    assert latency.simulated is not None and latency.simulated > 1.1
    assert time.simulated is not None and time.simulated > 1.1
    assert "best is 1 x (tp 8)" not in (latency.remark, time.remark)
    longest = row(done.rows, "longest search")
    assert longest.simulated is not None and longest.simulated < 15  # minutes; the paper's

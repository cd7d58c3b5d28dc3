"""Clients that give up and try again: timetables worked out by hand. A step takes 10 ms."""

from __future__ import annotations

import pytest

from simulator.engine.recorder import Outcome
from simulator.scenario_clients import Clients
from tests.engine.support import MS, Request, times_ms
from tests.faults.support import run

FIXED = {"backoff": "fixed", "jitter": "none"}


def outcomes(cluster) -> list[str]:  # type: ignore[no-untyped-def]
    return [Outcome(value).name.lower() for value in cluster.recorder.columns["outcome"]]


def test_a_client_gives_up_without_a_first_token() -> None:
    # One place: the second request waits until 90 ms; its client gives up at 25 ms, and it is out when the step ends.
    cluster, sections = run([Request(0, 20, 9), Request(0, 20, 9)], {"clients": {"ttft_timeout_s": 0.025}}, seqs=1)
    assert outcomes(cluster) == ["finished", "timed_out"]
    assert cluster.recorder.columns["ended_ns"].tolist() == [90 * MS, 30 * MS + 1]
    assert cluster.recorder.reasons == {1: "its client gave up: no first token after 0.025 s"}
    assert sections["clients"]["gave_up"] == {"before_first_token": 1, "before_the_end": 0, "at_the_deadline": 0}
    assert sections["clients"]["attempts"] == 2


def test_a_first_token_in_time_is_enough() -> None:
    cluster, _ = run([Request(0, 20, 9)], {"clients": {"ttft_timeout_s": 0.011}})
    assert outcomes(cluster) == ["finished"]


def test_a_token_at_the_very_instant_of_giving_up_is_too_late() -> None:
    cluster, _ = run([Request(0, 20, 2)], {"clients": {"ttft_timeout_s": 0.01}})
    assert outcomes(cluster) == ["timed_out"]
    # The end at that instant comes first: there is nothing to take back.
    cluster, _ = run([Request(0, 20, 1)], {"clients": {"ttft_timeout_s": 0.01}})
    assert outcomes(cluster) == ["finished"]


def test_a_client_tries_again_after_its_backoff() -> None:
    # Gives up at 25 ms, is out at 30 ms + 1 ns, and comes back 20 ms later, when the first has just gone (50 ms).
    parts = {"clients": {"ttft_timeout_s": 0.025, "retries": {**FIXED, "base_s": 0.02}}}
    cluster, sections = run([Request(0, 20, 5), Request(0, 20, 2)], parts, seqs=1)
    columns = cluster.recorder.columns
    assert outcomes(cluster) == ["finished", "finished"]
    assert columns["attempts"].tolist() == [1, 2]
    assert times_ms(cluster, "first_token_ns") == [10, 60 + 1e-6]
    assert columns["arrival_ns"].tolist() == [0, 0]  # that of the request, not of the attempt
    assert sections["clients"]["attempts_per_request"] == 1.5
    assert sections["clients"]["failed_attempts"]["timed_out"] == 1


def test_backoff_grows_to_its_longest() -> None:
    # An attempt lasts 10 ms, and 1 ns until the client has it back; backoffs 10, 20, 40, 50, 50 ms.
    retries = {"max": 5, "jitter": "none", "base_s": 0.01, "max_s": 0.05}
    parts = {"clients": {"timeout_s": 0.01, "retries": retries}}
    cluster, sections = run([Request(0, 20, 9)], parts)
    assert outcomes(cluster) == ["timed_out"]
    took = 6 * (10 * MS + 1) + (10 + 20 + 40 + 50 + 50) * MS
    assert cluster.recorder.columns["ended_ns"].tolist() == [took]
    assert cluster.recorder.columns["attempts"].tolist() == [6]
    assert sections["clients"]["not_retried"]["retries_used_up"] == 1


@pytest.mark.parametrize(("jitter", "low", "high"), [("full", 0.0, 1.0), ("equal", 0.5, 1.0)])
def test_jitter_is_within_its_bounds_and_of_each_client_its_own(jitter: str, low: float, high: float) -> None:
    parts = {"clients": {"timeout_s": 0.01, "retries": {"max": 1, "jitter": jitter, "base_s": 1.0}}}
    cluster, _ = run([Request(0, 20, 9) for _ in range(40)], parts)
    waited = [(end - 2 * (10 * MS + 1)) / 1e9 for end in cluster.recorder.columns["ended_ns"].tolist()]
    assert all(low <= each <= high + 0.02 for each in waited)
    assert len(set(waited)) > 30  # some begin in one step
    assert max(waited) - min(waited) > 0.7 * (high - low)
    again, _ = run([Request(0, 20, 9) for _ in range(40)], parts)
    assert (again.recorder.columns["ended_ns"] == cluster.recorder.columns["ended_ns"]).all()
    other, _ = run([Request(0, 20, 9) for _ in range(40)], {**parts, "seed": 1})
    assert (other.recorder.columns["ended_ns"] != cluster.recorder.columns["ended_ns"]).any()


def test_a_budget_bounds_all_clients_retries_together() -> None:
    retries = {**FIXED, "max": 10, "base_s": 0.01, "budget": {"size": 3, "ratio": 0.5}}
    parts = {"clients": {"timeout_s": 0.01, "retries": retries}}
    # Four requests that last too long: 3 retries among them all. Two that finish put back 1 token, for one more.
    slow = [Request(0, 20, 9)] * 4
    _, sections = run(slow, parts)
    assert sections["clients"]["retries"] == 3
    assert sections["clients"]["not_retried"]["budget_empty"] == 4
    requests = [*slow, Request(200 * MS, 20, 1), Request(200 * MS, 20, 1), Request(300 * MS, 20, 9)]
    _, sections = run(requests, parts)
    assert sections["clients"]["retries"] == 4


def test_a_deadline_ends_all_attempts() -> None:
    # Attempts at 0, 20 and 40 ms, each given up after 10 ms; the deadline at 45 ms cuts the third short (at 50 ms, when
    # its step has ended).
    retries = {**FIXED, "max": 10, "base_s": 0.01}
    parts = {
        "clients": {"timeout_s": 0.01, "retries": retries, "deadlines": True},
        "deadlines_s": [0.045, float("nan")],
    }
    cluster, sections = run([Request(0, 20, 9), Request(1000 * MS, 20, 1)], parts)
    assert outcomes(cluster) == ["timed_out", "finished"]
    assert cluster.recorder.columns["attempts"].tolist() == [3, 1]
    assert cluster.recorder.columns["ended_ns"][0] == 50 * MS + 3
    assert sections["clients"]["gave_up"]["at_the_deadline"] == 1
    # During a backoff there is nothing to take back; and no retry is begun that the deadline would cut at once.
    parts["deadlines_s"] = [0.015, float("nan")]
    cluster, sections = run([Request(0, 20, 9), Request(1000 * MS, 20, 1)], parts)
    assert cluster.recorder.columns["ended_ns"][0] == 10 * MS + 1
    assert sections["clients"]["not_retried"]["deadline_too_near"] == 1


def test_rejections_are_tried_again_where_asked() -> None:
    # One at a time; the second is rejected at 0 and comes back at 25 ms, when the first has gone.
    parts = {
        "admission": "queue-limit",
        "params": {"per_replica": 1},
        "clients": {"retries": {**FIXED, "max": 1, "base_s": 0.025}},
    }
    requests = [Request(0, 20, 2), Request(0, 20, 1)]
    cluster, sections = run(requests, parts)
    assert outcomes(cluster) == ["finished", "finished"]
    assert times_ms(cluster, "first_token_ns") == [10, 35]
    assert sections["admission"]["attempts"] == 3
    assert sections["admission"]["rejected"] == 1
    assert sections["admission"]["reasons"] == {"every replica has 1 requests outstanding": 1}
    assert sections["clients"]["failed_attempts"]["rejected"] == 1
    parts["clients"]["retries"]["on"] = "timed_out"  # type: ignore[index]
    cluster, _ = run(requests, parts)
    assert outcomes(cluster) == ["finished", "rejected"]
    assert cluster.recorder.reasons == {1: "not admitted: every replica has 1 requests outstanding"}


def test_what_an_engine_refuses_is_not_tried_again() -> None:
    cluster, sections = run([Request(0, 5000, 1)], {"clients": {"retries": 3}}, max_len=1000)
    assert outcomes(cluster) == ["rejected"]
    assert sections["clients"]["attempts"] == 1
    assert sections["clients"]["failed_attempts"]["rejected"] == 1


def test_the_timeline_counts_everything_once() -> None:
    parts = {"clients": {"timeout_s": 0.02, "retries": {"max": 2, "base_s": 0.01}}}
    _, sections = run([Request(i * 3 * MS, 20, 1 + i % 4) for i in range(30)], parts, seqs=2)
    section = sections["clients"]
    timeline = section["timeline"]
    assert sum(timeline["attempts"]) == section["attempts"] > 30
    assert sum(timeline["retries"]) == section["retries"] == section["attempts"] - 30
    assert sum(timeline["failed_attempts"]) == sum(section["failed_attempts"].values())
    finished = sum(timeline["finished"])
    assert finished + sum(timeline["failed_attempts"]) == section["attempts"]
    assert section["finished_per_attempt"] == finished / section["attempts"]


def test_short_forms() -> None:
    assert Clients.model_validate({"retries": 3}) == Clients.model_validate({"retries": {"max": 3}})
    with pytest.raises(ValueError, match="'ttft_timeout_s' must be at most 'timeout_s'"):
        Clients(ttft_timeout_s=2.0, timeout_s=1.0)

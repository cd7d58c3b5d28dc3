"""Figures of small runs worked out by hand, and their definitions against naive ones."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.engine.recorder import Outcome
from simulator.features import SECTIONS
from simulator.metrics import ConservationError, Rows, describe, exact_sum, meets_all, tpot_ns
from simulator.result import RunResult
from simulator.run_data import Objectives
from simulator.summary import cost, group_reasons
from tests.result.support import MS, SECOND, TWO, Request, pool, result, run_data


def test_latencies_of_two_requests() -> None:
    # A: arrives 0, scheduled 0, tokens at 10, 20, 30, 40. B: arrives 13, scheduled 20, tokens at 30, 40.
    summary = result(TWO).summary
    ttft = summary["ttft_s"]
    assert (ttft["count"], ttft["mean"], ttft["max"]) == (2, pytest.approx(0.0135), 0.017)
    assert ttft["p50"] == pytest.approx(0.0135)
    assert ttft["p90"] == pytest.approx(0.010 + 0.9 * 0.007)  # linear between the two
    assert summary["tpot_s"]["mean"] == pytest.approx(0.010)
    assert (summary["itl_s"]["count"], summary["itl_s"]["mean"], summary["itl_s"]["max"]) == (4, 0.01, 0.01)
    assert summary["itl_s"]["p99"] == pytest.approx(0.01, rel=0.005)
    assert summary["e2e_s"]["mean"] == pytest.approx((0.040 + 0.027) / 2)
    assert summary["queue_s"]["mean"] == pytest.approx(0.0035)
    assert summary["one_token_outputs"] == 0


def test_rates_are_over_first_arrival_to_end() -> None:
    # From 5 ms (the first arrival) to 45 ms: 2 requests, 100 prompt and 6 output tokens in 40 ms.
    shifted = [dataclasses.replace(r, arrival=(r.arrival or 0) + 5 * MS) for r in TWO]
    summary = result(shifted).summary
    assert summary["window"]["start_s"] == 0.005
    assert summary["window"]["duration_s"] == 0.04
    assert summary["throughput"]["requests_per_s"] == pytest.approx(50)
    assert summary["throughput"]["prompt_tokens_per_s"] == pytest.approx(2500)
    assert summary["throughput"]["output_tokens_per_s"] == pytest.approx(150)
    assert summary["load"]["offered_requests_per_s"] == pytest.approx(1 / 0.013)
    assert summary["load"]["completed_requests_per_s"] == 0  # none until the last arrival


def test_every_request_is_counted_once_by_outcome() -> None:
    requests = [*TWO, Request(None, 5, 5), Request(15 * MS, 2000, 3), Request(16 * MS, 3000, 3)]
    summary = result(requests).summary
    counts = summary["requests"]
    assert (counts["in_trace"], counts["not_sent"], counts["arrived"]) == (5, 1, 4)
    assert (counts["finished"], counts["rejected"], counts["unfinished"]) == (2, 2, 0)
    assert summary["reasons"] == [
        {
            "outcome": "rejected",
            "reason": "prompt of 2000..3000 tokens leaves no room for an answer within max_model_len = 1000 tokens",
            "requests": 2,
            "example": 3,
        }
    ]


def test_a_lost_request_is_our_defect() -> None:
    data = run_data(TWO)
    data.cluster.num_arrived += 1
    with pytest.raises(ConservationError, match="3 arrived and 2 ended by the cluster's count, 2 arrived"):
        RunResult(data)


def test_a_request_with_a_second_end_is_our_defect() -> None:
    data = run_data(TWO)
    data.cluster.recorder.columns["outcome"][0] = Outcome.UNFINISHED
    with pytest.raises(ConservationError, match="1 are unfinished"):
        RunResult(data)


def test_an_early_stop_leaves_requests_unfinished_and_says_where() -> None:
    # Stopped at 25 ms: A has two tokens, B is in its prefill, C arrived at 24 and waits.
    stopped = result([*TWO, Request(24 * MS, 5, 5)], stop_at=25 * MS)
    counts = stopped.summary["requests"]
    assert (counts["finished"], counts["unfinished"]) == (0, 3)
    assert stopped.requests["reason"].tolist() == [
        "decoding when the run ended",
        "in its prefill when the run ended",
        "waiting when the run ended",
    ]
    assert stopped.requests["output_tokens"].tolist() == [2, 0, 0]
    assert stopped.summary["ttft_s"]["count"] == 1
    assert stopped.summary["e2e_s"]["mean"] is None
    assert stopped.summary["little"]["relative_error"] is None
    assert "3 requests had not ended" in stopped.summary["little"]["reason"]


def test_one_token_outputs_have_no_tpot_and_are_counted() -> None:
    summary = result([Request(0, 10, 1), Request(0, 10, 3)]).summary
    assert summary["one_token_outputs"] == 1
    assert summary["tpot_s"]["count"] == 1


def test_goodput_and_attainment_by_class() -> None:
    # TTFT: A 10 ms, B 17 ms; limits 12 ms for chat (A), 15 ms for code (B); rates over 40 ms.
    requests = [TWO[0], dataclasses.replace(TWO[1], code=1)]
    objectives = [Objectives(ttft_s=0.012, tpot_s=0.010), Objectives(ttft_s=0.015)]
    summary = result(requests, class_names=["chat", "code"], objectives=objectives).summary
    overall = summary["objectives"]
    assert (overall["met"], overall["of"], overall["attainment"]) == (1, 2, 0.5)
    assert overall["goodput_requests_per_s"] == pytest.approx(25)
    assert overall["given"]["ttft_s"] == {"limit": [0.012, 0.015], "attainment": 0.5}
    assert overall["given"]["tpot_s"] == {"limit": 0.010, "attainment": 1.0}
    assert summary["classes"]["chat"]["objectives"]["attainment"] == 1.0
    assert summary["classes"]["code"]["objectives"]["attainment"] == 0.0
    assert summary["classes"]["code"]["ttft_s"]["max"] == 0.017
    assert [c["requests"]["arrived"] for c in summary["classes"].values()] == [1, 1]
    assert sum(c["itl_s"]["count"] for c in summary["classes"].values()) == summary["itl_s"]["count"]


def test_classes_without_objectives_are_left_out_of_attainment() -> None:
    requests = [TWO[0], dataclasses.replace(TWO[1], code=1)]
    summary = result(requests, class_names=["chat", ""], objectives=[Objectives(e2e_s=1), Objectives()]).summary
    assert (summary["objectives"]["met"], summary["objectives"]["of"]) == (1, 1)
    assert summary["classes"]["unclassified"]["objectives"]["attainment"] is None


def test_no_objectives_give_null_with_a_reason() -> None:
    objectives = result(TWO).summary["objectives"]
    assert objectives["attainment"] is None
    assert objectives["goodput_requests_per_s"] is None
    assert objectives["reason"] == "no objectives were given"


def test_an_objective_met_to_the_nanosecond_is_met() -> None:
    for limit, met in ((0.017, 2), (0.016999999, 1)):
        assert result(TWO, objectives=[Objectives(ttft_s=limit)]).summary["objectives"]["met"] == met


def test_rejected_and_unfinished_requests_miss_their_objectives() -> None:
    summary = result([*TWO, Request(0, 5000, 1)], objectives=[Objectives(ttft_s=100)]).summary
    assert summary["objectives"]["attainment"] == pytest.approx(2 / 3)


def test_window_covers_arrivals_and_counts_what_it_cuts_off() -> None:
    # One request of 2 tokens (20 ms) every 100 ms, 10 of them; the window is [250, 750) ms: those at 300 ... 700.
    requests = [Request(i * 100 * MS, 10, 2) for i in range(10)]
    summary = result(requests, warmup=250 * MS, until=750 * MS).summary
    window = summary["window"]
    assert (window["start_s"], window["end_s"]) == (0.25, 0.75)
    assert (window["arrived_before"], window["requests"]["arrived"], window["arrived_after"]) == (3, 5, 2)
    assert summary["ttft_s"]["count"] == 5
    assert summary["throughput"]["requests_per_s"] == pytest.approx(10)
    assert summary["requests"]["finished"] == 10
    assert any("itl_s" in note for note in summary["notes"])


def test_littles_law_holds_between_engine_and_rows() -> None:
    # In the system: A 40 ms, B 27 ms, over 40 ms.
    little = result(TWO).summary["little"]
    assert little["L"] == pytest.approx(67 / 40)
    assert little["lambda"] == pytest.approx(50)
    assert little["W"] == pytest.approx(0.0335)
    assert little["relative_error"] == 0
    data = run_data(TWO)
    data.cluster.in_system_ns = 2 * data.cluster.in_system_ns
    assert RunResult(data).summary["little"]["relative_error"] == pytest.approx(0.5)


def test_prefix_cache_hits_are_a_share_of_prompt_tokens() -> None:
    same = (11, 12, 13)
    requests = [Request(0, 50, 2, hashes=same), Request(100 * MS, 50, 2, hashes=same)]
    cache = result(requests, hash_block_tokens=16).summary["prefix_cache"]
    assert cache == {"enabled": True, "hit_tokens": 48, "prompt_tokens": 100, "hit_share": 0.48}
    assert result(TWO).summary["prefix_cache"]["hit_share"] is None


def test_model_flops_and_bytes_by_hand() -> None:
    # One request, 3 prompt and 2 output tokens: positions 1 ... 4 attend to 1 + 2 + 3 + 4 = 10 tokens.
    # A layer: attention 4 x 8 x 8, feed-forward 3 x 8 x 16, so 640; two layers, 1280. LM head 10 x 8.
    # 2 x 1280 x 4 + 2 x 80 x 2 + 4 x 2 heads x 4 x 2 layers x 10 = 10240 + 320 + 640.
    one = result([Request(0, 3, 2)], pools=[pool(weight_bytes=1000, kv_bytes_per_token=64)])
    efficiency = one.summary["efficiency"]
    assert efficiency["model_flops"] == 10240 + 320 + 640
    assert efficiency["mfu"] == pytest.approx(11200 / (1e6 * 0.02))
    # 2 steps x 1000 bytes + the decode's 4 tokens x 64 bytes, over 20 ms at 1e6 bytes/s.
    assert efficiency["mbu"] == pytest.approx((2000 + 256) / (1e6 * 0.02))


def test_efficiency_says_why_it_is_not_known() -> None:
    efficiency = result(TWO, pools=[pool(peak_flops=0.0, memory_bandwidth=math.nan)]).summary["efficiency"]
    assert efficiency["mfu"] is None
    assert "peak FLOP/s is not known" in efficiency["mfu_reason"]
    assert efficiency["mbu"] is None
    assert "bandwidth is not known" in efficiency["mbu_reason"]


def test_cost_of_a_million_tokens() -> None:
    # 2 GPUs at 3.6 an hour for 40 ms = 8e-5, for 6 output and 106 tokens in all.
    figures = result(TWO, pools=[pool(gpus_per_replica=2, price_per_gpu_hour=3.6)]).summary["cost"]
    assert figures["total"] == pytest.approx(8e-5)
    assert figures["per_million_output_tokens"] == pytest.approx(8e-5 / 6 * 1e6)
    assert figures["per_million_tokens"] == pytest.approx(8e-5 / 106 * 1e6)
    unpriced = result(TWO).summary["cost"]
    assert unpriced["per_million_output_tokens"] is None
    assert unpriced["reason"] == "no price_per_gpu_hour for pool main"


def test_cost_without_a_finished_request_has_a_total_only() -> None:
    rows = RunResult(run_data([])).rows
    figures = cost([pool(price_per_gpu_hour=1.0)], 3600 * SECOND, rows, rows.finished)
    assert figures["total"] == 1.0
    assert figures["per_million_tokens"] is None
    assert figures["reason"] == "no request finished in the window"


def test_figures_by_replica() -> None:
    summary = result([Request(0, 10, 2), Request(0, 10, 4)], replicas=2, pools=[pool(2)]).summary
    first, second = summary["replicas"]
    assert (first["steps"], second["steps"]) == (2, 4)
    assert (first["utilization"], second["utilization"]) == (0.5, 1.0)
    assert first["pool"] == "main"
    assert summary["simulator"]["iterations"] == 6


def test_a_run_without_requests_has_a_summary() -> None:
    empty = result([])
    json.dumps(empty.summary, allow_nan=False)
    assert empty.summary["requests"]["arrived"] == 0
    assert empty.summary["ttft_s"] == dict.fromkeys(("mean", "p50", "p90", "p95", "p99", "max")) | {"count": 0}
    assert empty.summary["throughput"]["requests_per_s"] is None
    assert len(empty.requests) == len(empty.timeseries) == 0


def test_the_summary_is_plain_json_and_repeats_but_for_the_run_itself() -> None:
    first, second = result(TWO), result(TWO, fast_forward=False)
    assert json.loads(json.dumps(first.summary, allow_nan=False)) == first.summary
    assert first.summary_without_timing == second.summary_without_timing
    assert set(first.summary) - set(first.summary_without_timing) == {"simulator"}
    assert second.summary["simulator"]["stepwise"] is True
    assert first.summary["simulator"]["peak_memory_bytes"] > 1_000_000


def test_summing_up_changes_nothing_that_was_recorded() -> None:
    data = run_data(TWO, class_names=["a", "b"])
    before = [h.counts.copy() for h in data.cluster.recorder.itl]
    assert RunResult(data).summary_without_timing == RunResult(data).summary_without_timing
    for histogram, counts in zip(data.cluster.recorder.itl, before, strict=True):
        np.testing.assert_array_equal(histogram.counts, counts)


def test_the_summary_needs_no_pandas() -> None:
    import subprocess

    code = (
        "import sys; from tests.result.support import *; result(TWO).summary; "
        "sys.exit('pandas' in sys.modules or 'pyarrow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_summary_keys() -> None:
    assert list(result(TWO).summary) == [
        "schema_version",
        "interrupted",
        "requests",
        "reasons",
        "window",
        "simulated_s",
        "ttft_s",
        "tpot_s",
        "itl_s",
        "e2e_s",
        "queue_s",
        "one_token_outputs",
        "classes",
        "tenants",
        "objectives",
        "throughput",
        "overloaded",
        "load",
        "little",
        "prefix_cache",
        "shared_prefix_attention",
        "attention_data_parallel",
        "router",
        *SECTIONS,
        "links",
        "memory",
        "kv_budget",
        "offload",
        "efficiency",
        "cost",
        "energy",
        "replicas",
        "pools",
        "costs",
        "notes",
        "definitions",
        "simulator",
    ]


def test_reasons_are_grouped_by_text_whatever_their_numbers() -> None:
    rows = cast(Any, SimpleNamespace(row=np.arange(4), outcome=np.array([2, 2, 3, 3])))
    reasons = {0: "prompt of 9 tokens", 1: "prompt of 10 tokens", 2: "lost #1", 3: "lost #2"}
    assert [(g["outcome"], g["reason"], g["requests"], g["example"]) for g in group_reasons(rows, reasons)] == [
        ("rejected", "prompt of 9..10 tokens", 2, 0),
        ("failed", "lost ##", 2, 2),
    ]


# --------------------------------------------------------------------------------------------- naive definitions


def naive_quantile(values: list[float], q: float) -> float:
    ordered = sorted(values)
    at = q * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


@given(st.lists(st.integers(0, 10**13), min_size=1, max_size=60))
def test_describe_agrees_with_the_naive_definition(durations: list[int]) -> None:
    described = describe(np.array(durations, dtype=np.int64))
    assert described["count"] == len(durations)
    assert described["mean"] == sum(durations) / len(durations) / 1e9
    assert described["max"] == max(durations) / 1e9
    for name, q in (("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99)):
        assert described[name] == pytest.approx(naive_quantile([d / 1e9 for d in durations], q), rel=1e-9, abs=1e-12)


@given(st.lists(st.integers(0, 2**62), max_size=40))
def test_sums_are_exact_beyond_64_bits(values: list[int]) -> None:
    assert exact_sum(np.array(values, dtype=np.int64)) == sum(values)


@st.composite
def request_rows(draw: st.DrawFn) -> dict[str, Any]:
    outcome = draw(st.sampled_from([Outcome.FINISHED, Outcome.FINISHED, Outcome.REJECTED, Outcome.UNFINISHED]))
    arrival = draw(st.integers(0, 1000)) * MS
    gaps = draw(st.lists(st.integers(1, 50), max_size=5)) if outcome != Outcome.REJECTED else []
    wait = draw(st.integers(0, 50))
    served = outcome == Outcome.FINISHED or (outcome == Outcome.UNFINISHED and draw(st.booleans()))
    first = arrival + wait * MS if served else -1
    gaps = gaps if served else []
    last = first + sum(gaps) * MS if served else -1
    return {
        "arrival": arrival,
        "queued": arrival,
        "scheduled": arrival if served else -1,
        "first": first,
        "last": last,
        "ended": last if outcome == Outcome.FINISHED else arrival if outcome == Outcome.REJECTED else -1,
        "itl_max": max(gaps) * MS if gaps else -1,
        "prompt": 10,
        "output": len(gaps) + 1 if served else 0,
        "cached": 0,
        "preemptions": 0,
        "replica": 0,
        "outcome": int(outcome),
        "code": 0,
        "attempts": 1,
        "migrations": 0,
        "prefill_replica": -1,
    }


def limits() -> st.SearchStrategy[float | None]:
    return st.none() | st.integers(1, 80).map(lambda ms: ms / 1000)


@settings(max_examples=200)
@given(st.lists(request_rows(), min_size=1, max_size=12), limits(), limits(), limits(), limits())
def test_objectives_agree_with_the_naive_definition(
    requests: list[dict[str, Any]], ttft: float | None, tpot: float | None, itl: float | None, e2e: float | None
) -> None:
    columns = {name: np.array([r[name] for r in requests]) for name in requests[0]}
    rows = Rows(row=np.arange(len(requests)), **columns)
    met = meets_all(rows, Objectives(ttft, tpot, itl, e2e))
    for request, good in zip(requests, met.tolist(), strict=True):
        expected = request["outcome"] == Outcome.FINISHED
        if expected:
            gaps = request["output"] - 1
            span_ms = (request["last"] - request["first"]) // MS
            # Multiplied out, so that whole numbers decide.
            if ttft is not None:
                expected &= (request["first"] - request["arrival"]) // MS <= round(ttft * 1000)
            if tpot is not None and gaps:
                expected &= span_ms <= round(tpot * 1000) * gaps
            if itl is not None and gaps:
                expected &= request["itl_max"] // MS <= round(itl * 1000)
            if e2e is not None:
                expected &= (request["last"] - request["arrival"]) // MS <= round(e2e * 1000)
        assert good == expected
    several = [r for r in requests if r["outcome"] == Outcome.FINISHED and r["output"] > 1]
    np.testing.assert_allclose(tpot_ns(rows), [(r["last"] - r["first"]) / (r["output"] - 1) for r in several])

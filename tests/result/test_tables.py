"""The tables: types, hand-computed rows, sums."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.metrics import Rows
from simulator.model_work import attended_until, decode_kv_tokens, model_flops
from simulator.models.spec import MLASpec, ModelSpec
from simulator.result_tables import REQUEST_COLUMNS, TIMESERIES_COLUMNS
from tests.result.support import MS, TINY, TWO, Request, result

REQUEST_DTYPES = {
    "request_id": "int64",
    "arrival_s": "float64",
    "queued_s": "float64",
    "scheduled_s": "float64",
    "first_token_s": "float64",
    "last_token_s": "float64",
    "prompt_tokens": "int64",
    "output_tokens": "int64",
    "cached_tokens": "Int64",
    "preemptions": "int64",
    "itl_max_s": "float64",
    "replica": "Int32",
    "class": "category",
    "outcome": "category",
    "reason": "string",
    "attempts": "int64",
    "migrations": "int64",
    "prefill_replica": "Int32",
}
TIMESERIES_DTYPES = {
    "t_s": "float64",
    "replica": "int32",
    "running": "int64",
    "waiting": "int64",
    "kv_blocks_used": "int64",
    "kv_utilization": "float64",
    "prefill_tokens_per_s": "float64",
    "decode_tokens_per_s": "float64",
    "utilization": "float64",
    "steps": "int64",
    "power_w": "float64",
}


def test_columns_and_their_types() -> None:
    run = result(TWO)
    assert {name: str(dtype) for name, dtype in run.requests.dtypes.items()} == REQUEST_DTYPES
    assert {name: str(dtype) for name, dtype in run.timeseries.dtypes.items()} == TIMESERIES_DTYPES
    assert list(REQUEST_COLUMNS) == list(REQUEST_DTYPES)
    assert list(TIMESERIES_COLUMNS) == list(TIMESERIES_DTYPES)


def test_requests_of_two_and_a_rejected_one() -> None:
    frame = result([*TWO, Request(20 * MS, 5000, 1), Request(None, 1, 1)]).requests
    assert frame["request_id"].tolist() == [0, 1, 2]
    assert frame["arrival_s"].tolist() == [0, 0.013, 0.020]
    assert frame["queued_s"].tolist()[:2] == [0, 0.020]  # when the step in flight ended
    assert frame["scheduled_s"].tolist()[:2] == [0, 0.020]
    assert frame["first_token_s"].tolist()[:2] == [0.010, 0.030]
    assert frame["last_token_s"].tolist()[:2] == [0.040, 0.040]
    assert frame["output_tokens"].tolist() == [4, 2, 0]
    assert frame["itl_max_s"].tolist()[:2] == [0.010, 0.010]
    assert frame["outcome"].tolist() == ["finished", "finished", "rejected"]
    rejected = frame.iloc[2]
    for name in ("queued_s", "scheduled_s", "first_token_s", "last_token_s", "cached_tokens", "itl_max_s"):
        assert pd.isna(rejected[name])
    assert "leaves no room" in rejected["reason"]
    assert frame["reason"].isna().tolist() == [True, True, False]
    assert frame["attempts"].tolist() == [1, 1, 1]
    assert frame["migrations"].tolist() == [0, 0, 0]


def test_classes_by_name_also_where_two_codes_share_one() -> None:
    requests = [dataclasses.replace(r, code=i) for i, r in enumerate([*TWO, Request(0, 5, 1)])]
    assert result(requests, class_names=["a", "b", "a"]).requests["class"].tolist() == ["a", "b", "a"]


def test_time_series_of_two_requests() -> None:
    # Samples just before 10, 20, 30, 40 ms. Steps end at 10 (prompt of 50), 20, 30 (prompt of 50), 40.
    frame = result(TWO, sample_ns=10 * MS).timeseries
    assert frame["t_s"].tolist() == [0.01, 0.02, 0.03, 0.04]
    assert frame["running"].tolist() == [1, 1, 2, 2]
    assert frame["waiting"].tolist() == [0, 1, 0, 0]
    assert frame["steps"].tolist() == [0, 1, 1, 1]
    assert frame["prefill_tokens_per_s"].tolist() == [0, 5000, 0, 5000]
    assert frame["utilization"].tolist() == [1, 1, 1, 1]
    assert frame["power_w"].isna().all()


@pytest.mark.parametrize("stages", [1, 2])
def test_time_series_add_up_to_the_counters(stages: int) -> None:
    rng = np.random.default_rng(0)
    arrivals = np.cumsum(rng.exponential(30 * MS, 200)).astype(np.int64).tolist()
    requests = [Request(t, int(rng.integers(1, 500)), int(rng.integers(1, 60))) for t in arrivals]
    run = result(requests, replicas=2, stages=stages, sample_ns=100 * MS, seqs=4)
    frame, cluster = run.timeseries, run.data.cluster
    assert frame[["t_s", "replica"]].apply(tuple, axis=1).is_monotonic_increasing
    assert frame["utilization"].between(0, 1).all()
    assert frame["kv_utilization"].between(0, 1).all()
    last = frame.groupby("replica")["t_s"].max().min()
    assert last > cluster.end_ns / 1e9 - 0.1
    for replica, part in frame.groupby("replica"):
        counters = cluster.replicas[replica].counters
        # What came after the last sample is missing from the sums, no more than an interval's worth.
        assert 0 <= counters.steps - part["steps"].sum() <= 11 * stages
        assert -1e-9 <= counters.busy_ns / 1e9 - part["utilization"].sum() * 0.1 <= 0.1 + 1e-9
        assert part["prefill_tokens_per_s"].sum() * 0.1 == pytest.approx(counters.prefill_tokens, abs=2048)


def test_more_than_one_replica_keeps_its_own_rates() -> None:
    frame = result([Request(0, 10, 2), Request(0, 30, 4)], replicas=2, sample_ns=20 * MS).timeseries
    assert frame["replica"].tolist() == [0, 1, 0, 1]
    assert frame["prefill_tokens_per_s"].tolist() == [500, 1500, 0, 0]
    assert frame["utilization"].tolist() == [1, 1, 0, 1]


# -------------------------------------------------------------------------------------------------- FLOPs, bytes


def one_row(prompt: int, output: int, cached: int) -> Rows:
    def column(value: int) -> np.ndarray:
        return np.array([value])

    return Rows(
        row=column(0),
        arrival=column(0),
        queued=column(0),
        scheduled=column(0),
        first=column(1),
        last=column(2),
        ended=column(2),
        itl_max=column(1),
        prompt=column(prompt),
        output=column(output),
        cached=column(cached),
        preemptions=column(0),
        replica=column(0),
        outcome=column(1),
        code=column(0),
        attempts=column(1),
        migrations=column(0),
        prefill_replica=column(0),
    )


MLA = dataclasses.replace(TINY, mla=MLASpec(None, 8, 4, 2, 6))
SLIDING = dataclasses.replace(TINY, sliding_window=5, num_sliding_layers=1, num_layers=3)


@settings(max_examples=60)
@given(st.sampled_from([TINY, MLA, SLIDING]), st.integers(1, 30), st.integers(1, 20), st.integers(0, 29))
def test_work_in_closed_form_is_the_sum_over_tokens(model: ModelSpec, prompt: int, output: int, cached: int) -> None:
    cached = min(cached, prompt - 1)
    rows = one_row(prompt, output, cached)
    per_token = 2 * model.num_heads * (2 * model.head_dim)
    if model.mla:
        per_token = 2 * model.num_heads * (4 + 2 + 6)
    body = model.parameter_count() - 2 * model.vocab_size * model.hidden_size
    flops = reads = 0.0
    for position in range(cached + 1, prompt + output):
        flops += 2 * body
        for layer in range(model.num_layers):
            attended = min(position, 5) if layer < model.num_sliding_layers else position
            flops += per_token * attended
            if position > prompt:
                reads += attended / model.num_layers
    flops += output * 2 * model.vocab_size * model.hidden_size
    assert model_flops(rows, model)[0] == pytest.approx(flops)
    assert decode_kv_tokens(rows, model)[0] == pytest.approx(reads)


@given(st.integers(0, 200), st.integers(1, 50))
def test_attended_until_sums_each_position(position: int, window: int) -> None:
    at = np.array([position])
    assert attended_until(at)[0] == sum(range(1, position + 1))
    assert attended_until(at, window)[0] == sum(min(p, window) for p in range(1, position + 1))

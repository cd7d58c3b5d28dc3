"""The study's predictor and mechanism: the better the order, the less an answer waits for longer ones."""

from __future__ import annotations

import numpy as np
import pytest

from simulator.reproduce.studies import learning_to_rank as study


@pytest.mark.parametrize("dataset", study._DATASETS, ids=lambda dataset: dataset.name)
def test_the_predictors_error_gives_the_papers_tau(dataset: study._Dataset) -> None:
    assert study.kendalls_tau(study.burst(dataset, "ranking", 4000)) == pytest.approx(dataset.tau, abs=0.02)
    assert study.kendalls_tau(study.burst(dataset, "oracle", 200)) == pytest.approx(1.0)


def test_a_better_order_shortens_latency_and_leaves_the_work_as_it_is() -> None:
    found = {order: study.burst(study._DATASETS[0], order, 1000).simulate() for order in ("oracle", "ranking", "fcfs")}
    latency = {order: study.latencies_s(result).mean() for order, result in found.items()}
    assert latency["oracle"] < latency["ranking"] < latency["fcfs"] / 1.5
    early = {order: np.sort(result.requests["last_token_s"])[99] for order, result in found.items()}
    assert early["oracle"] < early["ranking"] < early["fcfs"]
    end = {order: result.requests["last_token_s"].max() for order, result in found.items()}
    assert end["ranking"] == pytest.approx(end["fcfs"], rel=0.1)


def test_ageing_takes_from_the_longest_waits_of_ranking_towards_those_of_first_come_first_served() -> None:
    orders = ("fcfs", "ranking with ageing", "ranking")
    found = [study.arriving(study._DATASETS[0], order, 32.0).simulate() for order in orders]
    longest = [np.percentile(study.longest_waits_s(result), 99) for result in found]
    assert longest[0] < longest[1] < 0.9 * longest[2]

"""The study's mechanism: how many requests run at a time is what memory that is reserved leaves."""

from __future__ import annotations

import pytest

from simulator.reproduce.bisection import largest
from simulator.reproduce.studies import paged_attention
from simulator.reproduce.studies.paged_attention import SYSTEMS
from simulator.reproduce.study import Options


def test_the_less_a_system_reserves_the_more_it_batches_and_the_sooner_it_answers() -> None:
    dataset = paged_attention._DATASETS[0]
    found = {system: paged_attention._run(dataset, system, 2.5, Options(quick=True)).simulate() for system in SYSTEMS}
    running = [paged_attention.batched(found[system]) for system in list(SYSTEMS)[:4]]
    assert running == sorted(running, reverse=True)
    # 983 blocks of 16 tokens are seven times 2,048 tokens and a rest.
    assert running[-1] == pytest.approx(7, abs=0.05)
    latencies = [paged_attention.normalised_latency_s(found[system]) for system in SYSTEMS]
    assert latencies == sorted(latencies)
    assert latencies[0] < paged_attention.LEVEL_S < latencies[1] / 2


def test_the_memory_is_that_of_the_papers_table() -> None:
    tokens = paged_attention.KV_BLOCKS * paged_attention.BLOCK
    assert tokens == pytest.approx(15_700, rel=0.005)
    bytes_a_token = 2 * 40 * 5120 * 2  # keys and values, layers, width, 16 bits
    assert tokens * bytes_a_token == pytest.approx(12 * 2**30, rel=0.001)


def test_bisection_ends_below_the_limit_within_its_resolution() -> None:
    found = largest(lambda setting: setting <= 3.3, 16.0, resolution=0.04, least=0.05)
    assert found <= 3.3 < found / (1 - 0.04)
    assert largest(lambda setting: False, 16.0, resolution=0.04, least=0.05) == 0.0

"""Waiting times against queueing theory: constant steps, each at most 1/1000 of the mean service.

A replica with ``max_num_seqs = c`` and a step that takes the same time whatever is in it is a queue with c servers:
the service of a request is its output tokens times the step. With one server and equal lengths that is M/D/1; with c
servers and exponential lengths M/M/c. ``benchmarks/queueing_theory.py`` runs the same to intervals of 3 % up to 95 %
load, which takes millions of requests; here the loads are those that converge in seconds, and one server is held
against Lindley's recursion exactly, request by request, up to 95 %.
"""

from __future__ import annotations

import heapq
import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from benchmarks.queueing_theory import erlang_c_wait_s, md1_wait_s, simulate_queue, steady_interval


def lindley(arrivals: npt.NDArray[np.int64], services: npt.NDArray[np.int64]) -> list[int]:
    """Return when each customer of a single first-come-first-served server starts, ns."""
    starts, free = [], 0
    for arrival, service in zip(arrivals.tolist(), services.tolist(), strict=True):
        starts.append(max(arrival, free))
        free = starts[-1] + service
    return starts


@pytest.mark.parametrize("load", [0.3, 0.5, 0.7, 0.9, 0.95])
@pytest.mark.parametrize("service", ["deterministic", "exponential"])
def test_one_server_starts_every_request_when_lindleys_recursion_says(load: float, service: str) -> None:
    queue = simulate_queue(load, servers=1, service=service, requests=4000, seed=5)
    assert queue.starts_ns.tolist() == lindley(queue.arrivals_ns, queue.services_ns)


@pytest.mark.parametrize("load", [0.3, 0.7, 0.95])
def test_several_servers_start_every_request_within_a_step_of_kiefer_and_wolfowitz(load: float) -> None:
    """A request that finds a server free still waits for the step in flight of the others, and for nothing else."""
    servers = 4
    queue = simulate_queue(load, servers=servers, service="exponential", requests=4000, seed=6)
    free = [0] * servers
    for arrival, service, start in zip(
        queue.arrivals_ns.tolist(), queue.services_ns.tolist(), queue.starts_ns.tolist(), strict=True
    ):
        earliest = max(arrival, heapq.heappop(free))
        heapq.heappush(free, earliest + service)
        assert 0 <= start - earliest < queue.step_s * 1e9


@pytest.mark.parametrize("load", [0.3, 0.5, 0.7])
def test_md1(load: float) -> None:
    queue = simulate_queue(load, servers=1, service="deterministic", requests=40_000, seed=11)
    mean, half_width = steady_interval(queue.waits_s)
    assert abs(mean - md1_wait_s(load)) < half_width
    assert half_width < 0.1 * mean


@pytest.mark.parametrize("load", [0.5, 0.7])
def test_mmc(load: float) -> None:
    servers = 4
    queue = simulate_queue(load, servers=servers, service="exponential", requests=40_000, seed=12)
    mean, half_width = steady_interval(queue.waits_s)
    assert abs(mean - erlang_c_wait_s(load, servers)) < half_width + queue.step_s
    assert half_width < 0.15 * mean


def test_the_probability_of_waiting_is_erlangs() -> None:
    load, servers = 0.7, 4
    queue = simulate_queue(load, servers=servers, service="exponential", requests=40_000, seed=13)
    waited = (queue.waits_s > queue.step_s)[2000:]
    expected = erlang_c_wait_s(load, servers) * servers * (1 - load)
    batches = waited[: len(waited) // 20 * 20].reshape(20, -1).mean(axis=1)
    half_width = stats.t.ppf(0.995, 19) * batches.std(ddof=1) / math.sqrt(20)
    assert abs(batches.mean() - expected) < half_width
